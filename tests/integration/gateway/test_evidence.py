"""What a gateway leaves as evidence for a certificate: first in its spool, then in the certifier's stream."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from concurrent.futures import Future
from typing import Any

import msgspec
import numpy as np
import pytest

from fallback.answer import Answer, Label
from fallback.config import Config
from fallback.errors import DemurError, FullError, OverdueError, UnavailableError
from gateway.certification import CERTIFICATIONS
from gateway.policy import Policy
from gateway.request import Request, Result, request_key
from gateway.rules import Decision
from gateway.samples import place_text
from gateway.sampling import Epoch
from gateway.server import Gateway
from gateway.shipping import LOOK_SECONDS
from gateway.watch import POLICIES
from tests.integration.gateway.certified import (
    EPOCH,
    POLICY,
    REQUESTS,
    SHARE,
    UNPROVED,
    ask,
    deferrals_of,
    draw_of,
    evidence_of,
    lay_down,
    secret_of,
    spools_of,
    until,
    write,
)
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, shadow, told


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)


def test_what_is_sampled_is_recorded_with_its_place_and_comes_to_the_certifier(config: Config) -> None:
    """Every deferred and every audited request has a record in the stream and a deferral with the record's place; the
    rows that close seconds count all requests; the gateway's end is told, and nothing stays on the disk.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    lay_down(config)
    with running(config) as gateway:
        answers = [ask(gateway.address, SURE, idempotency_key=f"s{number}") for number in range(REQUESTS)]
        deferred = [ask(gateway.address, UNSURE, idempotency_key=f"u{number}") for number in range(5)]
    assert {answer.decision for answer in answers} == {Decision.ANSWERED}
    evidence = evidence_of(config)
    audited = {request_key("shop", f"s{n}") for n in range(REQUESTS) if draw_of(config, f"s{n}") < SHARE}
    assert audited
    by_key = {record.request_key: record for record in evidence.records}
    assert by_key.keys() == audited | {request_key("shop", f"u{n}") for n in range(5)}
    assert {by_key[key].q for key in audited} == {SHARE}
    assert {record.q for key, record in by_key.items() if key not in audited} == {1.0}
    assert {(record.floor, record.epoch, record.model) for record in evidence.records} == {(SHARE, EPOCH, "m")}
    assert sum(row.eligible for row in evidence.closings) == REQUESTS + 5
    assert sum(row.answered for row in evidence.closings) == REQUESTS
    assert sum(sum(row.histogram) for row in evidence.closings) == REQUESTS + 5
    assert (evidence.holes, evidence.live, evidence.pending.left_out) == (0, [], 0)
    assert len(evidence.counted) == len(evidence.records)
    assert spools_of(config) == []
    deferrals = deferrals_of(config)
    assert {d.draw.place for d in deferrals if d.draw} == {place_text(record.place) for record in evidence.records}
    assert {(d.draw.epoch, d.draw.certificate) for d in deferrals if d.draw} == {(EPOCH, "certificate-1")}
    assert sum(d.audit for d in deferrals) == len(audited)
    assert all(d.second_opinion and d.second_opinion.predictions == (Label("b"),) for d in deferrals)
    assert {result.deferral.name for result in deferred} == {d.name for d in deferrals if not d.audit}


