"""The receiver of callbacks: what it believes, and how its process behaves."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from standardwebhooks import Webhook

from benchmarks.demo import receiver
from benchmarks.demo.journal import Called, Entry, Refused
from benchmarks.demo.processes import Crew, Process
from benchmarks.demo.worker import Order, Specification

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def signed(event: str, body: bytes, *, at: float) -> dict[str, str]:
    """Sign as the standard's own library does."""
    stamp = datetime.fromtimestamp(int(at), tz=UTC)
    signature = Webhook(SECRET).sign(msg_id=event, timestamp=stamp, data=body.decode())
    return {"webhook-id": event, "webhook-timestamp": str(int(at)), "webhook-signature": signature}


def test_a_signature_of_the_standards_own_library_is_believed() -> None:
    """Two independent implementations of one standard agree."""
    assert receiver.verify(signed("e1", b"{}", at=1000.0), b"{}", secret=SECRET, now=1001.0) == "e1"


def test_any_one_fitting_signature_is_enough() -> None:
    """A sender that changes its secret signs with both."""
    headers = signed("e1", b"{}", at=1000.0)
    headers["webhook-signature"] = "v1,AAAA v2,xxxx " + headers["webhook-signature"]
    assert receiver.verify(headers, b"{}", secret=SECRET, now=1001.0) == "e1"


@pytest.mark.parametrize(
    ("change", "body", "now", "says"),
    [
        ({}, b'{"a": 1}', 1000.0, "none of the signatures fits"),
        ({"webhook-id": "e2"}, b"{}", 1000.0, "none of the signatures fits"),
        ({"webhook-signature": "v1,???"}, b"{}", 1000.0, "none of the signatures fits"),
        ({}, b"{}", 1400.0, "expected within 300 s"),
        ({"webhook-timestamp": "yesterday"}, b"{}", 1000.0, "expected within 300 s"),
    ],
    ids=["another body", "another id", "no base64", "too old", "no number"],
)
def test_anything_else_is_not(change: Mapping[str, str], body: bytes, now: float, says: str) -> None:
    """Body, id and timestamp are all under the signature."""
    headers = {**signed("e1", b"{}", at=1000.0), **change}
    with pytest.raises(receiver.BadCallbackError, match=says):
        receiver.verify(headers, body, secret=SECRET, now=now)


def test_a_missing_header_is_named() -> None:
    """The sentence says which."""
    with pytest.raises(receiver.BadCallbackError, match="webhook-id"):
        receiver.verify({}, b"{}", secret=SECRET, now=0.0)


def test_stumbling_is_drawn_from_the_event() -> None:
    """About one in twenty, and none at zero."""
    events = [f"e{number}" for number in range(4000)]
    assert 120 < sum(receiver.stumbles(event, 20, 1) for event in events) < 280
    assert not any(receiver.stumbles(event, 0, 1) for event in events)


def body(label: str = "7") -> bytes:
    """As Demur documents it."""
    outcome = {"source": "PERSON", "answer": {"label": label}, "reviewed": True}
    data = {"deferral": "queues/digits/deferrals/1", "state": "RESOLVED", "version": 3, "outcome": outcome}
    return json.dumps({"type": "deferral.resolved", "timestamp": "2026-01-01T00:00:00Z", "data": data}).encode()


def test_a_callback_says_which_deferral_ended_how() -> None:
    """Type, deferral and label; an outcome without an answer has no label."""
    told = receiver.read("e1", body(), now=5.0)
    assert (told.id, told.type, told.deferral, told.label) == (
        "e1",
        "deferral.resolved",
        "queues/digits/deferrals/1",
        "7",
    )
    bare = json.dumps({"type": "deferral.expired", "data": {"deferral": "d", "outcome": None}}).encode()
    assert receiver.read("e2", bare, now=5.0).label == ""


def start(crew: Crew, folder: Path, *, stumble_every: int) -> tuple[Process, str]:
    """Start the receiver's process and return it with its URL."""
    specification = Specification(
        name="receiver", journal=folder / "receiver.jsonl", ready=folder / "url", stumble_every=stumble_every
    )
    process = crew.start("receiver", specification)
    deadline = time.monotonic() + 20
    while not specification.ready.exists():
        assert not process.ended
        assert time.monotonic() < deadline, "the receiver did not get ready"
        time.sleep(0.05)
    return process, specification.ready.read_text()


async def post(url: str, headers: Mapping[str, str], content: bytes) -> int:
    """Send one attempt and return the status."""
    async with aiohttp.ClientSession() as session, session.post(url, data=content, headers=headers) as response:
        return response.status


async def test_the_process_takes_what_is_signed_refuses_what_is_not_and_ends_with_its_orders(tmp_path: Path) -> None:
    """A real HTTP server: 500 to a first attempt, 200 to the second, 401 to a forger; all of it in the journal."""
    with Crew(env={**os.environ, receiver.SECRET: SECRET}) as crew:
        process, url = start(crew, tmp_path, stumble_every=1)
        headers = signed("e1", body(), at=time.time())
        assert [await post(url, headers, body()) for _ in range(2)] == [500, 200]
        assert await post(url, headers, body("8")) == 401
        entries: list[Entry] = process.journal.read()
        assert [entry.status for entry in entries if isinstance(entry, Called)] == [500, 200]
        assert [type(entry) for entry in entries] == [Called, Called, Refused]
        process.order(Order(finish=True))
        process.end()
        assert process.ended
