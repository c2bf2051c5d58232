from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from fallback.errors import InvalidError
from gateway.samples import ClosingRow, JoinRow, SampledRecord, Scored
from trainer.rows import LabelRow, LostRow, ProcessRow
from trainer.watermark import Arrival, Counted, Pending, arrive, count, evidence, forget

SLA = 100
PROCESS = ProcessRow(
    epoch="1",
    version="7",
    scorer="margin",
    segment="",
    alpha=0.01,
    delta=0.05,
    grid=(0.9, 0.5),
    first_second=0,
    last_second=1_000,
)
SCORED = Scored(version="7", scorer="margin", confidence=0.8, prediction='"cat"', eligible=True)


def _record(second: int, gateway: str = "a", counter: int = 1, **changes: Any) -> SampledRecord:
    record = SampledRecord(
        second=second,
        gateway=gateway,
        counter=counter,
        model="m",
        epoch="1",
        segment="",
        request_key=f"{gateway}/{second}/{counter}",
        q=0.5,
        floor=0.2,
        draw=0.1,
        scored=(SCORED,),
    )
    return msgspec.structs.replace(record, **changes)


def _label(record: SampledRecord, *wrong: str, truth: str | None = '"cat"') -> LabelRow:
    return LabelRow(
        second=record.second, gateway=record.gateway, counter=record.counter, truth=truth, wrong=tuple(wrong)
    )


def _closing(second: int, gateway: str = "a", sampled: int = 0, *, final: bool = False) -> ClosingRow:
    return ClosingRow(
        second=second, gateway=gateway, eligible=9, answered=5, sampled=sampled, histogram=(), final=final
    )


JOIN = JoinRow(second=0, gateway="a")
JOIN_B = JoinRow(second=0, gateway="b")


def _counted(rows: Iterable[Arrival], reached: int = 0) -> tuple[int, list[tuple[int, str, int | None, bool]]]:
    """Return the watermark and (second, gateway, counter, error of version 7) of what it passed."""
    pending, counted = count(arrive(Pending(), rows), reached=reached, sla_seconds=SLA)
    return pending.passed, [
        (each.second, each.gateway, each.record.counter if each.record else None, each.error("7")) for each in counted
    ]


def test_records_count_in_the_order_of_second_gateway_and_counter() -> None:
    """However they, and their labels, come."""
    records = [_record(2), _record(1, counter=2), _record(1, "b"), _record(1)]
    rows: list[Arrival] = [JOIN_B, JOIN, *records, *(_label(record) for record in records)]
    closings = [_closing(1, "b", 1), _closing(2, "b"), _closing(1, "a", 2), _closing(2, "a", 1)]
    expected = [(1, "a", 1, False), (1, "a", 2, False), (1, "b", 1, False), (2, "a", 1, False)]
    assert _counted([*rows, *closings]) == (2, expected)


def test_every_live_gateway_must_have_closed_the_second() -> None:
    """One that is slow, or only just joined, holds the watermark; one that ended in good order does not."""
    record = _record(1)
    rows: list[Arrival] = [JOIN, JOIN_B, record, _label(record), _closing(5, "a"), _closing(3, "b")]
    assert _counted([JOIN, JOIN_B, _closing(5, "a"), _closing(3, "b")])[0] == 3
    assert _counted([JOIN, JOIN_B, _closing(5, "a"), _closing(3, "b", final=True)])[0] == 5
    assert _counted([JOIN, _closing(5, "a"), JoinRow(second=4, gateway="b")])[0] == 3
    with pytest.raises(InvalidError, match="counted 1 records fewer"):
        _counted(rows)


def test_a_label_is_waited_for_until_its_time_is_over() -> None:
    """Then it is an error for good, and a label that comes later changes nothing."""
    record = _record(3)
    pending = arrive(Pending(), [JOIN, record, _closing(3, "a", 1), _closing(9, "a")])
    waiting, counted = count(pending, reached=3 + SLA, sla_seconds=SLA)
    assert (waiting.passed, counted) == (2, ())
    over, counted = count(waiting, reached=3 + SLA + 1, sla_seconds=SLA)
    assert over.passed == 9
    assert [each.error("7") for each in counted] == [True]
    late = arrive(over, [_label(record)])
    assert late.labels == {}


@pytest.mark.parametrize(
    ("label", "error"),
    [(_label(_record(1)), False), (_label(_record(1), "7"), True), (_label(_record(1), truth=None), True)],
)
def test_what_a_label_says(label: LabelRow, error: bool) -> None:
    """Right, wrong, or no truth at all, which counts as wrong."""
    assert _counted([JOIN, _record(1), label, _closing(1, "a", 1)]) == (1, [(1, "a", 1, error)])


def test_who_was_not_drawn_is_not_waited_for() -> None:
    """Reviewed with the model's help, or not at all: a factor of 1."""
    passed, counted = _counted([JOIN, _record(1, draw=0.5), _closing(1, "a", 1)])
    assert (passed, len(counted)) == (1, 1)


def test_a_record_that_never_came_is_an_error_at_the_head_of_its_second() -> None:
    """It is waited for as long as a label is."""
    record = _record(2, counter=3)
    rows: list[Arrival] = [JOIN, record, _label(record), _closing(2, "a", 2)]
    assert _counted(rows, reached=2 + SLA) == (1, [])
    assert _counted(rows, reached=2 + SLA + 1) == (2, [(2, "a", None, True), (2, "a", 3, False)])


