"""Replies of batches that run at a time, in the order in which these were formed, where a model asks for it."""

from __future__ import annotations

from threading import Condition, Lock, local


class Order:
    """Tickets of batches; each thread has its own. `lock` is held by who calls `give` and `end`, not `wait`."""

    def __init__(self, lock: Lock) -> None:
        self._turn = Condition(lock)
        self._given = 0
        self._ended = 0
        self._own = local()

    def give(self) -> None:
        """Give this thread's batch its place."""
        self._own.ticket = self._given
        self._given += 1

    def wait(self) -> None:
        """Return when all before this thread's batch have replied; at once where it has no place."""
        if self._given == self._ended:
            return  # so this thread's has none either
        ticket: int | None = getattr(self._own, "ticket", None)
        if ticket is not None:
            with self._turn:
                self._turn.wait_for(lambda: self._ended == ticket)

    def end(self) -> None:
        """Hear that this thread's batch has replied."""
        if getattr(self._own, "ticket", None) is not None:
            self._own.ticket = None
            self._ended += 1
            self._turn.notify_all()
