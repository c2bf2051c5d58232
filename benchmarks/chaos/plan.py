"""What strikes whom, when and for how long: drawn from the seed, round by round. Pure.

In each round one process is killed, one is stopped past the lease, two connections suffer, and up to two more faults of
any kind come on top. Who is struck goes round in a circle whose order the seed draws and whose length is below ten, so
that any ten rounds in a row have every kind of process and every kind of fault; everything else is drawn anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum

import msgspec

LEASE_SECONDS = 2.0
# The first fault comes at 0 of this window, the last one begins before its end.
WINDOW_SECONDS = 2.0
STOP_SECONDS = (LEASE_SECONDS + 0.2, LEASE_SECONDS + 0.6)
LINK_SECONDS = (0.4, 2.2)
RESTART_SECONDS = (0.0, 0.4)
LATENCY_SECONDS = (0.02, 0.25)
EXTRA_MAX = 2


class Kind(StrEnum):
    """What can strike."""

    KILL = "kill"
    STOP = "stop"
    LATENCY = "latency"
    STALL = "stall"
    RESET = "reset"
    DROP = "drop"


class Target(StrEnum):
    """The processes; a review replica has the reaper and the dispatcher of callbacks in it."""

    GATEWAY = "gateway"
    REVIEW = "review"
    VALKEY = "valkey"
    CLIENT = "client"
    REVIEWER = "reviewer"
    RECEIVER = "receiver"


class Link(StrEnum):
    """The connections with a proxy in between, from who calls to who is called."""

    GATEWAY_VALKEY = "gateway-valkey"
    REVIEW_VALKEY = "review-valkey"
    CLIENT_GATEWAY = "client-gateway"
    REVIEWER_REVIEW = "reviewer-review"
    REVIEW_RECEIVER = "review-receiver"


LINK_KINDS = (Kind.LATENCY, Kind.STALL, Kind.RESET, Kind.DROP)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: `at` seconds after the round's first, for `seconds` (a killed process: until it is started again).

    `target` is set for processes, `link` for connections; `which` picks among several of them. `latency` is what each
    piece of a connection's bytes is held up by, in seconds; `forward`: whether a drop swallows what the caller says
    (else what is answered).
    """

    kind: Kind
    at: float
    seconds: float
    target: Target | None = None
    link: Link | None = None
    which: int = 0
    latency: float = 0.0
    forward: bool = False

    @property
    def struck(self) -> str:
        """The process or connection in a word."""
        return str(self.target or self.link)


def draw(seed: int, number: int) -> tuple[Fault, ...]:
    """Return the faults of round `number` (from 0), in order of time; the same for the same seed."""
    circles = random.Random(f"{seed}")  # noqa: S311 - a plan, not a secret
    killed, stopped = circles.sample(list(Target), len(Target)), circles.sample(list(Target), len(Target))
    links, kinds = circles.sample(list(Link), len(Link)), circles.sample(LINK_KINDS, len(LINK_KINDS))
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - as above
    faults = [
        _process(rng, Kind.KILL, killed[number % len(killed)]),
        _process(rng, Kind.STOP, stopped[(number + 2) % len(stopped)]),
        _link(rng, kinds[2 * number % len(kinds)], links[number % len(links)]),
        _link(rng, kinds[(2 * number + 1) % len(kinds)], links[(number + 2) % len(links)]),
    ]
    for _ in range(rng.randint(0, EXTRA_MAX)):
        if rng.random() < 0.3:  # noqa: PLR2004 - most of the rest strike connections
            # One that is struck already would have to be waited for.
            free = [target for target in Target if target not in {fault.target for fault in faults}]
            faults.append(_process(rng, rng.choice((Kind.KILL, Kind.STOP)), rng.choice(free)))
        else:
            faults.append(_link(rng, rng.choice(LINK_KINDS), rng.choice(list(Link))))
    faults.sort(key=lambda fault: fault.at)
    return (msgspec.structs.replace(faults[0], at=0.0), *faults[1:])


def missing(rounds: Sequence[Sequence[Fault]]) -> list[str]:
    """Return what did not occur within some ten rounds in a row (within all, where they are fewer)."""
    wanted = {str(kind) for kind in Kind} | {str(target) for target in Target}
    found = []
    for start in range(max(1, len(rounds) - 9)):
        ten = [fault for faults in rounds[start : start + 10] for fault in faults]
        seen = {str(fault.kind) for fault in ten} | {str(fault.target) for fault in ten}
        found += [f"rounds {start} to {start + 9}: no {what}" for what in sorted(wanted - seen)]
    return found


def _process(rng: random.Random, kind: Kind, target: Target) -> Fault:
    lasts = RESTART_SECONDS if kind is Kind.KILL else STOP_SECONDS
    return Fault(
        kind=kind, at=rng.uniform(0, WINDOW_SECONDS), seconds=rng.uniform(*lasts), target=target, which=rng.randrange(6)
    )


def _link(rng: random.Random, kind: Kind, link: Link) -> Fault:
    return Fault(
        kind=kind,
        at=rng.uniform(0, WINDOW_SECONDS),
        seconds=0.0 if kind is Kind.RESET else rng.uniform(*LINK_SECONDS),
        link=link,
        which=rng.randrange(6),
        latency=rng.uniform(*LATENCY_SECONDS) if kind is Kind.LATENCY else 0.0,
        forward=rng.random() < 0.5,  # noqa: PLR2004 - a coin
    )
