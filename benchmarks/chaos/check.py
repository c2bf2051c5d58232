"""The checker of histories: what everybody saw goes in, what cannot be right comes out. Pure, and on its own.

It shares no code with what it checks. It calls something wrong only where no order of events could explain it:

- One clock: all processes and the server run on one machine and read one clock, which is not set back; the server
  gives times in whole ms, cut off. `TOLERANCE_SECONDS` covers that cut and nothing else needs covering: a time that
  somebody wrote down before sending is before the server acted, one written after the reply came is after.
- A lease of a known length is live from `until` minus that length, by the server's clock; it may have ended as soon as
  its holder first sent anything that ends it, whether or not a reply came, and when the deferral ended. Only what is
  live for certain counts.
- A call whose reply was lost may have been applied, then or later; nothing is concluded from it alone.
- A reply that is read late (its reader was stopped) says only that the server had acted by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.chaos.history import (
    OK,
    Acted,
    Acting,
    Called,
    Cancelled,
    Cancelling,
    Entry,
    Failed,
    Got,
    Kept,
    Leased,
    Refused,
    Replied,
    Watched,
)

TOLERANCE_SECONDS = 0.005
TAKEN = 200
_STALE = "FAILED_PRECONDITION"
# What a call may end with while processes die and connections break; anything else is an answer nobody should get.
_PASSING = frozenset({OK, "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED"})
E = TypeVar("E", bound=Entry)


@dataclass(slots=True)
class Act:
    """One request about a lease: every attempt at it and every reply."""

    first: Acting
    replies: list[Acted] = field(default_factory=list)

    @property
    def accepted(self) -> Acted | None:
        """The earliest reply that it was done."""
        return min((one for one in self.replies if one.code == OK), key=lambda one: one.time, default=None)

    @property
    def refused(self) -> Acted | None:
        """The earliest reply that the lease is over."""
        return min((one for one in self.replies if one.code == _STALE), key=lambda one: one.time, default=None)


class History:
    """The entries, by kind and by what they are about."""

    def __init__(
        self, entries: Iterable[Entry], *, lease_seconds: float, earlier: Mapping[str, str] | None = None
    ) -> None:
        """Take what was written down, and the cursor of each outcome seen before these entries begin."""
        self.lease_seconds = lease_seconds
        self.earlier = earlier or {}
        self._entries: dict[type, list[Entry]] = defaultdict(list)
        for entry in entries:
            self._entries[type(entry)].append(entry)
        self.named: dict[str, set[str]] = _sets((one.key, one.deferral) for one in self.of(Replied) if one.code == OK)
        self.accepted = frozenset(name for names in self.named.values() for name in names)
        self.watched = _lists(self.of(Watched), lambda one: one.deferral)
        self.got = _lists(self.of(Got), lambda one: one.deferral)
        self.kept = _lists(self.of(Kept), lambda one: one.deferral)
        self.called = _lists((one for one in self.of(Called)), lambda one: one.deferral)
        self.leased = _lists(self.of(Leased), lambda one: one.deferral)
        self.acts: dict[str, Act] = {}
        for acting in sorted(self.of(Acting), key=lambda one: one.time):
            self.acts.setdefault(acting.request, Act(acting))
        for acted in self.of(Acted):
            if acted.request in self.acts:
                self.acts[acted.request].replies.append(acted)
        self.by_token = _lists(self.acts.values(), lambda act: act.first.token)
        # From when on each accepted review was in for certain, by deferral and request id.
        self.filled: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for request, act in self.acts.items():
            if act.first.act == "submit" and act.accepted is not None:
                self.filled[act.first.deferral][request] = act.accepted.time

    def of(self, kind: type[E]) -> list[E]:
        """Return all entries of one kind."""
        return [entry for entry in self._entries[kind] if isinstance(entry, kind)]

    def ended(self, deferral: str) -> float:
        """Return when it ended by the server's clock; infinity where nobody saw it."""
        times = [one.outcome_time for one in self.watched[deferral]] + [one.outcome_time for one in self.kept[deferral]]
        return min(times, default=float("inf"))

    def sightings(self, deferral: str) -> set[tuple[str, str]]:
        """Return every outcome, as (state, label), that somebody was shown of it."""
        return (
            {(one.state, one.label) for one in self.watched[deferral]}
            | {(one.state, one.label) for one in self.got[deferral] if one.code == OK}
            | {(one.state, one.label) for one in self.kept[deferral]}
            | {(one.state, one.label) for one in self.called[deferral]}
        )


def lost(history: History) -> list[str]:
    """Return the accepted deferrals whose outcome nobody was ever shown."""
    return [f"{name}: accepted, and no outcome seen" for name in sorted(history.accepted) if not history.watched[name]]


