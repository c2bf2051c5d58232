"""Every transport: the first outcome counts, deadlines are kept, and nothing internal gets out."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.serve import wire
from fallback.errors import ConfigError, DemurError, FullError, InvalidError
from gateway.cq import CqTransport
from gateway.transport import Call, Routes
from tests.raw_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Raw, frame, headers, message
from tests.transporting import SECONDS, Serving, ask, hot, until

# As many as wait to be taken in at once where the core would begin to cut off.
_BURST = 4_000


def test_a_call_carries_bytes_deadline_metadata_and_peer(serving: Serving) -> None:
    """And the reply may come from another thread, with trailing metadata."""
    seen: list[Call] = []

    def handler(call: Call) -> None:
        seen.append(call)
        threading.Thread(target=call.reply, args=(call.payload * 2, (("why", "because"),))).start()

    with serving(hot(handler)) as (_, channel):
        method: Any = channel.unary_unary("/test.T/M")
        reply, rpc = method.with_call(b"ab", timeout=5, metadata=(("demur-identity", "ann"),))
        assert (reply, dict(rpc.trailing_metadata())) == (b"abab", {"why": "because"})
    (call,) = seen
    assert call.method == "/test.T/M"
    assert call.deadline is not None
    # gRPC rounds a time-out up on the wire.
    assert 0 < call.deadline - time.monotonic() < 5.5
    assert ("demur-identity", "ann") in call.metadata
    assert call.peer.startswith("ipv4:127.0.0.1:")


def test_what_was_handed_over_is_drained_however_late_its_message_came(serving: Serving) -> None:
    """On the thread that handed it over, before it waits again; a transport that cannot says so."""
    waiting: list[Call] = []
    threads: set[str] = set()

    def drained() -> None:
        threads.add(threading.current_thread().name)
        while waiting:
            waiting.pop().reply(b"drained")

    with serving(Routes(hot={"/test.T/M": waiting.append}, slow={}, drained=drained)) as (transport, channel):
        if not isinstance(transport, CqTransport):
            return
        assert ask(channel) == b"drained"
        raw = Raw(transport.port)
        raw.send(frame(HEADERS, END_HEADERS, 1, headers("/test.T/M")))
        time.sleep(0.05)
        raw.send(frame(DATA, END_STREAM, 1, message(b"late")))
        assert (DATA, 0, message(b"drained")) in raw.frames(until=HEADERS)
        raw.close()
    assert threads == {"transport"}


def test_only_the_first_outcome_counts(serving: Serving) -> None:
    """Whatever comes later, from wherever, is ignored."""

    def handler(call: Call) -> None:
        call.reply(b"first")
        call.fail(InvalidError("second"))
        call.reply(b"third")

    with serving(hot(handler)) as (_, channel):
        assert ask(channel) == b"first"


def test_an_error_is_its_code_its_sentence_and_when_to_come_back(serving: Serving) -> None:
    """As google.rpc.RetryInfo."""

    def handler(call: Call) -> None:
        call.fail(FullError("full: expected 1, got 2", retry_after_seconds=0.5), (("demur-deferral", "d"),))

    with serving(hot(handler)) as (_, channel), pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "full: expected 1, got 2"
    trailing: dict[str, Any] = dict(cast("Any", caught.value.trailing_metadata()))
    assert trailing["demur-deferral"] == "d"
    assert b"RetryInfo" in trailing["grpc-status-details-bin"]


@pytest.mark.parametrize("slow", [False, True])
def test_an_exception_is_an_id_and_nothing_more(serving: Serving, slow: bool) -> None:
    """INTERNAL; its text stays in the log."""

    def handler(call: Call) -> None:
        raise RuntimeError(f"secret of {call.method}")

    async def later(call: Call) -> None:
        handler(call)

    routes = Routes(hot={}, slow={"/test.T/M": later}) if slow else hot(handler)
    with serving(routes) as (_, channel), pytest.raises(grpc.RpcError) as caught:
        ask(channel)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    details = caught.value.details() or ""
    assert details.startswith("internal error, id ")
    assert "secret" not in details


def test_a_deadline_is_kept_though_nobody_replies(serving: Serving) -> None:
    """And the call is known to be over."""
    seen: list[Call] = []
    with serving(hot(seen.append)) as (_, channel):
        start = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 5
        until(lambda: seen[0].cancelled)
        seen[0].reply(b"too late")


def test_a_caller_that_goes_away_is_noticed(serving: Serving) -> None:
    """So that its work can be dropped."""
    seen: list[Call] = []
    with serving(hot(seen.append)) as (_, channel):
        method: Any = channel.unary_unary("/test.T/M")
        call = method.future(b"x", timeout=SECONDS)
        until(lambda: bool(seen))
        assert not seen[0].cancelled
        call.cancel()
        until(lambda: seen[0].cancelled)


def test_slow_calls_run_on_the_slow_loop_and_end_with_their_caller(serving: Serving) -> None:
    """A coroutine there; cancelled when nobody waits."""
    threads: list[str] = []
    ended = threading.Event()

    async def handler(call: Call) -> None:
        threads.append(threading.current_thread().name)
        if call.payload == b"wait":
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
        call.reply(b"done")

    with serving(Routes(hot={}, slow={"/test.T/M": handler})) as (_, channel):
        assert ask(channel) == b"done"
        with pytest.raises(grpc.RpcError):
            ask(channel, b"wait", timeout=0.2)
        assert ended.wait(SECONDS)
    assert set(threads) == {"slow"}


def test_streams_go_both_ways(serving: Serving) -> None:
    """Client to server until None; server to client until the handler returns."""

    async def gather(call: Call) -> None:
        parts = []
        while (part := await call.receive()) is not None:
            parts.append(part)
        call.reply(b"+".join(parts))

    async def scatter(call: Call) -> None:
        for number in range(3):
            await call.send(call.payload + str(number).encode())
        if call.payload == b"fail":
            raise InvalidError("enough")

    routes = Routes(
        hot={},
        slow={"/test.T/Gather": gather, "/test.T/Scatter": scatter},
        reads=frozenset({"/test.T/Gather"}),
        writes=frozenset({"/test.T/Scatter"}),
    )
    with serving(routes) as (_, channel):
        gathering: Any = channel.stream_unary("/test.T/Gather")
        scattering: Any = channel.unary_stream("/test.T/Scatter")
        assert gathering(iter([b"a", b"b", b"c"]), timeout=SECONDS) == b"a+b+c"
        assert gathering(iter([]), timeout=SECONDS) == b""
        assert list(scattering(b"n", timeout=SECONDS)) == [b"n0", b"n1", b"n2"]
        with pytest.raises(grpc.RpcError, match="enough"):
            list(scattering(b"fail", timeout=SECONDS))


def _nothing(_: Call) -> None:
    """Answer nobody."""


def test_a_method_that_is_not_there_is_unimplemented(serving: Serving) -> None:
    """Alike however it is called; it is told what there is of its service, or that there is no such service."""
    with serving(Routes(hot={"/test.T/B": _nothing, "/test.T/A": _nothing}, slow={})) as (_, channel):
        streaming: Any = channel.stream_stream("/test.T/M")
        for call in (lambda: ask(channel), lambda: list(streaming(iter([b"x"]), timeout=SECONDS))):
            with pytest.raises(grpc.RpcError, match=r"test\.T: expected one of A, B, got 'M'") as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        other: Any = channel.unary_unary("/inference.Other/M")
        with pytest.raises(grpc.RpcError, match=r"no service 'inference.Other' here; reflection lists those that are"):
            other(b"", timeout=SECONDS)


def test_a_method_that_is_not_served_may_say_what_to_do_instead(serving: Serving) -> None:
    """In place of the names of those that are."""
    routes = Routes(hot={"/test.T/A": _nothing}, slow={}, instead={"/test.T/M": "`it` does"})
    with (
        serving(routes) as (_, channel),
        pytest.raises(grpc.RpcError, match=r"test\.T: M is not served; `it` does") as no,
    ):
        ask(channel)
    assert no.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_calls_beyond_the_most_are_refused(serving: Serving) -> None:
    """And those under way are not disturbed; cq says when to come back."""
    seen: list[Call] = []
    with serving(hot(seen.append), calls_max=2) as (transport, channel):
        method: Any = channel.unary_unary("/test.T/M")
        waiting = [method.future(b"x", timeout=SECONDS) for _ in range(2)]
        until(lambda: len(seen) == 2)
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        told: Any = caught.value
        assert ("grpc-status-details-bin" in dict(told.trailing_metadata())) == isinstance(transport, CqTransport)
        for call in seen:
            call.reply(b"ok")
        assert [call.result(SECONDS) for call in waiting] == [b"ok", b"ok"]


def test_a_call_is_refused_before_its_message_while_none_can_be_taken(serving: Serving) -> None:
    """With RetryInfo; its handler hears nothing of it, and later ones are taken again."""
    problems: list[DemurError] = [FullError("all is full", retry_after_seconds=1.5)]
    refusals = {"/test.T/M": lambda: next(iter(problems), None)}
    with serving(replace(hot(lambda call: call.reply(call.payload)), refusals=refusals)) as (_, channel):
        sent = threading.Event()

        def never() -> Iterator[bytes]:
            sent.wait(SECONDS)
            yield b"x"

        method: Any = channel.stream_unary("/test.T/M")
        with pytest.raises(grpc.RpcError) as caught:
            method(never(), timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "all is full"
        told: Any = caught.value
        assert "grpc-status-details-bin" in dict(told.trailing_metadata())
        sent.set()
        problems.clear()
        assert ask(channel, b"taken") == b"taken"


def test_a_refusal_that_fails_is_told_as_that_and_later_calls_are_taken(serving: Serving) -> None:
    """However many it were."""
    broken = [True]

    def refusal() -> DemurError | None:
        if broken:
            raise RuntimeError("secret")
        return None

    with serving(replace(hot(lambda call: call.reply(call.payload)), refusals={"/test.T/M": refusal})) as (_, channel):
        for _ in range(40):
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel)
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in (caught.value.details() or "secret")
        broken.clear()
        assert ask(channel, b"taken") == b"taken"


def test_requests_that_weigh_too_much_together_are_refused(serving: Serving) -> None:
    """With RetryInfo, until one of those under way has ended; a lone one is always taken."""
    calls: list[Call] = []
    with serving(hot(calls.append), requests_bytes_max=1024) as (_, channel):
        method: Any = channel.unary_unary("/test.T/M")
        large = method.future(b"x" * 2000, timeout=SECONDS)
        while not calls:
            time.sleep(0.01)
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "requests of 2000 bytes are under way, the most is 1024"
        told: Any = caught.value
        assert "grpc-status-details-bin" in dict(told.trailing_metadata())
        calls[0].reply(b"done")
        assert large.result() == b"done"
        after = method.future(b"x", timeout=SECONDS)
        while len(calls) == 1:
            time.sleep(0.01)
        calls[1].reply(b"too")
        assert after.result() == b"too"


def test_health_is_what_the_gateway_says(serving: Serving) -> None:
    """Not serving until it is ready."""
    statuses = health_pb2.HealthCheckResponse
    with serving(Routes(hot={}, slow={})) as (transport, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="test.T")
        assert stub.Check(request, timeout=SECONDS).status == statuses.NOT_SERVING
        transport.set_ready(ready=True)
        assert stub.Check(request, timeout=SECONDS).status == statuses.SERVING


def test_stopping_lets_calls_under_way_end(serving: Serving) -> None:
    """Within the grace; beyond it they are ended."""
    seen: list[Call] = []
    with serving(hot(seen.append)) as (transport, channel):
        method: Any = channel.unary_unary("/test.T/M")
        call = method.future(b"x", timeout=SECONDS)
        until(lambda: bool(seen))
        stopping = threading.Thread(target=transport.stop, args=(SECONDS,))
        stopping.start()
        seen[0].reply(b"in time")
        assert call.result(SECONDS) == b"in time"
        stopping.join(SECONDS)
        assert not stopping.is_alive()
        seen[0].reply(b"long after")


def test_an_address_that_is_taken_is_an_error_of_configuration(serving: Serving) -> None:
    """Two gateways never share a port unawares."""
    with serving(Routes(hot={}, slow={})) as (transport, _):
        taken = f"127.0.0.1:{transport.port}"
        with pytest.raises(ConfigError, match="is it in use"), serving(Routes(hot={}, slow={}), listen=taken):
            pass


def test_many_replies_at_once_reach_their_callers(serving: Serving) -> None:
    """From several threads, each its own."""

    def handler(call: Call) -> None:
        threading.Thread(target=call.reply, args=(call.payload,)).start()

    with serving(hot(handler)) as (_, channel):
        method: Any = channel.unary_unary("/test.T/M")
        calls = [method.future(str(number).encode(), timeout=SECONDS) for number in range(50)]
        assert [call.result(SECONDS) for call in calls] == [str(number).encode() for number in range(50)]


def test_a_demur_error_without_a_class_of_its_own_is_internal(serving: Serving) -> None:
    """Its sentence was meant to be told."""

    def handler(call: Call) -> None:
        call.fail(DemurError("internal error, id 7"))

    with serving(hot(handler)) as (_, channel), pytest.raises(grpc.RpcError, match="id 7"):
        ask(channel)


def test_a_burst_is_answered_or_refused_by_the_program_alone(serving: Serving) -> None:
    """Nobody is cut off by chance, without a word when to come back, however many wait to be taken in."""
    routes = Routes(hot={"/test.T/Echo": lambda call: call.reply(call.payload)}, slow={})
    codes: Counter[int] = Counter()
    with serving(routes, calls_max=10_000, requests_bytes_max=2**31) as (transport, _):
        port: Any = transport
        client = wire.Wire(f"127.0.0.1:{port.port}", "/test.T/Echo")
        for _ in range(_BURST):
            client.call(b"x" * 100)
        deadline = time.monotonic() + 30
        while codes.total() < _BURST and time.monotonic() < deadline:
            client.flush()
            select.select([client.socket], [client.socket] if client.unsent else [], [], 0.1)
            codes.update(each.code for each in client.read())
        client.close()
    assert codes == {wire.OK: _BURST}
