"""`demur verify` and `demur certificate`: check what is proved, see how it stands, plan and make a promise."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands import ConfigFile, Data, load

if TYPE_CHECKING:
    from fallback.config import Config
    from gateway.quote import Plan, Work
    from trainer.book import Book

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

    Needs nothing but the data folder: no server, no model. What was cut off at the end, only a digest that you kept
    elsewhere can show.

    Example: demur verify digits
    """
    from fallback.errors import StateError
    from trainer.chain import Chain
    from trainer.verify import verify as check

    folder, names = _chains(load(config, data), model)
    wrong, kept = [], not digest
    for name in names:
        found = check(name, Chain(folder, name).links())
        kept = kept or any(link.digest == digest for link in Chain(folder, name).links())
        if found.agrees:
            later = (
                f"; draws of {len(found.unrevealed)} epoch(s) under way are not open yet" if found.unrevealed else ""
            )
            _say(
                f"{name}: agrees: {found.rows} rows, {found.records} records, {found.certificates} certificates "
                f"computed again{later}"
            )
        else:
            wrong.append(f"{name}: row {found.place} differs: {found.reason}")
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
        book = _book(settings, name)
        screen.show(book)
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
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Say what a promise would cost: audits, days, people's hours, and whether its parts fit. Changes nothing."""
    settings = load(config, data)
    work = _work(settings, model, alpha, requests_per_hour, coverage, true_error, model_error, review_seconds)
    _tell(_planned(work, alpha, delta, audit_share, expire_days, reviews_per_hour, until_proved))


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
    lifetime: Annotated[
        bool, typer.Option("--lifetime", help="Share delta out over all certificates the model will ever have.")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Promise it although the plan has problems.")] = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Promise an error rate: from now on only what is proved to keep it is answered automatically.

    Checks the plan first, as `demur certificate plan` does. Where nothing is known of the model yet and no numbers are
    given, there is nothing to check.
    """
    from fallback.errors import InvalidError, StateError
    from trainer import retrain

    settings = load(config, data)
    try:
        work = _work(settings, model, alpha, requests_per_hour, coverage, true_error, model_error, review_seconds)
    except InvalidError as error:
        _say(f"not planned: {error.message}")
    else:
        found = _planned(work, alpha, delta, audit_share, expire_days, reviews_per_hour, until_proved)
        _tell(found)
        if found.problems and not anyway:
            raise StateError("nothing was changed, for the problems above; --anyway promises it all the same")

    async def change() -> None:
        async with retrain.client(settings) as gateway:
            policy = await gateway.get_policy(model)
            policy.alpha, policy.delta, policy.audit_share = alpha, delta, audit_share
            policy.expire_days, policy.lifetime, policy.until_proved = expire_days, lifetime, until_proved
            if reviews_per_hour:
                policy.reviews_per_hour_max = reviews_per_hour
            await gateway.update_policy(policy)

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
    if (model and model not in known) or not known:
        raise NotFoundError(
            f"no evidence of {model or 'any model'} under {folder}; there is some for: {', '.join(known) or 'none'}"
        )
    return folder, [model] if model else known


def _book(settings: Config, model: str) -> Book:
    from trainer.book import Book
    from trainer.chain import Chain

    folder, _ = _chains(settings, model)
    book = Book(model=model)
    Chain(folder, model).read(book.take)
    return book


def _work(
    settings: Config,
    model: str,
    alpha: float,
    requests_per_hour: float,
    coverage: float,
    true_error: float,
    model_error: float,
    review_seconds: float,
) -> Work:
    """Return what there is to decide: what was said, else what the evidence of `model` says."""
    from fallback.errors import InvalidError, NotFoundError
    from gateway.quote import Work
    from trainer.standing import known_work

    try:
        known = known_work(_book(settings, model), alpha)
    except NotFoundError:
        known = None
    missing = [
        option
        for option, given in (
            ("--requests-per-hour", requests_per_hour > 0),
            ("--coverage", coverage > 0),
            ("--true-error", true_error >= 0),
            ("--model-error", model_error >= 0),
        )
        if not given
    ]
    if known is None and missing:
        raise InvalidError(f"there is no evidence of {model} yet, so say {', '.join(missing)}")
    return Work(
        requests_per_hour=requests_per_hour or (known.requests_per_hour if known else 0.0),
        coverage=coverage or (known.coverage if known else 0.0),
        true_error=true_error if true_error >= 0 or known is None else known.true_error,
        model_error=model_error if model_error >= 0 or known is None else known.model_error,
        review_seconds=review_seconds,
    )


def _planned(
    work: Work,
    alpha: float,
    delta: float,
    audit_share: float,
    expire_days: float,
    reviews_per_hour: float,
    until_proved: str,
) -> Plan:
    from fallback.errors import InvalidError
    from gateway.promise import Promise
    from gateway.quote import check_plan

    if until_proved not in {"ask", "answer"}:
        raise InvalidError(f"--until-proved: expected ask or answer, got {until_proved!r}")
    if until_proved == "answer" and 0 < audit_share <= 1:
        work = replace(work, blind_before=audit_share)
    return check_plan(
        Promise(alpha=alpha, delta=delta),
        work,
        audit_share=audit_share,
        reviews_per_hour_max=reviews_per_hour or float("inf"),
        expire_days=expire_days,
    )


def _tell(found: Plan) -> None:
    offer = found.quote
    if offer.audits is not None:
        _say(
            f"about {offer.audits} audits, nine times of ten at most {offer.audits_high}: {offer.requests} requests, "
            f"{offer.days:.1f} days, {offer.person_hours:.1f} hours of people"
        )
    _say(
        f"reviews an hour: {found.reviews_per_hour_before:.0f} until it is proved, "
        f"{found.reviews_per_hour_after:.0f} after"
    )
    for problem in found.problems:
        _say(f"problem: {problem}")


def _say(line: str) -> None:
    typer.echo(line)