def duplicated(history: History) -> list[str]:
    """Return the deferrals with more than one outcome: two events, two answers, an end that was taken back."""
    found = []
    for name in sorted(history.accepted | history.watched.keys()):
        events = {one.cursor for one in history.watched[name]}
        if name in history.earlier:
            events.add(history.earlier[name])
        if len(events) > 1:
            found.append(f"{name}: {len(events)} events in the stream of outcomes")
        seen = history.sightings(name)
        if len(seen) > 1:
            found.append(f"{name}: seen with the outcomes {sorted(seen)}")
        if any(state == "open" for state, _ in seen):
            found.append(f"{name}: open again after its outcome")
    return found


def keys(history: History) -> list[str]:
    """Return the idempotency keys that named two deferrals, and deferrals that two keys name."""
    found = [f"key {key}: named {sorted(names)}" for key, names in history.named.items() if len(names) > 1]
    owners = _sets((name, key) for key, names in history.named.items() for name in names)
    return found + [f"{name}: named by keys {sorted(of)}" for name, of in owners.items() if len(of) > 1]


def cancellations(history: History) -> list[str]:
    """Return the deferrals that were cancelled unasked, or not although the client was told so."""
    asked = {one.deferral for one in history.of(Cancelling)}
    done = {one.deferral for one in history.of(Cancelled) if one.code == OK}
    found = []
    for name in sorted(history.watched):
        states = {one.state for one in history.watched[name]}
        if "cancelled" in states and name not in asked:
            found.append(f"{name}: cancelled, and nobody asked for it")
        if name in done and states != {"cancelled"}:
            found.append(f"{name}: its client was told it is cancelled, its outcome is {sorted(states)}")
    return found


def double_leases(history: History) -> list[str]:
    """Return the moments at which more leases and reviews were certain than a deferral has slots."""
    found = []
    for name, leases in history.leased.items():
        slots = max([one.slots for one in leases] + [one.slots for one in history.kept[name]])
        spans = _spans(history, name)
        filled = history.filled[name]
        for token, (start, _) in spans.items():
            live = [other for other, (begin, end) in spans.items() if begin <= start < end]
            done = sum(1 for since in filled.values() if since <= start)
            if len(live) + done > slots:
                found.append(
                    f"{name}: {len(live)} live leases and {done} reviews at {start:.3f}, {slots} slots ({token})"
                )
    return found


def _spans(history: History, name: str) -> dict[str, tuple[float, float]]:
    """Return from when to when each lease of a deferral was live for certain, by its token."""
    spans: dict[str, tuple[float, float]] = {}
    for token, leases in _lists(history.leased[name], lambda one: one.token).items():
        first = [one for one in leases if not one.extension]
        if not first:
            continue  # whoever was given it was killed before it was written down
        start = min(one.until for one in first) - history.lease_seconds
        ends = [act.first.time - TOLERANCE_SECONDS for act in history.by_token[token] if act.first.act != "extend"]
        end = min([max(one.until for one in leases), history.ended(name) - TOLERANCE_SECONDS, *ends])
        spans[token] = (start, end)
    return spans


def same_reviewer(history: History) -> list[str]:
    """Return the deferrals that one person reviewed twice, or was given again after their review was in."""
    found = []
    for name, seen in history.kept.items():
        for one in seen:
            people = [review.reviewer for review in one.reviews]
            if len(set(people)) < len(people):
                found.append(f"{name}: reviewed by {sorted(people)}")
    reviews = [act for act in history.acts.values() if act.first.act == "submit" and act.accepted is not None]
    done = {(act.first.deferral, act.first.reviewer): act for act in reviews}
    for leases in history.leased.values():
        for lease in leases:
            act = done.get((lease.deferral, lease.reviewer))
            if act is not None and act.accepted is not None and lease.sent > act.accepted.time and not lease.extension:
                found.append(f"{lease.deferral}: leased to {lease.reviewer}, whose review was in already")
    return found


def stale_tokens(history: History) -> list[str]:
    """Return what was accepted, or stands in a record, although the token was over when it was first sent."""
    kept = {review.request: review for seen in history.kept.values() for one in seen for review in one.reviews}
    found = []
    for request, act in history.acts.items():
        sent, name = act.first.time, act.first.deferral
        review = kept.get(request)
        if act.accepted is None and review is None:
            continue
        over = _over(history, act)
        what = f"{name}: {act.first.act} by {act.first.reviewer} (request {request})"
        if sent > over + TOLERANCE_SECONDS:
            found.append(f"{what} took effect, sent {sent - over:.3f} s after its lease was over")
        if review is not None and review.create_time > over + TOLERANCE_SECONDS:
            found.append(f"{what} is dated {review.create_time - over:.3f} s after its lease was over")
    return found


def _over(history: History, act: Act) -> float:
    """Return when the token of `act` was over for certain, apart from `act` itself; infinity where it is not."""
    token, name = act.first.token, act.first.deferral
    others = [other for other in history.by_token[token] if other is not act]
    ends = [other.accepted.time for other in others if other.first.act != "extend" and other.accepted is not None]
    leases = [one for one in history.leased[name] if one.token == token]
    if act.first.act == "extend":
        leases = [one for one in leases if one.sent < act.first.time]
    unsure = any(other.first.act == "extend" and other.accepted is None and other.refused is None for other in others)
    if leases and not unsure:
        ends.append(max(one.until for one in leases))
    # The review that ends a deferral is itself sent before that.
    ends.append(history.ended(name))
    return min(ends)


