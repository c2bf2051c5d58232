"""A queue that is over a limit, seen from a client's side; and how long a person is expected to take."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from fallback import limits
from fallback.answer import Identity, Label
from fallback.config import Config, QueueSettings
from fallback.errors import FullError
from gateway.client import Client, Result
from gateway.policy import Policy
from gateway.rules import Decision
from gateway.server import Gateway
from tests.live_gateway import JUDGED, TASK, UNSURE, install, promote, running, settings, told

# "b" is what UNSURE is taken for.
INSISTS = msgspec.structs.replace(JUDGED, policy=Policy(threshold=0.8, audit_share=0.0, always_person=("b",)))
CALLBACK = "https://shop.example/hook"


@contextmanager
def _gateway(base: Config, **rules: Any) -> Iterator[Gateway]:
    """A gateway whose queues have `rules`; `m` is an ordinary model, `insists` always sends "b" to a person."""
    small = settings(base)
    config = Config(
        data_folder=base.data_folder,
        tables={"gateway": small.table("gateway", type(small._tables["gateway"]))},
        queues={"default": QueueSettings(**rules)},
    )
    for name, facts in (("m", JUDGED), ("insists", INSISTS)):
        install(config.data_folder, name, "1", told(1), facts)
        promote(config, name, "1")
    with running(config) as gateway:
        yield gateway


def _work(gateway: Gateway, work: Any) -> Any:
    return gateway._slow.run(work, timeout_seconds=10)


def _answer(gateway: Gateway) -> None:
    async def answer() -> None:
        reviewer = Identity(name=f"reviewer-{uuid.uuid4().hex[:8]}")
        (lease,) = await gateway.queue.lease("m", reviewer=reviewer)
        await gateway.queue.submit(lease.token, reviewer=reviewer, answer=Label("c"), request_id=uuid.uuid4().hex)

    _work(gateway, answer())


def _counted(gateway: Gateway, limit: str, done: str, queue: str = "m") -> float:
    labels = {"queue": queue, "limit": limit, "done": done}
    return gateway.metrics.registry.get_sample_value("demur_over_total", labels) or 0.0


def _predict(gateway: Gateway, model: str = "m", count: int = 1, **asked: Any) -> list[Result | FullError]:
    """Ask `count` times, one after the other."""

    async def ask(client: Client) -> Result | FullError:
        try:
            return await client.predict(model, inputs={"x": UNSURE}, **asked)
        except FullError as error:
            return error

    async def work() -> list[Result | FullError]:
        async with Client(gateway.address, identity="shop") as client:
            return [await ask(client) for _ in range(count)]

    return asyncio.run(work())


def _said(result: Result | FullError) -> tuple[Decision, list[str]]:
    """What a reply is worth, and what the rules `over` said."""
    assert isinstance(result, Result), result
    return result.decision, [rule.evaluation for rule in result.rules if rule.rule == "over"]


def _infer(gateway: Gateway, rows: int = 1) -> dict[str, Any]:
    """The parameters of ModelInfer's reply, asked by an unmodified client."""
    given = triton.InferInput("x", [rows, 3], "FP32")
    given.set_data_from_numpy(np.repeat(UNSURE, rows, axis=0))
    with triton.InferenceServerClient(gateway.address) as client:
        parameters = client.infer("m", [given], client_timeout=10).get_response().parameters
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}


