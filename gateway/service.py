"""demur.v1.PredictionService: wire to values and back. The rules stand behind it."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from google.protobuf.message import Message

from demur.v1 import prediction_pb2 as pb
from demur.v1 import types_pb2
from fallback import wire
from fallback.answer import Identity, Label
from fallback.deferral import Deferral, OnExpiry, Parking, Prediction
from fallback.deferral_wire import deferral_to_wire
from fallback.errors import DemurError, InvalidError, NotFoundError, OverError, UnavailableError
from fallback.identity import CLIENT, OPERATOR, Credentials
from fallback.long_polls import DEADLINE_MARGIN_SECONDS, SLICE_SECONDS
from fallback.parking import EXCLUDED_MAX, NAME_CHARS_MAX
from fallback.queue import Parked, Queue
from gateway import plain_predict
from gateway.champions import Champions
from gateway.metrics import Metrics
from gateway.question import Questions
from gateway.reader import SMALL_BYTES
from gateway.request import Request, Result, request_key
from gateway.rules import Wish
from gateway.slip import digest
from gateway.transport import Call, Hot, Slow
from gateway.wire import message_of, tensors_from_wire, tensors_to_wire

SERVICE: Final = "demur.v1.PredictionService"
KEY_CHARS_MAX: Final = 128
PRIORITY_MAX: Final = 9
OUTCOMES_MAX: Final = 100
# How often a stream of outcomes says where it is when it has nothing else to say.
CURSOR_SECONDS: Final = 5.0


class PredictionService:
    """The methods, as routes. `wait_seconds_max` bounds one wait for a person."""

    def __init__(
        self,
        *,
        champions: Champions,
        queue: Queue,
        credentials: Credentials,
        metrics: Metrics,
        message_bytes_max: int,
        wait_seconds_max: float,
    ) -> None:
        self._champions = champions
        self._metrics = metrics
        self._queue = queue
        self._credentials = credentials
        self._message_bytes_max = message_bytes_max
        self._wait_seconds_max = wait_seconds_max
        self._draining = False
        self._questions = Questions(plain_predict.FORM)
        self._wording = plain_predict.PredictWording(lambda call, _: PredictWaiter(call))

    def drain(self) -> None:
        """Let streams and long polls end, soon; their clients go on elsewhere."""
        self._draining = True

    def hot(self) -> Mapping[str, Hot]:
        """Return what runs on the transport's thread."""
        return {f"/{SERVICE}/Predict": self._predict}

    def slow(self) -> Mapping[str, Slow]:
        """Return what waits for the queue."""
        methods: dict[str, Callable[[Call], Awaitable[Message]]] = {
            "RequestReview": self._request_review,
            "GetDeferral": self._get,
            "WaitDeferral": self._wait,
            "CancelDeferral": self._cancel,
        }
        answering = {f"/{SERVICE}/{name}": _answering(method) for name, method in methods.items()}
        return {**answering, f"/{SERVICE}/WatchOutcomes": self._watch}

    def writes(self) -> frozenset[str]:
        """Return the methods that stream to the client."""
        return frozenset({f"/{SERVICE}/WatchOutcomes"})

    def _caller(self, call: Call) -> Identity:
        return self._credentials.identify(call.metadata, peer=call.peer, role=CLIENT)

    def _predict(self, call: Call) -> None:
        identity = self._credentials.identify(call.metadata, peer=call.peer, role=CLIENT)
        driven = call.driven and len(call.payload) <= SMALL_BYTES
        question = self._questions.find(call.payload)
        if question is not None:
            found = self._champions.find(question.model)
            if found.submit_quick(call, question, identity.name, self._wording, driven=driven):
                return
        message = message_of(call.payload, pb.PredictRequest)
        if question is None:
            self._questions.learn(call.payload, message)
        request = self._request(message, identity, call)
        self._champions.find(request.model).submit(request, PredictWaiter(call), driven=driven)

    def _request(self, message: pb.PredictRequest, identity: Identity, call: Call) -> Request:
        key = wire.text_from_wire("idempotency_key", message.idempotency_key, chars_max=KEY_CHARS_MAX)
        subject = None
        if message.HasField("subject"):
            subject = wire.subject_from_wire(message.subject, bytes_max=self._message_bytes_max)
        return Request(
            model=message.model,
            version=message.version,
            tensors=tensors_from_wire(message.inputs),
            subject=subject,
            client=identity.name,
            idempotency_key=key,
            request_key=request_key(identity.name, key),
            one_row=True,
            callback=wire.callback_from_wire(message.callback),
            priority=priority_of("priority", message.priority),
            review_seconds=_review_seconds(message),
            on_expiry=wire.on_expiry_from_wire(message.on_expiry),
            wish=_wish(message.wish),
            attributes=wire.attributes_from_wire(message.attributes),
            tier=_tier(message),
            excluded_reviewers=_excluded(message),
            deadline=call.deadline,
        )

    async def _request_review(self, call: Call) -> Message:
        identity = self._caller(call)
        message = message_of(call.payload, pb.RequestReviewRequest)
        key = wire.text_from_wire("idempotency_key", message.idempotency_key, chars_max=KEY_CHARS_MAX)
        queue = wire.queue_from_wire("queue", message.queue)
        subject = wire.subject_from_wire(message.subject, bytes_max=self._message_bytes_max)
        on_expiry = wire.on_expiry_from_wire(message.on_expiry)
        if on_expiry is OnExpiry.ANSWER_UNREVIEWED:
            raise InvalidError(
                "on_expiry: expected ABSTAIN or ESCALATE, got ANSWER_UNREVIEWED; there is no model's answer"
            )
        asked = Parking(
            queue=queue,
            client=identity.name,
            idempotency_key=key,
            input_digest=digest(f"queues/{queue}", {}, subject),
            task=wire.task_from_wire(message.task),
            subject=subject.content,
            media_type=subject.media_type,
            attributes={**subject.attributes, **wire.attributes_from_wire(message.attributes)},
            callback=wire.callback_from_wire(message.callback),
            priority=priority_of("priority", message.priority),
            review_seconds=_review_seconds(message),
            on_expiry=on_expiry,
            tier=_tier(message),
            excluded_reviewers=_excluded(message),
            reasons=("wish",),
        )
        (parked,) = await self._queue.park([asked])
        self._count(parked)
        if isinstance(parked, DemurError):
            raise parked
        return await self._waiting(await self._queue.get(parked.name))

    def _count(self, parked: Parked | DemurError) -> None:
        """Count a request that met a queue over its limit."""
        if isinstance(parked, OverError):
            self._metrics.over.labels(parked.queue, parked.limit, "refused").inc()
        elif isinstance(parked, Parked) and parked.over:
            self._metrics.over.labels(parked.name.split("/")[1], parked.over, "kept").inc()

    async def _waiting(self, deferral: Deferral) -> Message:
        """Return a deferral with how long it will still wait, where that can be said."""
        wait = await self._queue.expected_wait(deferral)
        return deferral_to_wire(deferral, show_prediction=True, expected_wait=wait)

    async def _get(self, call: Call) -> Message:
        message = message_of(call.payload, pb.GetDeferralRequest)
        return await self._waiting(await self._own(message.name, self._caller(call)))

    async def _wait(self, call: Call) -> Message:
        identity = self._caller(call)
        message = message_of(call.payload, pb.WaitDeferralRequest)
        seconds = self._wait_seconds_max
        if message.HasField("timeout"):
            seconds = min(seconds, wire.duration_from_wire("timeout", message.timeout))
        until = time.monotonic() + seconds
        if call.deadline is not None:
            until = min(until, call.deadline - DEADLINE_MARGIN_SECONDS)
        deferral = await self._own(message.name, identity)
        return deferral_to_wire(
            await wait(self._queue, deferral, until, lambda: self._draining or call.cancelled), show_prediction=True
        )

    async def _cancel(self, call: Call) -> Message:
        identity = self._caller(call)
        message = message_of(call.payload, pb.CancelDeferralRequest)
        request_id = wire.text_from_wire("request_id", message.request_id, chars_max=wire.REQUEST_ID_CHARS_MAX)
        await self._own(message.name, identity)
        deferral = await self._queue.cancel(message.name, request_id=request_id or uuid.uuid4().hex)
        return deferral_to_wire(deferral, show_prediction=True)

    async def _watch(self, call: Call) -> None:
        identity = self._caller(call)
        message = message_of(call.payload, pb.WatchOutcomesRequest)
        queue = wire.queue_from_wire("queue", message.queue)
        said, said_time = message.cursor, -math.inf
        cursor = said or await self._queue.last_cursor(queue)
        while not call.cancelled:
            if self._draining:
                raise UnavailableError("the gateway is stopping; go on from the last cursor", retry_after_seconds=1.0)
            # What others see moves the cursor too: else it would point to what is no longer kept some day.
            if cursor != said and time.monotonic() - said_time >= CURSOR_SECONDS:
                await call.send(pb.WatchOutcomesResponse(cursor=cursor).SerializeToString())
                said, said_time = cursor, time.monotonic()
            events = await self._queue.outcomes(
                queue, cursor, count=OUTCOMES_MAX, wait_seconds=SLICE_SECONDS, whole=True
            )
            for event in events:
                cursor = event.cursor
                if self._may_see(event.deferral, identity):
                    deferral = deferral_to_wire(event.deferral, show_prediction=True)
                    await call.send(pb.WatchOutcomesResponse(cursor=cursor, deferral=deferral).SerializeToString())
                    said, said_time = cursor, time.monotonic()

    async def _own(self, name: str, identity: Identity) -> Deferral:
        """Return a deferral that this client may see; others' are as if they were not there."""
        wire.name_from_wire("name", name)
        deferral = await self._queue.get(name)
        if not self._may_see(deferral, identity):
            raise NotFoundError(f"{name}: there is no such deferral, or it is no longer kept")
        return deferral

    def _may_see(self, deferral: Deferral, identity: Identity) -> bool:
        own = deferral.client == identity.name
        return own or not self._credentials.configured or OPERATOR in identity.roles


