"""The clerk's own process: `python -m gateway.clerk_process SOCKET NONCE`, started by `gateway.clerk`.

Errands come on the socket in rounds, and go to the queue so, one after the other. The process ends when its gateway
does, after it has parked what it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
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
from gateway.slip import Blank, Slip, readable

_READ_BYTES: Final = 1 << 18
# Beside others that want the core it gets a tenth of it.
_NICE: Final = 10

log = structlog.get_logger(__name__)


class Clerk:
    """Parks errands, a round at a time. Belongs to one event loop."""

    def __init__(self, queue: Queue, nonce: bytes) -> None:
        self._queue = queue
        self._nonce = nonce
        self._blanks: dict[int, Blank] = {}

    async def park(self, order: Order) -> bytes:
        """Park what a gateway said; returns what it is told."""
        new, errands = order
        self._blanks.update((number, Blank.of(terms)) for number, terms in new)
        while len(self._blanks) > 2 * TERMS_MAX:
            del self._blanks[next(iter(self._blanks))]
        return clerk_wire.reply(await self._round(errands))

    async def _round(self, errands: Sequence[Errand]) -> list[tuple[Errand, Sequence[Parked | DemurError]]]:
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
        return [*said, *((errand, [next(verdicts) for _ in errand.slips]) for errand in wanted)]

    def _values(self, errands: Sequence[Errand]) -> dict[int, Any]:
        """Return the numbers of all rows as they are shown, by their slips; all of one kind at once."""
        alike: dict[int, list[Slip]] = {}
        for errand in errands:
            alike.setdefault(errand.terms, []).extend(errand.slips)
        return {
            id(slip): values
            for number, slips in alike.items()
            for slip, values in zip(slips, readable(self._blanks[number].terms, slips), strict=True)
        }

    def _made(self, errand: Errand, values: Mapping[int, Any]) -> list[Parking]:
        if errand.until is not None and errand.until < time.monotonic():
            # Nothing was promised to who has left: a retry is parked then.
            raise OverdueError("nobody waits for the reply any more")
        blank = self._blanks[errand.terms]
        return [slip.parking(blank, values.get(id(slip))) for slip in errand.slips]

    async def _park(self, parkings: Sequence[Parking], ids: Sequence[str]) -> Sequence[Parked | DemurError]:
        try:
            return await self._queue.park(parkings, ids) if parkings else []
        except Exception as error:  # noqa: BLE001 - the root of a round: its callers are told
            return [told(error)] * len(parkings)


async def work(sock: socket.socket, nonce: bytes) -> None:
    """Do what a gateway says on `sock`, until it says no more.

    What waits for the gateway blocks: the loop has nothing else to do then, and is woken sooner so.
    """
    size = int.from_bytes(sock.recv(LENGTH_BYTES, socket.MSG_WAITALL))
    settings = msgspec.msgpack.decode(sock.recv(size, socket.MSG_WAITALL), type=Settings)
    queue = Queue.connect(settings.config(), blocks=True)
    clerk, frames, decoder = Clerk(queue, nonce), Frames(), msgspec.msgpack.Decoder(Order)
    try:
        sock.sendall(clerk_wire.reply(()))
        while came := sock.recv(_READ_BYTES):
            for content in frames.feed(came):
                sock.sendall(await clerk.park(decoder.decode(content)))
    except ConnectionError:
        log.warning("the gateway is gone")
    await queue.close()


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
