"""ModelStreamInfer: many ModelInfer requests on one stream, answered in the order in which they came.

Theory of operation. Each message of the stream is a call of its own to the service behind (`One`), as if it had come by
ModelInfer: run in the same batches, judged, parked and limited alike. What it comes to waits for those before it, since
that is what Triton promises for models that answer once; one that fails is told in its place, with its id, and ends
nothing else. What a client has asked ahead is bounded by number and, over all streams, by weight: beyond that nothing
more is read, and HTTP/2's flow control holds the client back.

https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from google.protobuf.message import DecodeError

from demur import kserve
from fallback.ending import end_all
from fallback.errors import DemurError, OverdueError, UnavailableError
from fallback.long_polls import SLICE_SECONDS
from gateway.internal import told
from gateway.quick import varint
from gateway.transport import Call, Hot, Metadata, Slow

METHOD: Final = f"/{kserve.SERVICE}/ModelStreamInfer"
# Requests of one stream under way.
ASKED_MAX: Final = 64
# By its identity.
_STOPPED: Final = bytes(bytearray(b"stopped"))
# The tag of ModelStreamInferResponse.infer_response.
_ANSWER: Final = b"\x12"
# What Triton's clients look for where an answer may have several parts; a message goes on in whatever follows it.
_FINAL: Final = kserve.ModelInferResponse(
    parameters={"triton_final_response": kserve.InferParameter(bool_param=True)}
).SerializeToString()


class One:
    """One request of a stream, as a call. `reply` and `fail` from any thread; the first counts."""

    driven: Final = False

    def __init__(self, stream: Call, payload: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.method = stream.method
        self.payload = payload
        self.deadline = stream.deadline
        self.metadata = stream.metadata
        self.peer = stream.peer
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self._stream = stream
        self._loop = loop
        self._open = True

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return not self._open or self._stream.cancelled

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:  # noqa: ARG002 - a stream has one trailer, at its end
        """Answer with a ModelInferResponse."""
        self._end(b"".join((_ANSWER, varint(len(payload) + len(_FINAL)), payload, _FINAL)))

    def fail(self, error: DemurError, trailing: Metadata = ()) -> None:  # noqa: ARG002 - as above
        """Refuse, with the sentence and the request's id."""
        reply = kserve.ModelStreamInferResponse(error_message=error.message)
        with suppress(DecodeError):
            reply.infer_response.id = kserve.ModelInferRequest.FromString(self.payload).id
        self._end(reply.SerializeToString())

    async def send(self, payload: bytes) -> None:
        """Send one message of a server stream: what is asked here has one answer."""
        raise NotImplementedError

    async def receive(self) -> bytes | None:
        """Return the next message of a client stream: what is asked here has one message."""
        raise NotImplementedError

    def _end(self, content: bytes) -> None:
        self._open = False
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._settle, content)

    def _settle(self, content: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(content)


class Streams:
    """All streams; belongs to the slow loop. `infer` answers one request; `ready` says whether calls are welcome.

    `bytes_max`: what the requests under way of all streams weigh together, unless one has more by itself.
    """

    def __init__(self, infer: Hot, *, ready: Callable[[], bool], bytes_max: int) -> None:
        self._infer = infer
        self._ready = ready
        self._bytes_max = bytes_max
        self._bytes = 0
        self._freed = asyncio.Event()
        # Who comes first is served first: a large request is not passed over by small ones for ever.
        self._turn = asyncio.Lock()

    @property
    def bytes_under_way(self) -> int:
        """What the requests under way weigh together."""
        return self._bytes

    def slow(self) -> dict[str, Slow]:
        """Return the handler by full method name."""
        return {METHOD: self._stream}

    async def _stream(self, call: Call) -> None:
        asked: asyncio.Queue[One | None] = asyncio.Queue()
        room = asyncio.Semaphore(ASKED_MAX)
        answering = asyncio.create_task(self._answer(call, asked, room))
        try:
            while (payload := await self._next(call, answering)) is not None and payload is not _STOPPED:
                await self._wait_for_room(room, len(payload))
                one = One(call, payload, asyncio.get_running_loop())
                asked.put_nowait(one)
                try:
                    self._infer(one)
                except Exception as error:  # noqa: BLE001 - the root of a request: others of its stream go on
                    one.fail(told(error, method=call.method))
            asked.put_nowait(None)
            await answering
            if payload is _STOPPED:
                raise UnavailableError("the gateway is stopping; ask another one", retry_after_seconds=1.0)
        finally:
            # Before anything is awaited: who is cancelled twice would leave what follows undone.
            answering.cancel()
            self._forget(asked)
            await end_all([answering])

    async def _next(self, call: Call, answering: asyncio.Task[None]) -> bytes | None:
        """Return the stream's next message; None at its end, _STOPPED where the gateway stops."""
        receiving = asyncio.create_task(_received(call))
        try:
            while not receiving.done() and self._ready():
                # A stream that is over ends both.
                await asyncio.wait({receiving, answering}, timeout=SLICE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    await answering
            return receiving.result() if receiving.done() else _STOPPED
        finally:
            if not receiving.done():
                await end_all([receiving])

    async def _wait_for_room(self, room: asyncio.Semaphore, size: int) -> None:
        await room.acquire()
        async with self._turn:
            while self._bytes and self._bytes + size > self._bytes_max:
                self._freed.clear()
                await self._freed.wait()
            self._bytes += size

    async def _answer(self, call: Call, asked: asyncio.Queue[One | None], room: asyncio.Semaphore) -> None:
        """Send the answers in the order of the requests."""
        while (one := await asked.get()) is not None:
            try:
                answer = await one.answer
            finally:
                self._free(len(one.payload))
            # What waits for a client who does not read keeps no room from others' requests, only its own.
            await call.send(answer)
            room.release()

    def _free(self, size: int) -> None:
        """Never waits: who is cancelled here would be counted for ever."""
        self._bytes -= size
        self._freed.set()

    def _forget(self, asked: asyncio.Queue[One | None]) -> None:
        """Let go of what nobody will be told of."""
        while not asked.empty():
            if (one := asked.get_nowait()) is not None:
                one.fail(OverdueError("the stream ended before"))
                self._free(len(one.payload))


async def _received(call: Call) -> bytes | None:
    return await call.receive()
