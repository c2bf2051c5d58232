"""Telling one outcome to one receiver: a webhook (Standard Webhooks 1.0.0) or demur.v1.CallbackService.

One attempt ends as a value: Told, or NotTold with the reason, whether to try again, and what it says of the receiver.
When to try again is `fallback.patience`; who tries is the dispatcher.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import grpc
import msgspec
from google.protobuf.json_format import MessageToDict

from demur.v1 import callback_pb2 as pb
from demur.v1.callback_pb2_grpc import CallbackServiceStub
from fallback.address import Rule, asks_tls, receiver_of, split_target
from fallback.deferral_wire import deferral_to_wire
from fallback.edge import error_of
from fallback.errors import ConfigError, ForbiddenError, InvalidError
from fallback.lookup import Lookups
from fallback.outbox import target_of
from fallback.patience import RETRY_AFTER_SECONDS_MAX, Strain
from fallback.queue import Delivery
from fallback.wire import outcome_to_wire, timestamp_to_wire

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # what a secret starts with, not one
SECRET_BYTES_MIN: Final = 24
SECRET_BYTES_MAX: Final = 64
RESPONSE_BYTES_MAX: Final = 16 * 1024
REASON_CHARS_MAX: Final = 300
# How long the body of an answer may take: the status came, so nothing hangs on it but the connection.
BODY_SECONDS_MAX: Final = 0.5
CONNECTIONS_MAX: Final = 1_000
_GRPC_MESSAGE_BYTES_MAX: Final = 64 * 1024
_GONE: Final = 410
_TOLD: Final = range(200, 300)
_THROTTLING: Final = frozenset({429, 502, 504})
_SERVER_ERROR: Final = 500
_REFUSED: Final = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
_FINAL_CODES: Final = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT, *_REFUSED})
_THROTTLING_CODES: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED})
_FAILING_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
_DIGITS_MAX: Final = 10
_DATE_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Told:
    """The receiver took it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTold:
    """The receiver did not take it. `final`: trying again as things are makes no sense; an operator may redeliver.

    `gone`: the target wants nothing any more, from anybody. `strain` is what it says of the receiver as a whole.
    """

    reason: str
    final: bool = False
    gone: bool = False
    strain: Strain = Strain.NONE
    retry_after_seconds: float = 0.0


Attempt = Told | NotTold


def key_of(secret: str) -> bytes:
    """Return the key in `whsec_<base64>`; raises ConfigError unless it is 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ConfigError("DEMUR_WEBHOOK_SECRET: expected whsec_ followed by base64") from error
    if not secret.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ConfigError(
            f"DEMUR_WEBHOOK_SECRET: expected whsec_ and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, "
            f"got {len(key)} bytes"
        )
    return key


def keys_of(secrets: str) -> tuple[bytes, ...]:
    """Return the keys in secrets separated by spaces, the newest first; raises ConfigError as `key_of` does."""
    return tuple(key_of(each) for each in secrets.split()) or (key_of(""),)


def sign(key: bytes, *, delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return webhook-signature: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks)."""
    digest = hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode("ascii")