def test_what_a_challenger_says_stands_in_the_record_and_nowhere_else(config: Config) -> None:
    """Of what is sampled, several rows at a time too; people decide by three where it disagrees; nobody is answered by
    it, and one that takes other inputs is left out.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    lay_down(config)
    odd = msgspec.structs.replace(JUDGED, labels=("b", "a", "c"), policy=POLICY)
    install(config.data_folder, "m", "2", told(2), odd)
    install(config.data_folder, "m", "3", told(3, width=4), msgspec.structs.replace(odd, labels=("a", "b", "c", "d")))
    shadow(config, "m", "2", "3")
    with running(config) as gateway:
        answers = [ask(gateway.address, SURE, idempotency_key=f"s{number}") for number in range(REQUESTS)]
        ask(gateway.address, UNSURE, idempotency_key="u")
    assert {(answer.version, answer.label) for answer in answers} == {("1", "b")}
    evidence = evidence_of(config)
    assert {tuple(scored.version for scored in record.scored) for record in evidence.records} == {("1", "2")}
    assert {scored.prediction for record in evidence.records for scored in record.scored} == {
        '{"label":"b","type":"label"}',
        '{"label":"a","type":"label"}',
    }
    assert all(record.scored[0].confidence == record.scored[1].confidence for record in evidence.records)
    assert {d.second_opinion.predictions for d in deferrals_of(config) if d.second_opinion} == {
        (Label("b"), Label("a"))
    }
    assert evidence.holes == 0


def test_people_are_told_how_sure_a_model_is_at_its_temperature(config: Config) -> None:
    """What is decided, and the evidence, goes by the confidence that the model gives."""
    config = settings(config)
    facts = msgspec.structs.replace(JUDGED, policy=POLICY, temperature=3.0)
    install(config.data_folder, "m", "1", told(1), facts)
    promote(config, "m", "1")
    write(config, CERTIFICATIONS + "m", UNPROVED)
    with running(config) as gateway:
        result = ask(gateway.address, SURE)
    assert result.confidence == pytest.approx(0.9)
    (deferral,) = deferrals_of(config)
    assert deferral.prediction is not None
    assert deferral.prediction.confidence == pytest.approx(0.9)
    assert deferral.prediction.shown == pytest.approx(0.9 ** (1 / 3) / (0.9 ** (1 / 3) + 2 * 0.05 ** (1 / 3)))
    assert evidence_of(config).records[0].scored[0].confidence == pytest.approx(0.9)


def test_before_anything_is_proved_everybody_is_recorded(config: Config) -> None:
    """With an epoch and no threshold every request is a record with q 1, and none is answered."""
    config = settings(config)
    lay_down(config, certification=UNPROVED)
    with running(config) as gateway:
        assert ask(gateway.address, SURE).decision is not Decision.ANSWERED
    (record,) = evidence_of(config).records
    assert (record.q, record.floor) == (1.0, 1.0)
    assert record.scored[0].eligible
    assert record.scored[0].eligibility == Policy().eligibility
    assert msgspec.json.decode(record.scored[0].prediction, type=Answer) == Label("b")


def test_where_the_own_threshold_answers_meanwhile_its_audits_are_evidence(config: Config) -> None:
    """Recorded and parked with the share as their q; what is below the threshold has q 1, and the same floor. A queue
    that takes nothing holds nobody off: the sure are answered, so the unsure are recorded too.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    lay_down(config, msgspec.structs.replace(POLICY, threshold=0.8, until_proved="answer"), UNPROVED)
    keys = [f"s{number}" for number in range(REQUESTS)]
    with running(config) as gateway:
        for key in keys:
            assert ask(gateway.address, SURE, idempotency_key=key).decision is Decision.UNCERTIFIED
        gateway._deferring.hold_off.failed("m", UnavailableError("away"))
        assert ask(gateway.address, UNSURE, idempotency_key="u").deferral
    evidence = evidence_of(config)
    due = {request_key("shop", key): SHARE for key in keys if draw_of(config, key) < SHARE}
    assert {record.request_key: record.q for record in evidence.records} == due | {request_key("shop", "u"): 1.0}
    assert {record.floor for record in evidence.records} == {SHARE}
    assert {(d.draw.place, d.draw.certificate) for d in deferrals_of(config) if d.draw} == {
        (place_text(record.place), "") for record in evidence.records
    }


