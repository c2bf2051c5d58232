"""A hostile gRPC client: HTTP/2 frames written by hand (RFC 9113), so that what no library would send can be sent."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers(method: str, *more: tuple[str, str]) -> bytes:
    """Return the headers of a gRPC request, each a literal that nobody remembers (RFC 7541, 6.2.2)."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "raw"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def message(payload: bytes, *, compressed: bool = False) -> bytes:
    """Return a gRPC message on the wire."""
    return struct.pack(">?I", compressed, len(payload)) + payload


def _text(value: str) -> bytes:
    raw = value.encode()
    assert len(raw) < 127
    return bytes((len(raw),)) + raw


class Raw:
    """One connection; `send` what you like, `seen` is what came back until there was silence or the end."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, raw: bytes) -> None:
        """Write bytes."""
        self.socket.sendall(raw)

    def call(self, method: str, payload: bytes, *, stream: int = 1) -> None:
        """Make a whole unary call."""
        body = frame(DATA, END_STREAM, stream, message(payload))
        self.send(frame(HEADERS, END_HEADERS, stream, headers(method)) + body)

    def frames(self, *, until: int) -> list[tuple[int, int, bytes]]:
        """Return kind, flags and payload of what comes, up to the first frame of kind `until` that ends a stream."""
        found: list[tuple[int, int, bytes]] = []
        while True:
            head = self._read(9)
            if len(head) < 9:
                return found
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            found.append((kind, flags, self._read(size)))
            if kind == until and (flags & END_STREAM or until in {RST_STREAM, GOAWAY}):
                return found

    def _read(self, size: int) -> bytes:
        raw = b""
        while len(raw) < size:
            try:
                part = self.socket.recv(size - len(raw))
            except ConnectionResetError:
                return raw
            if not part:
                return raw
            raw += part
        return raw

    def close(self) -> None:
        """Go, without a word."""
        self.socket.close()
