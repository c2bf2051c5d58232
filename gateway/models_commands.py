"""`demur models ...`: publish, import, list, show, promote, roll back; the policy is in `gateway.policy_commands`."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from demur.v1 import model_pb2 as pb
    from gateway.model_client import ModelClient

T = TypeVar("T")

# A column of reasons is not made narrower than this; the terminal wraps instead, so that names can be copied whole.
_WHY_WIDTH_MIN: Final = 24
_WHY_CHARS_MAX: Final = 60
_WIDTH_MAX: Final = 1_000

Gateway = Annotated[
    str, typer.Option("--gateway", metavar="HOST:PORT", help="The gateway; else the one `demur up` runs here.")
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="The version's number.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the version.")]

models = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Publish, promote and roll back versions of models; read and set policies.",
    epilog="Example: demur models publish mine.onnx --promote",
)


@models.command(
    epilog="Example: demur models publish digits.onnx --labels 0..9 --question 'Which digit?' --on-deferral wait"
)
def publish(
    artefact: Annotated[Path, typer.Argument(metavar="ANY.onnx", help="The ONNX file.")],
    *,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model's name; else the file's.")] = "",
    labels: Annotated[
        str, typer.Option("--labels", metavar="A,B,C", help="What the outputs mean, in order; 0..9 is a range.")
    ] = "",
    labels_file: Annotated[
        Path | None, typer.Option("--labels-file", metavar="FILE", help="The same, one label a line.")
    ] = None,
    question: Annotated[str, typer.Option("--question", metavar="TEXT", help="What a reviewer is asked.")] = "",
    on_deferral: Annotated[
        str,
        typer.Option("--on-deferral", metavar="provisional|wait|refuse", help="What a plain ModelInfer client gets."),
    ] = "",
    queue: Annotated[
        str, typer.Option("--queue", metavar="NAME", help="Where its deferrals wait; else its name.")
    ] = "",
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="Confidence below this goes to a person.")
    ] = None,
    activation: Annotated[
        str, typer.Option("--activation", metavar="none|softmax", help="What makes probabilities of the output.")
    ] = "",
    review: Annotated[bool, typer.Option("--review/--no-review", help="Whether people review it at all.")] = True,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", metavar="FILE", help="A manifest.toml to begin with.")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make it live at once.")] = False,
    reason: Reason = "",
    gateway: Gateway = "",
) -> None:
    """Publish an ONNX file as the next version of a model.

    What the file says of itself (inputs, outputs, shapes) is read from it. What it cannot know is asked for on a
    terminal, and named where there is none: the labels, the question a reviewer is asked, and what a client that knows
    nothing of deferrals gets for one.
    """
    from gateway import draft, draft_screen
    from gateway.manifest import Manifest, brought_in, parse, render

    outlined = draft.outline(artefact)
    begun = brought_in(parse(_text(manifest))) if manifest is not None else Manifest()
    label_text = _text(labels_file) if labels_file is not None else labels
    filled = draft.fill(
        begun,
        labels=draft.parse_labels(label_text),
        question=question,
        on_deferral=_one_of("--on-deferral", on_deferral, draft_screen.ON_DEFERRAL),  # type: ignore[arg-type]  # one of the three
        activation=_one_of("--activation", activation, {"none", "softmax"}),
        queue=queue,
        threshold=threshold,
    )
    filled = draft_screen.ask(filled, outlined, reviewed=review, activation=activation or None)
    name = model or filled.model or artefact.stem
    with _naming(artefact):
        published = call(
            gateway, lambda client: client.publish(name, artefact, render(filled), promote=promote, reason=reason)
        )
    _say(published, "is live" if promote else f"is a candidate; make it live: demur models promote {_of(published)}")


@models.command("import", epilog="Example: demur models import ./exported/digits --promote")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Holds model.onnx and manifest.toml.")],
    *,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Another name than the manifest's.")] = "",
    promote: Annotated[bool, typer.Option("--promote", help="Make it live at once.")] = False,
    reason: Reason = "",
    gateway: Gateway = "",
) -> None:
    """Publish a folder that holds a model and its manifest, as another registry or the trainer wrote it."""
    import msgspec

    from fallback.errors import InvalidError
    from gateway.manifest import ARTEFACT, MANIFEST, brought_in, parse, render

    manifest = parse(_text(folder / MANIFEST))
    name = model or manifest.model
    if not name:
        raise InvalidError(f"{folder / MANIFEST}: names no model; name it with --model")
    # The next number is the registry's to give, and the files' digests are its own to take.
    fresh = msgspec.structs.replace(brought_in(manifest), model=name)
    file = folder / ARTEFACT
    with _naming(file):
        published = call(
            gateway, lambda client: client.publish(name, file, render(fresh), promote=promote, reason=reason)
        )
    _say(published, "is live" if promote else f"is a candidate; make it live: demur models promote {_of(published)}")


@models.command("list", epilog="Example: demur models list digits")
def list_(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="Only this model's versions.")] = "",
    *,
    gateway: Gateway = "",
) -> None:
    """List models and their versions: which one is live, and why each stands where it does."""
    from rich.table import Table
    from rich.text import Text

    from demur.v1 import model_pb2 as pb

    versions = call(gateway, lambda client: client.list(model))
    if not versions:
        what = f"no model {model!r}; see: demur models list" if model else "no models yet"
        _write(f"{what}, or publish one: demur models publish ANY.onnx")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "version", "state", "published"):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for version in versions:
        name, number = _split(version)
        state = pb.ModelVersion.State.Name(version.state).lower()
        style = "green" if state == "champion" else ""
        created = version.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
        table.add_row(name, number, state, created, Text(_short(version.reason)), style=style)
    _print_wide(table)


@models.command(epilog="Example: demur models show digits 1")
def show(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Its number; else the live one.")] = "",
    *,
    gateway: Gateway = "",
) -> None:
    """Show one version as a manifest.toml: its state and digest as comments, then what it says."""
    from rich.text import Text

    from demur.v1 import model_pb2 as pb
    from fallback.errors import NotFoundError

    versions = call(gateway, lambda client: client.list(model))
    live = [found for found in versions if found.state == pb.ModelVersion.CHAMPION]
    chosen = [found for found in versions if _split(found)[1] == version] if version else live or versions[-1:]
    if not versions:
        raise NotFoundError(f"model {model!r} is not here; see: demur models list")
    if not chosen:
        raise NotFoundError(f"model {model!r} has no version {version!r}; see: demur models list {model}")
    found = chosen[0]
    screen = console()
    state = pb.ModelVersion.State.Name(found.state).lower()
    head = (f"{found.name}: {state}", f"reason: {' '.join(found.reason.split()) or '-'}", f"sha256: {found.sha256}")
    # All of it is the manifest's TOML, and a line of that which is wrapped is none.
    screen.print(*(Text(f"# {line}", style="dim") for line in head), sep="\n", soft_wrap=True)
    screen.print(f"\n{found.manifest}", markup=False, highlight=False, soft_wrap=True)


@models.command(epilog="Example: demur models promote digits 2 --reason 'better on the hold-out'")
def promote(model: Model, version: Version, *, reason: Reason = "", gateway: Gateway = "") -> None:
    """Make a version live: loaded beside the old one, warmed, swapped in without dropping a request."""
    _check_version(version)
    _say(call(gateway, lambda client: client.promote(model, version, reason=reason)), "is live")


@models.command(epilog="Example: demur models shadow digits 3")
def shadow(
    model: Model,
    version: Version,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="Take it out of the shadow.")] = False,
    reason: Reason = "",
    gateway: Gateway = "",
) -> None:
    """Have a version judged by what people say, beside the live one, before it answers anybody."""
    _check_version(version)
    found = call(gateway, lambda client: client.shadow(model, version, stop=stop, reason=reason))
    told = "is in shadow; how far its own proof is: demur certificate show " + model
    _say(found, "is out of the shadow" if stop else told)


@models.command(epilog="Example: demur models rollback digits --reason 'worse at night'")
def rollback(model: Model, *, reason: Reason = "", gateway: Gateway = "") -> None:
    """Go back to the version that was live before this one.

    Where another version goes live meanwhile nothing is changed: what was asked was to leave the one before it.
    """

    async def back(client: ModelClient) -> pb.ModelVersion:
        from demur.v1 import model_pb2 as pb

        live = [found.name for found in await client.list(model) if found.state == pb.ModelVersion.CHAMPION]
        return await client.roll_back(model, reason=reason, expected_champion=next(iter(live), ""))

    _say(call(gateway, back), "is live again")


def _check_version(version: str) -> None:
    """Raise InvalidError by the name that the argument has in the command's help."""
    from gateway.manifest import check_version

    check_version("VERSION", version)


