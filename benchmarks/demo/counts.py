"""What a run adds up to, and whether that is what was promised. Pure: entries in, figures out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from benchmarks.demo.journal import Called, Entry, Failed, Refused, Replied, Reviewed, Stumbled, Told, Watched
from benchmarks.figures import Check, percentile

ANSWERED = "answered"
DEFERRED = "deferred"
RESOLVED = "resolved"
TERMINAL = frozenset({"resolved", "expired", "cancelled"})
AMENDED = "answer.amended"
TAKEN = 200

E = TypeVar("E", bound=Entry)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One model version: on the hold-out at the live policy, and on the part of the stream that it served.

    Shares in [0, 1]. `accuracy_holdout` counts every image, sure or not; `auto_error` only those that the policy lets
    the model answer. The stream's figures come from the clients; None where the version served or answered nothing.
    """

    version: str
    accuracy_holdout: float
    deferred_share: float
    auto_error: float
    stream_requests: int
    stream_deferred_share: float | None
    stream_auto_error: float | None


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What clients saw of one version; `auto_error` is None where it answered nothing."""

    requests: int
    deferred_share: float
    auto_error: float | None


class Tally:
    """Everything the processes wrote down so far, by kind, in the order in which it was taken in."""

    def __init__(self) -> None:
        self._kinds: dict[type[Any], list[Any]] = {}
        # In the order in which clients first met them.
        self.versions: list[str] = []

    def add(self, entries: Iterable[Entry]) -> None:
        """Take `entries` in."""
        for entry in entries:
            self._kinds.setdefault(type(entry), []).append(entry)
            if isinstance(entry, Replied) and entry.version not in self.versions:
                self.versions.append(entry.version)

    def of(self, kind: type[E]) -> list[E]:
        """Return the entries of one kind."""
        return self._kinds.get(kind, [])

    @property
    def told(self) -> dict[str, Told]:
        """What clients were told when they asked, by the deferral's name."""
        return {entry.deferral: entry for entry in self.of(Told)}

    @property
    def answered(self) -> int:
        """Requests that were answered at once."""
        return sum(1 for entry in self.of(Replied) if entry.decision == ANSWERED)

    @property
    def deferrals(self) -> frozenset[str]:
        """The names of the deferrals that clients were given."""
        return frozenset(entry.deferral for entry in self.of(Replied) if entry.decision == DEFERRED)

    @property
    def swaps(self) -> int:
        """How often a client met a version that no client had met before, the first aside."""
        return max(0, len(self.versions) - 1)

    def taken(self) -> dict[str, Called]:
        """Return the callbacks that the receiver took, each once by its id."""
        return {entry.id: entry for entry in self.of(Called) if entry.status == TAKEN}

    def told_by_callback(self) -> Counter[str]:
        """Return how many different events called back for each deferral, amendments aside."""
        return Counter(entry.deferral for entry in self.taken().values() if entry.type != AMENDED)

    def amended(self) -> int:
        """Return how many different amendments called back."""
        return sum(1 for entry in self.taken().values() if entry.type == AMENDED)

    def audits(self) -> dict[str, Watched]:
        """Return the audits that have an outcome."""
        return {entry.deferral: entry for entry in self.of(Watched) if entry.audit}

    def overturned(self) -> int:
        """Return how many audits ended in another answer than the model's."""
        return sum(1 for entry in self.audits().values() if entry.label and entry.label != entry.predicted)


def settled_once(tally: Tally) -> frozenset[str]:
    """Return the deferrals that ended in exactly one outcome, whichever way a client looks.

    That is: it is terminal when the client that was given it asks; it stands once in the stream of outcomes; one event
    called back; and all three say the same answer.
    """
    streamed = Counter(entry.deferral for entry in tally.of(Watched))
    in_stream = {entry.deferral: entry.label for entry in tally.of(Watched)}
    events = tally.told_by_callback()
    in_callback = {entry.deferral: entry.label for entry in tally.taken().values() if entry.type != AMENDED}
    return frozenset(
        name
        for name in tally.deferrals
        if (told := tally.told.get(name)) is not None
        and told.state in TERMINAL
        and streamed[name] == 1
        and events[name] == 1
        and told.label == in_stream[name] == in_callback[name]
    )


