"""The tables `[queues.<name>]`: how a queue asks people, how much it holds, how long it keeps what."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fallback.errors import ConfigError
from fallback.tables import shown

# Each has an index of its own.
TIERS_MAX: Final = 4
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_MIB: Final = 1024 * 1024
_DAY: Final = 86_400


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[queues.<name>]`; what it leaves out comes from `[queues.default]`."""

    reviews_wanted: Annotated[int, Meta(ge=1, le=25, description="reviews by distinct people at first (N)")] = 1
    reviews_max: Annotated[
        int, Meta(ge=1, le=25, description="reviews at most (M) while no answer has more than half; at least N")
    ] = 3
    assisted: Annotated[bool, Meta(description="reviewers see the model's guess before they answer")] = False
    gold_share: Annotated[
        float, Meta(ge=0, le=0.5, description="share of what reviewers take that are gold items, where there are any")
    ] = 0.02
    lease_seconds: Annotated[
        float, Meta(gt=0, le=_DAY, description="how long a reviewer may hold an item without a sign of life, seconds")
    ] = 120.0
    review_seconds: Annotated[
        float, Meta(gt=0, le=365 * _DAY, description="how long people may take until a deferral expires, seconds")
    ] = float(_DAY)
    on_expiry: Annotated[
        Literal["answer_unreviewed", "abstain", "escalate"],
        Meta(description="what happens when nobody came in time; abstain where there is no next tier or no prediction"),
    ] = "abstain"
    tiers: Annotated[
        tuple[str, ...], Meta(description="tiers of reviewers, first to last, each a skill; empty: one for everybody")
    ] = ()
    tier_reviews_wanted: Annotated[
        int, Meta(ge=1, le=25, description="reviews at a tier that an item is escalated to, at least")
    ] = 1
    priority_boost_seconds: Annotated[
        float,
        Meta(ge=0, le=365 * _DAY, description="how much earlier each step of priority makes an item's turn, seconds"),
    ] = 3600.0
    undo_seconds: Annotated[
        float,
        Meta(ge=0, le=3600, description="how long reviews may be taken back before their outcome is final, seconds"),
    ] = 0.0
    skips_max: Annotated[
        int, Meta(ge=1, le=100, description="people who may skip an item before it is listed as flagged")
    ] = 5
    depth_max: Annotated[
        int, Meta(ge=1, le=100_000_000, description="open deferrals; beyond it the queue does as when_over says")
    ] = 1_000_000
    budget_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000_000,
            description="reviews an hour that may be asked for, audits always; beyond it as when_over says; 0: any",
        ),
    ] = 0
    when_over: Annotated[
        Literal["refuse", "answer_unreviewed", "keep"],
        Meta(
            description="a request over depth or budget: refused; answered by the model, marked unreviewed; parked all "
            "the same"
        ),
    ] = "refuse"
    open_max: Annotated[
        int, Meta(ge=1, le=100_000_000, description="open deferrals that keep never goes beyond; at least depth_max")
    ] = 2_000_000
    bytes_max: Annotated[
        int, Meta(ge=1, le=2**50, description="what requests brought that is stored, bytes in all; more are refused")
    ] = 16 * 1024 * _MIB
    drafts_bytes_max: Annotated[
        int, Meta(ge=1, le=2**50, description="drafts stored, bytes in all; more are refused")
    ] = 256 * _MIB
    outbox_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="outcomes still to be told, dead letters too; at that, requests with a callback are refused",
        ),
    ] = 1_000_000
    subject_bytes_max: Annotated[int, Meta(ge=1, le=256 * _MIB, description="largest subject, bytes")] = 8 * _MIB
    inputs_bytes_max: Annotated[
        int, Meta(ge=1, le=256 * _MIB, description="largest inputs kept for training, bytes")
    ] = 32 * _MIB
    retention_seconds: Annotated[
        float,
        Meta(ge=1, le=3650 * _DAY, description="how long a deferral is kept after its outcome, seconds"),
    ] = 7.0 * _DAY
    request_seconds: Annotated[
        float, Meta(ge=1, le=_DAY, description="how long a repeated request id gets the stored reply, seconds")
    ] = 3600.0
    orphan_seconds: Annotated[
        float, Meta(ge=1, le=_DAY, description="how long content is kept whose deferral was never accepted, seconds")
    ] = 600.0

    def check(self, name: str) -> None:
        """Raise ConfigError where two of its keys do not go together; `name` is the table's in errors."""
        pairs = [("reviews_max", "reviews_wanted")]
        if self.when_over == "keep":
            pairs.append(("open_max", "depth_max"))
        for more, less in pairs:
            if getattr(self, more) < getattr(self, less):
                raise ConfigError(
                    f"{name}.{more}: expected at least {less} ({getattr(self, less)}), got {getattr(self, more)}"
                )
        distinct = {tier for tier in self.tiers if QUEUE_NAME.fullmatch(tier)}
        if not len(distinct) == len(self.tiers) <= TIERS_MAX:
            raise ConfigError(
                f"{name}.tiers: expected at most {TIERS_MAX} names of letters, digits, '_', '.' and '-', "
                f"each once, got {shown(self.tiers)}"
            )
