"""Unary gRPC calls as HTTP/2 frames written by hand (RFC 9113): a client that costs microseconds a call.

A client library in Python spends more on a call than the server that it is to overload. So one connection is spoken
here as far as a benchmark needs it: the request's headers are the same bytes in each call, the server is told to keep
no table of headers (RFC 7541, 4.2), so that nearly all trailers are the same bytes too, and it is granted windows
that never close.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import hpack

from fallback.errors import UnavailableError

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 0x1, 0x4, 0x8, 0x20, 0x1
_TABLE_SIZE, _ENABLE_PUSH, _STREAMS_MAX, _WINDOW, _FRAME_SIZE = 0x1, 0x2, 0x3, 0x4, 0x5
_WIDE: Final = 2**31 - 1
# The connection's window is opened anew when so much of it was used.
_USED_BYTES: Final = 2**30
# What a window and a frame are until the server says otherwise.
_FIRST_WINDOW: Final = 65_535
_FRAME_BYTES: Final = 16_384
_HEAD_BYTES: Final = 9
_MESSAGE_HEAD_BYTES: Final = 5
_PRIORITY_BYTES: Final = 5
_READ_BYTES: Final = 1 << 18
_CONNECT_SECONDS: Final = 10.0
_STATUSES_MAX: Final = 1_000
_DETAILS: Final = b"grpc-status-details-bin"
_CANCEL: Final = 0x8
# RFC 9113, section 7, to gRPC's codes: the server has not looked at it; it gave it up; it asks for less.
_RESETS: Final = {0x7: 100, 0x8: 1, 0xB: 8}
_BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
OK: Final = 0
UNKNOWN: Final = 2
# Besides gRPC's codes: the server's limit on streams left no room.
SHED: Final = 100


class Ended(NamedTuple):
    """How one call ended: its gRPC code, the message (empty without one), and the status details as they came."""

    stream: int
    code: int
    message: bytes
    details: bytes


@dataclass(slots=True)
class _Held:
    """What of a message still waits for room in the server's windows, and the room in its stream's own."""

    body: bytes
    room: int


class Wire:
    """One connection for calls of one `method`; raises UnavailableError where it is cut or spoken to otherwise.

    `metadata` goes with each call: names in lower case. `tls` says whom to trust, and offers "h2" by ALPN.
    """

    def __init__(
        self,
        address: str,
        method: str,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = _connected(address, tls)
        self.streams_max = _WIDE
        # Whether the server asked for no more calls here (GOAWAY).
        self.going = False
        self._tls = tls is not None
        self._headers = _request_headers(method, address, "http" if tls is None else "https", metadata)
        self._next = 1
        self._window = self._stream_window = _FIRST_WINDOW
        self._frame_bytes = _FRAME_BYTES
        self._used = 0
        self._out = bytearray(_PREFACE + _greeting())
        self._in = bytearray()
        # By stream: the message as far as it came.
        self._open: dict[int, list[bytes]] = {}
        self._held: dict[int, _Held] = {}
        self._ended: list[Ended] = []
        self._statuses: dict[bytes, tuple[int, bytes]] = {}

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether as many calls are under way as the server allows."""
        return len(self._open) >= self.streams_max or self.going

    @property
    def unsent(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._out)

    def call(self, message: bytes) -> int:
        """Begin a call, unless it is `full`; returns its stream. It goes out with the next `flush`."""
        body = struct.pack(">?I", False, len(message)) + message  # noqa: FBT003 - positional only
        stream, self._next = self._next, self._next + 2
        self._open[stream] = []
        self._out += _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        if not self._held and len(body) <= min(self._window, self._stream_window, self._frame_bytes):
            self._window -= len(body)
            self._out += _frame(_DATA, _END_STREAM, stream, body)
            return stream
        self._held[stream] = _Held(body, self._stream_window)
        self._release()
        return stream

    def _release(self) -> None:
        """Send what the server's windows have room for, those that came first before others."""
        for stream, held in list(self._held.items()):
            room = min(self._window, held.room, len(held.body))
            for first in range(0, room, self._frame_bytes):
                part = held.body[first : min(first + self._frame_bytes, room)]
                last = first + len(part) == len(held.body)
                self._out += _frame(_DATA, _END_STREAM if last else 0, stream, part)
            if room > 0:
                held.body, held.room, self._window = held.body[room:], held.room - room, self._window - room
            if not held.body:
                del self._held[stream]
            if self._window <= 0:
                return

    def flush(self) -> None:
        """Hand to the socket what it takes."""
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except _BLOCKED:
                return
            except OSError as error:
                raise UnavailableError(f"the connection was cut: {error}") from error
            del self._out[:sent]

    def read(self) -> list[Ended]:
        """Take what came; returns the calls that it ends."""
        if not self._receive():
            return []
        at, content = 0, bytes(self._in)
        while len(content) - at >= _HEAD_BYTES:
            end = at + _HEAD_BYTES + int.from_bytes(content[at : at + 3])
            if len(content) < end:
                break
            stream = int.from_bytes(content[at + 5 : at + 9])
            self._take(content[at + 3], content[at + 4], stream, content[at + _HEAD_BYTES : end])
            at = end
        del self._in[:at]
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Cut the connection."""
        self.socket.close()

    def _receive(self) -> bool:
        """Take bytes from the socket; of TLS all, since what is decrypted already wakes nobody."""
        came = False
        try:
            while part := self.socket.recv(_READ_BYTES):
                self._in += part
                came = True
                if not self._tls:
                    return True
        except _BLOCKED:
            return came
        except OSError as error:
            raise UnavailableError(f"the connection was cut: {error}") from error
        if self.going and not self._open:
            return came
        raise UnavailableError("the server closed the connection")

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {_DATA, _HEADERS}:
            if flags & (_PADDED | _PRIORITY):
                payload = _bare(kind, flags, payload)
            if kind == _DATA:
                self._use(len(payload))
            elif not flags & _END_HEADERS:
                raise UnavailableError("the server's headers are longer than a frame, which is not read here")
            parts = self._open.get(stream)
            if parts is None:
                return
            if kind == _DATA:
                parts.append(payload)
            if flags & _END_STREAM:
                code, details = (UNKNOWN, b"") if kind == _DATA else self._status(payload)
                self._end(stream, code, b"".join(parts)[_MESSAGE_HEAD_BYTES:], details)
        elif kind == _RST_STREAM:
            if stream in self._open:
                self._end(stream, _RESETS.get(int.from_bytes(payload), UNKNOWN))
        else:
            self._settle(kind, flags, stream, payload)

    def _end(self, stream: int, code: int, message: bytes = b"", details: bytes = b"") -> None:
        del self._open[stream]
        if self._held.pop(stream, None) is not None:
            self._out += _frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))
        self._ended.append(Ended(stream, code, message, details))

    def _use(self, size: int) -> None:
        """Open the connection's window anew in time; a stream's own is never used up."""
        self._used += size
        if self._used > _USED_BYTES:
            self._out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._used))
            self._used = 0

    def _settle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Do what keeps a connection going."""
        if kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                self._set(name, value)
            self._out += _frame(_SETTINGS, _ACK, 0)
            self._release()
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            room = int.from_bytes(payload)
            if not stream:
                self._window += room
            elif stream in self._held:
                self._held[stream].room += room
            if self._held:
                self._release()
        elif kind == _GOAWAY:
            self._go(payload)

    def _set(self, name: int, value: int) -> None:
        if name == _STREAMS_MAX:
            self.streams_max = value
        elif name == _FRAME_SIZE:
            self._frame_bytes = value
        elif name == _WINDOW:
            for held in self._held.values():
                held.room += value - self._stream_window
            self._stream_window = value

    def _go(self, payload: bytes) -> None:
        """Begin no more calls; those that the server says it will not look at have ended."""
        last, reason = struct.unpack(">II", payload[:8])
        if reason:
            raise UnavailableError(f"the server ends this connection: error {reason}, {payload[8:108]!r}")
        self.going = True
        for stream in [each for each in self._open if each > last]:
            self._end(stream, SHED)

    def _status(self, block: bytes) -> tuple[int, bytes]:
        """Read a trailer; nearly all of them are the same bytes."""
        known = self._statuses.get(block)
        if known is None:
            found = fields(block)
            known = int(found.get(b"grpc-status", b"%d" % UNKNOWN)), found.get(_DETAILS, b"")
            if not known[1] and len(self._statuses) < _STATUSES_MAX:
                self._statuses[block] = known
        return known


