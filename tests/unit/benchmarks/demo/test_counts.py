"""What a run adds up to, from entries written by hand."""

from __future__ import annotations

import pytest

from benchmarks.demo import counts
from benchmarks.demo.counts import Tally, Version
from benchmarks.demo.journal import Called, Entry, Failed, Refused, Replied, Told, Watched

VERSIONS = (
    Version(
        version="1",
        accuracy_holdout=0.88,
        deferred_share=0.4,
        auto_error=0.02,
        stream_requests=2,
        stream_deferred_share=0.5,
        stream_auto_error=0.0,
    ),
    Version(
        version="2",
        accuracy_holdout=0.93,
        deferred_share=0.3,
        auto_error=0.01,
        stream_requests=1,
        stream_deferred_share=0.0,
        stream_auto_error=0.0,
    ),
)


def replied(
    index: int, *, deferral: str = "", version: str = "1", label: str = "3", latency_ms: float = 2.0
) -> Replied:
    decision = "deferred" if deferral else "answered"
    return Replied(
        index=index,
        time=float(index),
        latency_ms=latency_ms,
        decision=decision,
        label=label,
        confidence=0.9,
        version=version,
        deferral=deferral,
    )


def called(
    event: str, *, deferral: str = "d1", kind: str = "deferral.resolved", label: str = "3", status: int = 200
) -> Called:
    return Called(id=event, time=1.0, type=kind, deferral=deferral, label=label, status=status)


def watched(deferral: str, *, audit: bool = False, label: str = "3", predicted: str = "3") -> Watched:
    return Watched(deferral=deferral, state="resolved", audit=audit, label=label, predicted=predicted)


def good_run() -> list[Entry]:
    """Three requests: one deferred, settled and called back; two answered, one of them audited and overturned."""
    return [
        replied(0, deferral="d1"),
        replied(1),
        replied(2, version="2"),
        watched("d1"),
        watched("a1", audit=True, label="8", predicted="3"),
        Told(deferral="d1", state="resolved", label="3"),
        called("e1", status=500),
        called("e1"),
        called("e2", deferral="a1", kind="answer.amended", label="8"),
    ]


def tally(*entries: Entry) -> Tally:
    made = Tally()
    made.add(entries)
    return made


def broken(made: Tally, swaps_goal: int = 1, versions: tuple[Version, ...] = VERSIONS, left_open: int = 0) -> list[str]:
    checks = counts.judge(made, versions, requests=3, swaps_goal=swaps_goal, left_open=left_open)
    return [check.name for check in checks if not check.ok]


def test_a_run_as_promised_breaks_nothing() -> None:
    """The three requests of the good run are all accounted for."""
    assert broken(tally(*good_run())) == []


def test_the_summary_has_every_figure_that_the_json_promises() -> None:
    """Requests are the answered and the deferred; audits and their amendments count apart."""
    made = tally(*good_run())
    checks = counts.judge(made, VERSIONS, requests=3, swaps_goal=1, left_open=0)
    got = counts.summary(made, VERSIONS, checks, {"machine": "one core"})
    assert got["requests"] == 3
    assert (got["answered"], got["deferred"], got["resolved"], got["callbacks_delivered"]) == (2, 1, 1, 1)
    assert (got["audited"], got["amended"], got["lost"], got["failed_requests"], got["swaps"]) == (1, 1, 0, 0, 1)
    assert got["callbacks_retried"] == 1
    assert got["ok"] is True
    assert got["machine"] == "one core"
    assert [version["version"] for version in got["versions"]] == ["1", "2"]  # type: ignore[attr-defined] # built-ins


def test_a_repeated_callback_is_one_event() -> None:
    """At least once on the wire, once by its id."""
    assert broken(tally(*good_run(), called("e1"))) == []


def test_two_different_events_for_one_deferral_are_two_outcomes() -> None:
    """An outcome told twice under different ids breaks the promise of exactly one."""
    assert broken(tally(*good_run(), called("e9"))) == [
        "deferrals that ended in exactly one outcome",
        "deferrals called back, each once by id",
    ]


@pytest.mark.parametrize(
    "missing",
    [Told, Watched, Called],
    ids=["the client that asks", "the stream of outcomes", "the callback"],
)
def test_an_outcome_must_be_seen_in_every_way(missing: type[Entry]) -> None:
    """A deferral whose outcome one of the three views does not show has not ended in exactly one."""
    entries = [entry for entry in good_run() if not (isinstance(entry, missing) and entry.deferral == "d1")]  # type: ignore[arg-type, union-attr, unused-ignore] # all three have it
    assert "deferrals that ended in exactly one outcome" in broken(tally(*entries))


def test_views_that_disagree_about_the_answer_are_not_one_outcome() -> None:
    """The callback says another label than the client was told."""
    entries = [entry for entry in good_run() if not (isinstance(entry, Called) and entry.deferral == "d1")]
    assert broken(tally(*entries, called("e1", label="5"))) == ["deferrals that ended in exactly one outcome"]


def test_a_deferral_that_stays_open_is_lost() -> None:
    """Its client asked at the end and it had no outcome."""
    entries = [entry for entry in good_run() if not isinstance(entry, Told)]
    made = tally(*entries, Told(deferral="d1", state="open", label=""))
    assert counts.lost(made) == 1
    assert "deferrals lost" in broken(made)


def test_an_item_that_nobody_answered_breaks_its_promise() -> None:
    """Audits too, of which no client has a name."""
    assert broken(tally(*good_run()), left_open=1) == ["deferrals and audits left open in the queue"]


def test_a_failed_request_breaks_its_promise_whatever_came_back_later() -> None:
    """No request may fail, swap or not."""
    made = tally(*good_run(), Failed(index=4, time=1.0, call="Predict", error="UNAVAILABLE"))
    assert broken(made) == ["failed requests, during swaps or not"]


def test_a_callback_that_the_receiver_refused_breaks_its_promise() -> None:
    """A bad signature is never normal."""
    assert broken(tally(*good_run(), Refused(time=1.0, reason="no"))) == ["callbacks with a bad signature or body"]


def test_an_overturned_audit_without_its_amendment_breaks_its_promise() -> None:
    """An audit that overturns calls back; one that confirms does not."""
    entries = [e for e in good_run() if not (isinstance(e, Called) and e.type == "answer.amended")]
    assert broken(tally(*entries)) == ["amendments called back, one for each overturned audit"]
    confirmed = tally(*good_run(), watched("a2", audit=True))
    assert (len(confirmed.audits()), confirmed.overturned()) == (2, 1)


def test_too_few_swaps_and_no_gain_break_their_promises() -> None:
    """The last version must beat the first, not equal it."""
    assert broken(tally(*good_run()), swaps_goal=2) == ["hot swaps while requests went on"]
    assert broken(tally(*good_run()), versions=VERSIONS[:1]) == [
        "accuracy gained on the hold-out, last version over first"
    ]


def test_what_a_version_served_is_counted_from_the_clients_replies() -> None:
    """Requests, share deferred, and error among the answered, which is none where nothing was answered."""
    truth = ("3", "3", "5")
    got = counts.served([replied(0), replied(1, deferral="d"), replied(2)], truth)
    assert got["1"].requests == 3
    assert got["1"].deferred_share == pytest.approx(1 / 3)
    assert got["1"].auto_error == 0.5
    none = counts.served([replied(0, deferral="d")], truth)
    assert none == {"1": counts.Served(requests=1, deferred_share=1.0, auto_error=None)}
