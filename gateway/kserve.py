"""inference.GRPCInferenceService, as Triton and KServe clients speak it.

What is served beside it are ModelStreamInfer (`gateway.streamed`) and the extensions that ServerMetadata lists
(`gateway.extensions`); any other method of that protocol answers UNIMPLEMENTED. The decision travels in the reply's
parameters: `demur_decision`, `demur_confidence`, `demur_deferral`. A request of several rows is judged row by row:
`demur_decision` is the weakest of them, `demur_confidence` the lowest, `demur_deferral` the names of the deferred rows
in row order, with commas between, `demur_expected_wait` the longest that one of these is expected to wait, in seconds
(absent where nobody answered lately). Where the queue is over a limit, `demur_over` says so.

What a client gets for a deferred request is the model's `on_deferral`. "provisional": the model's outputs, marked.
"wait": the call waits for the person within its deadline; the deferred rows of the answer's output are then one-hot of
the person's label, and `demur_outcome` is a JSON array with one outcome for each deferred row. "refuse":
FAILED_PRECONDITION that names the deferrals, also in the trailing metadata `demur-deferral` (the first of them, and
"..." in place of the others, where they would not fit into gRPC's limit on metadata).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final

import msgspec

from demur import kserve
from fallback.answer import Identity
from fallback.deferral import Deferral
from fallback.errors import (
    DemurError,
    InvalidError,
    StateError,
    UnavailableError,
    UnimplementedError,
)
from fallback.identity import CLIENT, Credentials
from fallback.long_polls import DEADLINE_MARGIN_SECONDS
from fallback.queue import Queue
from gateway import plain_infer, tensor
from gateway.asked import Asked
from gateway.champion import Live
from gateway.champions import Champions
from gateway.extensions import EXTENSIONS
from gateway.intake import Intake, check_claim
from gateway.internal import told
from gateway.model_config import PLATFORM
from gateway.overruled import overruled
from gateway.question import Question, Questions
from gateway.reader import SMALL_BYTES
from gateway.request import Request, Result, request_key
from gateway.rules import STRENGTH, Decision
from gateway.service import wait
from gateway.slow import SlowLoop
from gateway.tensor import Array
from gateway.transport import Call, Hot
from gateway.wire import message_of

SERVICE: Final = kserve.SERVICE
DEFERRAL_KEY: Final = "demur-deferral"
INPUTS_MAX: Final = 256
# Names of deferrals in metadata: gRPC's default limit on all of a reply's is 8 KiB.
TRAILING_CHARS_MAX: Final = 4_000
_UNSERVED: Final = {
    "shared_memory_region": "contents travel in the message",
    "classification": "take the largest of the whole output",
}
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class InferenceService:
    """The methods, as routes. `ready` says whether calls are welcome."""

    def __init__(
        self,
        *,
        champions: Champions,
        queue: Queue,
        slow: SlowLoop,
        credentials: Credentials,
        message_bytes_max: int,
        wait_seconds_max: float,
    ) -> None:
        self.ready = False
        self._champions = champions
        self._questions = Questions(plain_infer.FORM)
        self._wording = plain_infer.InferWording(self._waiter)
        self._queue = queue
        self._slow = slow
        self._credentials = credentials
        self._message_bytes_max = message_bytes_max
        self._wait_seconds_max = wait_seconds_max

    def hot(self) -> Mapping[str, Hot]:
        """Return the handlers by full method name."""
        methods: dict[str, Hot] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return {f"/{SERVICE}/{name}": handler for name, handler in methods.items()}

    def _live(self, call: Call) -> None:
        call.reply(kserve.ServerLiveResponse(live=True).SerializeToString())

    def _ready(self, call: Call) -> None:
        call.reply(kserve.ServerReadyResponse(ready=self.ready).SerializeToString())

    def _model_ready(self, call: Call) -> None:
        self._identify(call)
        message = message_of(call.payload, kserve.ModelReadyRequest)
        current = self._champions.current(message.name)
        there = current is not None and message.version in {"", current.version}
        call.reply(kserve.ModelReadyResponse(ready=there and self.ready).SerializeToString())

    def _server_metadata(self, call: Call) -> None:
        reply = kserve.ServerMetadataResponse(name="demur", version=metadata.version("demur"), extensions=EXTENSIONS)
        call.reply(reply.SerializeToString())

    def _model_metadata(self, call: Call) -> None:
        self._identify(call)
        message = message_of(call.payload, kserve.ModelMetadataRequest)
        live = self._champions.find_live(message.name, message.version)
        call.reply(_metadata(live).SerializeToString())

    def _identify(self, call: Call) -> Identity:
        return self._credentials.identify(call.metadata, peer=call.peer, role=CLIENT)

    def _infer(self, call: Call) -> None:
        identity = self._credentials.identify(call.metadata, peer=call.peer, role=CLIENT)
        driven = call.driven and len(call.payload) <= SMALL_BYTES
        question = self._questions.find(call.payload)
        if question is not None:
            found = self._champions.find(question.model)
            if found.submit_quick(call, question, identity.name, self._wording, driven=driven):
                return
        message = message_of(call.payload, kserve.ModelInferRequest)
        if question is None:
            self._questions.learn(call.payload, message)
        pipeline = self._champions.find(message.model_name)
        outputs = _outputs(message)
        live = pipeline.champion.live
        request = self._request(message, identity, call, None if live is None else live.intake)
        if live is not None:
            plain_infer.check_outputs(outputs, [spec.name for spec in live.model.signature.outputs])
        pipeline.submit(request, InferWaiter(call, message.id, outputs, self), driven=driven)

    def _waiter(self, call: Call, question: Question) -> InferWaiter:
        return InferWaiter(call, question.id_of(call.payload).decode(), question.outputs, self)

    def _request(self, message: Any, identity: Identity, call: Call, intake: Intake | None) -> Request:
        asked = Asked.of(message.parameters)
        if asked.subject is not None and len(asked.subject.content) > self._message_bytes_max:
            raise InvalidError(f"parameters[demur_subject]: expected at most {self._message_bytes_max} bytes")
        return Request(
            model=message.model_name,
            version=message.model_version,
            tensors=_tensors(message, intake),
            subject=asked.subject,
            client=identity.name,
            idempotency_key=asked.idempotency_key,
            request_key=request_key(identity.name, asked.idempotency_key),
            id=message.id,
            callback=asked.callback,
            priority=asked.priority,
            review_seconds=asked.review_seconds,
            attributes=asked.attributes,
            deadline=call.deadline,
            level=asked.level,
            timeout_us=asked.timeout_us,
        )

    def wait(self, waiter: InferWaiter, result: Result) -> None:
        """Let the slow loop wait for people, then reply."""
        self._slow.spawn(self._wait(waiter, result))

    async def _wait(self, waiter: InferWaiter, result: Result) -> None:
        call = waiter.call
        until = time.monotonic() + self._wait_seconds_max
        if call.deadline is not None:
            until = min(until, call.deadline - DEADLINE_MARGIN_SECONDS)
        try:
            settled = {}
            for row, name in result.deferrals.items():
                deferral = await self._queue.get(name)
                settled[row] = await wait(self._queue, deferral, until, lambda: call.cancelled or not self.ready)
            if not self.ready and any(deferral.outcome is None for deferral in settled.values()):
                stopping = UnavailableError("the gateway is stopping; the deferral stays open", retry_after_seconds=1.0)
                call.fail(stopping, _trailing(result))
                return
            waiter.settled(result, settled)
        except Exception as error:  # noqa: BLE001 - the root of the task: its caller is told
            call.fail(told(error, method=call.method), _trailing(result))


class InferWaiter:
    """Replies to ModelInfer."""

    __slots__ = ("_id", "_outputs", "_service", "call")

    def __init__(self, call: Call, id_: str, outputs: Sequence[str], service: InferenceService) -> None:
        self.call = call
        self._id = id_
        self._outputs = outputs
        self._service = service

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self.call.cancelled

    def fail(self, error: DemurError) -> None:
        """Refuse."""
        self.call.fail(error)

    def answer(self, result: Result) -> None:
        """Reply with the result, or as the model's `on_deferral` says."""
        if not result.deferrals:
            self._reply(result)
            return
        match result.on_deferral:
            case "provisional":
                self._reply(result, provisional=True)
            case "wait":
                self._service.wait(self, result)
            case _:
                waits = result.expected_waits.values()
                when = f" in about {max(waits):.0f} s" if waits else ""
                names = _names(result)
                error = StateError(f"a person will answer this{when}: {names}; this model gives no answer without one")
                self.call.fail(error, _trailing(result))

    def settled(self, result: Result, deferrals: Mapping[int, Deferral]) -> None:
        """Reply with what people said in place of the model's answer."""
        outputs = overruled(result, deferrals)
        outcomes = [
            {"deferral": deferral.name, **msgspec.to_builtins(deferral.outcome)} for deferral in deferrals.values()
        ]
        self._reply(result, outputs=outputs, outcomes=msgspec.json.encode(outcomes).decode())

    def _reply(
        self,
        result: Result,
        *,
        provisional: bool = False,
        outputs: Mapping[str, Array] | None = None,
        outcomes: str = "",
    ) -> None:
        outputs = result.outputs if outputs is None else outputs
        plain_infer.check_outputs(self._outputs, outputs)  # once more: the version may have changed since
        reply = kserve.ModelInferResponse(model_name=result.model, model_version=result.version, id=self._id)
        for name in self._outputs or outputs:
            array = outputs[name]
            reply.outputs.add(name=name, datatype=tensor.datatype_of(array), shape=array.shape)
            reply.raw_output_contents.append(tensor.encode(array))
        _describe(reply.parameters, result, provisional=provisional, outcomes=outcomes)
        self.call.reply(reply.SerializeToString())


