"""How long a job may wait, how many may, and who goes first."""

from __future__ import annotations

import time

import pytest

from fallback.errors import FullError, OverdueError
from gateway.batching import QueuePolicy
from tests.unit.gateway.batches import Gate, Job, batching

pytestmark = pytest.mark.usefixtures("timer")


def _soon() -> float:
    return time.monotonic() + 0.05


def test_who_is_out_of_time_is_told_while_a_run_is_under_way() -> None:
    """And gives its room to others; the run is still at its first batch."""
    gate = Gate()
    with batching(gate, queue_rows_max=2) as batcher:
        jobs = [Job("a", deadline=_soon()), Job("b", deadline=_soon())]
        for job in jobs:
            batcher.submit(job)
        for job in jobs:
            error = job.wait()
            assert isinstance(error, OverdueError)
            assert "the deadline passed" in error.message
        assert not gate.open.is_set()
        assert batcher.rows == 0
        batcher.submit(Job("c", rows=2))


def test_a_queues_timeout_is_told_while_a_run_is_under_way() -> None:
    """REJECT, after the model's time or the shorter one that a request asks for."""
    gate = Gate()
    policy = QueuePolicy(default_timeout_microseconds=3_600_000_000, allow_timeout_override=True)
    with batching(gate, default_queue_policy=policy) as batcher:
        short, long = Job("short", timeout_us=20_000), Job("long")
        batcher.submit(short)
        batcher.submit(long)
        error = short.wait()
        assert isinstance(error, OverdueError)
        assert "longer than its model lets it" in error.message
        assert not gate.open.is_set()
        gate.open.set()
        assert long.wait() is None


def test_a_delayed_job_waits_behind_the_others_and_keeps_its_deadline() -> None:
    """DELAY: out of time is not out of the queue; who waits no more is told all the same."""
    gate = Gate()
    policy = QueuePolicy(
        timeout_action="DELAY", default_timeout_microseconds=3_600_000_000, allow_timeout_override=True
    )
    with batching(gate, rows_max=1, default_queue_policy=policy) as batcher:
        late, given_up = Job("late", timeout_us=1), Job("gone", timeout_us=1, deadline=time.monotonic() + 0.1)
        batcher.submit(late)
        batcher.submit(given_up)
        assert isinstance(given_up.wait(), OverdueError)
        jobs = [Job(str(number)) for number in range(3)]
        for job in jobs:
            batcher.submit(job)
        gate.open.set()
        assert [job.wait() for job in (*jobs, late)] == [None] * 4
    assert gate.batches == [["first"], ["0"], ["1"], ["2"], ["late"]]


def test_levels_go_in_their_order() -> None:
    """1 first; who names none, or one that is not there, has the default."""
    gate = Gate()
    with batching(gate, rows_max=1, priority_levels=3, default_priority_level=2) as batcher:
        jobs = [Job("3", level=3), Job("none"), Job("1", level=1), Job("strange", level=9), Job("1 too", level=1)]
        for job in jobs:
            batcher.submit(job)
        gate.open.set()
        assert [job.wait() for job in jobs] == [None] * 5
    assert gate.batches[1:] == [["1"], ["1 too"], ["none"], ["strange"], ["3"]]


def test_a_level_takes_no_more_requests_than_its_policy_says() -> None:
    """Another level has its own bound."""
    gate = Gate()
    with batching(
        gate,
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(max_queue_size=2),
        priority_queue_policy={1: QueuePolicy(max_queue_size=1)},
    ) as batcher:
        for level in (1, 2, 2):
            batcher.submit(Job(f"{level}", level=level))
        for level, most in ((1, 1), (2, 2)):
            with pytest.raises(
                FullError, match=f"{most} requests of its priority level wait, which is the most"
            ) as caught:
                batcher.submit(Job("too many", level=level))
            assert caught.value.retry_after_seconds is not None


def test_a_deadline_sooner_than_the_turn_is_refused_at_once() -> None:
    """As measured: behind a full run, which takes 0.3 s, its own takes as long; one that has passed is overdue."""
    gate = Gate()
    with batching(gate) as batcher:
        time.sleep(0.3)
        gate.open.set()
        batcher.submit(after := Job("after"))
        assert after.wait() is None
        gate.open.clear()
        for number in range(9):
            batcher.submit(Job(str(number)))
        said = r"the wait is about 0\.\d+ s, the deadline is in 0\.\d+ s"
        with pytest.raises(FullError, match=said) as caught:
            batcher.submit(Job("late", deadline=time.monotonic() + 0.5))
        assert caught.value.retry_after_seconds is not None
        with pytest.raises(OverdueError, match="had passed"):
            batcher.submit(Job("over", deadline=time.monotonic() - 1))
        batcher.submit(Job("in time", deadline=time.monotonic() + 3600))