def test_without_a_certifier_nothing_is_recorded(config: Config) -> None:
    """An alpha alone, or none at all, leaves nothing on the disk and nothing in the stream."""
    config = settings(config)
    lay_down(config, certification=None)
    with running(config) as gateway:
        assert ask(gateway.address, SURE).decision is not Decision.ANSWERED
        assert spools_of(config) == []
    assert evidence_of(config).rows == []


def test_a_policy_may_gain_and_lose_its_alpha(config: Config) -> None:
    """From the next batch on; the seconds without it are closed as seconds in which nothing was sampled."""
    config = settings(config)
    plain = Policy(threshold=0.8, audit_share=1.0)
    lay_down(config, plain)
    with running(config) as gateway:
        ask(gateway.address, UNSURE, idempotency_key="before")
        assert spools_of(config) == []
        write(config, POLICIES + "m", POLICY)
        until(lambda: ask(gateway.address, UNSURE) and spools_of(config))
        recorded = ask(gateway.address, UNSURE, idempotency_key="with")
        write(config, POLICIES + "m", plain)
        until(lambda: _audited_at_once(gateway, config))
    evidence = evidence_of(config)
    keys = {record.request_key for record in evidence.records}
    assert request_key("shop", "with") in keys
    assert request_key("shop", "before") not in keys
    assert (evidence.holes, evidence.live) == (0, [])
    assert recorded.deferral.name in {d.name for d in deferrals_of(config) if d.draw and d.draw.place}


def _audited_at_once(gateway: Gateway, config: Config) -> bool:
    """Whether an answer is audited without a record: its policy has no alpha."""
    ask(gateway.address, SURE)
    return any(d.audit and d.draw and not d.draw.place for d in deferrals_of(config))


def test_a_retry_keeps_its_place(config: Config) -> None:
    """Whoever asks again under the same key, at this gateway or, after a start, at the next one, is the same record."""
    config = settings(config)
    lay_down(config)
    keys = [f"k{number}" for number in range(REQUESTS)]
    with running(config) as gateway:
        first = [ask(gateway.address, UNSURE, idempotency_key=key).deferral.name for key in keys]
        again = [ask(gateway.address, UNSURE, idempotency_key=key).deferral.name for key in keys]
        for _ in range(2):
            for key in keys:
                ask(gateway.address, SURE, idempotency_key=f"sure {key}")
    assert first == again
    evidence = evidence_of(config)
    assert len({record.request_key for record in evidence.records}) == len(evidence.records)
    assert len(deferrals_of(config)) == len(evidence.records)


def test_a_gateway_that_is_drained_under_load_closes_what_it_answered(config: Config) -> None:
    """Whoever got an answer before the end is counted, and nothing is recorded after it."""
    config = settings(config)
    lay_down(config)
    answered: list[str] = []

    def keep_asking(name: str, address: str) -> None:
        with contextlib.suppress(DemurError):
            for number in itertools.count():
                ask(address, SURE, idempotency_key=f"{name}-{number}")
                answered.append(f"{name}-{number}")

    with running(config) as gateway:
        askers = [threading.Thread(target=keep_asking, args=(name, gateway.address)) for name in "abcd"]
        for asker in askers:
            asker.start()
        until(lambda: len(answered) > REQUESTS)
    for asker in askers:
        asker.join()
    evidence = evidence_of(config)
    due = {request_key("shop", key) for key in answered if draw_of(config, key) < SHARE}
    assert due <= {record.request_key for record in evidence.records}
    assert (evidence.holes, evidence.live, evidence.pending.left_out) == (0, [], 0)
    assert sum(row.answered for row in evidence.closings) >= len(answered)
    assert len(deferrals_of(config)) == len(evidence.records)


