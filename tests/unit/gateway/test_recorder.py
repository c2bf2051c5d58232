"""What a gateway records: nothing is lost, doubled or closed too early, whatever dies when."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallback.errors import DemurError, FullError, UnavailableError
from gateway import adoption, recorder
from gateway.adoption import adopt
from gateway.recorder import Recorded
from gateway.sampler import IDLE_SECONDS, Counts
from gateway.samples import place_text
from gateway.shipment import Shipment
from gateway.spool import SPARE_BYTES
from tests.unit.gateway.fleet import MIB, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "spools")
    yield fleet
    for shipment in fleet.recorder.shipments:
        shipment.spool.close()


STEPS = st.one_of(
    st.tuples(st.just("batch"), st.lists(st.booleans(), max_size=3), st.integers(0, 2)),
    st.tuples(st.just("go"), st.floats(0, 15)),
    st.tuples(st.just("back"), st.floats(0, 15)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("ship"), st.booleans()),
    st.tuples(st.just("park")),
    st.tuples(st.just("crash"), st.integers(0, 2_000)),
    st.tuples(st.just("stop")),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=30))
def test_nothing_is_lost_whatever_dies_when(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    """Through crashes within a write and between sending and the mark, steps of the clock and orderly ends: each record
    that was acknowledged comes, its audit is parked, every second is closed after its records and with their number.
    """  # noqa: D205 - one sentence needs two lines
    fleet = Fleet(tmp_path_factory.mktemp("spools"), bytes_max=64 * 1024)
    back = False
    for step, *arguments in steps:
        match step:
            case "batch":
                fleet.batch(arguments[0], others=arguments[1])
            case "go":
                fleet.go(arguments[0])
            case "back":
                fleet.wall -= arguments[0]
                back = True
            case "tick":
                fleet.tick()
            case "ship":
                fleet.ship(crashes=arguments[0])
            case "park":
                fleet.park()
            case "crash":
                fleet.crash(torn=arguments[0])
            case "stop":
                fleet.stop()
                fleet.start()
    fleet.finish()
    evidence = fleet.evidence
    places = {record.place for record in evidence.records}
    assert fleet.acknowledged.keys() <= places
    audited = {f"k{number}" for number, each in enumerate(fleet.acknowledged.values(), 1) if each}
    assert audited <= set(fleet.parked)
    assert evidence.live == []
    assert evidence.holes == 0
    # A gateway that starts when the time of day was set back joins in seconds that others closed.
    assert back or evidence.pending.left_out == 0
    assert back or {each.record.place for each in evidence.counted if each.record} == places
    assert not [*fleet.root.glob("*/*")]


def test_rows_come_in_the_order_that_counts(fleet: Fleet) -> None:
    """A gateway joins, records, closes each second with the number of its records, also when nothing comes after."""
    fleet.batch([True, False], others=3)
    fleet.go(1)
    fleet.batch([False])
    fleet.go(1)
    fleet.tick()
    fleet.ship()
    kinds = [type(row).__name__ for row in fleet.evidence.rows]
    assert kinds == ["JoinRow", "SampledRecord", "SampledRecord", "ClosingRow", "SampledRecord", "ClosingRow"]
    assert [(row.eligible, row.answered, row.sampled) for row in fleet.evidence.closings] == [(5, 3, 2), (1, 0, 1)]


def test_threads_that_record_and_one_that_closes_do_not_mix(tmp_path: Path) -> None:
    """Batches of several threads beside ticks and sending: a second is closed once, after all records of it."""
    fleet = Fleet(tmp_path / "spools", bytes_max=64 * MIB)
    ended = threading.Event()
    lock = threading.Lock()

    def asks() -> None:
        while not ended.is_set():
            with fleet.recorder.turn() as turn:
                place = turn.place()
                turn.write(fleet.entries(place, str(place), audited=True), Counts(eligible=1, sampled=1), {})
            with lock:
                fleet.acknowledged[place] = True
                fleet.go(0.01)
            time.sleep(0.001)

    threads = [threading.Thread(target=asks) for _ in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        fleet.tick()
        fleet.ship()
        fleet.park()
    ended.set()
    for thread in threads:
        thread.join()
    fleet.finish()
    assert {record.place for record in fleet.evidence.records} == fleet.acknowledged.keys()
    assert (fleet.evidence.holes, fleet.evidence.live, fleet.evidence.pending.left_out) == (0, [], 0)
    assert len(fleet.parked) == len(fleet.acknowledged)


def test_an_idle_gateway_closes_its_seconds(fleet: Fleet) -> None:
    """While nobody asks others need not wait for it; it says so every ten seconds."""
    fleet.batch([])
    for _ in range(3 * IDLE_SECONDS):
        fleet.go(1)
        fleet.tick()
    fleet.ship()
    assert len(fleet.evidence.closings) in {3, 4}
    assert fleet.evidence.pending.passed >= int(fleet.wall) - IDLE_SECONDS - 1


def test_a_gateway_that_was_silent_for_long_takes_another_name(fleet: Fleet) -> None:
    """What was recorded before the silence ends with the old name; the new one goes on, and nothing is left out."""
    fleet.batch([True])
    fleet.ship()
    old = fleet.recorder.gateway
    fleet.batch([True])
    fleet.go(601)
    fleet.batch([True])
    fleet.tick()
    fleet.batch([True])
    assert fleet.recorder.gateway not in {"", old}
    fleet.go(5_000)
    fleet.tick()
    assert len(fleet.recorder.shipments) == 2, "a name that nobody heard of was not declared lost"
    fleet.finish()
    assert fleet.evidence.gateways == [old, *{record.gateway for record in fleet.evidence.records} - {old}]
    assert (fleet.evidence.live, fleet.evidence.holes, fleet.evidence.pending.left_out) == ([], 0, 0)
    assert len(fleet.evidence.records) == 4


def test_a_name_that_was_given_up_is_left_for_another(fleet: Fleet) -> None:
    """Nothing under it would count; who is given up again and again takes another name no more than once a minute."""
    fleet.batch([True])
    names = [fleet.recorder.gateway]
    for _ in range(3):
        fleet.go(1)
        with fleet.recorder.turn({names[0]: "silent", fleet.recorder.gateway: "its clock is ahead"}):
            pass
        names.append(fleet.recorder.gateway)
    assert len({*names}) == 2
    fleet.go(60)
    with fleet.recorder.turn({fleet.recorder.gateway: "its clock is ahead"}):
        assert fleet.recorder.gateway not in names
    fleet.batch([False])
    fleet.go(1)
    fleet.tick()
    fleet.park()
    fleet.ship()
    assert [record.gateway for record in fleet.evidence.records] == [names[0], fleet.recorder.gateway]
    assert fleet.evidence.live == [fleet.recorder.gateway]
    assert (fleet.evidence.holes, fleet.evidence.pending.left_out) == (0, 0)


def test_what_is_sampled_is_refused_while_the_spool_is_full(tmp_path: Path) -> None:
    """Nothing is recorded beyond the limit; what is answered unsampled is counted all the same, and room is found."""
    fleet = Fleet(tmp_path / "spools", bytes_max=2_000)
    with pytest.raises(FullError, match="spool_bytes_max"):
        fleet.fill()
    taken = len(fleet.acknowledged)
    assert taken
    with fleet.recorder.turn() as turn:
        turn.count(Counts(eligible=7, answered=7))
    fleet.go(1)
    fleet.tick()
    fleet.park()
    fleet.ship()
    fleet.go(1)
    fleet.batch([True])
    fleet.finish()
    assert len(fleet.evidence.records) == taken + 1
    assert sum(row.answered for row in fleet.evidence.closings) == 7
    assert fleet.evidence.holes == 0


def test_seconds_wait_while_the_disk_takes_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What closes a second is written once the disk takes it; seconds without a record meanwhile become one row.

    For some seconds after a write that failed nothing is recorded, that it does not depend on what has room.
    """
    fleet.batch([True])

    def fails(*_: object) -> int:
        raise OSError(5, "broken")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fails)
        for _ in range(18):
            fleet.go(1)
            with pytest.raises(UnavailableError):
                fleet.batch([True])
            with fleet.recorder.turn() as turn:
                turn.count(Counts(eligible=1, answered=1))
            fleet.tick()
    fleet.go(1)
    with pytest.raises(UnavailableError):
        fleet.batch([True])
    fleet.go(5)
    fleet.batch([True])
    fleet.finish()
    assert [(row.answered, row.sampled) for row in fleet.evidence.closings] == [(0, 1), (18, 0), (0, 1)]
    assert fleet.evidence.holes == 0