@contextlib.contextmanager
def _naming(artefact: Path) -> Iterator[None]:
    """Have what the gateway says of the artefact say it of the file that it came from."""
    from fallback.errors import InvalidError
    from gateway.manifest import ARTEFACT

    try:
        yield
    except InvalidError as error:
        what, colon, why = error.message.partition(": ")
        if what != ARTEFACT:
            raise
        raise InvalidError(f"{artefact}{colon}{why}") from error


def address_of(gateway: str, config: Path | None = None, data: Path | None = None) -> str:
    """Return the gateway that was named, or the one of the stack that runs here; raises UnavailableError."""
    from fallback.command_line import load
    from gateway import stack

    return gateway or stack.find(load(config, data).data_folder).gateway


def call(gateway: str, use: Callable[[ModelClient], Awaitable[T]]) -> T:
    """Return what `use` makes of the gateway that was named, or of the one that runs here."""
    from fallback import channel
    from gateway.model_client import ModelClient

    async def run() -> T:
        async with ModelClient(address_of(gateway), **channel.shown(getpass.getuser())) as client:
            return await use(client)

    return asyncio.run(run())


def _one_of(option: str, value: str, choices: set[str] | dict[str, str]) -> str | None:
    from fallback.errors import InvalidError

    if value and value not in choices:
        raise InvalidError(f"{option}: expected {', '.join(sorted(choices))}; got {value!r}")
    return value or None


def _text(path: Path) -> str:
    from fallback.errors import InvalidError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidError(f"{path}: expected UTF-8 text, got something else") from error


def _short(reason: str) -> str:
    """Return it cut to one line; `demur models show` has the whole."""
    return reason if len(reason) <= _WHY_CHARS_MAX else reason[: _WHY_CHARS_MAX - 1] + "…"


def _split(version: pb.ModelVersion) -> tuple[str, str]:
    from gateway.registry import parse_name

    return parse_name(version.name)


def _of(version: pb.ModelVersion) -> str:
    return " ".join(_split(version))


def _say(version: pb.ModelVersion, what: str) -> None:
    _write(f"{version.name} {what}")


def _write(text: str) -> None:
    """Print a line that may hold a command to copy: the terminal wraps it, not we."""
    console().print(text, markup=False, highlight=False, soft_wrap=True)


def _print_wide(table: Table) -> None:
    """Print a table whose last column alone gives way on a narrow terminal."""
    screen = console()
    names = screen.measure(table, options=screen.options.update_width(_WIDTH_MAX)).minimum
    screen.width = max(screen.width, names + _WHY_WIDTH_MIN)
    screen.print(table, crop=False)


def console() -> Console:
    """Return the terminal."""
    from rich.console import Console

    return Console()
