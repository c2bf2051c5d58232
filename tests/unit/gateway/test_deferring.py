"""A round of parking holds many requests, and one's trouble is its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fallback.deferral import Parking
from fallback.errors import AwayError, DemurError, UnavailableError
from gateway import deferring
from gateway.backlog import Backlog
from gateway.declined import Declined
from gateway.deferring import Deferring
from gateway.metrics import Metrics
from gateway.request import Result
from gateway.slow import SlowLoop

SECONDS = 5.0


class Asker:
    """Who waits for a deferral's name."""

    cancelled = False

    def __init__(self) -> None:
        self.request = SimpleNamespace(idempotency_key="", model="m", tensors={}, subject=None)
        self.prepared = SimpleNamespace(arrays={})
        self.error: DemurError | None = None
        self.ended = threading.Event()

    def fail(self, error: DemurError) -> None:
        self.error = error
        self.ended.set()


class Away:
    """A queue that refuses, each time with the next of `kinds`, then with the last; remembers what it was given."""

    def __init__(self, *kinds: type[DemurError]) -> None:
        self.given: list[Any] = []
        self._kinds = [*kinds]

    async def park(self, parkings: Sequence[Parking], ids: Sequence[str]) -> list[DemurError]:
        assert len({*ids}) == len(parkings)
        self.given += parkings
        kind = self._kinds.pop(0) if len(self._kinds) > 1 else self._kinds[0]
        return [kind(f"no to {each}") for each in parkings]


async def _nothing() -> None:
    """What the slow loop does last."""


def test_a_request_that_cannot_be_made_into_a_parking_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beside it in the round still go to the queue, and hear what the queue says."""
    bad, good = Asker(), Asker()

    def parking(declined: Declined, row: int, live: object) -> str:
        assert live
        if declined.asker is cast("Any", bad):
            raise RuntimeError("secret detail")
        return f"row {row}"

    monkeypatch.setattr(deferring, "_parking", parking)
    queue, slow = Away(UnavailableError), SlowLoop()
    slow.start()
    backlog = Backlog(rows_max=10, bytes_max=1_000)
    parks = Deferring(queue=cast("Any", queue), slow=slow, metrics=Metrics(), backlog=backlog, redis_away="refuse")
    live = SimpleNamespace(version=SimpleNamespace(model="m"), manifest=SimpleNamespace(review_queue="m"))
    result = Result(model="m", version="1", labels=(), outputs={}, rows=1)
    batch = [Declined(asker=cast("Any", asker), result=result, deferred=(0,), audited=()) for asker in (bad, good)]
    try:
        parks.take(batch, cast("Any", live))
        assert bad.ended.wait(SECONDS)
        assert good.ended.wait(SECONDS)
    finally:
        slow.stop(1.0, last=_nothing)
    assert bad.error is not None
    assert bad.error.message.startswith("internal error, id ")
    assert (str(good.error), queue.given) == ("no to row 0", ["row 0"])


def test_only_while_the_server_is_away_nobody_is_sent_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request's own trouble keeps the next from nothing; and who is not sent leaves the backlog as it was."""
    monkeypatch.setattr(deferring, "_parking", lambda declined, row, _: f"row {row} of {declined.asker.number}")
    queue, slow = Away(UnavailableError, AwayError), SlowLoop()
    slow.start()
    backlog = Backlog(rows_max=10, bytes_max=1_000)
    parks = Deferring(queue=cast("Any", queue), slow=slow, metrics=Metrics(), backlog=backlog, redis_away="refuse")
    live = SimpleNamespace(version=SimpleNamespace(model="m"), manifest=SimpleNamespace(review_queue="m"))
    result = Result(model="m", version="1", labels=(), outputs={}, rows=1)
    errors = []
    try:
        for number in range(4):
            asker: Any = Asker()
            asker.number = number
            if number == 3:
                parks.hold_off.heard("m")
            parks.take([Declined(asker=asker, result=result, deferred=(0,), audited=())], cast("Any", live))
            assert asker.ended.wait(SECONDS)
            errors.append(str(asker.error))
    finally:
        slow.stop(1.0, last=_nothing)
    assert errors == ["no to row 0 of 0", "no to row 0 of 1", "no to row 0 of 1", "no to row 0 of 3"]
    assert queue.given == ["row 0 of 0", "row 0 of 1", "row 0 of 3"]
    assert (backlog._rows, backlog._bytes) == (0, 0)
