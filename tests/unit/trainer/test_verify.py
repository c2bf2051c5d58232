from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.policy import draw
from gateway.promise import Promise
from gateway.samples import ClosingRow, SampledRecord, commit
from tests.statistics.fleet import EACH, GATEWAYS, TICKS, Fleet, Trouble, arrivals, process_of, request_key
from tests.statistics.simulation import Bands, Floats
from trainer.certificate import State, advance, begin, log_evidence, tau
from trainer.rows import (
    CertificateRow,
    EpochRow,
    LabelRow,
    Link,
    ProcessRow,
    RevealRow,
    Row,
    WatermarkRow,
    chain,
    genesis,
    link,
)
from trainer.verify import Finding, verify
from trainer.watermark import Pending, arrive, count, evidence

SECRET = bytes(range(32))
BANDS = Bands(coverage=np.array([0.4, 0.6, 1.0]), risk=np.array([0.01, 0.02, 0.2]))
TROUBLE = Trouble(hole_share=0.002, never_share=0.002, down_seconds=40, lost=True, skew=3)


class HonestFleet(Fleet):
    """One run whose draws are what the gateway's would be."""

    def draws(self, tick: int) -> Floats:
        keys = [[request_key(gateway, tick, number) for number in range(EACH)] for gateway in range(GATEWAYS)]
        return np.array([[[draw(SECRET, model="m", epoch="1", request_key=key) for key in each] for each in keys]])


def _ledger() -> list[Row]:
    """Return every row of a run with crashes, holes and late labels, as the running system would write them."""
    fleet = HonestFleet(bands=BANDS, promise=Promise(alpha=0.1), audit_share=0.3, trouble=TROUBLE, runs=1, seed=5)
    fleet.run()
    process = process_of(fleet)
    rows: list[Row] = [
        EpochRow(model="m", epoch="1", commitment=commit(SECRET), sla_seconds=TROUBLE.sla_seconds, exact=False),
        process,
    ]
    pending, state, grid = Pending(), begin(len(process.grid)), np.array(process.grid)
    for tick, arrived in arrivals(fleet, 0).items():
        rows.extend(arrived)
        pending, counted = count(arrive(pending, arrived), reached=tick, sla_seconds=TROUBLE.sla_seconds)
        if counted:
            state = advance(state, evidence(counted, process), grid, process.alpha)
            proved = CertificateRow(
                epoch="1",
                version="1",
                segment="",
                log_peaks=tuple(state.peaks.tolist()),
                log_evidence=tuple(log_evidence(state).tolist()),
                tau=tau(state, grid, process.delta),
            )
            rows += [WatermarkRow(second=pending.passed, reached=tick), proved]
    assert pending.passed >= TICKS - 1
    return [*rows, RevealRow(epoch="1", secret=SECRET.hex())]


@pytest.fixture(scope="module")
def ledger() -> list[Row]:
    return _ledger()


def _verified(rows: list[Row]) -> Finding:
    return verify("m", link(genesis("m"), rows))


def test_a_true_ledger_agrees_row_by_row(ledger: list[Row]) -> None:
    """The plain computation comes to the same as the arrays, through crashes, holes and labels that never came."""
    finding = _verified(ledger)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.rows == len(ledger)
    assert finding.records == sum(isinstance(row, SampledRecord) for row in ledger)
    assert finding.certificates > 50
    assert finding.unrevealed == ()
    last = next(row for row in reversed(ledger) if isinstance(row, CertificateRow))
    assert last.tau == pytest.approx(0.4)


