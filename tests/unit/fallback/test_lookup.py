"""Names are looked up apart from each other: one whose name servers hang holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from fallback.lookup import Lookups

WHERE = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]
# Long enough that nothing here waits so long, and so short that who waits has soon waited for it.
LONG, SHORT = 30.0, 0.05


class System:
    """Its getaddrinfo: names under `hangs` wait until they are let go."""

    def __init__(self) -> None:
        self.asked = Counter[str]()
        self.let_go = Event()

    def ask(self, host: str, port: int, **_: Any) -> list[Any]:
        """As socket.getaddrinfo."""
        if host == "192.0.2.8":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        self.asked[host] += 1
        if host.endswith(".hangs"):
            self.let_go.wait(LONG)
        if host.endswith(".none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return WHERE


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """The system's lookups."""
    found = System()
    monkeypatch.setattr(socket, "getaddrinfo", found.ask)
    yield found
    found.let_go.set()


async def _hang(lookups: Lookups, *names: str) -> None:
    """Ask for names and wait in vain."""
    answers = await asyncio.gather(*(lookups.find(name, 1) for name in names), return_exceptions=True)
    assert {type(answer) for answer in answers} == {socket.gaierror}


async def test_a_name_is_found_and_one_that_is_not_there_refused_as_the_system_does(system: System) -> None:
    """With the port that was asked for, in the form of each who asks; numbers are looked up nowhere."""
    lookups = Lookups(seconds=LONG)
    assert await lookups.find("a.test", 443) == [(*WHERE[0][:4], ("192.0.2.7", 443))]
    (found,) = await lookups.resolve("a.test", 80)
    assert (found["host"], found["port"], found["family"]) == ("192.0.2.7", 80, socket.AF_INET)
    assert await lookups.resolve("a.test", 80, socket.AF_INET6) == []
    with pytest.raises(socket.gaierror, match="not known"):
        await lookups.find("b.none", 443)
    assert (await lookups.find("192.0.2.8", 443))[0][4] == ("192.0.2.8", 443)
    assert "192.0.2.8" not in system.asked


async def test_lookups_that_hang_hold_up_neither_other_names_nor_the_threads_that_read(system: System) -> None:
    """However many of them there are below the bound, and after who asked has given up."""
    lookups = Lookups(seconds=SHORT, at_once_max=101, reserved=0)
    await _hang(lookups, *(f"{number}.hangs" for number in range(100)))
    assert sum(system.asked.values()) == 100
    assert await asyncio.to_thread(lambda: "read") == "read"
    lookups._seconds = LONG
    assert await lookups.find("a.test", 1)


async def test_a_name_is_looked_up_once_at_a_time_whoever_asks(system: System) -> None:
    """In whatever spelling and for whatever port; who comes when it is late is told at once."""
    lookups = Lookups(seconds=SHORT)
    await _hang(lookups, "a.hangs", "A.hangs", "a.HANGS")
    lookup = lookups._lookups["a.hangs"]
    lookups._seconds, lookup.start = LONG, lookup.start - 2 * LONG
    with pytest.raises(socket.gaierror, match="no answer of its name servers"):
        await lookups.find("a.hangs", 2)
    assert system.asked == {"a.hangs": 1}
    system.let_go.set()
    await lookup.done
    assert await lookups.find("a.hangs", 1)
    assert system.asked == {"a.hangs": 2}


async def test_who_finds_no_turn_is_told_and_leaves_the_line(system: System) -> None:
    """Once others end the next has its turn."""
    lookups = Lookups(seconds=SHORT, at_once_max=2, reserved=0)
    await _hang(lookups, "a.hangs", "b.hangs")
    with pytest.raises(socket.gaierror, match="no turn"):
        await lookups.find("c.test", 1)
    assert {*lookups._lookups} == {"a.hangs", "b.hangs"}
    lookups._seconds = LONG
    waits = asyncio.create_task(lookups.find("d.test", 1))
    system.let_go.set()
    assert await waits
    assert "c.test" not in system.asked
    assert not lookups._lookups


async def test_the_last_threads_are_for_names_that_were_found_before(system: System) -> None:
    """A receiver that works goes on to be called while others' names hang; one that hangs then loses that."""
    lookups = Lookups(seconds=LONG, at_once_max=3, reserved=1)
    assert await lookups.find("known.test", 1)
    lookups._seconds = SHORT
    await _hang(lookups, "a.hangs", "b.hangs", "new.test")
    assert "new.test" not in system.asked
    lookups._seconds = LONG
    assert await lookups.find("known.test", 1)
    lookups._found["c.hangs"] = None
    lookups._seconds = SHORT
    await _hang(lookups, "c.hangs")
    assert {*lookups._found} == {"known.test"}


async def test_a_system_without_threads_refuses_one_lookup_and_no_more(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again."""
    lookups = Lookups(seconds=LONG, at_once_max=1, reserved=0)

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(socket.gaierror, match="can't start new thread"):
            await lookups.find("a.test", 1)
    assert await lookups.find("a.test", 1)
    assert system.asked == {"a.test": 1}