def body_of(delivery: Delivery) -> bytes:
    """Return the webhook's JSON: type, timestamp, and as data the deferral with its outcome (the contract's JSON)."""
    deferral = delivery.deferral
    outcome = None
    if deferral.outcome is not None:
        outcome = MessageToDict(
            outcome_to_wire(deferral.outcome),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
    prediction = deferral.prediction
    data = {
        "deferral": deferral.name,
        "state": deferral.state.name,
        "version": deferral.version,
        "outcome": outcome,
        "model": prediction.model if prediction else "",
        "model_version": prediction.version if prediction else "",
    }
    return msgspec.json.encode({"type": delivery.type, "timestamp": _moment(delivery.create_time), "data": data})


def headers_of(
    delivery: Delivery, keys: Sequence[bytes], body: bytes, now: float, *, cloudevents: bool
) -> dict[str, str]:
    """Return a webhook's headers: one signature a key, and with `cloudevents` those of CloudEvents 1.0, binary mode."""
    timestamp = int(now)
    signatures = [sign(key, delivery_id=delivery.id, timestamp=timestamp, body=body) for key in keys]
    found = {
        "content-type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
    if cloudevents:
        found |= {
            "ce-specversion": "1.0",
            "ce-id": delivery.id,
            "ce-source": f"/queues/{delivery.deferral.queue}",
            "ce-type": delivery.type,
            "ce-time": _moment(delivery.create_time),
            "ce-subject": delivery.deferral.name,
        }
    return found


def endpoint_of(delivery: Delivery) -> str:
    """Return whom a delivery goes to: host and port, what limits count by."""
    return receiver_of(target_of(delivery.callback))


class _RefusedAddressError(OSError):
    """An OSError, so that the connector goes on to the host's next address."""


class Caller:
    """Makes attempts. One for a process; its two pools of connections are closed on leaving it."""

    def __init__(
        self, *, secret: str, rule: Rule, timeout_seconds: float, ca_file: str = "", cloudevents: bool = False
    ) -> None:
        """Take the signing secrets (the newest first), the rule of addresses, and how long one attempt may take."""
        self._keys = keys_of(secret)
        self._cloudevents = cloudevents
        self._rule = rule
        self._timeout_seconds = timeout_seconds
        self._ca = read_ca(ca_file)
        self._lookups = Lookups()
        self._exits = AsyncExitStack()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        for encrypted in (True, False):
            self._sessions[encrypted] = await self._exits.enter_async_context(self._session(encrypted=encrypted))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def call(self, delivery: Delivery) -> Attempt:
        """Make one attempt; never raises for what the receiver or the network does."""
        try:
            if delivery.callback.grpc_target:
                return await self._call_grpc(delivery)
            return await self._call_webhook(delivery)
        except (ForbiddenError, InvalidError, aiohttp.InvalidURL) as error:
            return NotTold(reason=_clip(str(error)), final=True)
        except TimeoutError:
            return NotTold(reason=f"no answer within {self._timeout_seconds:g} s", strain=Strain.FAILING)
        except aiohttp.ClientConnectorError as error:
            return _not_connected(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return NotTold(reason=_clip(f"{type(error).__name__}: {error}"), strain=Strain.FAILING)

    def _session(self, *, encrypted: bool) -> aiohttp.ClientSession:
        def open_socket(where: Any) -> socket.socket:
            family, kind, proto, _, address = where
            try:
                return self._rule.open(family, kind, proto, address, encrypted=encrypted)
            except ForbiddenError as error:
                raise _RefusedAddressError(error.message) from error

        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS_MAX,
            happy_eyeballs_delay=None,
            socket_factory=open_socket,
            ssl=self._context(),
            resolver=self._lookups,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": "demur-webhooks/1"},
        )

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca:
            context.load_verify_locations(cadata=self._ca.decode("ascii"))
        return context

    async def _call_webhook(self, delivery: Delivery) -> Attempt:
        url = delivery.callback.webhook_url
        body = body_of(delivery)
        headers = headers_of(delivery, self._keys, body, time.time(), cloudevents=self._cloudevents)
        session = self._sessions[asks_tls(url)]
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status in _TOLD:
                await _read_bounded(response)
                return Told()
            return _answered(response.status, response.headers.get("retry-after", ""), time.time())

    async def _call_grpc(self, delivery: Delivery) -> Attempt:
        request = pb.DeliverRequest(
            id=delivery.id,
            type=delivery.type,
            create_time=timestamp_to_wire(delivery.create_time),
            deferral=deferral_to_wire(delivery.deferral, show_prediction=True),
        )
        async with asyncio.timeout(self._timeout_seconds):
            host, port = split_target("grpc_target", delivery.callback.grpc_target)
            async with await self._dial(host, port) as channel:
                try:
                    metadata = (("webhook-id", delivery.id), ("webhook-timestamp", str(int(time.time()))))
                    stub = CallbackServiceStub(channel)
                    await stub.Deliver(request, timeout=self._timeout_seconds, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    return _answered_code(error)
        return Told()

    async def _dial(self, host: str, port: int) -> grpc.aio.Channel:
        """Return a channel to the first address of `host` that may be called: to the address, never the name again."""
        found = await self._lookups.find(host, port)
        refused: ForbiddenError | None = None
        for _, _, _, _, where in found:
            address = str(where[0])
            plain = self._rule.listed(address)
            try:
                self._rule.check(address, encrypted=not plain)
            except ForbiddenError as error:
                refused = error
                continue
            target = f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
            if plain:
                return grpc.aio.insecure_channel(target, options=_options(host, port))
            options = [*_options(host, port), ("grpc.ssl_target_name_override", host)]
            credentials = grpc.ssl_channel_credentials(self._ca or None)
            return grpc.aio.secure_channel(target, credentials, options=options)
        raise refused or ForbiddenError(f"{host}: has no address")


def _options(host: str, port: int) -> list[tuple[str, Any]]:
    shown = f"[{host}]" if ":" in host else host
    return [
        ("grpc.default_authority", f"{shown}:{port}"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", _GRPC_MESSAGE_BYTES_MAX),
    ]


def read_ca(path: str) -> bytes:
    """Return what fallback.callback_ca_file holds, nothing where none is named; raises ConfigError."""
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"fallback.callback_ca_file {path}: {error}") from error


async def _read_bounded(response: aiohttp.ClientResponse) -> None:
    """Read a small body, so that the connection can be used again; leave one that is large or slow, which closes it.

    The status was the answer: whatever the body does, the event was taken.
    """
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while size <= RESPONSE_BYTES_MAX and (chunk := await response.content.read(RESPONSE_BYTES_MAX)):
                size += len(chunk)
    except (aiohttp.ClientError, OSError, ValueError):  # a TimeoutError is an OSError
        size = RESPONSE_BYTES_MAX + 1
    if size > RESPONSE_BYTES_MAX:
        response.close()


def _answered(status: int, retry_after_header: str, now: float) -> NotTold:
    """Return what an HTTP status means (Standard Webhooks 1.0.0, "Delivery success and failure")."""
    strain = Strain.NONE
    if status in _THROTTLING:
        strain = Strain.THROTTLED
    elif status >= _SERVER_ERROR:
        strain = Strain.FAILING
    gone = status == _GONE
    return NotTold(
        reason=f"the receiver answered {status}, expected 200 to 299",
        final=gone,
        gone=gone,
        strain=strain,
        retry_after_seconds=asked_seconds(retry_after_header, now),
    )


def _answered_code(error: grpc.aio.AioRpcError) -> NotTold:
    """Return what a gRPC status means: a receiver that will say the same again is not asked again."""
    code = error.code()
    strain = Strain.NONE
    if code in _THROTTLING_CODES:
        strain = Strain.THROTTLED
    elif code in _FAILING_CODES:
        strain = Strain.FAILING
    return NotTold(
        reason=_clip(f"the receiver answered {code.name}: {error.details()}"),
        final=code in _FINAL_CODES,
        strain=strain,
        retry_after_seconds=retry_info_seconds(error),
    )


def retry_info_seconds(error: grpc.aio.AioRpcError) -> float:
    """Return what a status's google.rpc.RetryInfo asks for, 0 where there is none."""
    found = error_of(error).retry_after_seconds
    return min(max(found or 0.0, 0.0), RETRY_AFTER_SECONDS_MAX)


def _not_connected(error: aiohttp.ClientConnectorError) -> NotTold:
    cause = error.os_error if isinstance(error.os_error, OSError) else error
    refused = isinstance(cause, _RefusedAddressError)
    return NotTold(reason=_clip(str(cause)), final=refused, strain=Strain.NONE if refused else Strain.FAILING)


def asked_seconds(header: str, now: float) -> float:
    """Return the seconds that Retry-After asks for at Unix time `now`: a number or an HTTP date (RFC 9110, 10.2.3).

    Anything else asks for nothing.
    """
    if header.isascii() and header.isdecimal():
        return min(float(header[:_DIGITS_MAX]), RETRY_AFTER_SECONDS_MAX)
    try:
        moment = parsedate_to_datetime(header[:_DATE_CHARS_MAX])
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    # A date without a zone is one in GMT: HTTP knows no other.
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _moment(seconds: float) -> str:
    """Return Unix seconds as RFC 3339 has them, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clip(text: str) -> str:
    return text[:REASON_CHARS_MAX]
