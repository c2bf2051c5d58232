"""A process beside the gateway parks what plain requests leave to people, and nothing is lost when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
import redis

from demur import kserve
from fallback import embedded
from fallback.config import Config, QueueSettings, RedisSettings
from fallback.deferral import Deferral
from fallback.queue import Queue
from gateway import clerk_wire
from gateway.clerk import Clerk
from gateway.policy import Policy
from gateway.server import Gateway
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, told

SECONDS = 30.0
METHOD = f"/{kserve.SERVICE}/ModelInfer"
AUDITED = msgspec.structs.replace(JUDGED, policy=Policy(threshold=0.8, audit_share=1.0))


@pytest.fixture(scope="module")
def config(server: embedded.Server, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A gateway's, with a model that audits all it answers, and one whose queue is full at once."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    base = Config(
        data_folder=tmp_path_factory.mktemp("gateway"),
        queues={"full": QueueSettings(depth_max=1), "spare": QueueSettings(depth_max=1, when_over="keep")},
    )
    found = settings(base, {"redis": RedisSettings(url=server.url)})
    for name in ("m", "full", "spare", "killed0", "killed1", "stopped", "stuck", "left", "ended", "hung"):
        install(found.data_folder, name, "1", told(1), AUDITED)
        promote(found, name, "1")
    return found


@pytest.fixture(scope="module")
def gateway(config: Config) -> Iterator[Gateway]:
    """One that runs, with its clerk."""
    with running(config, clerk=True) as found:
        until(lambda: clerk_of(found).up)
        yield found


@pytest.fixture
def channel(gateway: Gateway) -> Iterator[grpc.Channel]:
    """To that gateway."""
    with grpc.insecure_channel(gateway.address) as found:
        yield found


def clerk_of(gateway: Gateway) -> Any:
    assert gateway._clerk is not None
    return gateway._clerk


def until(there: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def asked(model: str, x: np.ndarray) -> bytes:
    message = kserve.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    content: bytes = message.SerializeToString()
    return content


def ask(channel: grpc.Channel, model: str, x: np.ndarray, count: int = 1) -> list[Any]:
    """Ask `count` times at once, after once that the question is learnt by; return the replies or errors."""
    infer: Any = channel.unary_unary(METHOD, None, kserve.ModelInferResponse.FromString)
    infer(asked(model, np.repeat(SURE, len(x), axis=0)), timeout=SECONDS)
    futures = [infer.future(asked(model, x), timeout=SECONDS) for _ in range(count)]
    return [future.exception() or future.result() for future in futures]


def leave(clerk: Any, infer: Any, queue: str) -> None:
    """Ask for what is to be parked, and go while the errand waits for its round."""
    gone = infer.future(asked(queue, UNSURE), timeout=SECONDS)
    until(lambda: len(clerk._rounds) == 1)
    gone.cancel()
    ((given, _),) = clerk._rounds._waiting
    until(lambda: given[0].asker.cancelled)


def names_of(reply: Any) -> list[str]:
    return [name for name in reply.parameters["demur_deferral"].string_param.split(",") if name]


def deferrals(gateway: Gateway, model: str) -> list[Deferral]:
    """All that a queue holds."""

    async def read() -> list[Deferral]:
        return (await gateway.queue.list_deferrals(model, page_size=100))[0]

    found: list[Deferral] = gateway._slow.run(read(), timeout_seconds=SECONDS)
    return found


def test_rows_of_a_request_are_parked_and_audited_with_all_that_is_known_of_them(
    gateway: Gateway, channel: grpc.Channel
) -> None:
    """A row of doubt is named in the reply, one that is answered goes beside it to be checked."""
    (reply,) = ask(channel, "m", np.concatenate([UNSURE, SURE]))
    assert reply.parameters["demur_decision"].string_param == "provisional"
    assert reply.parameters["demur_confidence"].double_param == pytest.approx(0.4)
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(2, 3)[0] == pytest.approx(UNSURE[0])
    (name,) = names_of(reply)
    until(lambda: len(deferrals(gateway, "m")) == 4)
    by_name = {each.name: each for each in deferrals(gateway, "m")}
    parked = by_name.pop(name)
    assert (parked.reasons, parked.audit, parked.client) == (("threshold",), False, "anonymous")
    assert parked.prediction is not None
    assert parked.prediction.version == "1"
    assert parked.prediction.confidence == pytest.approx(0.4)
    assert {(each.reasons, each.audit) for each in by_name.values()} == {(("audit",), True)}
    assert clerk_of(gateway)._ticket == 1


def test_what_the_queue_refuses_or_keeps_all_the_same_is_told_as_without_a_clerk(channel: grpc.Channel) -> None:
    """A queue over its limit: refused with the setting's name, or parked and said so."""
    ask(channel, "full", UNSURE)
    (error,) = ask(channel, "full", UNSURE)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "depth_max" in error.details()
    ask(channel, "spare", UNSURE)
    (reply,) = ask(channel, "spare", UNSURE)
    assert names_of(reply)
    assert "depth_max" in reply.parameters["demur_over"].string_param


