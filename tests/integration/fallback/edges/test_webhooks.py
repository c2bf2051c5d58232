"""One attempt at a webhook, against real receivers: an aiohttp server with and without TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from fallback.callback import NotTold, Told, body_of
from fallback.patience import Strain
from tests.integration.fallback.edges.receivers import LOOPBACK, SECRET, Trusted, call, delivery


async def test_a_webhook_passes_the_standards_own_verification(listening: Any) -> None:
    """The official library accepts headers and body, and rejects the body changed by one byte."""
    receiver = await listening()
    assert await call(delivery(webhook=receiver.url)) == Told()
    ((headers, body),) = receiver.got
    told = Webhook(SECRET).verify(body, headers)
    assert headers["webhook-id"] == "0123456789abcdef"
    assert headers["Content-Type"] == "application/json"
    assert told == {
        "type": "deferral.resolved",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "data": {
            "deferral": "queues/digits/deferrals/0123456789abcdef",
            "state": "RESOLVED",
            "version": 3,
            "outcome": {
                "source": "PERSON",
                "answer": {"label": "7"},
                "reviewed": True,
                "create_time": "2023-11-14T22:13:20.250Z",
            },
            "model": "digits",
            "model_version": "2",
        },
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"7", b"8"), headers)


async def test_an_unreviewed_outcome_says_so() -> None:
    """`reviewed` stands in the body when it is false, too."""
    one = delivery()
    assert json.loads(body_of(one))["data"]["outcome"]["reviewed"] is True


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 429, 500, 503])
async def test_any_other_status_is_a_failure(listening: Any, status: int) -> None:
    """Only 2xx is taken; a redirect is not followed."""
    elsewhere, receiver = await listening(), await listening()
    receiver.status = status
    receiver.headers = {"location": elsewhere.url}
    attempt = await call(delivery(webhook=receiver.url))
    assert isinstance(attempt, NotTold)
    assert str(status) in attempt.reason
    assert attempt.final is False
    assert elsewhere.got == []


async def test_while_a_key_is_changed_each_receiver_finds_its_own_signature(listening: Any) -> None:
    """Two secrets, two signatures separated by a space; the official library accepts either secret, and no third."""
    old, other = ("whsec_" + base64.b64encode(bytes([number] * 24)).decode() for number in (1, 2))
    receiver = await listening()
    assert await call(delivery(webhook=receiver.url), secret=f"{SECRET} {old}") == Told()
    ((headers, body),) = receiver.got
    signatures = headers["webhook-signature"].split(" ")
    assert len(signatures) == 2
    assert all(signature.startswith("v1,") for signature in signatures)
    for secret in (SECRET, old):
        assert Webhook(secret).verify(body, headers)["type"] == "deferral.resolved"
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)


async def test_each_attempt_has_a_time_of_its_own_under_one_id(listening: Any) -> None:
    """The event's own time stands in the body and stays."""
    receiver = await listening()
    for attempt in (1, 2):
        assert await call(delivery(webhook=receiver.url, attempt=attempt)) == Told()
        await asyncio.sleep(1.01)
    (first, body), (second, same) = receiver.got
    assert first["webhook-id"] == second["webhook-id"]
    assert int(first["webhook-timestamp"]) < int(second["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]
    assert body == same


async def test_cloudevents_stand_beside_where_asked_for(listening: Any) -> None:
    """CloudEvents 1.0 in binary mode: attributes as headers, the body and its media type as they are without."""
    receiver = await listening()
    assert await call(delivery(webhook=receiver.url)) == Told()
    assert await call(delivery(webhook=receiver.url), cloudevents=True) == Told()
    (plain, body), (told, same) = receiver.got
    assert not [name for name in plain if name.lower().startswith("ce-")]
    assert {name.lower(): value for name, value in told.items() if name.lower().startswith("ce-")} == {
        "ce-specversion": "1.0",
        "ce-id": "0123456789abcdef",
        "ce-source": "/queues/digits",
        "ce-type": "deferral.resolved",
        "ce-time": "2023-11-14T22:13:20.250Z",
        "ce-subject": "queues/digits/deferrals/0123456789abcdef",
    }
    assert told["Content-Type"] == plain["Content-Type"] == "application/json"
    assert body == same
    Webhook(SECRET).verify(same, told)


@pytest.mark.parametrize(
    ("status", "strain"),
    [(400, Strain.NONE), (404, Strain.NONE), (302, Strain.NONE), (429, Strain.THROTTLED), (502, Strain.THROTTLED),
     (504, Strain.THROTTLED), (500, Strain.FAILING), (503, Strain.FAILING)],
)  # fmt: skip
async def test_a_status_says_how_the_receiver_is(listening: Any, status: int, strain: Strain) -> None:
    """429, 502 and 504 ask for less; other 5xx are failures of the receiver, 4xx and redirects of the one event."""
    receiver = await listening()
    receiver.status = status
    attempt = await call(delivery(webhook=receiver.url))
    assert isinstance(attempt, NotTold)
    assert (attempt.strain, attempt.final, attempt.gone) == (strain, False, False)


@contextlib.asynccontextmanager
async def trickling(head: bytes, piece: bytes) -> AsyncIterator[str]:
    """A receiver that answers with `head`, then `piece` after piece, for longer than anybody waits."""
    handlers: set[asyncio.Task[Any]] = set()

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        writer.write(head)
        try:
            for _number in range(3_000):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def test_a_receiver_that_trickles_its_answer_is_left_in_time() -> None:
    """Bytes that come one by one do not stretch an attempt."""
    start = time.monotonic()
    async with trickling(b"HTTP/1.1 200 OK\r\nx: ", b"y") as url:
        attempt = await call(delivery(webhook=url), timeout_seconds=0.5)
    assert time.monotonic() - start < 5
    assert attempt == NotTold(reason="no answer within 0.5 s", strain=Strain.FAILING)


async def test_a_taken_event_whose_answer_trickles_on_was_taken() -> None:
    """The status is the answer; an endless body costs half a second, not the attempt."""
    start = time.monotonic()
    async with trickling(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\ny\r\n") as url:
        assert await call(delivery(webhook=url), timeout_seconds=20.0) == Told()
    assert time.monotonic() - start < 10


async def test_a_name_that_changes_its_mind_leads_nowhere(listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: whatever a name resolved to before, the address connected to now is the one that is judged."""
    receiver = await listening()
    port = int(receiver.url.split(":")[2].split("/")[0])

    def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for target in (delivery(webhook=f"https://shop.example:{port}/"), delivery(target=f"shop.example:{port}")):
        attempt = await call(target, allow=(), timeout_seconds=2)
        assert isinstance(attempt, NotTold)
        assert attempt.final is True
        assert "webhook_allow_networks" in attempt.reason
    assert receiver.got == []


class _Taken(ThreadPoolExecutor):
    """Threads that are all in use."""

    def submit(self, *_: Any, **__: Any) -> Any:
        """Take nothing."""
        raise AssertionError("names are looked up elsewhere")


async def test_names_are_looked_up_on_threads_that_nothing_else_needs(
    listening: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the loop, which read content, are left to that, whichever way a receiver is called."""
    receiver = await listening()
    port = int(receiver.url.split(":")[2].split("/")[0])
    asyncio.get_running_loop().set_default_executor(_Taken())
    assert await call(delivery(webhook=f"http://localhost:{port}/")) == Told()

    def refuse(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "its name servers are away")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for target in (delivery(webhook=f"https://shop.example:{port}/"), delivery(target=f"shop.example:{port}")):
        attempt = await call(target)
        assert isinstance(attempt, NotTold)
        assert "its name servers are away" in attempt.reason
        assert (attempt.final, attempt.strain) == (False, Strain.FAILING)


async def test_gone_is_final_and_retry_after_is_heard(listening: Any) -> None:
    """410 gives up at once; Retry-After in seconds is handed on."""
    receiver = await listening()
    receiver.status = 410
    gone = await call(delivery(webhook=receiver.url))
    receiver.status, receiver.headers = 429, {"retry-after": "120"}
    busy = await call(delivery(webhook=receiver.url))
    assert isinstance(gone, NotTold)
    assert gone.final is True
    assert gone.gone is True
    assert isinstance(busy, NotTold)
    assert busy.retry_after_seconds == 120


async def test_a_receiver_that_hangs_is_left(listening: Any) -> None:
    """An attempt ends with its time."""
    receiver = await listening()
    receiver.delay_seconds = 30
    attempt = await call(delivery(webhook=receiver.url), timeout_seconds=0.3)
    assert attempt == NotTold(reason="no answer within 0.3 s", strain=Strain.FAILING)


async def test_a_huge_reply_is_not_read(listening: Any) -> None:
    """A receiver that answers 200 with megabytes was told; they are not taken in."""
    receiver = await listening()
    receiver.body = b"x" * 20_000_000
    assert await call(delivery(webhook=receiver.url)) == Told()


async def test_nobody_there_is_a_failure_to_try_again() -> None:
    """A refused connection and an unknown host are tried again."""
    for url in ("http://127.0.0.1:1/", "https://nobody.invalid/"):
        attempt = await call(delivery(webhook=url))
        assert isinstance(attempt, NotTold)
        assert attempt.final is False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_no_name_or_spelling_leads_to_loopback(listening: Any, host: str) -> None:
    """What counts is the address that is connected to, however it is written; the receiver hears nothing."""
    receiver = await listening()
    port = receiver.url.split(":")[2].split("/")[0]
    for scheme in ("http", "https"):
        attempt = await call(delivery(webhook=f"{scheme}://{host}:{port}/"), allow=())
        assert isinstance(attempt, NotTold)
        assert attempt.final is True
    assert receiver.got == []


async def test_plain_http_to_a_public_address_is_refused() -> None:
    """Without TLS only listed networks are called; no packet is sent to find out."""
    attempt = await call(delivery(webhook="http://8.8.8.8/"), allow=LOOPBACK)
    assert isinstance(attempt, NotTold)
    assert attempt.final is True
    assert "without TLS" in attempt.reason


async def test_a_scheme_in_capitals_is_called_with_tls_all_the_same() -> None:
    """As an earlier version stored it: it is judged by the rule of what is encrypted."""
    attempt = await call(delivery(webhook="HTTPS://192.0.2.1/hook"), allow=())
    assert isinstance(attempt, NotTold)
    assert "only public addresses may be called" in attempt.reason


async def test_a_proxy_from_the_environment_is_not_used(listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY would connect for us, past the rule; it is ignored."""
    proxy, receiver = await listening(), await listening()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert await call(delivery(webhook=receiver.url)) == Told()
    assert proxy.got == []
    assert len(receiver.got) == 1


async def test_https_checks_the_certificate(listening: Any, trusted: Trusted) -> None:
    """A certificate of the operator's own authority is believed, one of nobody's is not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.certificate.configure_cert(context)
    receiver = await listening(tls=context)
    assert await call(delivery(webhook=receiver.url), ca_file=trusted.ca_file) == Told()
    attempt = await call(delivery(webhook=receiver.url))
    assert isinstance(attempt, NotTold)
    assert attempt.final is False
    assert len(receiver.got) == 1
