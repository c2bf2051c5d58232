"""`demur verify` and `demur certificate`: check what is proved, see how it stands, plan and make a promise."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fallback.command_line import ConfigFile, Data, load

if TYPE_CHECKING:
    from fallback.config import Config
    from gateway.quote import Plan, Said, Work
    from trainer.adjudicate import Share
    from trainer.book import Book
    from trainer.rows import ProcessRow
    from trainer.verify import Finding

# Fields of a policy or of its work, as errors name them; their options are called like them, but for one.
_FIELDS: Final = re.compile(
    r"^(?:policy\.|work\.)?(alpha|delta|coverage)(?=:)"
    r"|\b(?:policy\.|work\.)?(audit_share|expire_days|reviews_per_hour|requests_per_hour|true_error|model_error"
    r"|review_seconds)(?:_max)?\b"
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Models = Annotated[
    str, typer.Argument(metavar="[MODEL]", help="The model's name; all that have evidence, if left out.")
]
Alpha = Annotated[
    float, typer.Option("--alpha", metavar="SHARE", help="At most this share of automatic answers wrong, e.g. 0.01.")
]
Delta = Annotated[float, typer.Option("--delta", help="How often the promise may be broken: confidence is 1 - delta.")]
AuditShare = Annotated[float, typer.Option("--audit-share", help="Share of automatic answers that people check.")]
ExpireDays = Annotated[float, typer.Option("--expire-days", help="A certificate ends after so many days.")]
Reviews = Annotated[
    float, typer.Option("--reviews-per-hour", metavar="N", help="How many reviews people manage; 0: not said.")
]
Rate = Annotated[
    float, typer.Option("--requests-per-hour", metavar="N", help="Requests that come; 0: as the evidence says.")
]
Coverage = Annotated[
    float, typer.Option("--coverage", metavar="SHARE", help="Share to be answered; 0: as the evidence says.")
]
TrueError = Annotated[
    float, typer.Option("--true-error", metavar="SHARE", help="Wrong ones among these; -1: as the evidence says.")
]
ModelError = Annotated[
    float, typer.Option("--model-error", metavar="SHARE", help="Wrong ones among all; -1: as the evidence says.")
]
UntilProved = Annotated[
    str,
    typer.Option(
        "--until-proved",
        metavar="ask|answer",
        help="Until it is proved, ask people about everything, or let your own threshold answer, uncertified.",
    ),
]
Lifetime = Annotated[
    bool, typer.Option("--lifetime", help="Share delta out over all certificates the model will ever have.")
]
Seconds = Annotated[float, typer.Option("--review-seconds", help="How long one review takes.")]

certificate = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="What is proved of a model's automatic answers, what it would cost to prove more, and to promise it.",
    epilog="Example: demur certificate plan digits --alpha 0.01 --requests-per-hour 500",
)


def verify(
    model: Models = "",
    *,
    digest: Annotated[
        str, typer.Option("--digest", metavar="SHA256", help="One you kept: says whether the evidence still has it.")
    ] = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Compute certificates again from the evidence alone, and name the first row that differs.

    Needs nothing but the data folder: no server, no model. It says what each process promises, alpha and delta, for
    these are the operator's to know. What was cut off at the end, only a digest that you kept elsewhere can show.

    Example: demur verify digits
    """
    from fallback.errors import StateError
    from trainer.chain import BrokenError, Chain
    from trainer.verify import verify as check

    folder, names = _chains(load(config, data), model)
    wrong, kept = [], not digest
    for name in names:
        try:
            found = check(name, Chain(folder, name).links())
        except BrokenError as error:
            wrong.append(f"{name}: {error.message}")
            continue
        with contextlib.suppress(BrokenError):  # behind the row that differs
            kept = kept or any(link.digest == digest for link in Chain(folder, name).links())
        if found.agrees:
            _say(_agrees(name, found))
        else:
            wrong.append(f"{name}: row {found.place} differs: {found.reason}")
        for process in found.processes:
            _say(_promised(process))
    if wrong:
        raise StateError("; ".join(wrong))
    if not kept:
        raise StateError(f"no row has the digest {digest}: the end of the evidence was cut off, or it is another's")


