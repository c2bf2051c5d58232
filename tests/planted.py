"""Bugs planted into the product from outside, for tests that must notice them; as a program, a server with one.

A defence is taken out by its name: a function that all scripts share, or one of a single script, is set aside and
another stands in its place, which may call the first. Nothing of how the product does it is repeated here; a function
that is called otherwise by now is an error that says so.

    python tests/planted.py BUG COMMAND...     `demur COMMAND...` with BUG in it
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from fallback import connection, keys
from fallback.connection import Argument, Reply, Script
from fallback.store import Request, Store

# The source of a script, by its name, becomes another.
Change = Callable[[str, str], str]
# What a lease being over is called in a script's refusal.
_OVER: Final = "{ stale = true, forged = true, foreign = true }"


def instead(function: str, body: str) -> Change:
    """Return the change that puts `body` in the place of a local function of the scripts, wherever one has it.

    Within `body`, `...` is what the function is called with, and `before` is the function that was there.
    """
    opening, kept = f"local function {function}(", f"before_{function}"

    def change(_name: str, source: str) -> str:
        first, found, rest = source.partition(opening)
        if not found:
            return source
        wrapped = f"local function {function}(...)\nlocal before = {kept}\n{body}\nend"
        return f"{first}local {kept}\n{wrapped}\n{kept} = function({rest}"

    return change


def replaced(text: str, other: str) -> Change:
    """Return the change that puts `other` in the place of a piece of a script's text."""
    return lambda _name, source: source.replace(text, other)


# Who holds a lease no more, or never did, is believed.
NO_FENCING: Final = instead(
    "judge",
    f"local refusal, since, version = before(...)\n"
    f"if refusal and ({_OVER})[refusal[2]] then return nil, 1, tonumber(call('HGET', record((...)), 'version')) end\n"
    "return refusal, since, version",
)
# A repeat is taken for a new call.
NO_REPLAY: Final = instead("replay", "return nil")
# The outcome is written, its row in the outbox is not.
NO_OUTBOX: Final = instead("finish", "local version = before(...)\ncall('ZREM', K.outbox, (...))\nreturn version")

# Long enough that whoever dies at work takes some with it, on a slow machine too.
FLUSH_SECONDS: Final = 3.0


@contextmanager
def scripts(*changes: Change) -> Iterator[None]:
    """Have the scripts read anew with `changes` in them; raises LookupError where one fits none of them."""
    original = Script.__init__
    fitted = [False] * len(changes)

    def init(self: Script, name: str, **options: Any) -> None:
        original(self, name, **options)
        for number, change in enumerate(changes):
            source = change(name, self.source)
            fitted[number] |= source != self.source
            self.source = source
        self.sha1 = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    connection.script.cache_clear()
    Script.__init__ = init  # type: ignore[method-assign]  # planting is what this is for
    try:
        # Of these every shared function is used by one.
        for name in ("submit", "settle", "lease", "lapse"):
            connection.script(name)
        if not all(fitted):
            raise LookupError("a change fits no script: what it replaces is called otherwise by now")
        yield
    finally:
        Script.__init__ = original  # type: ignore[method-assign]  # as above
        connection.script.cache_clear()


class _Late:
    """What a product does that tells its outcomes outside the script: it keeps them in mind for a moment, then writes.

    The rows are right, unless the process dies within that moment.
    """

    def __init__(self) -> None:
        self._run = Store.run
        self._rows: list[tuple[Store, str, str]] = []
        self._task: asyncio.Task[None] | None = None

    async def run(
        self,
        store: Store,
        event: str,
        queue: str,
        *arguments: Argument,
        request: Request | None = None,
        raw: bool = False,
    ) -> Reply:
        """Stand in for `Store.run`."""
        reply = await self._run(store, event, queue, *arguments, request=request, raw=raw)
        if event in {"submit", "settle", "close", "expire", "cancel"} and reply[0] == "ok":
            ids = arguments[1:] if event == "close" else arguments[:1]
            self._rows += [(store, queue, str(one)) for one in ids]
            if self._task is None:
                self._task = asyncio.create_task(self._flush())
        return reply

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            while self._rows:
                store, queue, one = self._rows[0]
                redis = store.connection.redis
                with suppress(Exception):
                    if await redis.hget(keys.record(queue, one), "outcome_ms"):
                        await redis.zadd(keys.index(queue, "outbox"), {one: 0}, nx=True)
                    del self._rows[0]


BUGS: Final[Mapping[str, tuple[Change, ...]]] = {
    "none": (),
    "no-fencing": (NO_FENCING,),
    "no-replay": (NO_REPLAY,),
    "late-outbox": (NO_OUTBOX,),
}


def launcher(bug: str) -> Callable[[str], Sequence[str]]:
    """Return what starts a server of ours with `bug` in it."""
    assert bug in BUGS
    return lambda command: [sys.executable, __file__, bug, command]


def main(bug: str, *command: str) -> None:
    """Be `demur COMMAND...` with `bug` in it."""
    from gateway import cli

    if bug == "late-outbox":
        late = _Late()

        async def run(store: Store, *arguments: Any, **options: Any) -> Reply:
            return await late.run(store, *arguments, **options)

        Store.run = run  # type: ignore[method-assign,assignment]  # planting is what this is for
    sys.argv = ["demur", *command]
    with scripts(*BUGS[bug]):
        cli.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
