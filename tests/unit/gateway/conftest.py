"""The tests of a transport run over every one of them; those of batchers with a thread that looks after what waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.aio import AioTransport
from gateway.cq import CqTransport
from gateway.timer import Timer
from tests.transporting import Serving, server_of
from tests.unit.gateway.batches import TIMERS


@pytest.fixture(params=[AioTransport, CqTransport])
def serving(request: pytest.FixtureRequest) -> Serving:
    """Serve routes on one transport after the other."""
    return server_of(request.param)


@pytest.fixture(scope="module")
def timer() -> Iterator[Timer]:
    """The thread that looks after what waits."""
    timer = Timer()
    timer.start()
    TIMERS.append(timer)
    yield timer
    timer.close()