def test_a_walk_from_several_places_is_gone_again(ledger: list[Row]) -> None:
    """By the shares that the process began with: another tau than theirs is found, and so are shares of too much."""
    process = ledger[1]
    assert isinstance(process, ProcessRow)
    shares = (1e-10, 1e-7, 0.9)
    begun = msgspec.structs.replace(process, shares=shares)
    rows = [ledger[0], begun, *(_by_shares(row, begun) for row in ledger[2:])]
    assert _verified(rows).reason == ""
    first = next(row for row in rows if isinstance(row, CertificateRow) and row.tau is not None)
    assert first.tau == pytest.approx(0.4), "though the strictest is not proved"
    assert first.log_peaks[0] < -np.log(0.05e-10)
    assert first.log_peaks[1] >= -np.log(0.05e-7)
    assert "tau: the row says None, its evidence says 0.4" in _verified([*rows[:1], process, *rows[2:]]).reason
    for wrong in ((0.1, 0.9), (0.0, 1.0, 0.0), (0.5, 0.6, 0.0), (0.5, -0.1, 0.0)):
        assert "shares of delta" in _verified(_changed(rows, 1, shares=wrong)).reason


def _by_shares(row: Row, process: ProcessRow) -> Row:
    if not isinstance(row, CertificateRow):
        return row
    state = State(logs=np.zeros((6, 3)), peaks=np.array(row.log_peaks))
    return msgspec.structs.replace(row, tau=tau(state, np.array(process.grid), process.delta, process.shares))


def test_before_the_secret_is_out_the_draws_are_open(ledger: list[Row]) -> None:
    """A ledger under way agrees, and says of which epochs the draws cannot be checked yet."""
    finding = _verified(ledger[:-1])
    assert finding.agrees
    assert finding.unrevealed == ("1",)


def test_a_changed_byte_is_found_where_it_is(ledger: list[Row]) -> None:
    """Without touching the digests: the chain itself breaks at that row."""
    links = link(genesis("m"), ledger)
    links[70] = msgspec.structs.replace(links[70], body=links[70].body.replace(b"0", b"1", 1))
    finding = verify("m", links)
    assert (finding.place, finding.reason) == (70, "the digest does not follow from the rows before")


def test_a_row_left_out_is_found(ledger: list[Row]) -> None:
    """The one after it no longer follows."""
    links = link(genesis("m"), ledger)
    assert verify("m", [*links[:50], *links[51:]]).place == 50


def _first(kind: type[Row], rows: list[Row], *, after: int = 0, such: Callable[[Any], bool] = bool) -> int:
    return next(place for place, row in enumerate(rows) if place >= after and isinstance(row, kind) and such(row))


def _changed(rows: list[Row], place: int, **fields: Any) -> list[Row]:
    """Return the rows with one forged, and every digest made anew, as somebody with the whole ledger could."""
    return [*rows[:place], msgspec.structs.replace(rows[place], **fields), *rows[place + 1 :]]


def test_a_forged_tau_is_found(ledger: list[Row]) -> None:
    """A tau that is looser than its evidence."""
    place = _first(CertificateRow, ledger, such=lambda row: row.tau is None)
    finding = _verified(_changed(ledger, place, tau=float(BANDS.thresholds[0])))
    assert finding.place == place
    assert "tau" in finding.reason


def test_forged_evidence_is_found(ledger: list[Row]) -> None:
    """A supremum that its records do not give, whichever way tau follows from it."""
    place = _first(CertificateRow, ledger, after=300)
    row = ledger[place]
    assert isinstance(row, CertificateRow)
    finding = _verified(_changed(ledger, place, log_peaks=tuple(peak + 0.01 for peak in row.log_peaks)))
    assert finding.place == place
    assert "ln sup K" in finding.reason


def test_an_error_made_good_is_found(ledger: list[Row]) -> None:
    """A label turned from wrong to right shows at the first certificate that rests on it."""
    place = _first(LabelRow, ledger, such=lambda row: row.wrong)
    finding = _verified(_changed(ledger, place, wrong=()))
    assert finding.place is not None
    assert isinstance(ledger[finding.place], CertificateRow)
    assert "ln K" in finding.reason


def test_an_impossible_wrong_is_found_where_answers_are_exact(ledger: list[Row]) -> None:
    """Of labels, the truth alone says which version was wrong."""
    finding = _verified(_changed(ledger, 0, exact=True))
    assert "its label says" in finding.reason