@certificate.command(epilog="Example: demur certificate show digits --picture digits.png")
def show(
    model: Models = "",
    *,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Draw risk against coverage, and the evidence over time."),
    ] = None,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Explain how the proof of each model stands: tau, coverage, the bound on its errors, what would change it."""
    from fallback.errors import InvalidError
    from trainer import certificate_screen as screen

    settings = load(config, data)
    _, names = _chains(settings, model)
    if picture is not None and len(names) > 1:
        raise InvalidError(f"--picture: expected one model, got {len(names)}; name one of {', '.join(names)}")
    for name in names:
        book, gold = _book(settings, name)
        screen.show(book, gold)
        if picture is not None:
            screen.draw(book, picture)
            _say(f"drawn: {picture}")


@certificate.command(epilog="Example: demur certificate amended digits")
def amended(model: Model, *, config: ConfigFile = None, data: Data = None) -> None:
    """List answers that audits found wrong, each with the answers most like it: whose they are, and how they are named.

    Nobody has looked at those. Their inputs are not kept; who sent one can send it again with a wish for a person.
    """
    from trainer import certificate_screen as screen
    from trainer import retrain

    settings = load(config, data)

    async def ask() -> None:
        async with retrain.client(settings) as gateway:
            screen.show_amended(model, await gateway.amendments(model))

    asyncio.run(ask())


@certificate.command(epilog="Example: demur certificate plan digits --alpha 0.01 --requests-per-hour 500")
def plan(
    model: Model,
    *,
    alpha: Alpha,
    delta: Delta = 0.05,
    audit_share: AuditShare = 0.1,
    expire_days: ExpireDays = 30.0,
    reviews_per_hour: Reviews = 0.0,
    requests_per_hour: Rate = 0.0,
    coverage: Coverage = 0.0,
    true_error: TrueError = -1.0,
    model_error: ModelError = -1.0,
    review_seconds: Seconds = 10.0,
    until_proved: UntilProved = "ask",
    lifetime: Lifetime = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Say what a promise would cost: audits, days, people's hours, and whether its parts fit. Changes nothing.

    Needs no gateway: what is known of the work is read from the evidence in the data folder.
    """
    from fallback.errors import InvalidError
    from gateway.policy import Policy
    from gateway.quote import check_plan

    _check_until_proved(until_proved)
    said = _said(requests_per_hour, coverage, true_error, model_error, review_seconds)
    known, number = _known(load(config, data), model, alpha)
    with _options_named():
        work = said.over(known)
    if work is None:
        options = ", ".join("--" + name.replace("_", "-") for name in said.missing)
        raise InvalidError(f"there is no evidence of {model} yet, so say {options}")
    policy = Policy(
        delta=delta,
        audit_share=audit_share,
        expire_days=expire_days,
        reviews_per_hour_max=reviews_per_hour or None,
        lifetime=lifetime,
        until_proved="answer" if until_proved == "answer" else "ask",
    )
    with _options_named():
        found = check_plan(policy, alpha, work, number=number)
    _tell(found)