def test_a_disk_that_is_no_disk_refuses_what_is_sampled(tmp_path: Path) -> None:
    """Where not even a spool can be made, a turn says why; it is made once it can be."""
    (tmp_path / "spools").write_text("a file")
    fleet = Fleet(tmp_path / "spools")
    with pytest.raises(UnavailableError):
        fleet.batch([True])
    (tmp_path / "spools").unlink()
    fleet.batch([True])
    fleet.finish()
    assert len(fleet.evidence.records) == 1


def test_nothing_is_recorded_after_the_end(fleet: Fleet) -> None:
    """A batch that comes when the gateway has ended is refused."""
    fleet.batch([True])
    fleet.recorder.close()
    with pytest.raises(UnavailableError, match="stopping"):
        fleet.batch([True])
    fleet.finish()
    assert len(fleet.evidence.records) == 1


def test_what_is_told_of_a_record_outlives_a_crash(fleet: Fleet) -> None:
    """It stands behind its record, and whoever takes over the spool sends it and closes it all the same."""
    (place,) = fleet.batch([False])
    fleet.recorder.unparked([place_text(place)])
    fleet.crash()
    fleet.finish()
    assert fleet.evidence.unparked == [place]
    assert fleet.evidence.holes == 0
    assert place in {record.place for record in fleet.evidence.records}


