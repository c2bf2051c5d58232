"""What operators see and do about callbacks, over gRPC and by command, against the real service and server."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from demur.v1 import review_pb2 as pb
from fallback.answer import Identity
from fallback.client import ReviewClient
from fallback.config import Config
from fallback.deferral import Callback
from fallback.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from fallback.identity import CLIENT, OPERATOR, REVIEWER
from fallback.queue import Queue
from fallback.secret import secret
from fallback.telling import CallbackState
from tests.integration.fallback.edges.test_commands import demur_queue, stack

__all__ = ["stack"]

URL = "https://shop.example/hook"


@pytest.fixture
async def client(review_address: str) -> AsyncIterator[ReviewClient]:
    """Somebody on a loopback address without credentials, who may do anything."""
    async with ReviewClient(review_address, identity="olga") as connected:
        yield connected


@pytest.fixture
def give_up(queue: Queue, settle: Any) -> Any:
    """Settles deferrals whose callbacks are given up at once; returns the callbacks' names."""

    async def give(count: int = 1, *, reason: str = "the receiver answered 500") -> list[str]:
        for _ in range(count):
            await settle(callback=Callback(webhook_url=URL))
        deliveries = await queue.due(limit=count)
        for delivery in deliveries:
            await queue.failed(delivery, retry_seconds=None, reason=reason)
        return [f"queues/digits/callbacks/{delivery.id}" for delivery in deliveries]

    return give


async def names(client: ReviewClient, state: CallbackState, page_size: int = 50) -> list[str]:
    """Return all that are listed."""
    return [entry.name async for entry in client.callbacks("digits", state=state, page_size=page_size)]


async def test_a_callback_is_followed_from_waiting_to_given_up_to_told(
    queue: Queue, settle: Any, client: ReviewClient
) -> None:
    """With target, attempts, times, and why the last one failed."""
    deferral = await settle("3", callback=Callback(webhook_url=URL))
    name = deferral.replace("/deferrals/", "/callbacks/")
    (entry,) = [entry async for entry in client.callbacks("digits", state=CallbackState.PENDING)]
    assert (entry.name, entry.deferral, entry.type) == (name, deferral, "deferral.resolved")
    assert (entry.state, entry.attempt, entry.callback) == (CallbackState.PENDING, 0, Callback(webhook_url=URL))
    assert entry.version == (await queue.get(deferral)).version
    (delivery,) = await queue.due(limit=10)
    waiting = await client.callback(name)
    assert (waiting.attempt, waiting.time > entry.time) == (1, True)
    await queue.failed(delivery, retry_seconds=100.0, reason="503")
    assert (await client.callback(name)).reason == "503"
    assert await names(client, CallbackState.DEAD) == []
    assert await client.redeliver("digits", [name]) == 0
    await queue.failed(delivery, retry_seconds=None, reason="gave up")
    dead = await client.callback(name)
    assert (dead.state, dead.reason, dead.time >= entry.create_time) == (CallbackState.DEAD, "gave up", True)
    assert await names(client, CallbackState.DEAD) == [name]
    assert await client.redeliver("digits", [name]) == 1
    (again,) = await queue.due(limit=10)
    await queue.delivered(again)
    told = await client.callback(name)
    assert (told.state, told.attempt, told.time) == (CallbackState.TOLD, 1, 0.0)
    assert await names(client, CallbackState.PENDING) == []


async def test_pages_hold_all_once_also_where_many_are_due_at_one_moment(client: ReviewClient, give_up: Any) -> None:
    """Twelve redelivered in one step share their time; pages of five hold each of them once."""
    given = await give_up(12)
    assert sorted(await names(client, CallbackState.DEAD, page_size=5)) == sorted(given)
    assert await client.redeliver("digits", every=True) == 12
    listed = await names(client, CallbackState.PENDING, page_size=5)
    assert sorted(listed) == sorted(given)
    assert len(set(listed)) == 12


async def test_a_repeat_redelivers_nothing_anew(client: ReviewClient, give_up: Any, queue: Queue) -> None:
    """Under its request id a call returns the same count, whatever was given up meanwhile; by name and for all."""
    first = await give_up(2)
    for request in (
        pb.RedeliverCallbacksRequest(queue="digits", names=first, request_id=uuid.uuid4().hex),
        pb.RedeliverCallbacksRequest(queue="digits", all=True, request_id=uuid.uuid4().hex),
    ):
        reply = await client._call(client._stub.RedeliverCallbacks, request)
        assert reply.redelivered == 2
        for delivery in await queue.due(limit=10):
            await queue.failed(delivery, retry_seconds=None, reason="again")
        assert (await client._call(client._stub.RedeliverCallbacks, request)).redelivered == 2
        assert sorted(await names(client, CallbackState.DEAD)) == sorted(first)
    request.all = False
    request.names.extend(first)
    other = pb.RedeliverCallbacksRequest(queue="digits", names=first[:1], request_id="one")
    await client._call(client._stub.RedeliverCallbacks, other)
    other.names[0] = first[1]
    with pytest.raises(ConflictError, match="request_id"):
        await client._call(client._stub.RedeliverCallbacks, other)