def _outputs(message: Any) -> tuple[str, ...]:
    """Return the names of the outputs asked for; raises where one is asked for twice or in a way not served."""
    names: dict[str, None] = {}
    for output in message.outputs:
        if output.name in names:
            raise InvalidError(f"outputs: expected each once, got {output.name[:100]!r} again")
        names[output.name] = None
        _check_served(output.parameters, f"outputs[{output.name[:100]}]")
    return tuple(names)


def _check_served(parameters: Mapping[str, Any], field: str) -> None:
    """Raise UnimplementedError for what would change where or how contents travel: to ignore it gives wrong ones."""
    unserved = [name for name in _UNSERVED if name in parameters]
    if unserved:
        raise UnimplementedError(f"{field}.parameters[{unserved[0]}]: not served; {_UNSERVED[unserved[0]]}")


def _describe(parameters: Any, result: Result, *, provisional: bool, outcomes: str) -> None:
    """Say in the reply's parameters what it is worth."""
    decisions = [result.decision(row) for row in range(result.rows)]
    worth = max(decisions, key=STRENGTH.__getitem__)
    if worth is Decision.DEFERRED and provisional:
        worth = Decision.PROVISIONAL
    parameters["demur_decision"].string_param = worth.value
    known = [sure for row in range(result.rows) if (sure := result.confidence(row)) is not None]
    if known:
        parameters["demur_confidence"].double_param = min(known)
    if result.deferrals:
        parameters["demur_deferral"].string_param = _names(result)
    if result.certificate:
        parameters["demur_certificate"].string_param = result.certificate
    if result.expected_waits and not outcomes:
        parameters["demur_expected_wait"].double_param = max(result.expected_waits.values())
    if result.notes:
        parameters["demur_over"].string_param = result.notes[min(result.notes)].evaluation
    if outcomes:
        parameters["demur_outcome"].string_param = outcomes