def test_each_row_of_a_request_is_a_record_of_its_own(config: Config) -> None:
    """Some rows of a request are deferred, some audited, some neither; the caller hears once all are seen to."""
    config = settings(config)
    lay_down(config, msgspec.structs.replace(POLICY, audit_share=0.5))
    x = np.concatenate([SURE, UNSURE] * 6)
    with running(config) as gateway:
        result = _submit(gateway, "k", x)
        assert result.deferrals.keys() == set(range(1, 12, 2))
    evidence = evidence_of(config)
    assert {record.request_key for record in evidence.records} >= {f"shop\nk#{row}" for row in range(1, 12, 2)}
    audited = sum(draw_of(config, f"k#{row}") < 0.5 for row in range(0, 12, 2))
    assert len(evidence.records) == 6 + audited
    assert len(deferrals_of(config)) == len(evidence.records)


def test_of_a_requests_rows_one_is_evidence(config: Config) -> None:
    """Drawn by the request's key; the others are recorded and parked alike, and are not of the population."""
    config = settings(config)
    lay_down(config, certification=UNPROVED)
    epoch = Epoch(model="m", name=EPOCH, secret=secret_of(config))
    keys = [f"k{number}" for number in range(12)]
    with running(config) as gateway:
        for key in keys:
            _submit(gateway, key, np.concatenate([SURE, UNSURE, SURE]))
        _submit(gateway, "alone", SURE)
    evidence = evidence_of(config)
    chosen = {key: epoch.evidence_row(f"shop\n{key}", 3) for key in keys}
    assert len(set(chosen.values())) > 1
    wanted = {f"shop\n{key}#{row}" for key, row in chosen.items()} | {"shop\nalone"}
    assert {record.request_key for record in evidence.records if record.scored[0].eligible} == wanted
    assert len(evidence.records) == len(deferrals_of(config)) == 3 * 12 + 1
    assert sum(row.sampled for row in evidence.closings) == 3 * 12 + 1
    assert sum(row.eligible for row in evidence.closings) == 12 + 1
    assert sum(sum(row.histogram) for row in evidence.closings) == 12 + 1


def _submit(gateway: Gateway, key: str, x: Any, waiter: _Waiter | None = None) -> Result:
    """Ask once for all rows of `x`."""
    waiter = waiter or _Waiter()
    asked = Request(model="m", tensors={"x": x}, client="shop", idempotency_key=key, request_key=f"shop\n{key}")
    gateway.champions.find("m").submit(asked, waiter)
    return waiter.result.result(timeout=10)


class _Waiter:
    def __init__(self) -> None:
        self.result: Future[Result] = Future()
        self.cancelled = False

    def answer(self, result: Result) -> None:
        self.result.set_result(result)

    def fail(self, error: DemurError) -> None:
        self.result.set_exception(error)


class _Leaver(_Waiter):
    """Leaves once its request was run and recorded, before it is parked."""

    @property
    def cancelled(self) -> bool:
        return threading.current_thread().name == "slow"

    @cancelled.setter
    def cancelled(self, _: bool) -> None:
        pass


def test_who_was_never_parked_is_told_to_the_certifier(config: Config) -> None:
    """Once no retry has parked what was refused, or whose client has left; nothing is told of what was parked, by the
    first try or by a later one.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    lay_down(config)
    with running(config) as gateway:
        ask(gateway.address, UNSURE, idempotency_key="parked")
        gateway._deferring.backlog.rows_max = 0
        for key in ("refused", "retried"):
            with pytest.raises(FullError):
                ask(gateway.address, UNSURE, idempotency_key=key)
        gateway._deferring.backlog.rows_max = 1_000
        ask(gateway.address, UNSURE, idempotency_key="retried")
        for key in ("left", "parked"):
            with pytest.raises(OverdueError):
                _submit(gateway, key, UNSURE, _Leaver())
        time.sleep(3 * LOOK_SECONDS)
        assert evidence_of(config).unparked == []
        gateway.shipping._unparked.seconds = 0.0
        until(lambda: evidence_of(config).unparked)
    evidence = evidence_of(config)
    by_place = {record.place: record.request_key for record in evidence.records}
    assert [by_place[place] for place in evidence.unparked] == [request_key("shop", key) for key in ("refused", "left")]
