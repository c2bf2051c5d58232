"""Looks up the names of receivers, so that one whose name servers hang holds up nobody else.

Theory of operation. The system's lookup blocks its thread until the name servers answer, nothing can stop it, and a
client chooses whose they are. So each has a thread of its own, apart from those that read content, and which no exit
waits for. A name is looked up once at a time, whoever asks. Who asks waits a few seconds for the turn and the answer
together, and not at all where the name's lookup is older than that. There is a bound on all threads, and the last of
them are for names whose lookups went well before: however many others hang, these are still found.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from contextlib import suppress
from ipaddress import ip_address
from math import inf
from threading import Thread
from typing import Any, Final, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

# The system asks the second name server after 5 s.
LOOKUP_SECONDS: Final = 7.0
# Threads at once; those of them that only names that were found before get.
LOOKUPS_MAX: Final = 512
RESERVED: Final = 64
# Names of which it is known that they were found.
FOUND_MAX: Final = 4_096

# As getaddrinfo has it: family, kind, protocol, canonical name, address.
Info: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
_Answer: TypeAlias = "list[Info] | Exception"


class _Lookup:
    """One that waits for its turn, or is under way."""

    def __init__(self, done: asyncio.Future[_Answer]) -> None:
        self.done = done
        self.waiting = 0
        # When its thread began; infinite before that.
        self.start = inf


class Lookups(AbstractResolver):
    """One for a process; belongs to one event loop. `seconds`: how long who asks waits at most."""

    def __init__(
        self, *, seconds: float = LOOKUP_SECONDS, at_once_max: int = LOOKUPS_MAX, reserved: int = RESERVED
    ) -> None:
        self._seconds = seconds
        # First who may use more: a name that was found before, or not.
        self._lines: tuple[tuple[dict[str, _Lookup], int], ...] = (({}, at_once_max), ({}, at_once_max - reserved))
        self._lookups: dict[str, _Lookup] = {}
        self._under_way = 0
        self._found: OrderedDict[str, None] = OrderedDict()

    async def find(self, host: str, port: int) -> list[Info]:
        """Return where streams to `host` may go; raises socket.gaierror, also where it takes too long."""
        try:
            ip_address(host)
        except ValueError:
            return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in await self._find(host.lower())]
        return _ask(host, port, socket.AI_NUMERICHOST)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the same for an aiohttp connector."""
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=_text(address), port=port, family=found, proto=proto, flags=numeric)
            for found, _, proto, _, address in await self.find(host, port)
            if family in {socket.AF_UNSPEC, found}
        ]

    async def close(self) -> None:
        """Do nothing: what is under way ends by itself."""

    async def _find(self, name: str) -> list[Info]:
        lookup = self._lookups.get(name)
        if lookup is None:
            lookup = self._lookups[name] = _Lookup(asyncio.get_running_loop().create_future())
            line, _ = self._lines[name not in self._found]
            line[name] = lookup
            self._start()
        elif time.monotonic() - lookup.start > self._seconds:
            raise self._slow(name, lookup)
        lookup.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                answer = await asyncio.shield(lookup.done)
        except TimeoutError:
            raise self._slow(name, lookup) from None
        finally:
            lookup.waiting -= 1
            self._leave(name, lookup)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _slow(self, name: str, lookup: _Lookup) -> socket.gaierror:
        if lookup.start == inf:
            return socket.gaierror(
                socket.EAI_AGAIN, f"{name}: no turn to look it up within {self._seconds:g} s: too many others hang"
            )
        self._found.pop(name, None)
        return socket.gaierror(socket.EAI_AGAIN, f"{name}: no answer of its name servers within {self._seconds:g} s")

    def _leave(self, name: str, lookup: _Lookup) -> None:
        """Take a lookup that nobody waits for any more out of its line."""
        if lookup.start == inf and not lookup.waiting and self._lookups.get(name) is lookup:
            del self._lookups[name]
            for line, _ in self._lines:
                line.pop(name, None)

    def _start(self) -> None:
        """Begin those whose turn it is."""
        for line, most in self._lines:
            while line and self._under_way < most:
                name = next(iter(line))
                lookup = line.pop(name)
                lookup.start = time.monotonic()
                self._under_way += 1
                thread = Thread(target=self._work, args=(name, asyncio.get_running_loop()), name="lookup", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no more threads for this process
                    self._end(name, socket.gaierror(socket.EAI_AGAIN, f"{name}: not looked up: {error}"))

    def _work(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """Look a name up, on a thread of its own."""
        answer: _Answer
        try:
            answer = _ask(name, 0, socket.AI_ADDRCONFIG)
        except Exception as error:  # noqa: BLE001 - who asked is told
            answer = error
        # The loop of a process that ends is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._ended, name, answer)

    def _ended(self, name: str, answer: _Answer) -> None:
        self._end(name, answer)
        self._start()

    def _end(self, name: str, answer: _Answer) -> None:
        self._under_way -= 1
        lookup = self._lookups.pop(name)
        if not isinstance(answer, Exception) and time.monotonic() - lookup.start < self._seconds:
            self._found[name] = None
            self._found.move_to_end(name)
            if len(self._found) > FOUND_MAX:
                self._found.popitem(last=False)
        lookup.done.set_result(answer)


def _ask(host: str, port: int, flags: int) -> list[Info]:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]


def _text(address: tuple[Any, ...]) -> str:
    """Return an address as a connector takes it: with its zone, where it has one."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    zone = address[3] if len(address) > 3 else 0  # noqa: PLR2004 - address, port, flow, zone
    return socket.getnameinfo(address, numeric)[0] if zone else str(address[0])