def test_the_reply_says_how_long_a_person_will_take(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent while nobody answered lately; then in Predict, ModelInfer, GetDeferral and RequestReview."""
    # What was read of a queue's load is otherwise good for a second.
    monkeypatch.setattr(limits, "LOAD_SECONDS", 0.0)
    with _gateway(config) as gateway:
        (first,) = _predict(gateway)
        assert isinstance(first, Result)
        assert first.deferral is not None
        assert first.expected_wait_seconds is None
        assert "demur_expected_wait" not in _infer(gateway)
        _answer(gateway)
        _answer(gateway)
        (second,) = _predict(gateway)
        assert isinstance(second, Result)
        assert second.deferral is not None
        assert second.expected_wait_seconds is not None
        assert second.expected_wait_seconds > 0
        assert _infer(gateway)["demur_expected_wait"] > 0

        async def ask() -> None:
            async with Client(gateway.address, identity="shop") as client:
                assert first.deferral is not None
                assert second.deferral is not None
                assert (await client.get(first.deferral.name)).expected_wait_seconds is None
                assert ((await client.get(second.deferral.name)).expected_wait_seconds or 0) > 0
                asked = await client.request_review("m", TASK, text="look")
                assert ((await client.get(asked.name)).expected_wait_seconds or 0) > 0

        asyncio.run(ask())


def test_over_its_depth_a_queue_that_refuses_says_when_to_come_back(config: Config) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo that names limit and setting, for every way in; and it is counted."""
    with _gateway(config, depth_max=1) as gateway:
        parked, refused = _predict(gateway, count=2)
        assert _said(parked) == (Decision.DEFERRED, [])
        assert isinstance(refused, FullError)
        assert "queue m: holds 1 open deferrals" in refused.message
        assert "depth_max" in refused.message
        assert refused.retry_after_seconds
        with pytest.raises(InferenceServerException, match="depth_max") as raised:
            _infer(gateway)
        assert "RESOURCE_EXHAUSTED" in str(raised.value.status())

        async def ask() -> None:
            async with Client(gateway.address, identity="shop") as client:
                await client.request_review("m", TASK, text="look")

        with pytest.raises(FullError, match="depth_max") as over:
            asyncio.run(ask())
        assert over.value.retry_after_seconds
        assert _counted(gateway, "depth_max", "refused") == 3


def test_over_its_depth_a_queue_may_have_the_model_answer_unreviewed(config: Config) -> None:
    """The decision is UNREVIEWED and a rule says why; where no model was asked there is nothing but to refuse."""
    with _gateway(config, depth_max=1, when_over="answer_unreviewed") as gateway:
        parked, answered = _predict(gateway, count=2)
        assert _said(parked) == (Decision.DEFERRED, [])
        decision, rules = _said(answered)
        assert isinstance(answered, Result)
        assert (decision, answered.label, answered.deferral) == (Decision.UNREVIEWED, "b", None)
        assert rules == ["queue m: holds 1 open deferrals, as many as it may (setting depth_max); answered unreviewed"]
        said = _infer(gateway, rows=2)
        assert said["demur_decision"] == "unreviewed"
        assert said["demur_over"] == rules[0]
        assert "demur_deferral" not in said

        async def ask() -> None:
            async with Client(gateway.address, identity="shop") as client:
                await client.request_review("m", TASK, text="look")

        with pytest.raises(FullError, match="depth_max"):
            asyncio.run(ask())
        assert _counted(gateway, "depth_max", "answered_unreviewed") == 3
        assert _counted(gateway, "depth_max", "refused") == 1


def test_what_always_goes_to_a_person_is_never_answered_for_want_of_room(config: Config) -> None:
    """No confidence excuses it, and no want of people: it is refused."""
    with _gateway(config, depth_max=1, when_over="answer_unreviewed") as gateway:
        parked, refused = _predict(gateway, "insists", count=2)
        assert _said(parked) == (Decision.DEFERRED, [])
        assert isinstance(refused, FullError)


def test_over_its_depth_a_queue_may_keep_up_to_a_hard_limit(config: Config) -> None:
    """Parked, and a rule says that the queue is over; beyond the hard limit refused all the same."""
    with _gateway(config, depth_max=1, open_max=2, when_over="keep") as gateway:
        parked, kept, refused = _predict(gateway, count=3)
        assert _said(parked) == (Decision.DEFERRED, [])
        over = "the queue is over its limit depth_max; parked all the same"
        assert _said(kept) == (Decision.DEFERRED, [over])
        assert isinstance(refused, FullError)
        assert "open_max" in refused.message
        states = _work(gateway, gateway.queue.states())
        assert [(state.name, state.over) for state in states] == [("m", ("depth_max", "open_max"))]
        assert _counted(gateway, "depth_max", "kept") == 1
        assert _counted(gateway, "open_max", "refused") == 1


@pytest.mark.parametrize("when_over", ["refuse", "answer_unreviewed", "keep"])
def test_over_its_budget_a_queue_does_as_its_setting_says(config: Config, when_over: str) -> None:
    """One review an hour: the second request is refused, answered, or kept."""
    with _gateway(config, budget_per_hour=1, when_over=when_over) as gateway:
        first, second = _predict(gateway, count=2)
        assert _said(first) == (Decision.DEFERRED, [])
        if when_over == "refuse":
            assert isinstance(second, FullError)
            assert "budget_per_hour" in second.message
            assert second.retry_after_seconds
            # The reply comes later than the hour began; the minute that was asked for in has 60 to 61 to go.
            assert second.retry_after_seconds > 3_500
        else:
            decision, rules = _said(second)
            assert decision is (Decision.DEFERRED if when_over == "keep" else Decision.UNREVIEWED)
            assert len(rules) == 1
            assert "budget_per_hour" in rules[0]


def test_a_hard_limit_is_refused_whatever_the_policy(config: Config) -> None:
    """Bytes that are not there cannot be promised; a full outbox refuses those that want to be called back."""
    with _gateway(config, bytes_max=10, when_over="answer_unreviewed") as gateway:
        (refused,) = _predict(gateway)
        assert isinstance(refused, FullError)
        assert "bytes_max" in refused.message
        assert _counted(gateway, "bytes_max", "refused") == 1


def test_a_full_outbox_refuses_those_who_want_to_be_called_back(config: Config) -> None:
    """And nobody else."""
    with _gateway(config, outbox_max=1) as gateway:
        _predict(gateway, callback=CALLBACK)
        _answer(gateway)
        refused, parked = (*_predict(gateway, callback=CALLBACK), *_predict(gateway))
        assert isinstance(refused, FullError)
        assert "outbox_max" in refused.message
        assert _said(parked) == (Decision.DEFERRED, [])