@certificate.command(epilog="Example: demur certificate promise digits --alpha 0.05")
def promise(
    model: Model,
    *,
    alpha: Alpha,
    delta: Delta = 0.05,
    audit_share: AuditShare = 0.1,
    expire_days: ExpireDays = 30.0,
    reviews_per_hour: Reviews = 0.0,
    requests_per_hour: Rate = 0.0,
    coverage: Coverage = 0.0,
    true_error: TrueError = -1.0,
    model_error: ModelError = -1.0,
    review_seconds: Seconds = 10.0,
    until_proved: UntilProved = "ask",
    lifetime: Lifetime = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Promise it although the plan has problems.")] = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Promise an error rate: from now on only what is proved to keep it is answered automatically.

    The gateway checks the plan first, by what it knows of the work and what is said here. Where nothing is known of the
    model yet and no numbers are given, there is nothing to check.
    """
    from demur.v1 import model_pb2 as pb
    from fallback.errors import StateError
    from gateway.model_wire import plan_from_wire
    from trainer import retrain

    _check_until_proved(until_proved)
    settings = load(config, data)
    said = _said(requests_per_hour, coverage, true_error, model_error, review_seconds)
    work = pb.Work(**{name: value for name, value in asdict(said).items() if value is not None})

    async def change() -> None:
        async with retrain.client(settings) as gateway:
            policy = await gateway.get_policy(model)
            policy.alpha, policy.delta, policy.audit_share = alpha, delta, audit_share
            policy.expire_days, policy.lifetime, policy.until_proved = expire_days, lifetime, until_proved
            if reviews_per_hour:
                policy.reviews_per_hour_max = reviews_per_hour
            asked = await gateway.update_policy(policy, work=work, accept_problems=True, validate_only=True)
            if asked.HasField("plan"):
                found = plan_from_wire(asked.plan)
                _tell(found)
                if found.problems and not anyway:
                    raise StateError("nothing was changed, for the problems above; --anyway promises it all the same")
            else:
                _say(f"not planned: nothing is known of the work of {model} yet, and nothing was said of it")
            await gateway.update_policy(policy, work=work, accept_problems=anyway)

    with _options_named():
        asyncio.run(change())
    _say(
        f"promised: at most {alpha:.3g} of the automatic answers of {model} wrong; see `demur certificate show {model}`"
    )


def _chains(settings: Config, model: str) -> tuple[Path, list[str]]:
    """Return the folder of chains and the models asked for; raises NotFoundError where there is none."""
    from fallback.errors import NotFoundError
    from gateway.manifest import check_name
    from trainer import chain

    folder = settings.data_folder / chain.FOLDER
    known = chain.models(folder)
    if model:
        check_name("model", model)
    if not known:
        raise NotFoundError(f"no evidence of any model under {folder}")
    if model and model not in known:
        raise NotFoundError(f"no evidence of {model} under {folder}; there is some of: {', '.join(known)}")
    return folder, [model] if model else known


def _agrees(model: str, found: Finding) -> str:
    later = f"; draws of {len(found.unrevealed)} epoch(s) under way are not open yet" if found.unrevealed else ""
    return (
        f"{model}: agrees: {found.rows} rows, {found.records} records, {found.certificates} certificates computed "
        f"again{later}"
    )


def _promised(process: ProcessRow) -> str:
    whose = f"version {process.version}" + (f", segment {process.segment}" if process.segment else "")
    return f"  process {process.epoch} ({whose}): alpha {process.alpha:g}, delta {process.delta:g}"


def _book(settings: Config, model: str) -> tuple[Book, Share]:
    """Return the evidence of `model`, and of how many answers to gold items reviewers got wrong how many."""
    from trainer.adjudicate import Share
    from trainer.book import Book
    from trainer.chain import Chain

    folder, _ = _chains(settings, model)
    book, chain = Book(model=model), Chain(folder, model)
    chain.read(book.take)
    return book, Share(count=chain.notes.gold_wrong, total=chain.notes.gold)


def _said(
    requests_per_hour: float, coverage: float, true_error: float, model_error: float, review_seconds: float
) -> Said:
    """Return what the options say of the work; 0 and -1 say nothing."""
    from gateway.quote import Said

    return Said(
        requests_per_hour=requests_per_hour or None,
        coverage=coverage or None,
        true_error=None if true_error < 0 else true_error,
        model_error=None if model_error < 0 else model_error,
        review_seconds=review_seconds,
    )


def _known(settings: Config, model: str, alpha: float) -> tuple[Work | None, int]:
    """Return what the evidence of `model` says of the work, and the number of its next process."""
    from fallback.errors import NotFoundError
    from gateway.certification import Stage, Standing
    from gateway.quote import known_work
    from trainer.standing import risks

    try:
        book, gold = _book(settings, model)
    except NotFoundError:
        return None, 1
    told = Standing(
        stage=Stage.OFF,
        alpha=0.0,
        delta=0.0,
        requests_per_hour=book.requests_per_hour,
        risks=risks(book),
        reviewer_error=gold.estimate if gold.total else None,
    )
    return known_work(told, alpha), book.processes + 1


@contextmanager
def _options_named() -> Iterator[None]:
    """Say of what is wrong which option that is: who types one has not heard of a policy's fields."""
    from fallback.errors import InvalidError

    try:
        yield
    except InvalidError as error:
        named = _FIELDS.sub(lambda found: "--" + (found[1] or found[2]).replace("_", "-"), error.message)
        raise InvalidError(named) from error


def _check_until_proved(value: str) -> None:
    from fallback.errors import InvalidError

    if value not in {"ask", "answer"}:
        raise InvalidError(f"--until-proved: expected ask or answer, got {value!r}")


def _tell(found: Plan) -> None:
    from gateway.quote import sentences

    for line in sentences(found):
        _say(line)
    for problem in found.problems:
        _say(f"problem: {problem}")


def _say(line: str) -> None:
    typer.echo(line)
