"""The clerk's own process: `python -m gateway.clerk_process SOCKET NONCE`, started by `gateway.clerk`.

Errands come on the socket, and go to the queue in rounds. Who is waited for goes at once, where the last round is not
just under way; what is only audited waits a moment for others. After a round of many rows the next one begins some
milliseconds later, so that under load each has many: a call costs much, a row in it little. The process ends when its
gateway does, after it has parked what it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from fallback.deferral import Parking
from fallback.errors import DemurError, OverdueError
from fallback.queue import Parked, Queue
from gateway import clerk_wire, logs
from gateway.clerk_wire import LENGTH_BYTES, TERMS_MAX, Errand, Frames, Order, Settings
from gateway.internal import told
from gateway.slip import Slip, Terms, readable

# Rounds at a time, rows of one and bytes of their numbers; how far apart they begin, for each row and at most; how long
# audits wait for company.
ROUNDS_MAX: Final = 2
ROUND_ROWS_MAX: Final = 256
ROUND_BYTES_MAX: Final = 16 * 1024 * 1024
ROW_SECONDS: Final = 0.002
ROUND_SECONDS_MAX: Final = 0.02
AUDITS_LINGER_SECONDS: Final = 0.05
_READ_BYTES: Final = 1 << 18
# Beside others that want the core it gets a tenth of it.
_NICE: Final = 10

log = structlog.get_logger(__name__)


class Clerk:
    """Parks errands. Belongs to one event loop; `reply` takes what it says."""

    def __init__(self, queue: Queue, nonce: bytes, writer: asyncio.StreamWriter) -> None:
        self._queue = queue
        self._nonce = nonce
        self._writer = writer
        self._terms: dict[int, Terms] = {}
        # Errands with the time by which they are to go at the latest.
        self._waiting: deque[tuple[Errand, float]] = deque()
        self._awaited = 0
        self._came = asyncio.Event()
        self._room = asyncio.Semaphore(ROUNDS_MAX)
        self._rounds: set[asyncio.Task[None]] = set()
        self._ending = False

    def take(self, order: Order) -> None:
        """Take what a gateway said."""
        new, errands = order
        self._terms.update(new)
        while len(self._terms) > 2 * TERMS_MAX:
            del self._terms[next(iter(self._terms))]
        now = time.monotonic()
        for errand in errands:
            awaited = errand.until is not None
            self._awaited += awaited
            self._waiting.append((errand, now if awaited else now + AUDITS_LINGER_SECONDS))
        if self._awaited or not self._came.is_set():
            self._came.set()

    def end(self) -> None:
        """Take no more; what was taken is parked at once."""
        self._ending = True
        self._came.set()

    async def run(self) -> None:
        """Park what comes until the end."""
        soonest = 0.0
        while await self._due():
            if (wait := soonest - time.monotonic()) > 0 and not self._ending:
                await asyncio.sleep(wait)
            await self._room.acquire()
            errands = self._next()
            rows = sum([len(errand.slips) for errand in errands])
            soonest = time.monotonic() + min(ROUND_SECONDS_MAX, ROW_SECONDS * rows)
            task = asyncio.create_task(self._round(errands))
            self._rounds.add(task)
            task.add_done_callback(self._done)
        if self._rounds:
            await asyncio.wait(self._rounds)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        self._room.release()

    async def _due(self) -> bool:
        """Return once something is to go; False where nothing comes any more."""
        while True:
            if self._waiting and (self._awaited or self._ending):
                return True
            if self._ending:
                return False
            left = self._waiting[0][1] - time.monotonic() if self._waiting else None
            if left is not None and left <= 0:
                return True
            self._came.clear()
            try:
                async with asyncio.timeout(left):
                    await self._came.wait()
            except TimeoutError:
                continue

    def _next(self) -> list[Errand]:
        """Return what waits, up to what one round takes."""
        found: list[Errand] = []
        rows = weight = 0
        while self._waiting:
            errand, _ = self._waiting[0]
            rows += len(errand.slips)
            weight += sum([len(slip.numbers) for slip in errand.slips])
            if found and (rows > ROUND_ROWS_MAX or weight > ROUND_BYTES_MAX):
                break
            self._waiting.popleft()
            self._awaited -= errand.until is not None
            found.append(errand)
        return found

    async def _round(self, errands: Sequence[Errand]) -> None:
        said: list[tuple[Errand, Sequence[Parked | DemurError]]] = []
        wanted: list[Errand] = []
        parkings: list[Parking] = []
        ids: list[str] = []
        try:
            values = self._values(errands)
        except Exception:  # noqa: BLE001 - whichever it is of is found when each is made by itself
            values = {}
        for errand in errands:
            try:
                made = self._made(errand, values)
            except Exception as error:  # noqa: BLE001 - one request's trouble is its own
                said.append((errand, [told(error)] * len(errand.slips)))
                continue
            wanted.append(errand)
            parkings += made
            ids += clerk_wire.ids(self._nonce, errand.ticket, len(made))
        verdicts = iter(await self._park(parkings, ids))
        said += [(errand, [next(verdicts) for _ in errand.slips]) for errand in wanted]
        self._writer.write(clerk_wire.reply(said))

    def _values(self, errands: Sequence[Errand]) -> dict[int, Any]:
        """Return the numbers of all rows as they are shown, by their slips; all of one kind at once."""
        alike: dict[int, list[Slip]] = {}
        for errand in errands:
            alike.setdefault(errand.terms, []).extend(errand.slips)
        return {
            id(slip): values
            for number, slips in alike.items()
            for slip, values in zip(slips, readable(self._terms[number], slips), strict=True)
        }

    def _made(self, errand: Errand, values: Mapping[int, Any]) -> list[Parking]:
        if errand.until is not None and errand.until < time.monotonic():
            # Nothing was promised to who has left: a retry is parked then.
            raise OverdueError("nobody waits for the reply any more")
        terms = self._terms[errand.terms]
        return [slip.parking(terms, values.get(id(slip))) for slip in errand.slips]

    async def _park(self, parkings: Sequence[Parking], ids: Sequence[str]) -> Sequence[Parked | DemurError]:
        try:
            return await self._queue.park(parkings, ids) if parkings else []
        except Exception as error:  # noqa: BLE001 - the root of a round: its callers are told
            return [told(error)] * len(parkings)


async def work(sock: socket.socket, nonce: bytes) -> None:
    """Do what a gateway says on `sock`, until it says no more."""
    reader, writer = await asyncio.open_connection(sock=sock)
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
    settings = msgspec.msgpack.decode(await reader.readexactly(size), type=Settings)
    queue = Queue.connect(settings.config())
    clerk, frames, decoder = Clerk(queue, nonce, writer), Frames(), msgspec.msgpack.Decoder(Order)
    writer.write(clerk_wire.reply(()))
    working = asyncio.create_task(clerk.run())
    try:
        while came := await reader.read(_READ_BYTES):
            for content in frames.feed(came):
                clerk.take(decoder.decode(content))
    except ConnectionError:
        log.warning("the gateway is gone")
    clerk.end()
    await working
    await queue.close()
    writer.close()


def _give_way() -> None:
    """Let those who answer go first where all want a core: who is parked waits for people anyway."""
    os.nice(_NICE)
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Work for the gateway that started this process."""
    # Who ends the gateway ends this, too: by the end of the socket, after what it was given.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    logs.configure("clerk")
    _give_way()
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        asyncio.run(work(sock, bytes.fromhex(sys.argv[2])))


if __name__ == "__main__":
    main()