@pytest.mark.parametrize("told", [False, True])
def test_errands_of_a_clerk_that_dies_are_parked_once(
    gateway: Gateway, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """Those that it never came to, and those that it parked and did not tell; then another clerk takes its place."""
    clerk, count, queue = clerk_of(gateway), 12, f"killed{int(told)}"
    until(lambda: clerk.up)
    first = clerk.pid
    ask(channel, queue, SURE)
    until(lambda: len(deferrals(gateway, queue)) == 2 and not clerk._given)
    if told:
        monkeypatch.setattr(clerk, "_tell", lambda _: clerk._rounds.heard())
    else:
        os.kill(first, signal.SIGSTOP)
    infer: Any = channel.unary_unary(METHOD, None, kserve.ModelInferResponse.FromString)
    futures = [infer.future(asked(queue, UNSURE), timeout=SECONDS) for _ in range(count)]
    until(lambda: len([*clerk._given]) + len(clerk._rounds) == count)
    if told:
        until(lambda: len(deferrals(gateway, queue)) == 2 + count)
        monkeypatch.undo()
    os.kill(first, signal.SIGKILL)
    names = [name for future in futures for name in names_of(future.result())]
    assert len({*names}) == count
    assert {each.name for each in deferrals(gateway, queue) if not each.audit} == {*names}
    until(lambda: clerk.up and clerk.pid != first)


def test_a_clerk_that_hangs_is_killed_and_its_errands_are_parked_once(
    gateway: Gateway, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to come: who waits gets the name, what nobody waits for leaves the backlog, another starts."""
    clerk, queue = clerk_of(gateway), "hung"
    until(lambda: clerk.up)
    first = clerk.pid
    ask(channel, queue, SURE)
    until(lambda: len(deferrals(gateway, queue)) == 2 and not clerk._given)
    infer: Any = channel.unary_unary(METHOD, None, kserve.ModelInferResponse.FromString)
    os.kill(first, signal.SIGSTOP)
    waiting = [infer.future(asked(queue, UNSURE), timeout=SECONDS)]
    until(lambda: len([*clerk._given]) == 1)
    leave(clerk, infer, queue)
    waiting += [infer.future(asked(queue, UNSURE), timeout=SECONDS) for _ in range(2)]
    until(lambda: len(clerk._rounds) == 3)
    monkeypatch.setattr(clerk, "_round_seconds_max", 0.5)
    names = {name for future in waiting for name in names_of(future.result())}
    assert len(names) == 3
    assert {each.name for each in deferrals(gateway, queue) if not each.audit} == names
    until(lambda: not gateway._deferring.backlog._rows)
    monkeypatch.undo()
    until(lambda: clerk.up and clerk.pid != first)
    assert names_of(infer(asked(queue, UNSURE), timeout=SECONDS))


def test_a_clerk_that_does_not_come_up_is_killed_and_another_started(config: Config) -> None:
    """The gateway parks by itself meanwhile."""
    clerk, stopped, told = Clerk(config), list[int](), list[object]()
    spawn = clerk._spawn

    def stop_the_first(number: int) -> Any:
        process = spawn(number)
        if not stopped:
            os.kill(process.pid, signal.SIGSTOP)
            stopped.append(process.pid)
        else:
            clerk._start_seconds_max = SECONDS
        return process

    clerk._spawn, clerk._start_seconds_max = stop_the_first, 0.0  # type: ignore[method-assign,assignment]
    clerk.start(lambda *_: None, told.extend, lambda *_: None)
    try:
        until(lambda: clerk.up)
        assert clerk.pid not in stopped
        with pytest.raises(ProcessLookupError):
            os.kill(stopped[0], 0)
    finally:
        clerk.close(SECONDS)
    assert not told


def test_what_waits_for_a_clerk_that_stands_still_is_bounded_in_bytes(
    gateway: Gateway, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is to be parked then is refused, who is answered keeps the answer; what was accepted is parked in the end."""
    clerk, queue = clerk_of(gateway), "stuck"
    until(lambda: clerk.up)
    ask(channel, queue, SURE)
    until(lambda: len(deferrals(gateway, queue)) == 2 and not clerk._given)
    backlog = gateway._deferring.backlog
    os.kill(clerk.pid, signal.SIGSTOP)
    infer: Any = channel.unary_unary(METHOD, None, kserve.ModelInferResponse.FromString)
    try:
        waiting = [infer.future(asked(queue, UNSURE), timeout=SECONDS) for _ in range(3)]
        until(lambda: len([*clerk._given]) + len(clerk._rounds) == 3)
        assert backlog._bytes > 3 * len(asked(queue, UNSURE))
        monkeypatch.setattr(backlog, "bytes_max", backlog._bytes)
        with pytest.raises(grpc.RpcError) as refused:
            infer(asked(queue, UNSURE), timeout=SECONDS)
        answered = infer(asked(queue, SURE), timeout=SECONDS)
    finally:
        os.kill(clerk.pid, signal.SIGCONT)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "parkings_bytes_max" in str(refused.value.details())
    assert answered.parameters["demur_decision"].string_param == "answered"
    names = [name for each in waiting for name in names_of(each.result())]
    assert {each.name for each in deferrals(gateway, queue) if not each.audit} == {*names}
    assert len({*names}) == 3
    assert names_of(infer(asked(queue, UNSURE), timeout=SECONDS))


def test_an_errand_whose_caller_has_left_is_not_done(gateway: Gateway, channel: grpc.Channel) -> None:
    """While it waited for its round: nothing was promised, and nobody is asked for nothing. Others go on."""
    clerk, queue = clerk_of(gateway), "left"
    until(lambda: clerk.up)
    ask(channel, queue, SURE)
    until(lambda: len(deferrals(gateway, queue)) == 2 and not clerk._given)
    infer: Any = channel.unary_unary(METHOD, None, kserve.ModelInferResponse.FromString)
    os.kill(clerk.pid, signal.SIGSTOP)
    try:
        first = infer.future(asked(queue, UNSURE), timeout=SECONDS)
        until(lambda: len([*clerk._given]) == 1)
        leave(clerk, infer, queue)
    finally:
        os.kill(clerk.pid, signal.SIGCONT)
    names = names_of(first.result())
    until(lambda: not gateway._deferring.backlog._rows)
    (last,) = ask(channel, queue, UNSURE)
    assert {each.name for each in deferrals(gateway, queue) if not each.audit} == {*names, *names_of(last)}


def test_a_clerk_that_ends_waits_for_nobody_who_has_left(config: Config) -> None:
    """An errand behind a slow round whose caller has gone by its turn is as good as done."""
    with running(config, clerk=True) as gateway, grpc.insecure_channel(gateway.address) as channel:
        clerk, queue = clerk_of(gateway), "ended"
        until(lambda: clerk.up)
        ask(channel, queue, SURE)
        until(lambda: len(deferrals(gateway, queue)) == 2 and not clerk._given)
        infer: Any = channel.unary_unary(METHOD, None, kserve.ModelInferResponse.FromString)
        os.kill(clerk.pid, signal.SIGSTOP)
        infer(asked(queue, SURE), timeout=SECONDS)
        until(lambda: len([*clerk._given]) == 1)
        leave(clerk, infer, queue)
        threading.Timer(0.2, os.kill, (clerk.pid, signal.SIGCONT)).start()
        start = time.monotonic()
        gateway._deferring.close(SECONDS)
        assert time.monotonic() - start < SECONDS / 2
        assert not clerk._rounds


def test_an_errand_that_was_parked_is_not_made_again(gateway: Gateway) -> None:
    """What a row is called follows from its errand: whoever parks it a second time finds the first."""
    from tests.unit.gateway.test_slip import PARKING

    async def park() -> list[Any]:
        queue: Queue = gateway.queue
        one = msgspec.structs.replace(PARKING, queue="twice")
        return [(await queue.park([one], ["abcdefghij0123456789"]))[0] for _ in range(2)]

    first, second = gateway._slow.run(park(), timeout_seconds=SECONDS)
    assert first.name == second.name == "queues/twice/deferrals/abcdefghij0123456789"
    assert len(deferrals(gateway, "twice")) == 1


def test_a_gateway_that_stops_has_its_clerk_park_what_it_was_given(config: Config) -> None:
    """Audits too, for which nobody waits; and the process ends."""
    with running(config, clerk=True) as gateway:
        until(lambda: clerk_of(gateway).up)
        with grpc.insecure_channel(gateway.address) as channel:
            ask(channel, "stopped", SURE, count=20)
        process = clerk_of(gateway)._process
    assert process.poll() == 0

    async def count() -> int:
        queue = Queue.connect(config)
        try:
            return sum(state.open for state in await queue.states() if state.name == "stopped")
        finally:
            await queue.close()

    assert asyncio.run(count()) == 21


def test_what_a_clerk_says_first_ends_no_round(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there for others only once that is heard, so that none of their rounds can be under way by then."""
    clerk, was_up = Clerk(config), []
    monkeypatch.setattr(clerk, "_tell", lambda _: was_up.append(clerk.up))
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(clerk_wire.reply(()))
        assert clerk._take(ours, clerk_wire.Frames())
    assert was_up == [False]
    assert clerk.up