def test_a_request_is_known_again_after_a_crash(fleet: Fleet) -> None:
    """What a dead gateway recorded keeps its place when its client tries again at the next one."""
    (place,) = fleet.batch([True])
    fleet.crash()
    with fleet.recorder.turn() as turn:
        assert turn.recorded(("e", "k1")) == Recorded(place=place, audited=True)
        assert turn.recorded(("another", "k1")) is None


def test_as_many_keys_are_remembered_as_there_is_room_for(fleet: Fleet) -> None:
    """The oldest is forgotten; its request would be recorded once more, and counted once."""
    for _ in range(101):
        fleet.batch([False])
    with fleet.recorder.turn() as turn:
        assert turn.recorded(("e", "k1")) is None
        assert turn.recorded(("e", "k2")) is not None


def test_after_the_death_of_the_machine_the_last_seconds_are_not_closed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be missing is not counted: the certifier waits for the gateway until it declares it lost."""
    fleet.batch([True])
    fleet.go(1)
    fleet.batch([True, True])
    (old,) = {place[1] for place in fleet.acknowledged}
    for module in (adoption, recorder):
        monkeypatch.setattr(module, "boot", lambda: "another")
    fleet.crash()
    fleet.park()
    fleet.ship()
    assert fleet.evidence.live == [old]
    assert len(fleet.evidence.records) == 3
    assert {"k1", "k2", "k3"} <= set(fleet.parked)
    assert not [*fleet.root.glob(f"*/{old}")]


def test_an_end_that_the_machine_lost_contradicts_nothing_that_was_sent(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the disk ends after a power cut, what was sent before stands, and the rest is sent as far as it goes."""
    fleet.batch([True])
    fleet.go(1)
    fleet.batch([True, True])
    fleet.ship()
    spool = fleet.recorder.shipments[-1].spool
    spool.close()
    os.truncate(spool.folder / f"{0:010}.seg", 500)
    for module in (adoption, recorder):
        monkeypatch.setattr(module, "boot", lambda: "another")
    fleet.start()
    fleet.batch([True])
    fleet.finish()
    assert fleet.evidence.holes == 0
    assert fleet.evidence.live == [spool.about.gateway]


def test_two_gateways_take_over_a_spool_once(fleet: Fleet) -> None:
    """Of those that share a folder one finds what a dead one left."""
    fleet.batch([True])
    for shipment in fleet.recorder.shipments:
        shipment.spool.close()
    first, second = (adopt(fleet.root, bytes_max=MIB) for _ in range(2))
    assert (len(first), len(second)) == (1, 0)
    assert isinstance(first[0].shipment, Shipment)
    first[0].shipment.spool.close()


def test_a_spool_has_room_for_its_end(tmp_path: Path) -> None:
    """What is kept back for small rows holds the closings of a day of full seconds."""
    fleet = Fleet(tmp_path / "spools", bytes_max=2_000)
    with pytest.raises(DemurError):
        fleet.fill()
    used = fleet.recorder.spool_bytes
    for _ in range(100):
        with fleet.recorder.turn() as turn:
            turn.count(Counts(eligible=1))
        fleet.go(1)
    assert (fleet.recorder.spool_bytes - used) / 100 * 10_000 < SPARE_BYTES
    fleet.finish()
