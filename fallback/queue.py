"""The only door to the deferrals: park, lease, review, settle, listen.

Theory of operation. Redis holds everything (`fallback.keys`); each event of the lifecycle is one script that judges,
then writes (`fallback/scripts`); `fallback.store` runs them. Behind this door `intake` parks, `leases` is what
reviewers do, `settling` ends deferrals, `outcomes` reads what ended, `outbox` is what is still to be told, `reaper`
does what time asks for. Who waits is woken by `tail`, and looks again by itself now and then (`waits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from fallback import (
    contents,
    durability,
    intake,
    keys,
    leases,
    listing,
    outcomes,
    reaper,
    reconcile,
    settling,
    telling,
)
from fallback.answer import Answer, Identity
from fallback.blobs import INPUTS, SUBJECT
from fallback.config import Config
from fallback.deferral import TERMINAL, Deferral, Lease, Parking, State
from fallback.errors import DemurError, InvalidError
from fallback.gold import Golds
from fallback.intake import Parked
from fallback.limits import Limits
from fallback.listing import QueueState
from fallback.outbox import Delivery, Outbox, Untold
from fallback.outcomes import OutcomeEvent
from fallback.reaper import Reaped
from fallback.records import Record
from fallback.store import Store, parse
from fallback.tail import OUTCOMES, WORK
from fallback.telling import CallbackEntry, CallbackState
from fallback.waits import Waits

__all__ = ["Delivery", "OutcomeEvent", "Parked", "Queue", "QueueState", "Reaped"]

LEASE_WAIT_SECONDS_MAX: Final = 60.0
WAIT_SECONDS_MAX: Final = 3_600.0


class Queue:
    """All queues of one server; belongs to one event loop. Every method raises DemurError only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._outbox = Outbox(store)
        self._limits = Limits(store)
        self.gold = Golds(store, self._limits)
        self._waits = Waits(store, self._limits)

    @classmethod
    def connect(cls, config: Config, *, blocks: bool = False) -> Self:
        """Return a queue that connects when it is first used; `blocks`: to park may block the loop, and is quicker."""
        return cls(Store(config, blocks=blocks))

    async def close(self) -> None:
        """Stop listening and give the connections back."""
        await self._waits.close()
        await self._store.connection.close()

    async def check(self) -> None:
        """Raise ConfigError where the server could forget what it accepted; see `fallback.durability`."""
        await durability.check(self._store.connection)

    async def park(self, parkings: Sequence[Parking], ids: Sequence[str] = ()) -> list[Parked | DemurError]:
        """Accept requests in one pipeline; a verdict for each: durably parked, or why not. Raises nothing.

        With `ids` (`keys.fresh_id`, one for each) it may be called again where nobody knows how it ended: what was
        parked under an id is found, and not made again.
        """
        return await intake.park(self._store, parkings, self._limits, ids)

    async def lease(
        self,
        queue: str,
        *,
        reviewer: Identity,
        limit: int = 1,
        wait_seconds: float = 0,
        skills: Sequence[str] = (),
        resume: bool = False,
    ) -> list[Lease]:
        """Take up to `limit` items, the most urgent first; wait up to `wait_seconds` for the first one.

        Of the tiers that the reviewer has the skill for, with `skills` only of these. With `resume` first, now and not
        later, what they hold already, under new tokens: those they had for it are stale. Raises ForbiddenError where
        they have the skill for none.
        """
        leases.check_lease(queue, reviewer, limit)
        _check_wait(wait_seconds, LEASE_WAIT_SECONDS_MAX)
        tiers = leases.tiers_of(queue, self._store.config.queue(queue), reviewer, skills)
        held = await leases.resume(self._store, queue, reviewer, limit) if resume else []

        async def look() -> list[Lease]:
            left = limit - len(held)
            return await leases.lease(self._store, queue, reviewer, left, tiers) if left else []

        taken = await self._waits.until(bool, look, queue, WORK, 0 if held else wait_seconds)
        await self.gold.plant(queue, taken)
        return [*held, *taken]

    async def extend(self, token: str, *, reviewer: Identity, request_id: str, content: bool = True) -> Lease:
        """Hold on for another lease time; without `content` the lease comes without its subject.

        Raises StateError where the hold is over or somebody else's.
        """
        return await leases.extend(self._store, token, reviewer, request_id, content=content)

    async def release(self, token: str, *, reviewer: Identity, request_id: str) -> None:
        """Give a slot back. Raises StateError where the hold is over or somebody else's."""
        await leases.release(self._store, token, reviewer, request_id)

    async def skip(
        self, token: str, *, reviewer: Identity, reason: str, request_id: str, escalate: bool = False
    ) -> None:
        """Leave an item to others for good, saying why; with `escalate` to those of the next tier.

        Raises StateError where the hold is over or not theirs, or there is no tier above.
        """
        await leases.skip(self._store, token, reviewer, reason, request_id, higher=escalate)

    async def save_draft(self, token: str, *, reviewer: Identity, draft: str, request_id: str) -> None:
        """Keep a holder's unfinished work, a JSON text; it comes back when they lease this deferral again.

        Raises InvalidError where it is too large or no JSON, StateError where the hold is over or not theirs.
        """
        await leases.save_draft(self._store, token, reviewer, draft, request_id)

    async def submit(
        self, token: str, *, reviewer: Identity, answer: Answer, comment: str = "", request_id: str
    ) -> Deferral:
        """Give a review; returns the deferral after it, settled where its reviews now add up to an answer.

        Raises InvalidError where the answer does not fit the task, StateError where the hold is over or not theirs.
        """
        return await leases.submit(self._store, token, reviewer, answer, comment, request_id)

    async def undo(self, name: str, *, reviewer: Identity, request_id: str) -> Lease:
        """Take the reviewer's own review back and hold its place again, as long as the outcome is not final.

        Raises StateError where they have no review there, and after the window, saying when it closed.
        """
        return await leases.undo(self._store, name, reviewer, request_id)

    async def flag(self, name: str, *, reviewer: Identity, comment: str, request_id: str) -> None:
        """Leave a word for the review managers. Raises StateError where the reviewer neither holds nor answered it."""
        await leases.flag(self._store, name, reviewer, comment, request_id)

    async def cancel(self, name: str, *, request_id: str) -> Deferral:
        """Take a question back; a repeat with the same request id returns the cancelled deferral."""
        queue, _ = parse(name)
        request = self._store.request(queue, request_id, f"cancel {name}")
        await settling.cancel(self._store, await self._store.get(name), request)
        return await self.get(name)

    async def get(self, name: str) -> Deferral:
        """Return a deferral as it stands, and whether its content does."""
        record = await self._get(name)
        (deferral,) = await contents.noted(self._store, record.deferral.queue, [record])
        return deferral

    async def _get(self, name: str) -> Record:
        record = await self._store.get(name)
        # The reaper does this too; nobody waits for an outcome while it is away.
        if record.settling and await settling.close(self._store, *parse(name)):
            record = await self._store.get(name)
        return record

    async def expected_wait(self, deferral: Deferral) -> float | None:
        """Return how long an OPEN deferral will still wait, seconds; None where nothing can be said, or it ended."""
        return await self._limits.open(deferral)

    async def subject(self, name: str) -> bytes:
        """Return the content that a reviewer sees; empty where there is none.

        Raises NotFoundError where it was erased, is gone, or is not what was parked.
        """
        return await contents.read(self._store, name, SUBJECT)

    async def inputs(self, name: str) -> bytes:
        """Return the serialised demur.v1.Tensors that the model saw, empty for none; raises as `subject` does."""
        return await contents.read(self._store, name, INPUTS)

    async def erase(self, name: str, *, request_id: str) -> Deferral:
        """Erase subject, inputs and drafts of a deferral for good; returns it. See `fallback.contents`."""
        queue, _ = parse(name)
        await contents.erase(self._store, name, self._store.request(queue, request_id, f"erase {name}"))
        erased = await self.get(name)
        await self.gold.erase(queue, erased.subject_digest)
        return erased

    async def erasures(self, queue: str) -> dict[str, str]:
        """Return deferrals whose content was erased here and may be kept elsewhere: id -> sha256 of the inputs."""
        return await contents.erasures(self._store, queue)

    async def forget_erasures(self, queue: str, ids: Sequence[str]) -> None:
        """Say that what `erasures` named is kept nowhere else any more."""
        await contents.forget_erasures(self._store, queue, ids)

    async def list_deferrals(
        self,
        queue: str,
        *,
        state: State | None = None,
        flagged: bool = False,
        page_size: int = 50,
        page_token: str = "",
    ) -> tuple[list[Deferral], str]:
        """Return a page of deferrals, the youngest first, and the token of the next page, empty at the end.

        With `flagged` only those that somebody flagged or too many skipped. A page may hold fewer than there are.
        """
        return await listing.page(self._store, queue, state, page_size, page_token, flagged=flagged)

    async def states(self) -> list[QueueState]:
        """Return how full each queue is, by name."""
        return await listing.states(self._store)

    async def wait(self, name: str, *, timeout_seconds: float) -> Deferral:
        """Return a deferral as soon as it has its outcome, else as it is after `timeout_seconds`."""
        queue, deferral_id = parse(name)
        _check_wait(timeout_seconds, WAIT_SECONDS_MAX)

        async def look() -> Record:
            return await self._get(name)

        record = await self._waits.until(
            lambda found: found.deferral.state in TERMINAL, look, queue, deferral_id, timeout_seconds
        )
        (deferral,) = await contents.noted(self._store, queue, [record])
        return deferral

    async def outcomes(
        self, queue: str, cursor: str, *, count: int = 100, wait_seconds: float = 0.0, whole: bool = False
    ) -> list[OutcomeEvent]:
        """Return outcomes after `cursor` ("0": from the oldest kept, "": from now on), waiting for the first one.

        From now on means from this call on: to miss nothing between calls begin with `last_cursor`. With `whole` a
        cursor (but "0") after which anything is no longer kept raises TrimmedError, instead of going on with what is.
        """
        outcomes.check_outcomes(queue, cursor, count)
        _check_wait(wait_seconds, WAIT_SECONDS_MAX)
        start = cursor or await self.last_cursor(queue)

        async def look() -> list[OutcomeEvent]:
            return await outcomes.after(self._store, queue, start, count, whole=whole)

        return await self._waits.until(bool, look, queue, OUTCOMES, wait_seconds)

    async def expect(self, queue: str) -> None:
        """Raise NotFoundError for a queue that is not configured and that nothing was ever parked in."""
        await self._store.expect_queue(queue)

    async def last_cursor(self, queue: str) -> str:
        """Return the cursor of the newest outcome."""
        return await self._store.connection.newest(keys.index(queue, "outcomes"))

    async def trim_outcomes(self, queue: str, cursor: str) -> None:
        """Forget the outcomes up to and with `cursor`, once the ledger has them."""
        await outcomes.trim(self._store, queue, cursor)

    async def due(self, *, limit: int) -> list[Delivery]:
        """Claim up to `limit` outcomes that are due to be told; see `fallback.outbox`."""
        return await self._outbox.due(limit=limit)

    async def write_told(self, told: Sequence[Delivery], untold: Sequence[Untold]) -> None:
        """Write down how attempts at claimed outcomes went, for many at once."""
        await self._outbox.write(told, untold)

    async def delivered(self, delivery: Delivery) -> None:
        """Say that the receiver took it."""
        await self._outbox.write([delivery], [])

    async def failed(self, delivery: Delivery, *, retry_seconds: float | None, reason: str) -> None:
        """Say that it did not; due again after `retry_seconds`, or a dead letter where that is None."""
        await self._outbox.write([], [Untold(delivery=delivery, retry_seconds=retry_seconds, reason=reason)])

    async def callbacks(
        self, queue: str, *, state: CallbackState, page_size: int = 50, page_token: str = ""
    ) -> tuple[list[CallbackEntry], str]:
        """Return a page of what is still told or was given up, the earliest first, and the next page's token."""
        return await telling.page(self._store, queue, state, page_size, page_token)

    async def callback(self, name: str) -> CallbackEntry:
        """Return one callback, `queues/<queue>/callbacks/<id>`; raises NotFoundError."""
        return await telling.get(self._store, name)

    async def dead_letters(self, queue: str) -> list[Delivery]:
        """Return outcomes that nobody took, the oldest first, at most telling.PAGE_MAX."""
        return await telling.dead_letters(self._store, queue)

    async def redeliver(self, queue: str, ids: Sequence[str], *, request_id: str = "") -> int:
        """Make dead letters due now; returns how many of `ids` were any."""
        return await telling.redeliver(self._store, queue, ids, request_id)

    async def redeliver_all(self, queue: str, *, request_id: str = "") -> int:
        """Make all dead letters due now; returns how many."""
        return await telling.redeliver_all(self._store, queue, request_id)

    async def enable_target(self, queue: str, target: str) -> bool:
        """Have a target called again that said it is gone for good; returns whether it had."""
        return await telling.enable(self._store, queue, target)

    async def reap(self) -> Reaped:
        """Do what time asks for, in every queue; see `fallback.reaper`."""
        return await reaper.sweep_all(self._store)

    async def undo_windows(self) -> dict[str, float]:
        """Return how long the undo window is of each queue that has one, seconds."""
        found = {queue: self._store.config.queue(queue).undo_seconds for queue in await self._store.queues()}
        return {queue: seconds for queue, seconds in found.items() if seconds}

    async def close_windows(self, queues: Sequence[str]) -> tuple[int, float | None]:
        """Close undo windows that are over; returns of how many, and in how many seconds the next one is, if any."""
        return await reaper.close_windows(self._store, queues)

    async def reconcile(self) -> list[str]:
        """Return what does not agree between records and indexes; nothing, when all is well."""
        return [
            problem for queue in await self._store.queues() for problem in await reconcile.problems(self._store, queue)
        ]


def _check_wait(seconds: float, most: float) -> None:
    if not 0 <= seconds <= most:
        raise InvalidError(f"wait: expected 0 to {most:.0f} s, got {seconds}")
