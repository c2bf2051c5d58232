"""A client's side of PredictionService, in a dozen lines of use.

    async with Client("127.0.0.1:8001", identity="shop") as client:
        got = await client.predict("digits", image=Path("seven.png").read_bytes())
        if got.deferral is None:
            print(got.label, got.confidence)
        else:
            told = await got.deferral.outcome(timeout_seconds=600)
            print(told.label, "says a person")

Values are those of `fallback.answer` and `fallback.deferral`. Every call may raise the DemurError that the gateway
answered with.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeVar, get_args

import grpc
import msgspec
import numpy as np

from demur.v1 import prediction_pb2 as pb
from demur.v1 import types_pb2
from demur.v1.prediction_pb2_grpc import PredictionServiceStub
from fallback import channel, wire
from fallback.answer import Answer, Label, Subject, Task
from fallback.deferral import TERMINAL, Deferral, State
from fallback.deferral_wire import deferral_from_wire
from fallback.edge import error_of
from fallback.errors import InvalidError, OverdueError, UnavailableError
from fallback.identity import AUTHORIZATION_KEY, IDENTITY_KEY
from gateway.given import attributes_to_wire, callback_to_wire, deadline_to_wire, subject_of, subject_to_wire
from gateway.outcome_stream import OutcomeStream
from gateway.rules import Decision
from gateway.tensor import Array
from gateway.verdict import Verdict
from gateway.wire import tensors_from_wire, tensors_to_wire

CALL_SECONDS: Final = 10.0
# One WaitDeferral; a longer wait is made of several.
WAIT_SECONDS: Final = 30.0
_MARGIN_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.5
REPLY_BYTES_MAX: Final = 300 * 1024 * 1024
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md; Predict has `attempts`.
_RETRIED: Final = ("GetDeferral", "CancelDeferral")
_SERVICE_CONFIG: Final = msgspec.json.encode(
    {
        "methodConfig": [
            {
                "name": [{"service": "demur.v1.PredictionService", "method": method} for method in _RETRIED],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.3s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
).decode()

Wish = Literal["", "person", "model"]
OnExpiry = Literal["", "answer_unreviewed", "abstain", "escalate"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A deferral as it stands, how long it will wait (from `get`, where that can be said), and how it ended."""

    deferral: Deferral
    expected_wait_seconds: float | None = None

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.deferral.state

    @property
    def answer(self) -> Answer | None:
        """The final answer; None while there is none, or where it ended without one."""
        return None if self.deferral.outcome is None else self.deferral.outcome.answer

    @property
    def label(self) -> str:
        """The final answer where it is a label, else empty."""
        return self.answer.label if isinstance(self.answer, Label) else ""

    @property
    def reviewed(self) -> bool:
        """Whether a person gave the answer."""
        return self.deferral.outcome is not None and self.deferral.outcome.reviewed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The name of a deferral, and the way to its outcome."""

    name: str
    client: Client

    async def outcome(self, timeout_seconds: float | None = None) -> Told:
        """Wait until it has ended, for as long as it takes; OverdueError after `timeout_seconds`."""
        told = await self.client.wait(self.name, timeout_seconds=timeout_seconds)
        if told.state not in TERMINAL:
            raise OverdueError(f"{self.name}: nobody answered within {timeout_seconds:g} s; it is still open")
        return told

    async def cancel(self) -> Told:
        """Take the question back."""
        return await self.client.cancel(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What Predict replied. `deferral` is set where a person will answer; the label is then the model's guess.

    `confidence` in [0, 1]; `label` is empty and `confidence` 0 where the model says neither.
    `expected_wait_seconds`: how long the person will take, where that can be said. `certificate`: the name of the one
    in force, empty for none.
    """

    model: str
    version: str
    decision: Decision
    label: str
    confidence: float
    deferral: Pending | None
    outputs: Mapping[str, Array]
    rules: tuple[Verdict, ...]
    queue_seconds: float
    compute_seconds: float
    expected_wait_seconds: float | None = None
    certificate: str = ""


