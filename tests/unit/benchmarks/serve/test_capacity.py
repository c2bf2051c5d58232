"""What a benchmark takes for a server's capacity."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.serve import capacity
from benchmarks.serve.opened import Opened
from benchmarks.serve.sender import Load
from benchmarks.serve.sending import Shots, Worker
from fallback.errors import UnavailableError

SUSTAINED = Opened(100, 0, 1.0, 2.0, capacity.P99_MS_MAX, 120.0, 130.0, 1.0, False)  # noqa: FBT003 - positional only


def test_a_rate_is_sustained_where_all_is_answered_soon_and_sent_in_time() -> None:
    """Any one of these that is not so says that it is too much."""
    assert capacity.sustained(SUSTAINED)
    assert not capacity.sustained(SUSTAINED._replace(failed=1))
    assert not capacity.sustained(SUSTAINED._replace(p99_ms=capacity.P99_MS_MAX + 1))
    assert not capacity.sustained(SUSTAINED._replace(void=True))


def _shoot(most: float, seen: list[float]) -> object:
    """Return what stands for a server that answers `most` a second, and keeps nobody waiting up to that."""

    def shoot(_: object, given: Load, **__: object) -> Shots:
        count = int(most * given.seconds_max) if given.callers else 10
        if not given.callers:
            seen.append(given.rate)
        zeros = np.zeros(count)
        latency = zeros + (1.0 if given.rate <= most else 1000.0)
        whole = zeros.astype(np.int16)
        return Shots(
            due=zeros,
            lag_ms=zeros,
            latency_ms=latency,
            code=whole,
            retry=zeros > 0,
            version=whole.astype(np.int32),
            run=np.zeros((count, 3)),
        )

    return shoot


def test_the_capacity_is_the_first_rate_on_the_way_down_that_is_sustained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed loop only says where to begin."""
    seen: list[float] = []
    monkeypatch.setattr(capacity, "shoot", _shoot(1000.0, seen))
    crew: list[Worker] = []
    found = capacity.find(crew, Load(address="", payload=b"", seconds_max=1.0), tell=lambda _: None)
    assert found.closed == 1000.0
    assert found.rate == seen[-1] <= 1000.0 < seen[-2]


def test_a_server_that_sustains_nothing_has_no_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a load that says nothing."""
    monkeypatch.setattr(capacity, "shoot", _shoot(1000.0, []))
    monkeypatch.setattr(capacity, "sustained", lambda _: False)
    with pytest.raises(UnavailableError, match="busy"):
        capacity.find([], Load(address="", payload=b"", seconds_max=1.0), tell=lambda _: None)
