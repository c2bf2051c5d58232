"""`demur predict`: asks a model about one input, and waits for the person where there is one."""

from __future__ import annotations

import asyncio
import getpass
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fallback.command_line import ConfigFile, Data
from gateway.models_commands import address_of

if TYPE_CHECKING:
    from gateway.client import Result, Told
    from gateway.manifest import Manifest
    from gateway.tensor import Array

_MEDIA_TYPES: Final = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_INK_MAX: Final = 16
_OUTPUT_CHARS_MAX: Final = 400
_WAIT_SECONDS: Final = 3600.0


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="A PNG or JPEG file.")] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|TEXT", help="JSON features, or the model's inputs by name.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="A plain text, for a model of texts.")
    ] = None,
    digit: Annotated[
        int | None,
        typer.Option("--digit", metavar="N", min=0, max=1796, help="One of scikit-learn's 1,797 handwritten digits."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE.png", help="With --digit: keep its picture, too.")
    ] = None,
    version: Annotated[
        str, typer.Option("--version", metavar="N", help="The live version's number, to insist on it.")
    ] = "",
    person: Annotated[bool, typer.Option("--person", help="Wish for a person, however sure the model is.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a person has answered.")] = False,
    wait_seconds: Annotated[
        float, typer.Option("--wait-seconds", metavar="S", min=0, help="How long to wait at most.")
    ] = _WAIT_SECONDS,
    gateway: Annotated[
        str, typer.Option("--gateway", metavar="HOST:PORT", help="The gateway; else the one `demur up` runs here.")
    ] = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Ask a model about one input; say what the answer is worth and why.

    A request that the model declines is parked for a person: its name is printed, and with --wait the answer.

    Example: demur predict digits --digit 7 --person --wait
    """
    from fallback.errors import InvalidError

    given = [
        name
        for name, value in (("--image", image), ("--json", json), ("--text", text), ("--digit", digit))
        if value is not None
    ]
    if len(given) != 1:
        raise InvalidError(f"expected one of --image, --json, --text and --digit, got {' and '.join(given) or 'none'}")
    subject = _subject(image=image, json=json, text=text, digit=digit)
    if save is not None:
        _keep(save, subject, digit)
    asyncio.run(
        _run(
            address_of(gateway, config, data),
            model,
            subject,
            version=version,
            person=person,
            wait_seconds=wait_seconds if wait else None,
        )
    )


async def _run(
    address: str,
    model: str,
    subject: tuple[bytes, str],
    *,
    version: str,
    person: bool,
    wait_seconds: float | None,
) -> None:
    from fallback import channel
    from fallback.deferral import State
    from fallback.errors import OverdueError
    from gateway.client import Client

    async with Client(address, **channel.shown(getpass.getuser())) as client:
        inputs = await _inputs(address, model, version, subject)
        result = await client.predict(
            model,
            version=version,
            subject=subject,
            inputs=inputs,
            wish="person" if person else "",
        )
        _show(result)
        if result.deferral is None or wait_seconds is None:
            return
        typer.echo("waiting for a person ...", err=True)
        told = await client.wait(result.deferral.name, timeout_seconds=wait_seconds)
        if told.state is State.OPEN:
            raise OverdueError(f"nobody answered within {wait_seconds:g} s; {result.deferral.name} is still open")
        _show_told(told)


async def _inputs(address: str, model: str, version: str, subject: tuple[bytes, str]) -> dict[str, Array]:
    """Read JSON that names the model's own inputs as tensors, where the model has no preprocessing to read it."""
    from demur.v1 import model_pb2 as pb
    from fallback import channel
    from gateway.manifest import parse
    from gateway.model_client import ModelClient

    content, media_type = subject
    if media_type != "application/json":
        return {}
    async with ModelClient(address, **channel.shown(getpass.getuser())) as client:
        versions = await client.list(model)
    live = [found for found in versions if found.state == pb.ModelVersion.CHAMPION]
    chosen = [found for found in versions if found.name.endswith(f"/{version}")] if version else live
    return tensors_of(content, parse(chosen[0].manifest)) if chosen else {}


def tensors_of(content: bytes, manifest: Manifest) -> dict[str, Array]:
    """Return one row of each input from JSON `{"input": [...]}`, or `[...]` for the only one; none: not meant so.

    Raises InvalidError naming the input whose values are not of its datatype.
    """
    import msgspec
    import numpy as np

    from fallback.errors import InvalidError
    from gateway.tensor import dtype_of

    if manifest.preprocess is not None and manifest.preprocess.kind == "json":
        return {}
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise InvalidError(f"--json: expected a JSON text or a file that holds one, got {error}") from error
    names = [spec.name for spec in manifest.inputs]
    values = found if isinstance(found, dict) else {names[0]: found} if len(names) == 1 else {}
    if sorted(values) != sorted(names):
        raise InvalidError(
            f"--json: expected a value for each input ({', '.join(names)}), got {', '.join(values) or 'none'}"
        )
    tensors = {}
    for spec in manifest.inputs:
        place = _null(values[spec.name])
        if place is not None:
            raise InvalidError(f"--json: input {spec.name!r} expects {spec.datatype}: got null at {spec.name}{place}")
        try:
            row = np.asarray(values[spec.name], dtype=dtype_of(spec.datatype))
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidError(f"--json: input {spec.name!r} expects {spec.datatype}: {error}") from error
        rank = len(spec.shape)
        tensors[spec.name] = row[np.newaxis] if manifest.batched and row.ndim == rank - 1 else row
    return tensors


def _null(value: object) -> str | None:
    """Return where the first null in a value is, e.g. [0][2]; None where there is none."""
    if value is None:
        return ""
    if isinstance(value, list):
        for number, item in enumerate(value):
            if (place := _null(item)) is not None:
                return f"[{number}]{place}"
    return None


def _show(result: Result) -> None:
    """Print what the reply is worth, the answer, and what each rule said."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    style = "green" if result.decision == "answered" else "yellow"
    grid.add_row("decision", Text(str(result.decision), style=style))
    if result.label:
        guess = "answer" if result.deferral is None else "the model's guess"
        grid.add_row(guess, Text(f"{result.label}  (confidence {result.confidence:.3f})"))
    else:
        for name, values in result.outputs.items():
            grid.add_row(name, Text(str(values.tolist())[:_OUTPUT_CHARS_MAX]))
    grid.add_row("model", Text(f"{result.model} version {result.version}"))
    for rule in result.rules:
        grid.add_row(f"rule {rule.rule}", Text(f"{rule.evaluation}{' -> a person' if rule.defers else ''}"))
    if result.certificate:
        grid.add_row("certificate", Text(result.certificate))
    if result.deferral is not None:
        grid.add_row("deferral", Text(result.deferral.name))
        wait = result.expected_wait_seconds
        grid.add_row("expected wait", "nobody answered lately" if wait is None else f"{wait:.0f} s")
    Console().print(grid)


def _show_told(told: Told) -> None:
    """Print how a deferral ended."""
    outcome = told.deferral.outcome
    source = "" if outcome is None else outcome.source.value
    answer = told.label or ("none" if told.answer is None else str(told.answer))
    typer.echo(f"{told.state.value}: {answer}  (by {source}{'' if told.reviewed else ', seen by no person'})")


def digit_png(number: int) -> bytes:
    """Draw one of scikit-learn's digits, numbered from 0, as an 8 x 8 greyscale PNG."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = np.rint(load_digits().images[number] * (255 / _INK_MAX)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def _subject(*, image: Path | None, json: str | None, text: str | None, digit: int | None) -> tuple[bytes, str]:
    """Return content and media type of what was given."""
    from fallback.errors import InvalidError

    if image is not None:
        media_type = _MEDIA_TYPES.get(image.suffix.lower())
        if media_type is None:
            raise InvalidError(f"--image: expected a file that ends in {', '.join(_MEDIA_TYPES)}, got {image.name!r}")
        return _read(image), media_type
    if json is not None:
        return _json(json), "application/json"
    if digit is not None:
        return digit_png(digit), "image/png"
    if not text:
        raise InvalidError("--text: expected a text, got an empty one")
    return text.encode(), "text/plain"


def _json(given: str) -> bytes:
    """Return JSON text as it is, and else what is in the file of that name."""
    from fallback.errors import InvalidError

    if given.lstrip()[:1] in {"{", "["}:
        return given.encode()
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise InvalidError(
            f"--json: expected JSON text that begins with {{ or [, or the name of a file that holds it; "
            f"{given!r} is neither: {error.strerror}"
        ) from error


def _keep(path: Path, subject: tuple[bytes, str], digit: int | None) -> None:
    from fallback.errors import InvalidError

    if digit is None:
        raise InvalidError("--save: expected --digit beside it, got none; any other input is in your hands already")
    try:
        path.write_bytes(subject[0])
    except OSError as error:
        raise InvalidError(f"--save: {path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> bytes:
    from fallback.errors import InvalidError

    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidError(f"{path}: cannot be read: {error.strerror}") from error
