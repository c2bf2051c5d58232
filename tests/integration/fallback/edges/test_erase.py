"""Erasing a person's content by name, over real channels and from the command line."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
from typer.testing import CliRunner

from fallback import command_line
from fallback.answer import Identity
from fallback.client import ReviewClient
from fallback.commands import queue as app
from fallback.config import Config
from fallback.deferral import Content, State
from fallback.errors import ForbiddenError, InvalidError, NotFoundError
from fallback.identity import Credentials
from fallback.queue import Queue
from tests.integration.fallback.edges.test_commands import demur_queue
from tests.integration.fallback.edges.test_verbs import serving

Park = Callable[..., Awaitable[str]]


async def test_at_loopback_without_credentials_everybody_may_erase(review_address: str, park: Park) -> None:
    """The reply is the deferral in the state it was; whoever leases it is told why there is nothing to see."""
    name = await park()
    async with ReviewClient(review_address, identity="ann") as ann:
        assert (await ann.get(name)).content is Content.PRESENT
        erased = await ann.erase(name)
        assert (erased.name, erased.state, erased.content) == (name, State.OPEN, Content.ERASED)
        (lease,) = await ann.lease("digits")
        assert (lease.subject, lease.deferral.content) == (b"", Content.ERASED)
        assert [one.content async for one in ann.list("digits")] == [Content.ERASED]
        with pytest.raises(NotFoundError):
            await ann.erase("queues/digits/deferrals/nosuch")


async def test_with_credentials_only_operators_may_erase(config: Config, park: Park, queue: Queue) -> None:
    """A reviewer may not, and nothing is erased by trying."""
    credentials = Credentials(
        (hashlib.sha256(token).digest(), Identity(name=name, roles=frozenset({role})))
        for name, token, role in (("ann", b"a" * 32, "reviewer"), ("olga", b"o" * 32, "operator"))
    )
    name = await park()
    async with serving(config, credentials) as (_, address):
        async with ReviewClient(address, token="a" * 32) as ann:
            with pytest.raises(ForbiddenError, match="operator"):
                await ann.erase(name)
            assert await queue.subject(name)
        async with ReviewClient(address, token="o" * 32) as olga:
            assert (await olga.erase(name)).content is Content.ERASED


async def test_the_command_erases(review_address: str, park: Park, queue: Queue) -> None:
    """And says so; `show` says it later."""
    name = await park()
    assert "is erased" in await demur_queue("erase", name, "--yes", "--review", review_address)
    assert (await queue.get(name)).content is Content.ERASED
    assert "erased" in await demur_queue("show", name, "--review", review_address)


async def test_the_command_asks_first(
    review_address: str, park: Park, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can be asked it says what to add; "no" erases nothing, "y" does."""
    name = await park()
    with pytest.raises(InvalidError, match="--yes: expected it"):
        await demur_queue("erase", name, "--review", review_address)

    def answered(text: str) -> int:
        with monkeypatch.context() as patched:
            patched.setattr(command_line, "at_terminal", lambda: True)
            return CliRunner().invoke(app, ["erase", name, "--review", review_address], input=text).exit_code

    assert await asyncio.to_thread(answered, "n\n") == 1
    assert (await queue.get(name)).content is Content.PRESENT
    assert await asyncio.to_thread(answered, "y\n") == 0
    assert (await queue.get(name)).content is Content.ERASED
