"""What is large is read elsewhere, what is small at once, and what waits is bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from fallback.errors import DemurError, FullError, InvalidError
from gateway.reader import SMALL_BYTES, Reader, unburdened
from gateway.transport import Call


class Asked:
    """A call that notes how it failed."""

    method = "/test.T/M"

    def __init__(self, size: int) -> None:
        self.payload = b"x" * size
        self.failed: DemurError | None = None
        self.ended = threading.Event()

    def fail(self, error: DemurError) -> None:
        self.failed = error
        self.ended.set()


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(threads=1, waiting_max=2)
    yield made
    made.close()


def _call(size: int) -> Any:
    return cast("Call", Asked(size))


def test_only_what_is_large_leaves_the_callers_thread(reader: Reader) -> None:
    seen: list[int] = []
    done = threading.Event()

    def handler(_: Call) -> None:
        seen.append(threading.get_ident())
        done.set()

    handle = unburdened(handler, reader)
    handle(_call(SMALL_BYTES))
    assert seen == [threading.get_ident()]
    done.clear()
    handle(_call(SMALL_BYTES + 1))
    assert done.wait(10)
    assert seen[1] != threading.get_ident()


@pytest.mark.parametrize("error", [InvalidError("inputs: wrong"), RuntimeError("a secret")])
def test_trouble_there_is_told(reader: Reader, error: Exception) -> None:
    """A DemurError as it is, anything else as an id."""

    def handler(_: Call) -> None:
        raise error

    call = _call(SMALL_BYTES + 1)
    unburdened(handler, reader)(call)
    assert call.ended.wait(10)
    said = str(call.failed)
    assert said == "inputs: wrong" or said.startswith("internal error, id ")


def test_what_waits_is_bounded(reader: Reader) -> None:
    """And there is room again once something was read."""
    leave = threading.Event()
    handle = unburdened(lambda _: cast("None", leave.wait(10)), reader)
    for _ in range(2):
        handle(_call(SMALL_BYTES + 1))
    with pytest.raises(FullError, match="2 requests wait to be read, the most at a time") as caught:
        handle(_call(SMALL_BYTES + 1))
    assert caught.value.retry_after_seconds
    leave.set()
    reader.close()
