"""Unary gRPC calls as HTTP/2 frames written by hand (RFC 9113): a client that costs microseconds a call.

A client library in Python spends more on a call than the server that it is to overload. So one connection is spoken
here as far as a benchmark needs it: the request's headers are the same bytes in each call, the server is told to keep
no table of headers (RFC 7541, 4.2), and windows are granted once, wide enough for a whole run. It speaks to servers
whose headers are plain, as gRPC's own core writes them; of others it says so.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Final, NamedTuple

from fallback.errors import UnavailableError

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_TABLE_SIZE, _ENABLE_PUSH, _STREAMS_MAX, _WINDOW = 0x1, 0x2, 0x3, 0x4
_WIDE: Final = 2**31 - 1
# What a window and a frame are until the server says otherwise.
_FIRST_WINDOW: Final = 65_535
_FRAME_BYTES: Final = 16_384
_HEAD_BYTES: Final = 9
_MESSAGE_HEAD_BYTES: Final = 5
_READ_BYTES: Final = 1 << 18
_CONNECT_SECONDS: Final = 10.0
_STATIC_ENTRIES: Final = 61
_DETAILS: Final = b"grpc-status-details-bin"
# RFC 9113, section 7: the server has not looked at it.
_REFUSED_STREAM: Final = 0x7
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


class Wire:
    """One connection for calls of one `method`; raises UnavailableError where it is cut or spoken to otherwise."""

    def __init__(self, address: str, method: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.streams_max = _WIDE
        self._headers = _request_headers(method, address)
        self._next = 1
        self._window = self._stream_window = _FIRST_WINDOW
        self._out = bytearray(_PREFACE + _greeting())
        self._in = bytearray()
        # By stream: the message, and the headers' block of bytes, as far as they came.
        self._open: dict[int, list[bytes]] = {}
        # Messages that the server's window has no room for yet.
        self._held: deque[tuple[int, bytes]] = deque()
        self._statuses: dict[bytes, tuple[int, bytes]] = {}

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether as many calls are under way as the server allows."""
        return len(self._open) >= self.streams_max

    @property
    def unsent(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._out)

    def call(self, message: bytes) -> int:
        """Begin a call, unless it is `full`; returns its stream. It goes out with the next `flush`."""
        body = struct.pack(">?I", False, len(message)) + message  # noqa: FBT003 - positional only
        if len(body) > self._stream_window:
            raise UnavailableError(f"a message of {len(body)} bytes is more than the server takes unasked")
        stream, self._next = self._next, self._next + 2
        self._open[stream] = []
        self._out += _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        self._held.append((stream, body))
        self._release()
        return stream

    def _release(self) -> None:
        """Send what the server's window has room for."""
        while self._held and len(self._held[0][1]) <= self._window:
            stream, body = self._held.popleft()
            self._window -= len(body)
            last = len(body) - _FRAME_BYTES
            for first in range(0, len(body), _FRAME_BYTES):
                part = body[first : first + _FRAME_BYTES]
                self._out += _frame(_DATA, _END_STREAM if first >= last else 0, stream, part)

    def flush(self) -> None:
        """Hand to the socket what it takes."""
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return
            except OSError as error:
                raise UnavailableError(f"the connection was cut: {error}") from error
            del self._out[:sent]

    def read(self) -> list[Ended]:
        """Take what came; returns the calls that it ends."""
        try:
            came = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise UnavailableError(f"the connection was cut: {error}") from error
        if not came:
            raise UnavailableError("the server closed the connection")
        self._in += came
        ended, at, content = [], 0, bytes(self._in)
        while len(content) - at >= _HEAD_BYTES:
            end = at + _HEAD_BYTES + int.from_bytes(content[at : at + 3])
            if len(content) < end:
                break
            stream = int.from_bytes(content[at + 5 : at + 9])
            one = self._take(content[at + 3], content[at + 4], stream, content[at + _HEAD_BYTES : end])
            if one is not None:
                ended.append(one)
            at = end
        del self._in[:at]
        return ended

    def close(self) -> None:
        """Cut the connection."""
        self.socket.close()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> Ended | None:
        if kind in {_DATA, _HEADERS}:
            parts = self._open.get(stream)
            if parts is None:
                return None
            if kind == _DATA:
                parts.append(payload)
            if not flags & _END_STREAM:
                return None
            code, details = (UNKNOWN, b"") if kind == _DATA else self._status(payload)
            del self._open[stream]
            return Ended(stream, code, b"".join(parts)[_MESSAGE_HEAD_BYTES:], details)
        if kind == _RST_STREAM and self._open.pop(stream, None) is not None:
            refused = int.from_bytes(payload) == _REFUSED_STREAM
            return Ended(stream, SHED if refused else UNKNOWN, b"", b"")
        self._settle(kind, flags, stream, payload)
        return None

    def _settle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Do what keeps a connection going."""
        if kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _STREAMS_MAX:
                    self.streams_max = value
                elif name == _WINDOW:
                    self._stream_window = value
            self._out += _frame(_SETTINGS, _ACK, 0)
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload)
            self._release()
        elif kind == _GOAWAY:
            raise UnavailableError(f"the server asks this connection to go: {payload[8:108]!r}")

    def _status(self, block: bytes) -> tuple[int, bytes]:
        """Read a trailer; nearly all of them are the same bytes."""
        known = self._statuses.get(block)
        if known is None:
            found = fields(block)
            known = int(found.get(b"grpc-status", b"%d" % UNKNOWN)), found.get(_DETAILS, b"")
            if not known[1]:
                self._statuses[block] = known
        return known


def fields(block: bytes) -> dict[bytes, bytes]:
    """Return the fields of a block of headers that are spelled out, by name.

    Raises UnavailableError where they are written as gRPC's core does not write them (Huffman's code in a name, a table
    that was asked not to be kept).
    """
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            at = _number(block, at, 7)[1]
        elif first & 0xE0 == 0x20:  # noqa: PLR2004 - RFC 7541, 6.3: a change of the table's size
            at = _number(block, at, 5)[1]
        else:
            index, at = _number(block, at, 6 if first & 0x40 else 4)
            name = b""
            if not index:
                coded, name, at = _string(block, at)
                if coded:
                    raise UnavailableError("the server writes its headers in Huffman's code; only gRPC's core is read")
            elif index > _STATIC_ENTRIES:
                raise UnavailableError("the server keeps a table of headers that it was asked not to keep")
            _, value, at = _string(block, at)
            if name:
                found[name] = value
    return found


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Read an integer (RFC 7541, 5.1); returns it and where the next begins."""
    most = (1 << bits) - 1
    value, at = block[at] & most, at + 1
    if value < most:
        return value, at
    shift = 0
    while True:
        more = block[at]
        value, at, shift = value + ((more & 0x7F) << shift), at + 1, shift + 7
        if not more & 0x80:
            return value, at


def _string(block: bytes, at: int) -> tuple[bool, bytes, int]:
    """Read a string (RFC 7541, 5.2): whether it is in Huffman's code, its bytes, where the next begins."""
    coded = bool(block[at] & 0x80)
    size, at = _number(block, at, 7)
    return coded, block[at : at + size], at + size


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _greeting() -> bytes:
    settings = ((_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_WINDOW, _WIDE))
    said = _frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings))
    return said + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDE - _FIRST_WINDOW))


def _request_headers(method: str, address: str) -> bytes:
    fields_ = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields_)


def _text(value: str) -> bytes:
    raw = value.encode("ascii")
    assert len(raw) < 0x7F, "a length of one byte"  # noqa: PLR2004
    return bytes((len(raw),)) + raw
