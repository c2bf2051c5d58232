"""What every gRPC server answers beside its own methods: health and reflection, alike on every transport."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from fallback.errors import InvalidError, NotFoundError
from gateway.transport import Call, Routes

_CHECK: Final = f"/{health.SERVICE_NAME}/Check"
_LIST: Final = f"/{health.SERVICE_NAME}/List"
_WATCH: Final = f"/{health.SERVICE_NAME}/Watch"
# The two versions differ in name only: v1 is v1alpha declared stable.
_REFLECT: Final = frozenset(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)
_Status = health_pb2.HealthCheckResponse


class Standing:
    """`routes` with health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md) and reflection added.

    `names` are the services both speak of, `files` the descriptors that reflection shows.
    """

    def __init__(
        self, routes: Routes, *, names: Sequence[str], files: Sequence[descriptor_pb2.FileDescriptorProto]
    ) -> None:
        self._names = ("", *names)
        self._ready = False
        self._ended = False
        self._lock = threading.Lock()
        self._watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        shown = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        own = (file_of(health_pb2.DESCRIPTOR), file_of(reflection_pb2.DESCRIPTOR))
        self._pool = _pool((*files, *own))
        self._reflection = ReflectionServicer(shown, pool=self._pool)
        self.routes = replace(
            routes,
            hot={**routes.hot, _CHECK: self._check, _LIST: self._list},
            slow={**routes.slow, _WATCH: self._watch, **dict.fromkeys(_REFLECT, self._reflect)},
            reads=routes.reads | _REFLECT,
            writes=routes.writes | _REFLECT | {_WATCH},
        )

    def set_ready(self, *, ready: bool) -> None:
        """Say whether calls are welcome; from any thread."""
        self._ready = ready
        self._wake()

    def end(self) -> None:
        """Say that calls are not welcome any more, and let those go who watch."""
        self._ended = True
        self.set_ready(ready=False)

    def _wake(self) -> None:
        with self._lock:
            watchers = tuple(self._watchers)
        for loop, changed in watchers:
            loop.call_soon_threadsafe(changed.set)

    @property
    def _status(self) -> int:
        return int(_Status.SERVING if self._ready else _Status.NOT_SERVING)

    def _check(self, call: Call) -> None:
        name = _service(call.payload)
        if name not in self._names:
            served = ", ".join(name for name in self._names if name)
            raise NotFoundError(f"service: expected '' or one of {served}, got {name[:100]!r}")
        call.reply(_answer(self._status))

    def _list(self, call: Call) -> None:
        status = _field(2, _answer(self._status))
        # A HealthListResponse, which the installed stubs do not have: map<string, HealthCheckResponse> statuses = 1.
        call.reply(b"".join(_field(1, _field(1, name.encode()) + status) for name in self._names))

    async def _watch(self, call: Call) -> None:
        known = _service(call.payload) in self._names
        watcher = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._watchers.add(watcher)
        told = None
        try:
            while True:
                watcher[1].clear()
                status = self._status if known else int(_Status.SERVICE_UNKNOWN)
                if status != told:
                    await call.send(_answer(status))
                    told = status
                if self._ended:
                    return
                await watcher[1].wait()
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    async def _reflect(self, call: Call) -> None:
        async for response in self._reflection.ServerReflectionInfo(self._questions(call), None):
            await call.send(response.SerializeToString())

    async def _questions(self, call: Call) -> AsyncIterator[Any]:
        async for request in _questions(call):
            symbol = request.file_containing_symbol
            if symbol:
                # The servicer knows no methods by their names.
                request.file_containing_symbol = self._service_of(symbol) or symbol
            yield request

    def _service_of(self, symbol: str) -> str:
        """Return the service whose method a symbol names; empty where it names none."""
        service, _, method = symbol.rpartition(".")
        try:
            methods = self._pool.FindServiceByName(service).methods_by_name
        except KeyError:
            return ""
        return service if method in methods else ""


async def _questions(call: Call) -> AsyncIterator[Any]:
    while (message := await call.receive()) is not None:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            raise InvalidError("request: expected this method's message, got bytes that are none") from error


def _service(payload: bytes) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(payload).service)
    except DecodeError as error:
        raise InvalidError("request: expected this method's message, got bytes that are none") from error


def _answer(status: int) -> bytes:
    answer: bytes = _Status(status=status).SerializeToString()
    return answer


def _field(number: int, content: bytes) -> bytes:
    """Return one field of a message on the wire: its key, its length (both less than 128), its bytes."""
    return bytes((number << 3 | 2, len(content))) + content


def file_of(descriptor: Any) -> descriptor_pb2.FileDescriptorProto:
    """Return a file's descriptor as a value."""
    return descriptor_pb2.FileDescriptorProto.FromString(descriptor.serialized_pb)


def files_of(*descriptors: Any) -> list[descriptor_pb2.FileDescriptorProto]:
    """Return file descriptors with all they import, each once, imports first."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(descriptor: Any) -> None:
        for needed in descriptor.dependencies:
            add(needed)
        found.setdefault(descriptor.name, file_of(descriptor))

    for descriptor in descriptors:
        add(descriptor)
    return list(found.values())


def _pool(files: Sequence[descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    """Return one pool of files that live in several."""
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