def _names(result: Result) -> str:
    return ",".join(name for _, name in sorted(result.deferrals.items()))


def _trailing(result: Result) -> tuple[tuple[str, str], ...]:
    """Return the names as metadata; of very many the first, and "..." after them."""
    names = _names(result)
    if len(names) > TRAILING_CHARS_MAX:
        names = f"{names[:TRAILING_CHARS_MAX].rpartition(',')[0]},..."
    return ((DEFERRAL_KEY, names),)


def _metadata(live: Live) -> Any:
    signature = live.model.signature
    reply = kserve.ModelMetadataResponse(name=live.version.model, versions=[live.version.version], platform=PLATFORM)
    for specs, listed in ((signature.inputs, reply.inputs), (signature.outputs, reply.outputs)):
        for spec in specs:
            listed.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return reply


def _tensors(message: Any, intake: Intake | None) -> dict[str, Array]:
    """Read raw or typed contents; raises InvalidError naming field, expected and got.

    Typed ones take long to read: they are not, where `intake` (None: no version is live) does not take what they claim.
    """
    raws = message.raw_input_contents
    if len(message.inputs) > INPUTS_MAX:
        raise InvalidError(f"inputs: expected at most {INPUTS_MAX}, got {len(message.inputs)}")
    if raws and len(raws) != len(message.inputs):
        raise InvalidError(
            f"raw_input_contents: expected one for each of the {len(message.inputs)} inputs, got {len(raws)}"
        )
    found: dict[str, Array] = {}
    for number, each in enumerate(message.inputs):
        field = f"inputs[{each.name[:100]}]"
        _check_served(each.parameters, field)
        if each.name in found:
            raise InvalidError(f"inputs[{number}].name: expected each once, got {each.name[:100]!r} again")
        if not raws:
            found[each.name] = _typed(each, field, intake)
            continue
        if each.HasField("contents") and each.contents.ListFields():
            raise InvalidError(f"{field}: expected raw_input_contents or contents, got both")
        found[each.name] = tensor.decode(raws[number], each.datatype, each.shape, field=field)
    return found


def _typed(each: Any, field: str, intake: Intake | None) -> Array:
    tensor.dtype_of(each.datatype, field=f"{field}.datatype")
    name = _CONTENTS.get(each.datatype)
    if name is None:
        raise InvalidError(f"{field}: {each.datatype} has no typed contents; expected raw_input_contents")
    stray = [found.name for found, _ in each.contents.ListFields() if found.name != name]
    if stray:
        raise InvalidError(f"{field}.contents: expected {name} for {each.datatype}, got {stray[0]}")
    if intake is not None:
        for spec in [spec for spec in intake.inputs if spec.name == each.name]:
            check_claim(each.datatype, each.shape, spec, intake)
    return tensor.from_values(getattr(each.contents, name), each.datatype, each.shape, field=field)
