"""The checker of histories, on histories written by hand: a clean one, and one for each way to break a promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from benchmarks.chaos import check
from benchmarks.chaos.check import History
from benchmarks.chaos.history import (
    Acted,
    Acting,
    Asked,
    Called,
    Cancelled,
    Cancelling,
    Entry,
    Failed,
    Got,
    Kept,
    KeptReview,
    Leased,
    Refused,
    Replied,
    Watched,
)

LEASE_SECONDS = 2.0
ONE, TWO = "queues/single/deferrals/one", "queues/single/deferrals/two"

asked = Asked(time=10.0, client="shop", key="k1", queue="single")
replied = Replied(time=10.1, client="shop", key="k1", code="OK", deferral=ONE)
leased = Leased(sent=11.0, time=11.1, reviewer="ann", token="t1", deferral=ONE, slots=1, until=13.05)
acting = Acting(time=11.5, reviewer="ann", token="t1", deferral=ONE, act="submit", request="r1", attempt=1, label="a")
acted = Acted(time=11.6, reviewer="ann", request="r1", attempt=1, code="OK")
watched = Watched(
    time=11.7,
    queue="single",
    cursor="1-0",
    deferral=ONE,
    state="resolved",
    label="a",
    version=3,
    outcome_time=11.55,
)
got = Got(time=12.0, deferral=ONE, code="OK", state="resolved", label="a", version=3)
called = Called(time=12.1, id="e1", type="deferral.resolved", deferral=ONE, state="resolved", label="a", status=200)
review = KeptReview(reviewer="ann", label="a", request="r1", create_time=11.55)
kept = Kept(deferral=ONE, state="resolved", label="a", version=3, slots=1, outcome_time=11.55, reviews=(review,))
CLEAN: tuple[Entry, ...] = (asked, replied, leased, acting, acted, watched, got, called, kept)

change = msgspec.structs.replace


def found(entries: Sequence[Entry], **options: dict[str, str]) -> dict[str, list[str]]:
    """Return what every judge finds, where it finds anything."""
    history = History(entries, lease_seconds=LEASE_SECONDS, **options)
    return {promise: problems for promise, judge in check.PROMISES if (problems := judge(history))}


def without(*gone: Entry) -> list[Entry]:
    """Return the clean history but for these."""
    return [entry for entry in CLEAN if entry not in gone]


def test_nothing_is_found_where_all_is_well() -> None:
    """Asked, leased, answered, told: nobody complains."""
    assert found(CLEAN) == {}


def test_faults_alone_are_no_violation() -> None:
    """Lost replies, repeats, lapsed leases, attempts that the receiver refused: all of it is explained."""
    lapsed = Leased(sent=9.0, time=9.2, reviewer="bob", token="t0", deferral=ONE, slots=1, until=11.0)
    late = Acting(time=11.2, reviewer="bob", token="t0", deferral=ONE, act="submit", request="r0", attempt=1, label="b")
    assert (
        found(
            [
                change(asked, time=9.0),
                change(replied, time=9.5, code="UNAVAILABLE", deferral=""),
                *CLEAN,
                lapsed,
                late,
                Acted(time=11.3, reviewer="bob", request="r0", attempt=1, code="FAILED_PRECONDITION"),
                change(acting, attempt=2, time=11.65),
                change(acted, attempt=2, time=11.7),
                change(acted, time=11.62, code="DEADLINE_EXCEEDED"),
                change(watched, time=12.5),
                change(called, status=500, time=11.9),
                change(called, time=12.4),
                Failed(time=12.0, who="bob", call="LeaseDeferrals", code="UNAVAILABLE", message=""),
            ]
        )
        == {}
    )


def test_a_review_whose_reply_was_lost_may_stand_in_the_record() -> None:
    """Nothing is concluded from a call that has no reply."""
    assert found(without(acted)) == {}


def _second_lease() -> list[Entry]:
    """Somebody else is given the only slot while ann is in it for certain."""
    return [*CLEAN, Leased(sent=11.2, time=11.3, reviewer="bob", token="t2", deferral=ONE, slots=1, until=13.25)]


def _lease_beside_a_review() -> list[Entry]:
    """Somebody is given a slot of two although two reviews are in; the outcome comes later."""
    bob = change(acting, reviewer="bob", token="t2", request="r2", time=11.5)
    return [
        *without(watched, got, called, kept),
        change(leased, reviewer="bob", token="t2"),
        bob,
        change(acted, reviewer="bob", request="r2"),
        change(leased, reviewer="cid", token="t3", sent=12.0, time=12.1, until=14.05),
    ]


def _late_effect() -> list[Entry]:
    """An answer that was first sent after its lease had lapsed is taken."""
    sent = change(acting, time=13.5)
    done = change(acted, time=13.6)
    end = change(kept, outcome_time=13.55, reviews=(change(review, create_time=13.55),))
    return [*without(acting, acted, watched, kept), sent, done, change(watched, outcome_time=13.55), end]


def _retaken_effect() -> list[Entry]:
    """An answer is taken under a lease that its holder had given back before."""
    back = change(acting, act="release", request="r0", time=11.2, label="")
    return [*CLEAN, back, change(acted, request="r0", time=11.3)]


def _effect_after_the_end() -> list[Entry]:
    """A lease is extended after the deferral ended."""
    more = change(acting, act="extend", request="r9", time=11.9, label="", token="t2", reviewer="bob")
    return [*CLEAN, more, change(acted, request="r9", time=12.0, reviewer="bob")]


def _never_taken_back() -> list[Entry]:
    """The client is told that it is cancelled, and it is resolved."""
    return [
        *CLEAN,
        Cancelling(time=12.0, deferral=ONE),
        Cancelled(time=12.1, deferral=ONE, code="OK"),
    ]


def _again_after_review() -> list[Entry]:
    """Who answered is asked again."""
    more = change(leased, sent=11.7, time=11.8, token="t5", until=13.75, slots=3)
    return [*[change(entry, slots=3) if isinstance(entry, Leased | Kept) else entry for entry in CLEAN], more]


def _two_votes() -> list[Entry]:
    """One person's two answers count."""
    again = change(acting, request="r2", token="t2", time=11.52)
    votes = (review, change(review, request="r2", create_time=11.54))
    return [*without(kept), again, change(kept, reviews=votes, slots=2)]


