"""What a streamed run adds up to, from entries written by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.demo.counts import Tally
from benchmarks.demo.journal import Failed, Replied, Reviewed
from benchmarks.demo.stream import people, report, scores
from benchmarks.demo.stream.run import OPEN_MAX, pace
from gateway.samples import ClosingRow
from trainer.rows import CertificateRow, Row

FOUND = scores.make(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45]]), np.array([0, 1, 0, 1]))
ROWS = np.array([0, 3, 1, 3, 2])


def replied(index: int, label: str, *, certificate: str = "", deferral: str = "") -> Replied:
    return Replied(
        index=index,
        time=float(index),
        latency_ms=2.0,
        decision="deferred" if deferral else "answered",
        label=label,
        confidence=0.9,
        version="1",
        deferral=deferral,
        certificate=certificate,
    )


def tally(*more: object) -> Tally:
    made = Tally()
    made.add(
        [
            replied(0, "0", deferral="d1"),
            replied(1, "0", certificate="c1"),
            replied(2, "1", certificate="c1"),
            replied(3, "0", certificate="c1", deferral="d2"),
            replied(4, "0", certificate="c2"),
            Reviewed(deferral="d1", time=1.0, label="0", truth="0"),
            *more,  # type: ignore[list-item]  # entries
        ]
    )
    return made


def proofs() -> report.Proofs:
    made = report.Proofs(FOUND)
    for certificate, tau, requests in (("c1", 0.5, 1), ("c1", 0.5, 2), ("c2", 0.05, 4)):
        made.add(certificate, tau, requests)
    return made


def judge(
    entries: Tally, *, alpha: float = 0.3, requests: int = 5, left_open: int = 0, verified: bool = True
) -> list[str]:
    served = report.serve(entries.of(Replied), ROWS, FOUND)
    checks = report.judge(
        entries,
        served,
        proofs(),
        alpha=alpha,
        delta=0.05,
        requests=requests,
        left_open=left_open,
        verified=verified,
    )
    return [check.name for check in checks if not check.ok]


def test_only_answers_under_a_certificate_count() -> None:
    """What was deferred is nobody's error; an answer without a certificate is shown for itself."""
    served = report.serve(tally(replied(4, "0")).of(Replied), ROWS, FOUND)
    assert (served.requests, served.certified, served.wrong, served.uncertified) == (6, 3, 1, 1)
    assert (served.coverage, served.error) == (0.5, 1 / 3)
    assert report.serve([], ROWS, FOUND).error is None


def test_a_threshold_is_judged_by_the_whole_file_once() -> None:
    """However often it is told."""
    made = proofs()
    assert [(proof.certificate, proof.requests) for proof in made.all] == [("c1", 1), ("c2", 4)]
    assert [(proof.coverage, proof.risk) for proof in made.all] == [(0.5, 0.0), (1.0, 0.25)]
    assert (made.violations(0.3), made.violations(0.2)) == (0, 1)


def test_every_threshold_of_the_ledger_is_judged() -> None:
    """Also one that another took the place of in the same second, which nobody who asks now and then would see."""

    def closing(second: int) -> ClosingRow:
        return ClosingRow(second=second, gateway="a", eligible=10, answered=0, sampled=0, histogram=())

    def certificate(process: str, tau: float | None) -> CertificateRow:
        return CertificateRow(epoch=process, version="1", segment="", log_peaks=(), log_evidence=(), tau=tau)

    first: list[Row] = [
        closing(1),
        certificate("p", None),
        certificate("p", 0.5),
        certificate("p", 0.05),
        certificate("p", 0.05),
    ]
    made = report.proved([*first, closing(2), certificate("q", 0.5), certificate("p", 0.5)], FOUND)
    found = [(proof.certificate, proof.tau, proof.requests) for proof in made.all]
    assert found == [("p.1", 0.5, 10), ("p.2", 0.05, 10), ("q.1", 0.5, 20), ("p.3", 0.5, 20)]
    assert made.violations(0.2) == 1


def test_a_good_run_keeps_every_promise() -> None:
    """And each that is broken is named."""
    assert judge(tally()) == []
    assert judge(tally(), requests=6) == ["requests that came back"]
    failed = Failed(index=5, time=0.0, call="Predict", error="x")
    assert judge(tally(failed)) == ["failed requests"]
    assert judge(tally(), left_open=1) == ["deferrals and audits left open in the queue"]
    assert judge(tally(replied(4, "0")), requests=6) == ["answers that name no certificate"]
    strange = replied(4, "0", certificate="c3")
    assert judge(tally(strange), requests=6) == ["certificates in replies that the ledger does not have"]
    assert judge(tally(), verified=False) == ["`demur verify` agrees"]
    wrong = [replied(1, "0", certificate="c1") for _ in range(50)]
    assert judge(tally(*wrong), requests=55) == ["error among answers under a certificate"]


def test_the_summary_says_what_was_asked_for() -> None:
    """The last threshold's figures, and none where none is in force."""
    entries, made = tally(), proofs()
    served = report.serve(entries.of(Replied), ROWS, FOUND)
    standing = report.Standing(stage="certified", tau=0.05, audits=7, audits_needed=3)
    more = {"seconds": 1.0, "machine": "m"}
    found = report.summary(entries, served, made, standing, [], alpha=0.3, oracle=1.0, facts=more)
    assert (found["coverage_stream"], found["realised_error"]) == (0.6, 0.3333)
    assert (found["coverage_final"], found["certified_alpha"]) == (made.all[-1].coverage, 0.3)
    assert (found["audits"], found["violations"], found["deferred"]) == (7, 0, 2)
    report.render(found, made.all, [])
    found = report.summary(entries, served, made, report.Standing(), [], alpha=0.3, oracle=1.0, facts=more)
    assert (found["coverage_final"], found["certified_alpha"]) == (0.0, None)


def test_people_err_as_often_as_they_are_to_and_each_for_themselves() -> None:
    """Never where the rate is 0; two of them not at the same places."""
    shown = [people.show(number, number % 7) for number in range(4000)]
    assert people.row_of(shown[8]) == 1

    def wrong(reviewer: str, rate: float) -> set[int]:
        said = [people.answer(2, 5, subject=subject, reviewer=reviewer, seed=1, error_rate=rate) for subject in shown]
        assert set(said) <= set(range(5))
        return {number for number, label in enumerate(said) if label != 2}

    assert wrong("ann", 0.0) == set()
    ann, bob = wrong("ann", 0.1), wrong("bob", 0.1)
    assert 320 < len(ann) < 480
    assert len(ann & bob) < 80


def test_the_pace_falls_as_the_queue_fills() -> None:
    """Full below half, none when it is full."""
    assert pace(open_=0, per_second=100) == pace(open_=OPEN_MAX // 2, per_second=100) == 100
    assert 0 < pace(open_=OPEN_MAX * 3 // 4, per_second=100) < 100
    assert pace(open_=OPEN_MAX * 2, per_second=100) == 0
