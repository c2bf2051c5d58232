"""The shared documents on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fallback.config import Config
from fallback.documents import BODY_BYTES_MAX, Document, Documents
from fallback.errors import AbortedError, FullError, InvalidError


@pytest.fixture
async def documents(config: Config) -> AsyncIterator[Documents]:
    """Documents on an empty server."""
    opened = Documents.connect(config)
    yield opened
    await opened.close()


async def test_a_document_is_read_as_it_was_written(documents: Documents) -> None:
    """Any bytes; revisions count from 1."""
    assert await documents.read("models/digits") is None
    body = bytes(range(256))
    assert await documents.write("models/digits", body, expected_revision=0) == Document(revision=1, body=body)
    assert await documents.write("models/digits", b"", expected_revision=1) == Document(revision=2, body=b"")
    assert await documents.write("models/digits", b"2", expected_revision=None) == Document(revision=3, body=b"2")
    assert await documents.read("models/digits") == Document(revision=3, body=b"2")


async def test_a_write_over_another_write_is_refused(documents: Documents) -> None:
    """The writer is told which revision it is at; nothing is changed."""
    await documents.write("policies/digits", b"a", expected_revision=0)
    for expected in (0, 2):
        with pytest.raises(AbortedError, match=f"expected revision {expected}, is at 1"):
            await documents.write("policies/digits", b"b", expected_revision=expected)
    assert await documents.read("policies/digits") == Document(revision=1, body=b"a")


async def test_of_many_writers_at_one_revision_one_wins(documents: Documents) -> None:
    """Compare and set."""
    writes = [documents.write("a", str(number).encode(), expected_revision=0) for number in range(10)]
    verdicts = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(verdict, Document) for verdict in verdicts) == 1
    assert sum(isinstance(verdict, AbortedError) for verdict in verdicts) == 9


async def test_all_documents_of_a_prefix_are_read_at_once(documents: Documents) -> None:
    """By key, sorted."""
    for key in ("models/b", "policies/a", "models/a"):
        await documents.write(key, key.encode(), expected_revision=None)
    assert list(await documents.read_all("models/")) == ["models/a", "models/b"]
    assert len(await documents.read_all("")) == 3


async def test_who_waits_for_a_change_is_told_of_it(documents: Documents) -> None:
    """Of one between two calls too; at the time-out the same cursor comes back."""
    cursor = await documents.wait_change("", timeout_seconds=0)
    assert await documents.wait_change(cursor, timeout_seconds=0.02) == cursor
    waiting = asyncio.create_task(documents.wait_change(cursor, timeout_seconds=20))
    await asyncio.sleep(0.05)
    await documents.write("a", b"1", expected_revision=0)
    after = await asyncio.wait_for(waiting, 5)
    assert after != cursor
    await documents.write("a", b"2", expected_revision=1)
    assert await asyncio.wait_for(documents.wait_change(after, timeout_seconds=20), 5) != after


async def test_limits_are_kept(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, bodies, how many, and cursors, each in its own words."""
    for key in ("", "a b", "a//b", "/a", "a" * 257):
        with pytest.raises(InvalidError, match="expected a key"):
            await documents.read(key)
    with pytest.raises(InvalidError, match="expected at most 1048576 bytes, got 1048577"):
        await documents.write("a", bytes(BODY_BYTES_MAX + 1), expected_revision=None)
    with pytest.raises(InvalidError, match="cursor"):
        await documents.wait_change("yesterday", timeout_seconds=0)
    with pytest.raises(InvalidError, match="timeout"):
        await documents.wait_change("0-0", timeout_seconds=-1)
    monkeypatch.setattr("fallback.documents.DOCUMENTS_MAX", 1)
    await documents.write("a", b"", expected_revision=0)
    with pytest.raises(FullError):
        await documents.write("b", b"", expected_revision=0)