def test_a_forged_draw_is_found_at_its_record(ledger: list[Row]) -> None:
    """Once the secret is out, a draw that is not the hash's is named, wherever it is."""
    place = _first(SampledRecord, ledger, after=400, such=lambda row: row.q == 1)
    finding = _verified(_changed(ledger, place, draw=0.123))
    assert finding.place == place
    assert "draw" in finding.reason


def test_another_secret_is_found(ledger: list[Row]) -> None:
    """Only the one that was committed to counts."""
    finding = _verified(_changed(ledger, len(ledger) - 1, secret="00" * 32))
    assert finding.place == len(ledger) - 1
    assert "secret" in finding.reason


def test_a_grid_chosen_after_the_fact_is_found(ledger: list[Row]) -> None:
    """A process must begin before the records that it counts."""
    late = [ledger[0], *ledger[2:200], ledger[1], *ledger[200:]]
    finding = _verified(late)
    assert finding.place == 199
    assert "already there" in finding.reason


def test_a_watermark_that_does_not_wait_is_found(ledger: list[Row]) -> None:
    """Neither for a label that is due, nor for a gateway."""
    place = _first(WatermarkRow, ledger)
    row = ledger[place]
    assert isinstance(row, WatermarkRow)
    finding = _verified(_changed(ledger, place, second=TICKS + 50))
    assert finding.place == place
    assert "gateways closed" in finding.reason
    assert "still due" in _verified(_changed(ledger, 0, sla_seconds=100_000)).reason


def test_a_record_that_vanished_counts_against_its_second(ledger: list[Row]) -> None:
    """Its closing row still counts it: whoever takes an error out of the ledger gains nothing."""
    wrong = ledger[_first(LabelRow, ledger, such=lambda row: row.wrong)]
    assert isinstance(wrong, LabelRow)
    gone = [row for row in ledger if not (isinstance(row, SampledRecord) and row.place == wrong.place)]
    assert "lacks 1 records" in _verified(gone).reason


def test_rows_out_of_order_are_found(ledger: list[Row]) -> None:
    """A second closed twice, a gateway that never joined, an epoch that begins twice, q below the floor."""
    closing = _first(ClosingRow, ledger)
    again = [*ledger[: closing + 1], ledger[closing], *ledger[closing + 1 :]]
    assert _verified(again).place == closing + 1
    assert "did not join" in _verified(_changed(ledger, closing, gateway="nobody")).reason
    assert "begins twice" in _verified([ledger[0], ledger[0]]).reason
    assert "begins twice" in _verified([ledger[0], ledger[1], ledger[1]]).reason
    record = _first(SampledRecord, ledger)
    assert "floor" in _verified(_changed(ledger, record, q=0.1, floor=0.3)).reason
    process = ledger[1]
    assert isinstance(process, ProcessRow)
    assert "strictest" in _verified(_changed(ledger, 1, grid=process.grid[::-1])).reason


@pytest.mark.parametrize("field", ["alpha", "delta"])
@pytest.mark.parametrize("value", [-0.1, 0.0, 0.51, 1.0, 2.0])
def test_a_promise_that_nobody_can_make_is_found(ledger: list[Row], field: str, value: float) -> None:
    """Alpha and delta are as a policy may say them; those of the processes that are promised are told."""
    finding = _verified(_changed(ledger, 1, **{field: value}))
    assert finding.place == 1
    assert finding.reason == f"a process with {field} {value}: expected above 0 and at most 0.5"
    assert finding.processes == ()
    assert _verified(_changed(ledger[:2], 1, **{field: 0.5})).agrees
    assert _verified(ledger[:2]).processes == (ledger[1],)


@pytest.mark.parametrize(
    "body",
    [b'{"type":"epic"}', b'{"type":"lost","gateway":"\xff"}', b'{"type":"lost","gateway":"a","x":' + b"[" * 100_000],
)
def test_what_is_no_row_is_found(body: bytes) -> None:
    """Never an exception."""
    finding = verify("m", [Link(body=body, digest=chain(genesis("m"), body))])
    assert finding.place == 0
    assert "expected a row" in finding.reason