def lost(tally: Tally) -> int:
    """Return how many accepted deferrals nobody ever told their client the end of."""
    return sum(1 for name in tally.deferrals if name not in tally.told or tally.told[name].state not in TERMINAL)


def served(replied: Sequence[Replied], truth: Sequence[str]) -> dict[str, Served]:
    """Return, for each version, the requests it served, the share deferred, and the error among the answered.

    `truth` holds the true label of each request by its index.
    """
    figures: dict[str, Served] = {}
    for version in {entry.version for entry in replied}:
        mine = [entry for entry in replied if entry.version == version]
        answered = [entry for entry in mine if entry.decision == ANSWERED]
        wrong = sum(1 for entry in answered if entry.label != truth[entry.index])
        error = wrong / len(answered) if answered else None
        share = 1 - len(answered) / len(mine)
        figures[version] = Served(requests=len(mine), deferred_share=share, auto_error=error)
    return figures


def judge(tally: Tally, versions: Sequence[Version], *, requests: int, swaps_goal: int, left_open: int) -> list[Check]:
    """Return every promise of the demo beside what was found; `left_open` is what the queue still held at the end."""
    deferred = len(tally.deferrals)
    gain = versions[-1].accuracy_holdout - versions[0].accuracy_holdout if versions else 0.0

    def equal(name: str, value: int, goal: int) -> Check:
        return Check(name=name, value=value, goal=f"= {goal}", ok=value == goal)

    return [
        equal("requests answered or deferred", tally.answered + deferred, requests),
        equal("failed requests, during swaps or not", len(tally.of(Failed)), 0),
        equal("deferrals that ended in exactly one outcome", len(settled_once(tally)), deferred),
        equal("deferrals called back, each once by id", sum(tally.told_by_callback().values()), deferred),
        equal("callbacks with a bad signature or body", len(tally.of(Refused)), 0),
        equal("amendments called back, one for each overturned audit", tally.amended(), tally.overturned()),
        equal("deferrals lost", lost(tally), 0),
        equal("deferrals and audits left open in the queue", left_open, 0),
        Check(
            name="hot swaps while requests went on",
            value=tally.swaps,
            goal=f">= {swaps_goal}",
            ok=tally.swaps >= swaps_goal,
        ),
        Check(
            name="accuracy gained on the hold-out, last version over first",
            value=round(gain, 4),
            goal="> 0",
            ok=gain > 0,
        ),
    ]


def summary(
    tally: Tally,
    versions: Sequence[Version],
    checks: Sequence[Check],
    facts: Mapping[str, object],
) -> dict[str, object]:
    """Return the object that `--json` prints; `facts` (machine, seconds, ...) go in as they are."""
    latencies = [entry.latency_ms for entry in tally.of(Replied)]
    deferred = len(tally.deferrals)
    return {
        "requests": tally.answered + deferred,
        "answered": tally.answered,
        "deferred": deferred,
        "resolved": sum(1 for name in tally.deferrals if name in tally.told and tally.told[name].state == RESOLVED),
        "callbacks_delivered": sum(tally.told_by_callback().values()),
        "callbacks_retried": sum(1 for entry in tally.of(Called) if entry.status != TAKEN),
        "audited": len(tally.audits()),
        "amended": tally.amended(),
        "reviews": len(tally.of(Reviewed)),
        "reviews_wrong": sum(1 for entry in tally.of(Reviewed) if entry.label != entry.truth),
        "reviewer_retries": len(tally.of(Stumbled)),
        "lost": lost(tally),
        "failed_requests": len(tally.of(Failed)),
        "swaps": tally.swaps,
        "versions": [msgspec.to_builtins(version) for version in versions],
        "p50_ms": round(percentile(latencies, 0.50), 2),
        "p99_ms": round(percentile(latencies, 0.99), 2),
        **facts,
        "checks": [msgspec.to_builtins(check) for check in checks],
        "ok": all(check.ok for check in checks),
    }
