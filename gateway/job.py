"""A request under way on the general path."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable

from fallback.errors import DemurError
from gateway.champion import Hold
from gateway.intake import Prepared
from gateway.internal import told
from gateway.metrics import Metrics
from gateway.remembered import Remembered
from gateway.request import Request, Result, Waiter
from gateway.rules import STRENGTH, Wish


class Job:
    """A request under way: what was asked, its rows, who waits, and since when. Ends in one `answer` or `fail`."""

    __slots__ = (
        "_metrics",
        "_remembered",
        "_waiter",
        "digest",
        "earlier",
        "pinned",
        "prepared",
        "request",
        "since",
        "until",
    )

    def __init__(self, request: Request, waiter: Waiter, metrics: Metrics, remembered: Remembered) -> None:
        self.request = request
        self.prepared: Prepared
        self.pinned: Hold | None = None
        self.since = time.monotonic()
        self.until = math.inf
        self.digest = ""
        self.earlier: frozenset[int] = frozenset()
        self._waiter = waiter
        self._metrics = metrics
        self._remembered = remembered

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch."""
        return self.prepared.rows

    @property
    def group(self) -> Hashable:
        """What it may be run together with."""
        return self.request.version, self.prepared.shape

    @property
    def deadline(self) -> float | None:
        """When its caller stops waiting, by time.monotonic()."""
        return self.request.deadline

    @property
    def level(self) -> int:
        """The priority level that was asked for."""
        return self.request.level

    @property
    def timeout_us(self) -> int:
        """How long its caller lets it wait, microseconds; 0: as long as the model does."""
        return self.request.timeout_us

    @property
    def key(self) -> str:
        """What names it for the audit's draw."""
        return self.request.request_key

    @property
    def client(self) -> str:
        """Who asks."""
        return self.request.client

    @property
    def name(self) -> str:
        """What its client calls it; empty for nothing."""
        return self.request.idempotency_key or self.request.id

    @property
    def wish(self) -> Wish:
        """What the client asked for."""
        return self.request.wish

    @property
    def repeats(self) -> bool:
        """Whether its client gave it a key, under which it may be asked again."""
        return bool(self.request.idempotency_key)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._waiter.cancelled

    def answer(self, result: Result) -> None:
        """Reply, and remember what the idempotency key was used for."""
        self._release()
        request = self.request
        if request.idempotency_key:
            self._remembered.keep(request.request_key, self.digest, frozenset(result.deferrals))
        worth = max((result.decision(row) for row in range(result.rows)), key=STRENGTH.__getitem__)
        self._metrics.requests.labels(request.model, worth.value, "OK").inc()
        try:
            self._waiter.answer(result)
        except Exception as error:  # noqa: BLE001 - one caller's trouble is its own: the others' replies go on
            self._waiter.fail(told(error, model=request.model))

    def fail(self, error: DemurError) -> None:
        """Refuse."""
        self._release()
        self._metrics.requests.labels(self.request.model, "", error.code.name).inc()
        self._waiter.fail(error)

    def _release(self) -> None:
        if self.pinned is not None:
            self.pinned.release()
