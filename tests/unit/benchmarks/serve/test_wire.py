"""The benchmark's own client of HTTP/2, against gRPC's core and against frames that it would not send."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import hpack
import numpy as np
import pytest
import trustme

from benchmarks.serve import sending, wire
from benchmarks.serve.sender import Load
from benchmarks.serve.wire import Wire
from fallback.errors import UnavailableError

METHOD = "/some.Service/Echo"


class Echo(grpc.GenericRpcHandler):
    """Answers any method with what it was asked; with a status where metadata asks for one."""

    def service(self, handler_call_details: Any) -> Any:
        """Return how a call is answered."""

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            wanted = dict(context.invocation_metadata())
            if "refuse" in wanted:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much: " + "x" * 200)
            if "slow" in wanted:
                time.sleep(0.05)
            return request

        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def server(*options: tuple[str, int], tls: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Run gRPC's own server, with messages of up to 64 MiB."""
    made = grpc.server(
        ThreadPoolExecutor(4), handlers=[Echo()], options=[("grpc.max_receive_message_length", 1 << 26), *options]
    )
    address = "localhost:0"
    port = made.add_insecure_port(address) if tls is None else made.add_secure_port(address, tls)
    made.start()
    try:
        yield f"localhost:{port}"
    finally:
        made.stop(None).wait()


def sent(address: str, **changed: Any) -> sending.Shots:
    """Send a second of load from one process."""
    with sending.workers(1) as crew:
        load = Load(address=address, method=METHOD, payload=b"abc", seconds_max=0.5, **changed)
        return sending.shoot(crew, load, wait_seconds=sending.START_SECONDS)


def answered(one: Wire, *messages: bytes) -> dict[int, wire.Ended]:
    """Make calls and wait for all their ends."""
    found: dict[int, wire.Ended] = {}
    streams = [one.call(message) for message in messages]
    one.socket.settimeout(10)
    while len(found) < len(streams):
        one.flush()
        found |= {ended.stream: ended for ended in one.read()}
    return found


def test_messages_larger_than_windows_and_frames_come_back_whole() -> None:
    """Several at once, on one connection."""
    messages = [bytes([number]) * size for number, size in enumerate((0, 10, 70_000, 5_000_000, 200_000))]
    with server() as address:
        one = Wire(address, METHOD)
        ends = answered(one, *messages)
        one.close()
    assert [ends[stream].message for stream in sorted(ends)] == messages
    assert {each.code for each in ends.values()} == {wire.OK}


def test_metadata_goes_along_and_a_refusal_has_its_code() -> None:
    """Also where a value is longer than a byte can say."""
    with server() as address:
        one = Wire(address, METHOD, metadata=(("refuse", "y" * 300),))
        (end,) = answered(one, b"abc").values()
        one.close()
    assert (end.code, end.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], b"")


def test_a_load_goes_over_tls(tmp_path: Path) -> None:
    """To who is trusted; who is not is said."""
    authority, stranger = trustme.CA(), trustme.CA()
    own = authority.issue_cert("localhost")
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    for name, each in (("ca.pem", authority), ("other.pem", stranger)):
        each.cert_pem.write_to_path(str(tmp_path / name))
    with server(tls=grpc.ssl_server_credentials([pair])) as address:
        found = sent(address, callers=8, ca=str(tmp_path / "ca.pem"))
        with pytest.raises(UnavailableError, match="certificate"):
            sent(address, callers=1, ca=str(tmp_path / "other.pem"))
    assert len(found.code) > 100
    assert not found.code.any()
    with pytest.raises(UnavailableError, match="PEM"):
        wire.trusting(str(tmp_path / "none.pem"))


def test_connections_that_the_server_lets_grow_old_are_made_anew() -> None:
    """Nothing that was under way is lost, and nothing waits or is shed until that has ended."""
    with server(("grpc.max_connection_age_ms", 150)) as address:
        found = sent(address, rate=200.0, connections=2)
        slow = sent(address, rate=50.0, connections=1, metadata=(("slow", "1"),))
        closed = sent(address, callers=3, connections=1, metadata=(("slow", "1"),))
    for each, most in ((found, 50), (slow, 10), (closed, 10)):
        assert len(each.code) > most
        assert not each.code.any()


def test_a_closed_loop_has_so_many_calls_under_way() -> None:
    """And counts a latency from when it was sent; nothing is late."""
    with server() as address:
        found = sent(address, callers=3)
    order = np.argsort(found.due)
    begin, end = found.due[order], (found.due + found.latency_ms / 1000)[order]
    most = max(int(((begin <= moment) & (end > moment)).sum()) for moment in begin[:200])
    assert most == 3
    assert not found.lag_ms.any()


def test_nobody_there_is_said() -> None:
    """By address."""
    with pytest.raises(UnavailableError, match="localhost:1: no connection"):
        sent("localhost:1", callers=1)


def test_headers_are_read_however_they_are_spelled() -> None:
    """In Huffman's code too; on a table that was asked not to be kept, not."""
    spelled = b"\x88" + b"\x00\x0bgrpc-status\x018" + b"\x40\x01a\x01b" + b"\x5f\x10application/grpc"
    assert wire.fields(spelled)[b"grpc-status"] == b"8"
    coded = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple("grpc-status", "8")], huffman=True)
    assert b"grpc-status" not in coded
    assert wire.fields(coded) == {b"grpc-status": b"8"}
    with pytest.raises(UnavailableError, match="table"):
        wire.fields(b"\x7f\x00\x018")


def test_padding_and_priority_are_left_out() -> None:
    """Which gRPC's servers do not send, but proxies may."""
    assert wire._bare(0x0, 0x8, b"\x02abc\0\0") == b"abc"
    assert wire._bare(0x1, 0x28, b"\x01" + struct.pack(">IB", 0, 1) + b"abc\0") == b"abc"
