"""Work that is left to the thread that answers is done once: by that thread, or by who left it where that is idle."""

from __future__ import annotations

import threading
import time

from gateway.aside import IDLE_SECONDS, Aside


def test_where_the_answering_thread_is_idle_the_work_is_done_at_once() -> None:
    """Also where there is none that ever says what it does."""
    aside, done = Aside(), list[int]()
    assert aside.do(lambda: done.append(1))
    aside.begin()
    aside.end()
    time.sleep(2 * IDLE_SECONDS)
    assert aside.do(lambda: done.append(2))
    assert done == [1, 2]


def test_where_it_is_busy_it_does_the_work_before_it_waits() -> None:
    """Nobody else does, and nothing is done twice."""
    aside, done = Aside(), list[int]()
    aside.begin()
    assert not aside.do(lambda: done.append(1))
    assert not aside.catch_up()
    assert not done
    aside.end()
    assert done == [1]
    time.sleep(2 * IDLE_SECONDS)
    assert aside.catch_up()
    assert done == [1]


def test_what_was_left_to_one_that_then_waits_is_caught_up_with() -> None:
    """A moment after it began to wait, by who left it; or at once, where nobody comes back."""
    aside, done = Aside(), list[int]()
    aside.begin()
    aside.end()
    if not aside.do(lambda: done.append(1)):
        time.sleep(2 * IDLE_SECONDS)
        assert aside.catch_up()
    aside.begin()
    assert not aside.do(lambda: done.append(2))
    aside.do_all()
    assert done == [1, 2]


def test_many_threads_do_each_work_once() -> None:
    """Whatever the answering thread does meanwhile."""
    aside, done, count = Aside(), list[int](), 2_000

    def leave(first: int) -> None:
        for number in range(first, first + count):
            aside.do(lambda number=number: done.append(number))  # type: ignore[misc] # a lambda with a default

    threads = [threading.Thread(target=leave, args=(each * count,)) for each in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        aside.begin()
        aside.end()
    for thread in threads:
        thread.join()
    aside.do_all()
    assert sorted(done) == list(range(3 * count))
