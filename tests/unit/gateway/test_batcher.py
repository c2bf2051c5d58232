"""Batches form by back-pressure, within bounds, and one job's fate is its own."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.errors import FullError, OverdueError, UnavailableError
from gateway.batching import Batching
from tests.unit.gateway.batches import WAIT_SECONDS, Gate, Job, batching, made

pytestmark = pytest.mark.usefixtures("timer")


def test_what_waits_while_a_batch_runs_is_the_next_batch() -> None:
    """All of it, in order."""
    gate = Gate()
    with batching(gate) as batcher:
        jobs = [Job(f"j{number}") for number in range(5)]
        for job in jobs:
            batcher.submit(job)
        assert batcher.rows == 5
        gate.open.set()
        assert [job.wait() for job in jobs] == [None] * 5
    assert gate.batches == [["first"], ["j0", "j1", "j2", "j3", "j4"]]


def test_a_lone_job_on_an_idle_model_runs_at_once() -> None:
    """Nobody waits for company."""
    gate = Gate()
    gate.open.set()
    with batching(gate) as batcher:
        job = Job("lone")
        batcher.submit(job)
        assert job.wait() is None


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from("xyz")), max_size=30))
def test_batches_hold_one_group_and_no_more_rows_than_the_bound(shapes: list[tuple[int, str]]) -> None:
    """And every job runs exactly once, first come first served within its group."""
    gate = Gate()
    with batching(gate, rows_max=8, queue_rows_max=1000) as batcher:
        jobs = {f"{number}": Job(f"{number}", rows=rows, group=group) for number, (rows, group) in enumerate(shapes)}
        for job in jobs.values():
            batcher.submit(job)
        gate.open.set()
        for job in jobs.values():
            assert job.wait() is None
    for batch in gate.batches[1:]:
        assert len({jobs[name].group for name in batch}) == 1
        assert sum(jobs[name].rows for name in batch) <= 8
    for group in "xyz":
        ran = [name for batch in gate.batches[1:] for name in batch if jobs[name].group == group]
        assert ran == sorted(ran, key=int)


def test_a_flood_of_one_group_does_not_starve_another() -> None:
    """Groups take turns."""
    gate = Gate()
    with batching(gate, rows_max=2) as batcher:
        for number in range(8):
            batcher.submit(Job(f"x{number}", group="x"))
        late = Job("y", group="y")
        batcher.submit(late)
        gate.open.set()
        assert late.wait() is None
    assert gate.batches[2] == ["y"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """Bounded in rows, not in requests."""
    gate = Gate()
    with batching(gate, queue_rows_max=10) as batcher:
        batcher.submit(Job("large", rows=8))
        with pytest.raises(FullError, match="8 rows wait, the most is 10") as caught:
            batcher.submit(Job("too much", rows=3))
        assert caught.value.retry_after_seconds is not None
        assert batcher.refusal() is None
        batcher.submit(Job("fits", rows=2))
        problem = batcher.refusal()
        assert problem is not None
        assert problem.message == "model 'm': 10 rows wait, the most is 10"
        assert problem.retry_after_seconds is not None


def test_a_request_larger_than_the_queue_is_taken_where_nothing_waits() -> None:
    """It would be refused for ever otherwise; behind others it is told when to come back."""
    gate = Gate()
    with batching(gate, queue_rows_max=10) as batcher:
        other, large = Job("other"), Job("large", rows=11)
        batcher.submit(other)
        with pytest.raises(FullError, match="1 rows wait, the most is 10"):
            batcher.submit(large)
        gate.open.set()
        assert other.wait() is None
        batcher.submit(large)
        assert large.wait() is None


def test_cancelled_jobs_are_dropped_when_the_batch_is_formed() -> None:
    """They take no place in it, and still end."""
    gate = Gate()
    with batching(gate) as batcher:
        gone, live = Job("gone"), Job("live")
        for job in (gone, live):
            batcher.submit(job)
        gone.cancelled = True
        gate.open.set()
        assert isinstance(gone.wait(), OverdueError)
        assert live.wait() is None
    assert gate.batches[1:] == [["live"]]


@pytest.mark.parametrize("bad", [{"3"}, {"0", "7"}, {str(number) for number in range(8)}])
def test_a_failing_input_fails_alone(bad: set[str]) -> None:
    """The batch is halved until what fails is found; the others are answered; no detail leaks."""
    gate = Gate(failing=lambda jobs: any(job.name in bad for job in jobs))
    with batching(gate) as batcher:
        jobs = [Job(f"{number}") for number in range(8)]
        for job in jobs:
            batcher.submit(job)
        gate.open.set()
        for job in jobs:
            error = job.wait()
            assert (error is not None) == (job.name in bad)
            assert error is None or ("internal error, id" in error.message and "secret" not in error.message)
        after = Job("after")
        batcher.submit(after)
        assert after.wait() is None


def test_closing_runs_what_waits_and_takes_no_more() -> None:
    """A drain."""
    gate = Gate()
    with batching(gate) as batcher:
        job = Job("waits")
        batcher.submit(job)
        gate.open.set()
        batcher.close(grace_seconds=WAIT_SECONDS)
        assert job.wait() is None
        with pytest.raises(UnavailableError, match="stopping"):
            batcher.submit(Job("late"))


def test_a_batcher_may_be_closed_while_its_threads_are_started() -> None:
    """And starts none afterwards."""
    for _ in range(20):
        batcher = made(lambda _: None)
        thread = threading.Thread(target=batcher.configure, args=(Batching(),), kwargs={"rows_max": 8, "instances": 4})
        thread.start()
        batcher.close(grace_seconds=WAIT_SECONDS)
        thread.join()
        batcher.configure(Batching(), rows_max=8)
    assert not any(thread.name.startswith("batcher-m") for thread in threading.enumerate())


def test_closing_without_time_refuses_what_waits() -> None:
    """Nobody is left without a reply."""
    gate = Gate()
    with batching(gate) as batcher:
        job = Job("waits")
        batcher.submit(job)
        batcher.close(grace_seconds=0)
        assert isinstance(job.wait(), UnavailableError)


def test_lingering_waits_for_company_up_to_a_full_batch() -> None:
    """Where the operator asks for it."""
    gate = Gate()
    gate.open.set()
    with batching(gate, rows_max=2, max_queue_delay_microseconds=500_000) as batcher:
        assert gate.batches or gate.entered.acquire(timeout=0) is False
        first, second = Job("a"), Job("b")
        batcher.submit(first)
        batcher.submit(second)
        assert first.wait() is None
        assert second.wait() is None
    assert ["a", "b"] in gate.batches
