"""One attempt at a callback, against real receivers: an aiohttp server with and without TLS, a grpc.aio server."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import trustme
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from demur.v1 import callback_pb2 as pb
from demur.v1.callback_pb2_grpc import CallbackServiceServicer, add_CallbackServiceServicer_to_server
from fallback.address import Rule
from fallback.answer import Label, LabelOption, Task
from fallback.callback import Caller, NotTold, Told, body_of
from fallback.deferral import Callback, Deferral, OnExpiry, Outcome, Prediction, Source, State
from fallback.queue import Delivery

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
LOOPBACK = ("127.0.0.0/8", "::1/128")


def delivery(*, webhook: str = "", target: str = "", attempt: int = 1) -> Delivery:
    """A resolved deferral to tell."""
    return Delivery(
        id="0123456789abcdef",
        type="deferral.resolved",
        deferral=Deferral(
            id="0123456789abcdef",
            queue="digits",
            state=State.RESOLVED,
            version=3,
            task=Task(question="Which digit?", labels=(LabelOption(label="7"),)),
            prediction=Prediction(model="digits", version="2", answer=Label("1"), confidence=0.5),
            draw=None,
            outcome=Outcome(source=Source.PERSON, answer=Label("7"), reviewed=True, create_time=1_700_000_000.25),
            reviews=(),
            reviews_wanted=1,
            create_time=1_699_999_999.0,
            expire_time=1_700_086_399.0,
            client="shop",
            priority=0,
            attributes={},
            media_type="image/png",
            reasons=("threshold",),
            audit=False,
            callback=None,
            on_expiry=OnExpiry.ABSTAIN,
            subject_digest="",
            inputs_digest="",
        ),
        callback=Callback(webhook_url=webhook, grpc_target=target),
        attempt=attempt,
        create_time=1_700_000_000.25,
    )


@dataclass
class Receiver:
    """A real HTTP receiver that keeps what it got and answers what it was told to."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay_seconds)
        return web.Response(status=self.status, headers=self.headers, body=self.body)


@pytest.fixture
async def listening() -> AsyncIterator[Callable[..., Any]]:
    """Starts receivers and ends them."""
    runners = []

    async def start(*, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Receiver:
        receiver = Receiver()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", receiver.take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        receiver.url = f"{'https' if tls else 'http'}://{shown}:{port}/callbacks"
        return receiver

    yield start
    for runner in runners:
        await runner.cleanup()


async def call(
    to: Delivery, *, allow: tuple[str, ...] = LOOPBACK, timeout_seconds: float = 5.0, ca_file: str = ""
) -> Told | NotTold:
    async with Caller(secret=SECRET, rule=Rule(allow), timeout_seconds=timeout_seconds, ca_file=ca_file) as caller:
        return await caller.call(to)


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


async def test_gone_is_final_and_retry_after_is_heard(listening: Any) -> None:
    """410 gives up at once; Retry-After in seconds is handed on."""
    receiver = await listening()
    receiver.status = 410
    gone = await call(delivery(webhook=receiver.url))
    receiver.status, receiver.headers = 429, {"retry-after": "120"}
    busy = await call(delivery(webhook=receiver.url))
    assert isinstance(gone, NotTold)
    assert gone.final is True
    assert isinstance(busy, NotTold)
    assert busy.retry_after_seconds == 120


async def test_a_receiver_that_hangs_is_left(listening: Any) -> None:
    """An attempt ends with its time."""
    receiver = await listening()
    receiver.delay_seconds = 30
    attempt = await call(delivery(webhook=receiver.url), timeout_seconds=0.3)
    assert attempt == NotTold(reason="no answer within 0.3 s")


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


async def test_a_proxy_from_the_environment_is_not_used(listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY would connect for us, past the rule; it is ignored."""
    proxy, receiver = await listening(), await listening()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert await call(delivery(webhook=receiver.url)) == Told()
    assert proxy.got == []
    assert len(receiver.got) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A certificate of localhost and 127.0.0.1, and the file of the authority that issued it."""

    certificate: trustme.LeafCert
    ca_file: str


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Trusted:
    """An authority of the test's own."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return Trusted(certificate=authority.issue_cert("localhost", "127.0.0.1"), ca_file=str(file))


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


class Called(CallbackServiceServicer):  # type: ignore[misc]  # the stubs are generated without types
    """A client's CallbackService."""

    def __init__(self) -> None:
        self.got: list[pb.DeliverRequest] = []
        self.code: grpc.StatusCode | None = None

    async def Deliver(self, request: pb.DeliverRequest, context: Any) -> pb.DeliverResponse:  # noqa: N802  # the contract's name
        self.got.append(request)
        if self.code is not None:
            await context.abort(self.code, "not now")
        return pb.DeliverResponse()


@pytest.fixture
async def called() -> AsyncIterator[tuple[Called, str]]:
    service, server = Called(), grpc.aio.server()
    add_CallbackServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service, f"127.0.0.1:{port}"
    await server.stop(0)


async def test_a_callback_over_grpc_arrives(called: tuple[Called, str]) -> None:
    """Deliver carries id, type and the whole deferral with its outcome."""
    service, target = called
    assert await call(delivery(target=target)) == Told()
    (request,) = service.got
    assert (request.id, request.type) == ("0123456789abcdef", "deferral.resolved")
    assert request.deferral.outcome.answer.label == "7"
    assert request.deferral.prediction.confidence == 0.5


async def test_any_other_grpc_status_is_a_failure(called: tuple[Called, str]) -> None:
    """UNAVAILABLE and all others are tried again, with the status as reason."""
    service, target = called
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT):
        service.code = code
        attempt = await call(delivery(target=target))
        assert isinstance(attempt, NotTold)
        assert code.name in attempt.reason
        assert attempt.final is False
    assert isinstance(await call(delivery(target="127.0.0.1:1"), timeout_seconds=2), NotTold)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_grpc_targets_keep_to_the_same_rule(called: tuple[Called, str], host: str) -> None:
    """A name is resolved, judged, and the judged address is dialled."""
    service, target = called
    attempt = await call(delivery(target=f"{host}:{target.rpartition(':')[2]}"), allow=())
    assert isinstance(attempt, NotTold)
    assert attempt.final is True
    assert service.got == []


class _Anywhere(Rule):
    """Takes loopback for a public address, so that TLS is asked for."""

    def listed(self, text: str) -> bool:
        return text == ""

    def check(self, text: str, *, encrypted: bool) -> None:
        assert encrypted, text


async def test_grpc_to_a_public_address_asks_for_tls(trusted: Trusted) -> None:
    """The address is dialled, the certificate is checked against the name."""
    service, server = Called(), grpc.aio.server()
    add_CallbackServiceServicer_to_server(service, server)
    pair = trusted.certificate.private_key_pem.bytes(), trusted.certificate.cert_chain_pems[0].bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    told = []
    for ca_file in (trusted.ca_file, ""):
        async with Caller(secret=SECRET, rule=_Anywhere(), timeout_seconds=2, ca_file=ca_file) as caller:
            told.append(await caller.call(delivery(target=f"localhost:{port}")))
    await server.stop(0)
    assert told[0] == Told()
    assert isinstance(told[1], NotTold)
    assert len(service.got) == 1


async def test_grpc_by_name_reaches_an_allowed_network(called: tuple[Called, str]) -> None:
    """A host name works where its address may be called."""
    service, target = called
    assert await call(delivery(target=f"localhost:{target.rpartition(':')[2]}"), allow=("127.0.0.0/8",)) == Told()
    assert len(service.got) == 1