class Client:
    """Calls PredictionService at `address` (host:port, or unix:path).

    `identity` is the client's name on a gateway without credentials, `token` what shows who it is on one with them.
    With `credentials` (grpc.ssl_channel_credentials) it is reached by TLS; its certificate is for `server_name`, or
    else for the address's host.
    """

    def __init__(
        self,
        address: str,
        *,
        identity: str = "",
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str = "",
    ) -> None:
        self._channel = channel.opened(
            address,
            credentials=credentials,
            server_name=server_name,
            options=(
                ("grpc.service_config", _SERVICE_CONFIG),
                ("grpc.max_receive_message_length", REPLY_BYTES_MAX),
            ),
        )
        self._stub: Any = PredictionServiceStub(self._channel)
        metadata = [(IDENTITY_KEY, identity)] if identity else []
        metadata += [(AUTHORIZATION_KEY, f"Bearer {token}")] if token else []
        self._metadata = tuple(metadata)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def predict(
        self,
        model: str,
        *,
        image: bytes | None = None,
        text: str | None = None,
        json: object = None,
        subject: Subject | tuple[bytes, str] | None = None,
        inputs: Mapping[str, Array] | None = None,
        version: str = "",
        idempotency_key: str = "",
        callback: str = "",
        wish: Wish = "",
        priority: int = 0,
        review_seconds: float | None = None,
        on_expiry: OnExpiry = "",
        attributes: Mapping[str, str] | None = None,
        tier: str = "",
        excluded_reviewers: Sequence[str] = (),
        timeout_seconds: float = CALL_SECONDS,
        attempts: int = 1,
    ) -> Result:
        """Ask a model about one input.

        The input is one of `image` (PNG or JPEG bytes), `text`, `json` (any value), `subject` (content with its media
        type), or `inputs` (one row of each of the model's inputs by name), which may come with one of the others for
        the reviewer to look at. `callback` is a webhook's URL or a CallbackService's host:port. With an
        `idempotency_key`, up to `attempts` calls are made while the gateway is away. `tier` is that of reviewers to
        begin at, empty for the first; `excluded_reviewers` (at most 32 names) are never asked.
        """
        shown = subject_of(image=image, text=text, json=json, subject=subject)
        if attempts > 1 and not idempotency_key:
            raise InvalidError("idempotency_key: expected one where a call may be made again, got none")
        request = pb.PredictRequest(
            model=model,
            version=version,
            inputs=tensors_to_wire({name: np.asarray(array) for name, array in (inputs or {}).items()}),
            subject=subject_to_wire(shown),
            idempotency_key=idempotency_key,
            callback=callback_to_wire(callback),
            priority=priority,
            review_deadline=deadline_to_wire(review_seconds),
            on_expiry=_one_of("on_expiry", on_expiry, get_args(OnExpiry)).upper() or None,
            wish=_one_of("wish", wish, get_args(Wish)).upper() or None,
            attributes=attributes_to_wire(attributes),
            tier=tier,
            excluded_reviewers=excluded_reviewers,
        )
        until = time.monotonic() + timeout_seconds
        for left in reversed(range(attempts)):
            try:
                return self._result(await self._call(self._stub.Predict, request, until - time.monotonic()))
            except UnavailableError as error:
                pause = error.retry_after_seconds or _PAUSE_SECONDS
                if not left or time.monotonic() + pause >= until:
                    raise
                await asyncio.sleep(pause)
        raise InvalidError(f"attempts: expected at least 1, got {attempts}")

    async def request_review(
        self,
        queue: str,
        task: Task,
        *,
        image: bytes | None = None,
        text: str | None = None,
        json: object = None,
        subject: Subject | tuple[bytes, str] | None = None,
        idempotency_key: str = "",
        callback: str = "",
        priority: int = 0,
        review_seconds: float | None = None,
        on_expiry: OnExpiry = "",
        attributes: Mapping[str, str] | None = None,
        tier: str = "",
        excluded_reviewers: Sequence[str] = (),
        timeout_seconds: float = CALL_SECONDS,
    ) -> Pending:
        """Ask a person without asking a model; `tier` and `excluded_reviewers` as in `predict`."""
        request = pb.RequestReviewRequest(
            queue=queue,
            subject=subject_to_wire(subject_of(image=image, text=text, json=json, subject=subject)),
            task=wire.task_to_wire(task),
            idempotency_key=idempotency_key,
            callback=callback_to_wire(callback),
            priority=priority,
            review_deadline=deadline_to_wire(review_seconds),
            on_expiry=_one_of("on_expiry", on_expiry, get_args(OnExpiry)).upper() or None,
            attributes=attributes_to_wire(attributes),
            tier=tier,
            excluded_reviewers=excluded_reviewers,
        )
        reply = await self._call(self._stub.RequestReview, request, timeout_seconds)
        return Pending(name=reply.name, client=self)

    def pending(self, name: str) -> Pending:
        """Return the way to the outcome of a deferral whose name was kept."""
        return Pending(name=name, client=self)

    async def get(self, name: str, *, timeout_seconds: float = CALL_SECONDS) -> Told:
        """Return a deferral as it stands."""
        return _told(await self._call(self._stub.GetDeferral, pb.GetDeferralRequest(name=name), timeout_seconds))

    async def wait(self, name: str, *, timeout_seconds: float | None = None) -> Told:
        """Return a deferral once it has ended, or as it is after `timeout_seconds` (None: no limit).

        Goes on while the gateway is away for a moment.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = WAIT_SECONDS if until is None else max(0.0, min(WAIT_SECONDS, until - time.monotonic()))
            request = pb.WaitDeferralRequest(name=name, timeout=wire.duration_to_wire(left))
            try:
                told = _told(await self._call(self._stub.WaitDeferral, request, left + _MARGIN_SECONDS))
            except UnavailableError as error:
                pause = error.retry_after_seconds or _PAUSE_SECONDS
                if until is not None and time.monotonic() + pause >= until:
                    raise
                await asyncio.sleep(pause)
                continue
            if told.state in TERMINAL or (until is not None and time.monotonic() >= until):
                return told

    async def cancel(self, name: str, *, timeout_seconds: float = CALL_SECONDS) -> Told:
        """Take a question back; a StateError once it has an outcome."""
        request = pb.CancelDeferralRequest(name=name, request_id=uuid.uuid4().hex)
        return _told(await self._call(self._stub.CancelDeferral, request, timeout_seconds))

    def watch(self, queue: str, cursor: str = "") -> OutcomeStream:
        """Return outcomes as they come, from `cursor` on: empty from now, "0" from the oldest kept.

        Ends with a DemurError when the gateway goes away; go on with the stream's `cursor`.
        """
        request = pb.WatchOutcomesRequest(queue=queue, cursor=cursor)
        return OutcomeStream(self._stub.WatchOutcomes(request, metadata=self._metadata), cursor)

    async def _call(self, method: Any, request: Any, timeout_seconds: float) -> Any:
        return await _raised(method(request, timeout=timeout_seconds, metadata=self._metadata))

    def _result(self, reply: pb.PredictResponse) -> Result:
        prediction = reply.prediction
        return Result(
            model=prediction.model,
            version=prediction.version,
            decision=Decision[pb.Decision.Name(reply.decision)],
            label=prediction.answer.label,
            confidence=prediction.confidence,
            deferral=Pending(name=reply.deferral, client=self) if reply.deferral else None,
            outputs=tensors_from_wire(reply.outputs, field="outputs"),
            rules=tuple(
                Verdict(rule=rule.rule, defers=rule.defers, evaluation=rule.evaluation) for rule in reply.rules
            ),
            queue_seconds=_seconds(reply.queue_duration),
            compute_seconds=_seconds(reply.compute_duration),
            expected_wait_seconds=wire.expected_wait_from_wire(reply),
            certificate=reply.certificate,
        )


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InvalidError(f"{field}: expected {', '.join(choice or '(empty)' for choice in choices)}; got {value!r}")
    return value


async def _raised(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error


def _told(reply: types_pb2.Deferral) -> Told:
    return Told(deferral=deferral_from_wire(reply), expected_wait_seconds=wire.expected_wait_from_wire(reply))


def _seconds(duration: Any) -> float:
    return wire.duration_from_wire("duration", duration)