async def test_what_cannot_be_meant_is_refused_by_its_field(client: ReviewClient) -> None:
    """Names of another queue, none and all at once, states and tokens that are none."""
    stub, one = client._stub, "queues/digits/callbacks/abc"
    wrong: list[tuple[Any, Any, str]] = [
        (stub.ListCallbacks, pb.ListCallbacksRequest(queue="digits"), "state"),
        (stub.ListCallbacks, pb.ListCallbacksRequest(queue="digits", state="TOLD"), "state"),
        (stub.ListCallbacks, pb.ListCallbacksRequest(queue="digits", state="DEAD", page_token="x"), "page_token"),
        (stub.ListCallbacks, pb.ListCallbacksRequest(queue="digits", state="DEAD", page_size=1_001), "page_size"),
        (stub.ListCallbacks, pb.ListCallbacksRequest(queue="../x", state="DEAD"), "queue"),
        (stub.GetCallback, pb.GetCallbackRequest(name="queues/digits/deferrals/abc"), "name"),
    ]
    for fields, field in (
        ({}, "names"),
        ({"names": [one], "all": True}, "names"),
        ({"names": [one], "queue": "letters"}, r"names\[0\]"),
        ({"names": [one] * 1_001}, "names"),
        ({"all": True, "request_id": ""}, "request_id"),
    ):
        given: dict[str, Any] = {"queue": "digits", "request_id": "1", **fields}
        wrong.append((stub.RedeliverCallbacks, pb.RedeliverCallbacksRequest(**given), field))
    for method, request, field in wrong:
        with pytest.raises(InvalidError, match=f"^{field}: expected"):
            await client._call(method, request)
    with pytest.raises(NotFoundError, match="no such callback"):
        await client.callback(one)


async def test_a_deferral_that_has_nothing_to_tell_has_no_callback(
    client: ReviewClient, park: Any, settle: Any
) -> None:
    """One still open, and one that ended without anybody to call."""
    for deferral in (await settle(callback=None), await park()):
        with pytest.raises(NotFoundError):
            await client.callback(deferral.replace("/deferrals/", "/callbacks/"))


async def test_only_operators_look_after_callbacks(client: ReviewClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reviewer, and a client service, are refused all three."""
    for role in (REVIEWER, CLIENT):
        who = Identity(name="rita", roles=frozenset({role}))
        monkeypatch.setattr("fallback.identity._anybody", lambda _, who=who: who)
        for call in (
            names(client, CallbackState.DEAD),
            client.callback("queues/digits/callbacks/abc"),
            client.redeliver("digits", every=True),
        ):
            with pytest.raises(ForbiddenError, match=OPERATOR):
                await call


@pytest.mark.usefixtures("stack")
async def test_commands_list_show_and_redeliver(give_up: Any, settle: Any, queue: Queue) -> None:
    """Through the service; JSON for programs; what is shown can be typed."""
    await settle(callback=None)
    assert "queue digits has no dead callback" in await demur_queue("callbacks", "list", "digits")
    (name,) = await give_up(reason="the receiver answered 500 \x1b[2J")
    shown = await demur_queue("callbacks", "list", "digits")
    assert name in shown
    assert "\x1b" not in shown
    (line,) = (await demur_queue("callbacks", "list", "digits", "--json")).splitlines()
    assert json.loads(line)["target"] == {"webhook_url": URL}
    assert URL in await demur_queue("callbacks", "show", name)
    assert json.loads(await demur_queue("callbacks", "show", name, "--json"))["state"] == "DEAD"
    assert "1 of digits will be told again" in await demur_queue("callbacks", "redeliver", "digits", name)
    assert name in await demur_queue("callbacks", "list", "digits", "--state", "pending")
    with pytest.raises(NotFoundError, match="none of these was given up"):
        await demur_queue("callbacks", "redeliver", "digits", name)
    (delivery,) = await queue.due(limit=10)
    await queue.failed(delivery, retry_seconds=None, reason="again")
    assert "1 of digits will be told again" in await demur_queue("callbacks", "redeliver", "digits", "--all")
    with pytest.raises(InvalidError, match="expected names, or --all"):
        await demur_queue("callbacks", "redeliver", "digits")
    with pytest.raises(NotFoundError, match="stopped calling it"):
        await demur_queue("callbacks", "enable", "digits", URL)


async def test_a_command_changes_the_secret(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sign until it is finished; the command shows no secret."""
    monkeypatch.delenv("DEMUR_WEBHOOK_SECRET", raising=False)
    old = secret(config, "webhook")
    told = await demur_queue("callbacks", "rotate-secret")
    assert secret(config, "webhook").endswith(f" {old}")
    told += await demur_queue("callbacks", "rotate-secret", "--finish")
    new = secret(config, "webhook")
    assert old not in new
    assert "whsec_" not in told


async def test_each_help_of_callbacks_shows_an_example() -> None:
    """A person can follow every --help."""
    for name in ("list", "show", "redeliver", "enable", "rotate-secret"):
        assert "Example: demur queue callbacks" in " ".join((await demur_queue("callbacks", name, "--help")).split())