def fields(block: bytes) -> dict[bytes, bytes]:
    """Return the fields of a block of headers by name; raises UnavailableError where it stands on a table."""
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    try:
        return {bytes(field[0]): bytes(field[1]) for field in decoder.decode(block, raw=True)}
    except hpack.HPACKError as error:
        raise UnavailableError(f"the server keeps a table of headers, which it was asked not to: {error}") from error


def trusting(ca: str | None) -> ssl.SSLContext:
    """Return what TLS to a server of the authorities in the file `ca` needs; raises UnavailableError without them."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UnavailableError(f"{ca}: expected certificates in PEM form, got {error}") from error
    context.set_alpn_protocols(["h2"])
    return context


def _connected(address: str, tls: ssl.SSLContext | None) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        plain = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        raise UnavailableError(f"{address}: no connection: {error}") from error
    made.settimeout(0)
    return made


def _bare(kind: int, flags: int, payload: bytes) -> bytes:
    """Return what a frame holds without its padding and priority (RFC 9113, 6.1 and 6.2)."""
    first, last = 0, len(payload)
    if flags & _PADDED:
        first, last = 1, last - payload[0]
    if kind == _HEADERS and flags & _PRIORITY:
        first += _PRIORITY_BYTES
    return payload[first:last]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _greeting() -> bytes:
    settings = ((_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_WINDOW, _WIDE))
    said = _frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings))
    return said + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDE - _FIRST_WINDOW))


def _request_headers(method: str, address: str, scheme: str, metadata: Sequence[tuple[str, str]]) -> bytes:
    """Return the block that each call's headers are, which leaves nothing in the server's table."""
    fields_ = (
        (":method", "POST"),
        (":scheme", scheme),
        (":path", method),
        (":authority", address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *metadata,
    )
    never = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in fields_]
    return bytes(hpack.Encoder().encode(never, huffman=False))
