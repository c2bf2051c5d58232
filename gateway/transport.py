"""The seam between the network and the pipeline.

A transport hands over calls (method, bytes, deadline, metadata, peer) and takes back bytes or a DemurError, from any
thread. It is the only thing that knows what carries them: `gateway.cq` drives gRPC's core, `gateway.aio` stands on
grpc.aio; `gateway.transports` chooses. Behind the seam there is no grpc; before it there is no tensor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NotRequired, Protocol, TypedDict

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from fallback.errors import DemurError, UnimplementedError
from gateway.aside import Aside
from gateway.connections import Connections

# A client stream that is cut off ends with nothing, as a whole one does, just before the core says that the call is
# over: so long is waited for its saying so.
CUT_SECONDS: Final = 0.05
# Of a name that is told back to who said it.
_NAME_CHARS: Final = 100

Metadata = tuple[tuple[str, str | bytes], ...]


class Call(Protocol):
    """One call. Exactly one of `reply` and `fail` counts, the first; later ones are ignored, from whatever thread."""

    @property
    def method(self) -> str:
        """The full name, "/package.Service/Method"."""

    @property
    def payload(self) -> bytes:
        """The serialised request; empty where the client streams."""

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, by time.monotonic(); None: never."""

    @property
    def metadata(self) -> Metadata:
        """What came beside the request; keys in lower case, those ending in -bin with bytes."""

    @property
    def peer(self) -> str:
        """The caller's address, e.g. "ipv4:127.0.0.1:40312" or "unix:"."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the reply any more: cancelled, overdue, or already answered."""

    @property
    def driven(self) -> bool:
        """Whether `Routes.drained` follows on the thread that hands it over."""

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:
        """Answer; for a server stream `send` comes before and the payload is not sent."""

    def fail(self, error: DemurError, trailing: Metadata = ()) -> None:
        """Refuse."""

    async def send(self, payload: bytes) -> None:
        """Send one message of a server stream; returns when there is room for the next."""

    async def receive(self) -> bytes | None:
        """Return the next message of a client stream, None at its end."""


Hot = Callable[[Call], None]
Slow = Callable[[Call], Awaitable[None]]
# Why no call of a method can be taken now, whatever it asks; None where it can.
Refusal = Callable[[], DemurError | None]


def _nothing() -> None:
    """Do nothing: the default where nobody waits for the end of a drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """What is served, by full method name.

    `hot` handlers are called on the transport's thread and must not block; they or another thread reply later. `slow`
    handlers are coroutines on the slow loop; one that returns without a reply has ended its stream. `reads` and
    `writes` name the slow methods whose client or server streams. `drained` is called on the transport's thread when
    every call that was there is handed over, before it waits for more, where a call says so (`driven`). `refusals` are
    asked, on the transport's thread, when a call of a hot method arrives: one that is refused is told before its
    message is taken in, so that to refuse costs next to nothing however large messages are. A transport whose thread
    answers by itself says to `aside` when that has work. `instead` says what to do in place of a method that is not
    served.
    """

    hot: Mapping[str, Hot]
    slow: Mapping[str, Slow]
    reads: frozenset[str] = field(default_factory=frozenset)
    writes: frozenset[str] = field(default_factory=frozenset)
    drained: Callable[[], None] = _nothing
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    aside: Aside = field(default_factory=Aside)
    instead: Mapping[str, str] = field(default_factory=dict)

    def unserved(self, method: str) -> UnimplementedError:
        """Return the refusal of a method that is none of them; it says what to do instead, or names those that are."""
        service, _, name = method.strip("/").rpartition("/")
        instead = self.instead.get(f"/{service}/{name}")
        if instead is not None:
            return UnimplementedError(f"{service}: {name} is not served; {instead}")
        there = sorted(each.rpartition("/")[2] for each in (*self.hot, *self.slow) if each.startswith(f"/{service}/"))
        if not there:
            return UnimplementedError(f"no service {service[:_NAME_CHARS]!r} here; reflection lists those that are")
        return UnimplementedError(f"{service}: expected one of {', '.join(there)}, got {name[:_NAME_CHARS]!r}")


class Terms(TypedDict):
    """Where and how a transport serves.

    `listen` is host:port or unix:path, port 0 any free one. `message_bytes_max` bounds what a client may send,
    `calls_max` the calls under way, `requests_bytes_max` what their requests weigh together. `names` are the services
    that reflection and health speak of, `files` the descriptors that reflection shows.
    """

    listen: str
    slow_loop: asyncio.AbstractEventLoop
    message_bytes_max: int
    calls_max: int
    requests_bytes_max: int
    names: Sequence[str]
    files: Sequence[FileDescriptorProto]
    connections: NotRequired[Connections]


class Transport(Protocol):
    """What carries calls."""

    @property
    def port(self) -> int:
        """The port in use, once started."""

    def start(self) -> None:
        """Listen; returns once calls are taken. Raises ConfigError where the address cannot be had."""

    def set_ready(self, ready: bool) -> None:
        """Say to those who ask for health whether calls are welcome."""

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those under way finish for up to `grace_seconds`, then end them."""