def repeats(history: History) -> list[str]:
    """Return the requests that were answered in two ways, or refused although they took effect."""
    kept = {review.request for seen in history.kept.values() for one in seen for review in one.reviews}
    found = []
    for request, act in history.acts.items():
        what = f"{act.first.deferral}: {act.first.act} by {act.first.reviewer} (request {request})"
        if act.accepted is not None and act.refused is not None:
            found.append(f"{what} was accepted once and refused once")
        elif act.refused is not None and request in kept:
            found.append(f"{what} was refused and stands in the record")
    return found


def reviews(history: History) -> list[str]:
    """Return the accepted reviews that are not in the record, and those in it that nobody sent so."""
    found = []
    for name, seen in history.kept.items():
        for one in seen:
            there = {review.request for review in one.reviews}
            found += [
                f"{name}: accepted review {request} is not in the record"
                for request in history.filled[name]
                if request not in there
            ]
            for review in one.reviews:
                act = history.acts.get(review.request)
                if act is None or act.first.act != "submit":
                    found.append(f"{name}: holds a review that nobody sent ({review.request})")
                elif (act.first.deferral, act.first.reviewer, act.first.label) != (name, review.reviewer, review.label):
                    found.append(f"{name}: holds {review.reviewer}'s {review.label}, sent otherwise ({review.request})")
            found += _verdict(one)
    return found


def _verdict(kept: Kept) -> list[str]:
    """Compare a resolved outcome with what the reviews add up to: more than half, else nothing."""
    if kept.state != "resolved":
        return []
    labels = [review.label for review in kept.reviews]
    best = max(labels, key=labels.count, default="")
    expected = best if 2 * labels.count(best) > len(labels) else ""
    return [] if kept.label == expected else [f"{kept.deferral}: resolved as {kept.label!r} by reviews {labels}"]


def untold(history: History) -> list[str]:
    """Return the outcomes that no callback was taken for, those told under two ids, and ids that told two outcomes."""
    found = []
    for name in sorted(history.accepted):
        ids = {one.id for one in history.called[name]}
        if not any(one.status == TAKEN for one in history.called[name]):
            found.append(f"{name}: no callback was taken")
        if len(ids) > 1:
            found.append(f"{name}: told under the ids {sorted(ids)}")
    owners = _sets((one.id, one.deferral) for one in history.of(Called))
    found += [f"id {one}: told of {sorted(names)}" for one, names in owners.items() if len(names) > 1]
    return found + [f"callback not to be believed: {one.reason}" for one in history.of(Refused)]


def answers(history: History) -> list[str]:
    """Return the calls that ended with a code that neither faults nor the caller's own doing explain."""
    found = []
    calls = [
        *(("ask", one.code, one.message, _PASSING) for one in history.of(Replied)),
        *(("cancel", one.code, one.message, _PASSING | {_STALE}) for one in history.of(Cancelled)),
        *(("get", one.code, one.message, _PASSING | {"NOT_FOUND"}) for one in history.of(Got)),
        *((one.call, one.code, one.message, _PASSING) for one in history.of(Failed)),
        *(("act", one.code, one.message, _PASSING | {_STALE}) for one in history.of(Acted)),
    ]
    for call, code, message, allowed in calls:
        if code not in allowed:
            found.append(f"{call} ended with {code}: {message}")
    return found


def counted(accepted: Mapping[str, int], seen: Mapping[str, int]) -> list[str]:
    """Compare how many deferrals each queue says that it ever took with how many outcomes clients saw of it."""
    return [
        f"{queue}: says it accepted {count}, clients saw the outcomes of {seen.get(queue, 0)}"
        for queue, count in accepted.items()
        if count != seen.get(queue, 0)
    ]


K = TypeVar("K")
V = TypeVar("V")


def _lists(values: Iterable[V], key: Callable[[V], K]) -> defaultdict[K, list[V]]:
    found: defaultdict[K, list[V]] = defaultdict(list)
    for value in values:
        found[key(value)].append(value)
    return found


def _sets(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, set[V]]:
    found: defaultdict[K, set[V]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return found


# Each promise with its judge, in the order in which they are told.
PROMISES: Sequence[tuple[str, Callable[[History], list[str]]]] = (
    ("accepted deferrals without an outcome", lost),
    ("deferrals with more than one outcome", duplicated),
    ("idempotency keys that named two deferrals", keys),
    ("cancellations unasked or untrue", cancellations),
    ("moments with more than one live lease a slot", double_leases),
    ("deferrals that met one reviewer twice", same_reviewer),
    ("effects of stale tokens", stale_tokens),
    ("requests answered in two ways", repeats),
    ("reviews lost, changed or made up", reviews),
    ("outcomes not told at least once under one id", untold),
    ("calls with an answer that nothing explains", answers),
)