class PredictWaiter:
    """Replies to Predict."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._call.cancelled

    def answer(self, result: Result) -> None:
        """Reply with the result."""
        self._call.reply(_response(result).SerializeToString())

    def fail(self, error: DemurError) -> None:
        """Refuse."""
        self._call.fail(error)


async def wait(queue: Queue, deferral: Deferral, until: float, given_up: Callable[[], bool]) -> Deferral:
    """Return the deferral once it has its outcome, or as it is at `until` (time.monotonic()) or when `given_up`."""
    while deferral.outcome is None and not given_up() and (left := until - time.monotonic()) > 0:
        deferral = await queue.wait(deferral.name, timeout_seconds=min(left, SLICE_SECONDS))
    return deferral


def priority_of(field: str, priority: int) -> int:
    """Return a priority; raises InvalidError naming `field`."""
    if not 0 <= priority <= PRIORITY_MAX:
        raise InvalidError(f"{field}: expected 0 (least urgent) to {PRIORITY_MAX}, got {priority}")
    return priority


def _answering(method: Callable[[Call], Awaitable[Message]]) -> Slow:
    async def answer(call: Call) -> None:
        call.reply((await method(call)).SerializeToString())

    return answer


def _review_seconds(message: pb.PredictRequest | pb.RequestReviewRequest) -> float | None:
    if not message.HasField("review_deadline"):
        return None
    return wire.duration_from_wire("review_deadline", message.review_deadline)


def _tier(message: pb.PredictRequest | pb.RequestReviewRequest) -> str:
    return wire.text_from_wire("tier", message.tier, chars_max=NAME_CHARS_MAX)


def _excluded(message: pb.PredictRequest | pb.RequestReviewRequest) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(message.excluded_reviewers))
    if len(names) > EXCLUDED_MAX:
        raise InvalidError(f"excluded_reviewers: expected at most {EXCLUDED_MAX} names, got {len(names)}")
    for name in names:
        wire.text_from_wire("excluded_reviewers", name, chars_max=NAME_CHARS_MAX, needed=True)
    return names


def _wish(wish: pb.Wish) -> Wish:
    try:
        return Wish(wish)
    except ValueError:
        raise InvalidError(f"wish: expected PERSON, MODEL or none, got {wish}") from None


def _response(result: Result) -> pb.PredictResponse:
    """Return the reply for a request of one row."""
    response = pb.PredictResponse(
        decision=result.decision(0).name,
        prediction=_prediction(result),
        outputs=tensors_to_wire(result.outputs),
        deferral=result.deferrals.get(0, ""),
        queue_duration=wire.duration_to_wire(result.queue_seconds),
        compute_duration=wire.duration_to_wire(result.compute_seconds),
        certificate=result.certificate,
    )
    if 0 in result.expected_waits:
        response.expected_wait.CopyFrom(wire.duration_to_wire(result.expected_waits[0]))
    for verdict in result.verdicts(0):
        response.rules.add(rule=verdict.rule, defers=verdict.defers, evaluation=verdict.evaluation)
    return response


def _prediction(result: Result) -> types_pb2.Prediction:
    confidence = result.confidence(0)
    if confidence is None:
        return types_pb2.Prediction(model=result.model, version=result.version)
    return wire.prediction_to_wire(
        Prediction(
            model=result.model,
            version=result.version,
            answer=Label(result.label(0)),
            confidence=confidence,
        ),
    )