BROKEN: dict[str, tuple[str, Callable[[], list[Entry]]]] = {
    "lost": ("accepted deferrals without an outcome", lambda: without(watched)),
    "two events": (
        "deferrals with more than one outcome",
        lambda: [*CLEAN, change(watched, cursor="2-0")],
    ),
    "two answers": ("deferrals with more than one outcome", lambda: [*CLEAN, change(called, label="b", status=500)]),
    "open again": ("deferrals with more than one outcome", lambda: [*CLEAN, change(got, state="open", label="")]),
    "key twice": (
        "idempotency keys that named two deferrals",
        lambda: [*CLEAN, change(replied, deferral=TWO)],
    ),
    "name twice": ("idempotency keys that named two deferrals", lambda: [*CLEAN, change(replied, key="k2")]),
    "cancelled unasked": (
        "cancellations unasked or untrue",
        lambda: [
            change(entry, state="cancelled", label="") if isinstance(entry, Watched | Got | Called | Kept) else entry
            for entry in CLEAN
        ],
    ),
    "not cancelled": ("cancellations unasked or untrue", _never_taken_back),
    "double lease": ("moments with more than one live lease a slot", _second_lease),
    "lease beside reviews": ("moments with more than one live lease a slot", _lease_beside_a_review),
    "two votes": ("deferrals that met one reviewer twice", _two_votes),
    "asked again": ("deferrals that met one reviewer twice", _again_after_review),
    "late": ("effects of stale tokens", _late_effect),
    "given back": ("effects of stale tokens", _retaken_effect),
    "after the end": ("effects of stale tokens", _effect_after_the_end),
    "two replies": (
        "requests answered in two ways",
        lambda: [*CLEAN, change(acted, code="FAILED_PRECONDITION", attempt=2)],
    ),
    "refused and kept": (
        "requests answered in two ways",
        lambda: [*without(acted), change(acted, code="FAILED_PRECONDITION")],
    ),
    "review lost": (
        "reviews lost, changed or made up",
        lambda: [*without(kept), change(kept, reviews=(), label="")],
    ),
    "review changed": (
        "reviews lost, changed or made up",
        lambda: [*without(kept), change(kept, reviews=(change(review, label="b"),), label="b")],
    ),
    "review made up": (
        "reviews lost, changed or made up",
        lambda: [*without(kept), change(kept, reviews=(review, change(review, reviewer="eve", request="r7")))],
    ),
    "wrong verdict": ("reviews lost, changed or made up", lambda: [*without(kept), change(kept, label="b")]),
    "untold": ("outcomes not told at least once under one id", lambda: without(called)),
    "never taken": (
        "outcomes not told at least once under one id",
        lambda: [*without(called), change(called, status=500)],
    ),
    "two ids": ("outcomes not told at least once under one id", lambda: [*CLEAN, change(called, id="e2")]),
    "one id, two outcomes": (
        "outcomes not told at least once under one id",
        lambda: [*CLEAN, change(called, deferral=TWO)],
    ),
    "bad signature": (
        "outcomes not told at least once under one id",
        lambda: [*CLEAN, Refused(time=12.0, reason="the signature is not ours")],
    ),
    "odd code": (
        "calls with an answer that nothing explains",
        lambda: [*CLEAN, change(replied, code="INTERNAL", deferral="")],
    ),
    "refused for nothing": (
        "calls with an answer that nothing explains",
        lambda: [*CLEAN, change(acted, request="r1", code="INVALID_ARGUMENT", attempt=2)],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_found_and_told_under_its_name(case: str) -> None:
    """Each way to break a promise is noticed by the judge of that promise."""
    promise, made = BROKEN[case]
    assert found(made()).get(promise), found(made())


def test_every_promise_has_a_history_that_breaks_it() -> None:
    """No judge goes untested."""
    assert {promise for promise, _ in BROKEN.values()} == {promise for promise, _ in check.PROMISES}


def test_an_outcome_that_was_seen_before_these_entries_may_not_come_again_under_another_cursor() -> None:
    """What an earlier check saw is remembered."""
    assert "deferrals with more than one outcome" in found(CLEAN, earlier={ONE: "0-9"})
    assert found(CLEAN, earlier={ONE: "1-0"}) == {}


def test_a_counter_that_differs_from_what_clients_saw_is_found() -> None:
    """A queue may say neither more nor less than what came out of it."""
    assert check.counted({"single": 2, "double": 0}, {"single": 2}) == []
    assert check.counted({"single": 3}, {"single": 2}) != []
    assert check.counted({"single": 2}, {"single": 3}) != []
