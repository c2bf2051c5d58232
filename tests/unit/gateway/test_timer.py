"""One thread calls back at the moments that were asked for, whatever one of the calls does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from gateway.timer import Timer

WAIT_SECONDS = 5.0


@pytest.fixture
def timer() -> Iterator[Timer]:
    found = Timer()
    found.start()
    yield found
    found.close()


def test_looks_come_in_the_order_of_their_moments_and_not_before(timer: Timer) -> None:
    """The later one was asked for first."""
    seen: list[tuple[str, float]] = []
    done = threading.Event()
    start = time.monotonic()

    def late() -> None:
        seen.append(("late", time.monotonic()))
        done.set()

    timer.at(start + 0.06, late)
    timer.at(start + 0.02, lambda: seen.append(("early", time.monotonic())))
    assert done.wait(WAIT_SECONDS)
    assert [name for name, _ in seen] == ["early", "late"]
    assert all(when - start >= least for (_, when), least in zip(seen, (0.02, 0.06), strict=True))


def test_a_look_is_called_once_at_the_moment_that_was_asked_for_last(timer: Timer) -> None:
    """And one that is forgotten not at all."""
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        seen.append("look")

    def forgotten() -> None:
        seen.append("forgotten")

    now = time.monotonic()
    timer.at(now + 1e18, look)
    timer.at(now, look)
    timer.at(now + 0.02, forgotten)
    timer.forget(forgotten)
    timer.at(now + 1e18, forgotten)
    timer.at(now + 0.04, done.set)
    assert done.wait(WAIT_SECONDS)
    assert seen == ["look"]


def test_a_look_that_fails_ends_nobody_elses(timer: Timer) -> None:
    """The thread goes on."""
    done = threading.Event()

    def fails() -> None:
        raise RuntimeError("one look's trouble")

    timer.at(time.monotonic(), fails)
    timer.at(time.monotonic() + 0.01, done.set)
    assert done.wait(WAIT_SECONDS)
