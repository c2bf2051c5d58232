"""`demur models policy ...`: when a model's answers go to a person, and what is promised of the others."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.models_commands import Gateway, Model, call, console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demur.v1 import model_pb2 as pb
    from gateway.model_client import ModelClient

_SCORERS: Final = ("margin", "max_softmax", "energy", "learned")
_UNTIL_PROVED: Final = ("ask", "answer")

policy = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Read and set when a model's answers go to a person.",
    epilog="Example: demur models policy set digits --threshold 0.95",
)

Threshold = Annotated[
    float | None, typer.Option("--threshold", min=0, max=1, help="Confidence below this goes to a person.")
]
ClassThreshold = Annotated[
    list[str] | None,
    typer.Option("--class-threshold", metavar="LABEL=N", help="Another threshold for one label; repeatable."),
]
AlwaysPerson = Annotated[
    str | None, typer.Option("--always-person", metavar="A,B", help="Labels that always go to a person; '' for none.")
]
AuditShare = Annotated[
    float | None, typer.Option("--audit-share", min=0, max=1, help="Share of answers a person also checks.")
]
ModelWish = Annotated[
    bool | None,
    typer.Option("--allow-model-wish/--refuse-model-wish", help="Whether a client may wish for the model's answer."),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        min=0,
        max=0.5,
        help="At most this share of the answers wrong: a proved threshold answers then; 0: no promise.",
    ),
]
Delta = Annotated[
    float | None, typer.Option("--delta", min=0, max=0.5, help="The promise holds with confidence 1 - delta.")
]
ScoredBy = Annotated[
    str | None,
    typer.Option("--scorer", metavar="|".join(_SCORERS), help="What the proved threshold is compared with."),
]
ReviewsPerHour = Annotated[
    float | None,
    typer.Option("--reviews-per-hour-max", min=0, help="How many reviews people manage; 0: nobody knows."),
]
ExpireDays = Annotated[
    float | None, typer.Option("--expire-days", min=0, help="After so many days a certificate ends.")
]
Lifetime = Annotated[
    bool | None,
    typer.Option("--lifetime/--each", help="Share delta out over all certificates ever, or give it to each."),
]
UntilProved = Annotated[
    str | None,
    typer.Option(
        "--until-proved",
        metavar="|".join(_UNTIL_PROVED),
        help="While nothing is proved: ask a person about everything, or let your own threshold answer, uncertified.",
    ),
]

Anyway = Annotated[bool, typer.Option("--anyway", help="Promise it although the plan has problems.")]


Segments = Annotated[
    list[str] | None,
    typer.Option(
        "--segment",
        metavar="NAME:KEY=VALUE[,...][:ALPHA]",
        help="Give requests with these attributes a promise of their own; repeatable, NAME alone takes one away.",
    ),
]


@policy.command("get", epilog="Example: demur models policy get digits")
def policy_get(model: Model, *, gateway: Gateway = "") -> None:
    """Show the policy in force."""
    _show(call(gateway, lambda client: client.get_policy(model)))


@policy.command("set", epilog="Example: demur models policy set digits --threshold 0.95 --always-person 8,9")
def policy_set(
    model: Model,
    *,
    threshold: Threshold = None,
    class_threshold: ClassThreshold = None,
    always_person: AlwaysPerson = None,
    audit_share: AuditShare = None,
    allow_model_wish: ModelWish = None,
    alpha: Alpha = None,
    delta: Delta = None,
    scorer: ScoredBy = None,
    reviews_per_hour_max: ReviewsPerHour = None,
    expire_days: ExpireDays = None,
    lifetime: Lifetime = None,
    until_proved: UntilProved = None,
    segment: Segments = None,
    anyway: Anyway = False,
    gateway: Gateway = "",
) -> None:
    """Change the policy; what is not named stays as it is.

    What a promise costs is checked first, by the evidence: see `demur certificate plan`.
    """
    from fallback.errors import InvalidError

    plain = {
        "threshold": threshold,
        "audit_share": audit_share,
        "allow_model_wish": allow_model_wish,
        "delta": delta,
        "scorer": scorer,
        "expire_days": expire_days,
        "lifetime": lifetime,
        "until_proved": until_proved,
    }
    named = {field: value for field, value in plain.items() if value is not None}
    absent_at_zero = {
        field: value
        for field, value in (("alpha", alpha), ("reviews_per_hour_max", reviews_per_hour_max))
        if value is not None
    }
    if not (named or absent_at_zero or class_threshold or segment) and always_person is None:
        raise InvalidError(
            "expected something to change, e.g. --threshold 0.95, got nothing; "
            f"what is in force: demur models policy get {model}"
        )
    _check_one_of("--scorer", scorer or None, _SCORERS)
    _check_one_of("--until-proved", until_proved, _UNTIL_PROVED)
    thresholds = [_assignment(item) for item in class_threshold or ()]
    segments = [_segment(item) for item in segment or ()]

    async def change(client: ModelClient) -> pb.Policy:
        found = await client.get_policy(model)
        for field, value in named.items():
            setattr(found, field, value)
        for field, number in absent_at_zero.items():
            setattr(found, field, number)
            if not number:
                found.ClearField(field)
        for label, share in thresholds:
            if share is None:
                found.class_thresholds.pop(label, None)
            else:
                found.class_thresholds[label] = share
        _put_segments(found, segments)
        if always_person is not None:
            found.always_person[:] = [label.strip() for label in always_person.split(",") if label.strip()]
        return await client.update_policy(found, accept_problems=anyway)

    _show(call(gateway, change))


def _check_one_of(option: str, value: str | None, known: tuple[str, ...]) -> None:
    from fallback.errors import InvalidError

    if value is not None and value not in known:
        raise InvalidError(f"{option}: expected {', '.join(known)}; got {value!r}")


def _assignment(item: str) -> tuple[str, float | None]:
    """Read LABEL=NUMBER, or LABEL= for none."""
    from fallback.errors import InvalidError

    label, _, share = item.rpartition("=")
    with contextlib.suppress(ValueError):
        if label:
            return label, float(share) if share else None
    raise InvalidError(f"--class-threshold: expected LABEL=NUMBER, or LABEL= for none, got {item!r}")


def _put_segments(policy: pb.Policy, segments: Sequence[pb.Segment]) -> None:
    """Put each in the place of the one of its name; without attributes that one goes."""
    named = {segment.name for segment in segments}
    kept = [other for other in policy.segments if other.name not in named]
    del policy.segments[:]
    policy.segments.extend([*kept, *(segment for segment in segments if segment.attributes)])


def _segment(item: str) -> pb.Segment:
    """Read NAME:KEY=VALUE,...:ALPHA; without attributes where only a name is said."""
    from demur.v1 import model_pb2 as pb
    from fallback.errors import InvalidError

    name, _, rest = item.partition(":")
    said, _, alpha = rest.partition(":")
    pairs = [pair.partition("=") for pair in said.split(",") if pair]
    try:
        share = float(alpha) if alpha else None
    except ValueError:
        share = math.nan
    if not name or any(not key or not middle for key, middle, _ in pairs) or (share is not None and math.isnan(share)):
        raise InvalidError(f"--segment: expected NAME:KEY=VALUE[,...][:ALPHA], or NAME to take it away, got {item!r}")
    return pb.Segment(name=name, attributes={key: value for key, _, value in pairs}, alpha=share)


def _show(found: pb.Policy) -> None:
    from rich.table import Table

    from gateway.model_wire import plan_from_wire
    from gateway.quote import sentences

    promised = found.HasField("alpha")
    table = Table.grid(padding=(0, 2))
    table.add_row("model", found.model)
    table.add_row("revision", str(found.revision) if found.revision else "0 (as published)")
    if promised:
        table.add_row("promise", f"at most {100 * found.alpha:g} % of the answers wrong")
        each = "over all certificates ever" if found.lifetime else "for each certificate"
        table.add_row("  with confidence", f"{100 * (1 - found.delta):g} % {each}")
        table.add_row("  compared with", f"{found.scorer or 'margin'}, at the threshold that is proved")
        table.add_row("  certificates end", f"after {found.expire_days:g} days")
        capacity = f"{found.reviews_per_hour_max:g}" if found.HasField("reviews_per_hour_max") else "nobody said"
        table.add_row("  reviews an hour", capacity)
        answers = found.until_proved == "answer"
        for segment in found.segments:
            said = ", ".join(f"{key}={value}" for key, value in sorted(segment.attributes.items()))
            alpha = segment.alpha if segment.HasField("alpha") else found.alpha
            table.add_row(f"  of segment {segment.name}", f"at most {100 * alpha:g} % wrong ({said})")
        table.add_row("  until it is proved", "your threshold answers, uncertified" if answers else "people are asked")
    unused = ""
    if promised:
        unused = " (until it is proved)" if found.until_proved == "answer" else " (counts for nothing beside a promise)"
    table.add_row("threshold", f"{found.threshold:g}{unused}")
    for label, share in sorted(found.class_thresholds.items()):
        table.add_row(f"  of {label}", f"{share:g}")
    table.add_row("always a person", ", ".join(found.always_person) or "-")
    table.add_row("audit share", f"{found.audit_share:g}")
    table.add_row("model wish", "allowed" if found.allow_model_wish else "refused")
    if found.HasField("plan"):
        plan = plan_from_wire(found.plan)
        for line in sentences(plan):
            table.add_row("plan", line)
        for problem in plan.problems:
            table.add_row("problem", problem)
    console().print(table)