def test_the_unclosed_seconds_of_a_lost_gateway_are_left_out_whole() -> None:
    """What it closed counts, what it had not closed never does, even what comes afterwards."""
    closed, unclosed, late = _record(1, "b"), _record(2, "b"), _record(3, "b")
    rows: list[Arrival] = [
        JOIN,
        JOIN_B,
        closed,
        unclosed,
        _label(closed),
        _closing(1, "b", 1),
        _closing(5, "a"),
        LostRow(gateway="b"),
    ]
    pending = arrive(Pending(), [*rows, late, _closing(4, "b")])
    pending, counted = count(pending, reached=0, sla_seconds=SLA)
    assert (pending.passed, pending.left_out, len(counted)) == (5, 2, 1)


def test_a_record_of_a_closed_second_still_counts_after_its_gateway_was_lost() -> None:
    """It was on its way."""
    record = _record(1, "b")
    rows: list[Arrival] = [
        JOIN,
        JOIN_B,
        _closing(1, "b", 1),
        _closing(5, "a"),
        LostRow(gateway="b"),
        record,
        _label(record),
    ]
    assert _counted(rows) == (5, [(1, "b", 1, False)])


def test_who_joins_late_counts_from_then_on() -> None:
    """Seconds that were passed before it joined stay as they are."""
    pending, _ = count(arrive(Pending(), [JOIN, _closing(10, "a")]), reached=10, sla_seconds=SLA)
    record = _record(10, "b")
    pending = arrive(pending, [JoinRow(second=5, gateway="b"), record])
    assert (pending.left_out, pending.spans["b"].first) == (1, 11)


def test_a_key_counts_once() -> None:
    """A retry that reached another gateway, or a later second, is no second request; in another epoch it is."""
    first, again, other = (
        _record(1, request_key="k"),
        _record(2, request_key="k"),
        _record(3, request_key="k", epoch="2"),
    )
    rows: list[Arrival] = [JOIN, first, again, other, *(_label(each) for each in (first, again, other))]
    pending = arrive(Pending(), [*rows, _closing(1, "a", 1), _closing(2, "a", 1), _closing(3, "a", 1)])
    pending, counted = count(pending, reached=0, sla_seconds=SLA)
    assert [each.second for each in counted] == [1, 3]
    assert {epoch: len(keys) for epoch, keys in forget(pending, "1").keys.items()} == {"2": 1}


def test_what_comes_twice_counts_once() -> None:
    """The first record, and the first label, stand."""
    record = _record(1)
    rows: list[Arrival] = [JOIN, JOIN, record, record, _label(record, "7"), _label(record), _closing(1, "a", 1)]
    assert _counted(rows) == (1, [(1, "a", 1, True)])


def test_no_gateway_goes_back_in_time() -> None:
    """Nor closes what it never joined."""
    with pytest.raises(InvalidError, match="closed second 4 after second 5"):
        arrive(Pending(), [JOIN, _closing(5, "a"), _closing(4, "a")])
    with pytest.raises(InvalidError, match="to join before"):
        arrive(Pending(), [_closing(5, "a")])
    with pytest.raises(InvalidError, match="to join before"):
        arrive(Pending(), [_record(5)])


def _columns(record: SampledRecord | None, process: ProcessRow = PROCESS, *wrong: str) -> list[tuple[float, ...]]:
    label = _label(record, *wrong) if record else None
    found = evidence([Counted(second=5, gateway="a", record=record, label=label)], process)
    return list(zip(found.confidence.tolist(), found.weight.tolist(), found.error.tolist(), strict=True))


def test_what_a_record_says_to_a_process() -> None:
    """Its own version's confidence and error, and how likely a review was; other segments and seconds say nothing."""
    record = _record(5)
    assert _columns(record) == [(0.8, 0.4, 0.0)]
    assert _columns(record, PROCESS, "7") == [(0.8, 0.4, 1.0)]
    assert _columns(_record(5, draw=0.5)) == []
    assert _columns(record, msgspec.structs.replace(PROCESS, segment="north")) == []
    assert _columns(_record(5, segment="north"), msgspec.structs.replace(PROCESS, segment="north")) == [(0.8, 0.4, 0.0)]
    assert _columns(_record(5, segment="north")) == []
    assert _columns(record, msgspec.structs.replace(PROCESS, first_second=6)) == []
    assert _columns(record, msgspec.structs.replace(PROCESS, last_second=4)) == []
    ruled_out = msgspec.structs.replace(SCORED, eligible=False)
    assert _columns(_record(5, scored=(ruled_out,))) == []


def test_a_challenger_is_judged_by_its_own_word() -> None:
    """By its own confidence and prediction, with the draw of the request as it was served."""
    challenger = Scored(version="8", scorer="margin", confidence=0.3, prediction='"dog"', eligible=True)
    record = _record(5, scored=(SCORED, challenger))
    assert _columns(record, msgspec.structs.replace(PROCESS, version="8"), "8") == [(0.3, 0.4, 1.0)]


def test_what_nobody_knows_counts_as_wrong_everywhere() -> None:
    """A record that never came, and one that does not say what the version thought."""
    assert _columns(None) == [(np.inf, 1.0, 1.0)]
    other = msgspec.structs.replace(PROCESS, version="8")
    assert _columns(_record(5), other) == [(np.inf, 1.0, 1.0)]
    assert _columns(_record(5, segment="north"), other) == [(np.inf, 1.0, 1.0)], "nor where they put it"
    assert _columns(_record(5), msgspec.structs.replace(PROCESS, scorer="energy")) == [(np.inf, 1.0, 1.0)]
