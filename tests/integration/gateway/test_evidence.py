"""What a gateway leaves as evidence for a certificate: first in its spool, then in the certifier's stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from fallback import embedded, presence
from fallback.answer import Answer, Label
from fallback.arrivals import START, Arrivals
from fallback.config import Config, QueueSettings, RedisSettings
from fallback.deferral import Deferral
from fallback.documents import Documents
from fallback.errors import DemurError, FullError, OverdueError, UnavailableError
from fallback.queue import Queue
from fallback.secret import secret
from gateway import hold_off
from gateway.certification import CERTIFICATIONS, Certification
from gateway.client import Client
from gateway.policy import Policy, draw
from gateway.request import Request, Result, request_key
from gateway.rules import Decision
from gateway.samples import epoch_secret, place_text
from gateway.sampling import Epoch
from gateway.server import PROCESS, SPOOLS_FOLDER, Gateway
from gateway.shipping import LOOK_SECONDS
from gateway.watch import POLICIES
from tests.evidence import Evidence
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, shadow, told

EPOCH: Final = "1"
SHARE: Final = 0.5
POLICY: Final = Policy(alpha=0.05, audit_share=SHARE, scorer="max_softmax")
PROVED: Final = Certification(
    epoch=EPOCH,
    scorer="max_softmax",
    versions=("1",),
    version="1",
    tau=0.8,
    certificate="certificate-1",
    begin_second=0,
    expire_second=2**40,
)
UNPROVED: Final = msgspec.structs.replace(PROVED, tau=None, certificate="", version="")
REQUESTS: Final = 16
SECONDS: Final = 20.0
# Serves until it is killed; the configuration is in the environment and in demur.toml.
SERVE: Final = "from fallback.config import load; from gateway.server import serve; serve(load())"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A server that a test may stop."""
    server = embedded.Server.start(tmp_path_factory.mktemp("own"))
    server.wait_ready()
    yield server
    server.stop()


def _config(folder: Path, url: str, **fields: Any) -> Config:
    redis = RedisSettings(url=url, connect_timeout_seconds=0.5, command_timeout_seconds=1.0)
    return settings(Config(data_folder=folder), {"redis": redis}, **fields)


def _lay_down(config: Config, policy: Policy = POLICY, certification: Certification | None = PROVED) -> None:
    install(config.data_folder, "m", "1", told(1), msgspec.structs.replace(JUDGED, policy=policy))
    promote(config, "m", "1")
    if certification is not None:
        _write(config, CERTIFICATIONS + "m", certification)


def _write(config: Config, key: str, content: msgspec.Struct) -> None:
    async def write() -> None:
        documents = Documents.connect(config)
        try:
            found = await documents.read(key)
            await documents.write(key, msgspec.json.encode(content), expected_revision=found.revision if found else 0)
        finally:
            await documents.close()

    asyncio.run(write())


def _ask(address: str, x: Any, **fields: Any) -> Any:
    async def ask() -> Any:
        async with Client(address, identity="shop") as client:
            return await client.predict("m", inputs={"x": x}, **fields)

    return asyncio.run(ask())


def _evidence(config: Config) -> Evidence:
    """What is in the stream."""

    async def read() -> list[bytes]:
        arrivals = Arrivals.connect(config)
        try:
            return [row for _, row in await arrivals.read("m", START)]
        finally:
            await arrivals.close()

    evidence = Evidence()
    evidence.take(asyncio.run(read()))
    return evidence


def _deferrals(config: Config) -> list[Deferral]:
    """What was parked."""

    async def read() -> list[Deferral]:
        queue = Queue.connect(config)
        try:
            found: list[Deferral] = []
            token = ""
            while True:
                page, token = await queue.list_deferrals("m", page_size=100, page_token=token)
                found += page
                if not token:
                    return found
        finally:
            await queue.close()

    return asyncio.run(read())


def _until(done: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, f"not so after {SECONDS} s"
        time.sleep(0.1)


def _spools(config: Config) -> list[Path]:
    return [*(config.data_folder / SPOOLS_FOLDER).glob("*/*/")]


def _draw(config: Config, key: str) -> float:
    return draw(_secret(config), model="m", epoch=EPOCH, request_key=request_key("shop", key))


def _secret(config: Config) -> bytes:
    return epoch_secret(secret(config, "audit").encode(), model="m", epoch=EPOCH)


def test_what_is_sampled_is_recorded_with_its_place_and_comes_to_the_certifier(config: Config) -> None:
    """Every deferred and every audited request has a record in the stream and a deferral with the record's place; the
    rows that close seconds count all requests; the gateway's end is told, and nothing stays on the disk.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    _lay_down(config)
    with running(config) as gateway:
        answers = [_ask(gateway.address, SURE, idempotency_key=f"s{number}") for number in range(REQUESTS)]
        deferred = [_ask(gateway.address, UNSURE, idempotency_key=f"u{number}") for number in range(5)]
    assert {answer.decision for answer in answers} == {Decision.ANSWERED}
    evidence = _evidence(config)
    audited = {request_key("shop", f"s{n}") for n in range(REQUESTS) if _draw(config, f"s{n}") < SHARE}
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
    assert _spools(config) == []
    deferrals = _deferrals(config)
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
    _lay_down(config)
    odd = msgspec.structs.replace(JUDGED, labels=("b", "a", "c"), policy=POLICY)
    install(config.data_folder, "m", "2", told(2), odd)
    install(config.data_folder, "m", "3", told(3, width=4), msgspec.structs.replace(odd, labels=("a", "b", "c", "d")))
    shadow(config, "m", "2", "3")
    with running(config) as gateway:
        answers = [_ask(gateway.address, SURE, idempotency_key=f"s{number}") for number in range(REQUESTS)]
        _ask(gateway.address, UNSURE, idempotency_key="u")
    assert {(answer.version, answer.label) for answer in answers} == {("1", "b")}
    evidence = _evidence(config)
    assert {tuple(scored.version for scored in record.scored) for record in evidence.records} == {("1", "2")}
    assert {scored.prediction for record in evidence.records for scored in record.scored} == {
        '{"label":"b","type":"label"}',
        '{"label":"a","type":"label"}',
    }
    assert all(record.scored[0].confidence == record.scored[1].confidence for record in evidence.records)
    assert {d.second_opinion.predictions for d in _deferrals(config) if d.second_opinion} == {(Label("b"), Label("a"))}
    assert evidence.holes == 0


def test_people_are_told_how_sure_a_model_is_at_its_temperature(config: Config) -> None:
    """What is decided, and the evidence, goes by the confidence that the model gives."""
    config = settings(config)
    facts = msgspec.structs.replace(JUDGED, policy=POLICY, temperature=3.0)
    install(config.data_folder, "m", "1", told(1), facts)
    promote(config, "m", "1")
    _write(config, CERTIFICATIONS + "m", UNPROVED)
    with running(config) as gateway:
        result = _ask(gateway.address, SURE)
    assert result.confidence == pytest.approx(0.9)
    (deferral,) = _deferrals(config)
    assert deferral.prediction is not None
    assert deferral.prediction.confidence == pytest.approx(0.9)
    assert deferral.prediction.shown == pytest.approx(0.9 ** (1 / 3) / (0.9 ** (1 / 3) + 2 * 0.05 ** (1 / 3)))
    assert _evidence(config).records[0].scored[0].confidence == pytest.approx(0.9)


def test_before_anything_is_proved_everybody_is_recorded(config: Config) -> None:
    """With an epoch and no threshold every request is a record with q 1, and none is answered."""
    config = settings(config)
    _lay_down(config, certification=UNPROVED)
    with running(config) as gateway:
        assert _ask(gateway.address, SURE).decision is not Decision.ANSWERED
    (record,) = _evidence(config).records
    assert (record.q, record.floor) == (1.0, 1.0)
    assert record.scored[0].eligible
    assert record.scored[0].eligibility == Policy().eligibility
    assert msgspec.json.decode(record.scored[0].prediction, type=Answer) == Label("b")


def test_where_the_own_threshold_answers_meanwhile_its_audits_are_evidence(config: Config) -> None:
    """Recorded and parked with the share as their q; what is below the threshold has q 1, and the same floor. A queue
    that takes nothing holds nobody off: the sure are answered, so the unsure are recorded too.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    _lay_down(config, msgspec.structs.replace(POLICY, threshold=0.8, until_proved="answer"), UNPROVED)
    keys = [f"s{number}" for number in range(REQUESTS)]
    with running(config) as gateway:
        for key in keys:
            assert _ask(gateway.address, SURE, idempotency_key=key).decision is Decision.UNCERTIFIED
        gateway._deferring.hold_off.failed("m", UnavailableError("away"))
        assert _ask(gateway.address, UNSURE, idempotency_key="u").deferral
    evidence = _evidence(config)
    due = {request_key("shop", key): SHARE for key in keys if _draw(config, key) < SHARE}
    assert {record.request_key: record.q for record in evidence.records} == due | {request_key("shop", "u"): 1.0}
    assert {record.floor for record in evidence.records} == {SHARE}
    assert {(d.draw.place, d.draw.certificate) for d in _deferrals(config) if d.draw} == {
        (place_text(record.place), "") for record in evidence.records
    }


def test_without_a_certifier_nothing_is_recorded(config: Config) -> None:
    """An alpha alone, or none at all, leaves nothing on the disk and nothing in the stream."""
    config = settings(config)
    _lay_down(config, certification=None)
    with running(config) as gateway:
        assert _ask(gateway.address, SURE).decision is not Decision.ANSWERED
        assert _spools(config) == []
    assert _evidence(config).rows == []


def test_a_policy_may_gain_and_lose_its_alpha(config: Config) -> None:
    """From the next batch on; the seconds without it are closed as seconds in which nothing was sampled."""
    config = settings(config)
    plain = Policy(threshold=0.8, audit_share=1.0)
    _lay_down(config, plain)
    with running(config) as gateway:
        _ask(gateway.address, UNSURE, idempotency_key="before")
        assert _spools(config) == []
        _write(config, POLICIES + "m", POLICY)
        _until(lambda: _ask(gateway.address, UNSURE) and _spools(config))
        recorded = _ask(gateway.address, UNSURE, idempotency_key="with")
        _write(config, POLICIES + "m", plain)
        _until(lambda: _audited_at_once(gateway, config))
    evidence = _evidence(config)
    keys = {record.request_key for record in evidence.records}
    assert request_key("shop", "with") in keys
    assert request_key("shop", "before") not in keys
    assert (evidence.holes, evidence.live) == (0, [])
    assert recorded.deferral.name in {d.name for d in _deferrals(config) if d.draw and d.draw.place}


def _audited_at_once(gateway: Gateway, config: Config) -> bool:
    """Whether an answer is audited without a record: its policy has no alpha."""
    _ask(gateway.address, SURE)
    return any(d.audit and d.draw and not d.draw.place for d in _deferrals(config))


def test_a_retry_keeps_its_place(config: Config) -> None:
    """Whoever asks again under the same key, at this gateway or, after a start, at the next one, is the same record."""
    config = settings(config)
    _lay_down(config)
    keys = [f"k{number}" for number in range(REQUESTS)]
    with running(config) as gateway:
        first = [_ask(gateway.address, UNSURE, idempotency_key=key).deferral.name for key in keys]
        again = [_ask(gateway.address, UNSURE, idempotency_key=key).deferral.name for key in keys]
        for _ in range(2):
            for key in keys:
                _ask(gateway.address, SURE, idempotency_key=f"sure {key}")
    assert first == again
    evidence = _evidence(config)
    assert len({record.request_key for record in evidence.records}) == len(evidence.records)
    assert len(_deferrals(config)) == len(evidence.records)


def test_a_gateway_that_is_drained_under_load_closes_what_it_answered(config: Config) -> None:
    """Whoever got an answer before the end is counted, and nothing is recorded after it."""
    config = settings(config)
    _lay_down(config)
    answered: list[str] = []

    def ask(name: str, address: str) -> None:
        with contextlib.suppress(DemurError):
            for number in itertools.count():
                _ask(address, SURE, idempotency_key=f"{name}-{number}")
                answered.append(f"{name}-{number}")

    with running(config) as gateway:
        askers = [threading.Thread(target=ask, args=(name, gateway.address)) for name in "abcd"]
        for asker in askers:
            asker.start()
        _until(lambda: len(answered) > REQUESTS)
    for asker in askers:
        asker.join()
    evidence = _evidence(config)
    due = {request_key("shop", key) for key in answered if _draw(config, key) < SHARE}
    assert due <= {record.request_key for record in evidence.records}
    assert (evidence.holes, evidence.live, evidence.pending.left_out) == (0, [], 0)
    assert sum(row.answered for row in evidence.closings) >= len(answered)
    assert len(_deferrals(config)) == len(evidence.records)


def test_each_row_of_a_request_is_a_record_of_its_own(config: Config) -> None:
    """Some rows of a request are deferred, some audited, some neither; the caller hears once all are seen to."""
    config = settings(config)
    _lay_down(config, msgspec.structs.replace(POLICY, audit_share=0.5))
    x = np.concatenate([SURE, UNSURE] * 6)
    with running(config) as gateway:
        result = _submit(gateway, "k", x)
        assert result.deferrals.keys() == set(range(1, 12, 2))
    evidence = _evidence(config)
    assert {record.request_key for record in evidence.records} >= {f"shop\nk#{row}" for row in range(1, 12, 2)}
    audited = sum(_draw(config, f"k#{row}") < 0.5 for row in range(0, 12, 2))
    assert len(evidence.records) == 6 + audited
    assert len(_deferrals(config)) == len(evidence.records)


def test_of_a_requests_rows_one_is_evidence(config: Config) -> None:
    """Drawn by the request's key; the others are recorded and parked alike, and are not of the population."""
    config = settings(config)
    _lay_down(config, certification=UNPROVED)
    epoch = Epoch(model="m", name=EPOCH, secret=_secret(config))
    keys = [f"k{number}" for number in range(12)]
    with running(config) as gateway:
        for key in keys:
            _submit(gateway, key, np.concatenate([SURE, UNSURE, SURE]))
        _submit(gateway, "alone", SURE)
    evidence = _evidence(config)
    chosen = {key: epoch.evidence_row(f"shop\n{key}", 3) for key in keys}
    assert len(set(chosen.values())) > 1
    wanted = {f"shop\n{key}#{row}" for key, row in chosen.items()} | {"shop\nalone"}
    assert {record.request_key for record in evidence.records if record.scored[0].eligible} == wanted
    assert len(evidence.records) == len(_deferrals(config)) == 3 * 12 + 1
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


def test_while_redis_is_away_evidence_waits_on_the_disk(own_server: embedded.Server, tmp_path: Path) -> None:
    """Answers are given, audited or not; what goes to a person is refused; afterwards all of it comes, in its order."""
    config = _config(tmp_path, own_server.url)
    _lay_down(config)
    with running(config) as gateway:
        own_server.stop()
        for number in range(REQUESTS):
            assert _ask(gateway.address, SURE, idempotency_key=f"s{number}").decision is Decision.ANSWERED
        with pytest.raises(UnavailableError):
            _ask(gateway.address, UNSURE, idempotency_key="u")
        back = embedded.Server.start(own_server.folder)
        try:
            back.wait_ready()
            retried = _ask(gateway.address, UNSURE, idempotency_key="u", attempts=20)
            audited = sum(_draw(config, f"s{number}") < SHARE for number in range(REQUESTS))
            _until(lambda: len(_deferrals(config)) == audited + 1)
            _until(lambda: len(_evidence(config).records) == audited + 1)
            evidence = _evidence(config)
            (record,) = [each for each in evidence.records if each.request_key == request_key("shop", "u")]
            (deferral,) = [each for each in _deferrals(config) if each.name == retried.deferral.name]
            assert deferral.draw
            assert deferral.draw.place == place_text(record.place), "the record of the first try"
            gateway.drain()
        finally:
            back.stop()


@pytest.mark.parametrize("redis_away", ["refuse", "answer_unreviewed"])
def test_an_outage_before_the_first_proof_leaves_few_errors(
    own_server: embedded.Server, tmp_path: Path, redis_away: str
) -> None:
    """While nothing is proved and Redis is known to be away, who is refused, or answered all the same, is not recorded;
    afterwards all are again.

    One that was recorded and not parked would count as an error.
    """  # noqa: D205 - one sentence needs two lines
    config = _config(tmp_path, own_server.url, redis_away=redis_away)
    _lay_down(config, certification=UNPROVED)
    with running(config) as gateway:
        assert _ask(gateway.address, SURE, idempotency_key="before").deferral
        own_server.stop()
        for number in range(10):
            if redis_away == "refuse":
                with pytest.raises(UnavailableError):
                    _ask(gateway.address, SURE, idempotency_key=f"away{number}")
            else:
                assert _ask(gateway.address, SURE, idempotency_key=f"away{number}").decision is Decision.UNREVIEWED
        back = embedded.Server.start(own_server.folder)
        try:
            back.wait_ready()
            _until(lambda: not gateway._deferring.hold_off.away)
            assert _ask(gateway.address, SURE, idempotency_key="after").deferral
            gateway.drain()
            keys = [record.request_key for record in _evidence(config).records]
            assert keys == [request_key("shop", key) for key in ("before", "away0", "after")]
        finally:
            back.stop()


@pytest.mark.parametrize("limit", ["depth_max", "parkings_max"])
def test_a_queue_over_its_limit_before_the_first_proof_leaves_few_errors(
    config: Config, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who would not be parked is not recorded while the queue is known to take nothing, and answered or refused as the
    operator chose; a retry gets its deferral.
    """  # noqa: D205 - one sentence needs two lines
    monkeypatch.setattr(hold_off, "_SECONDS_MIN", 60.0)
    over = limit == "depth_max"
    rules: dict[str, Any] = {"depth_max": 1, "when_over": "answer_unreviewed"} if over else {}
    config = settings(Config(data_folder=config.data_folder, queues={"m": QueueSettings(**rules)}))
    _lay_down(config, certification=UNPROVED)
    with running(config) as gateway:
        first = _ask(gateway.address, SURE, idempotency_key="first").deferral.name
        if not over:
            gateway._deferring.backlog.rows_max = 0
        for number in range(10):
            if over:
                got = _ask(gateway.address, SURE, idempotency_key=f"over{number}")
                assert got.decision is Decision.UNREVIEWED
                assert [rule.rule for rule in got.rules if "answered unreviewed" in rule.evaluation] == ["over"]
            else:
                with pytest.raises(FullError, match="on their way to the queue"):
                    _ask(gateway.address, SURE, idempotency_key=f"over{number}")
        gateway._deferring.backlog.rows_max = 1_000
        assert _ask(gateway.address, SURE, idempotency_key="first").deferral.name == first
    keys = [record.request_key for record in _evidence(config).records]
    assert keys == [request_key("shop", "first"), request_key("shop", "over0")]


def test_who_was_never_parked_is_told_to_the_certifier(config: Config) -> None:
    """Once no retry has parked what was refused, or whose client has left; nothing is told of what was parked, by the
    first try or by a later one.
    """  # noqa: D205 - one sentence needs two lines
    config = settings(config)
    _lay_down(config)
    with running(config) as gateway:
        _ask(gateway.address, UNSURE, idempotency_key="parked")
        gateway._deferring.backlog.rows_max = 0
        for key in ("refused", "retried"):
            with pytest.raises(FullError):
                _ask(gateway.address, UNSURE, idempotency_key=key)
        gateway._deferring.backlog.rows_max = 1_000
        _ask(gateway.address, UNSURE, idempotency_key="retried")
        for key in ("left", "parked"):
            with pytest.raises(OverdueError):
                _submit(gateway, key, UNSURE, _Leaver())
        time.sleep(3 * LOOK_SECONDS)
        assert _evidence(config).unparked == []
        gateway.shipping._unparked.seconds = 0.0
        _until(lambda: _evidence(config).unparked)
    evidence = _evidence(config)
    by_place = {record.place: record.request_key for record in evidence.records}
    assert [by_place[place] for place in evidence.unparked] == [request_key("shop", key) for key in ("refused", "left")]


def test_a_gateway_that_is_killed_loses_no_audit(own_server: embedded.Server, tmp_path: Path) -> None:
    """Killed with SIGKILL while Redis is away, after it answered: the next gateway on its folder parks every audit that
    the draws ask for, sends every record, and closes the dead one's last second.
    """  # noqa: D205 - one sentence needs two lines
    config = _config(tmp_path, own_server.url)
    _lay_down(config)
    process = _serve(tmp_path, own_server.url)
    try:
        address = _address(config)
        assert _ask(address, SURE, idempotency_key="first").decision is Decision.ANSWERED
        own_server.stop()
        for number in range(REQUESTS):
            assert _ask(address, SURE, idempotency_key=f"s{number}").decision is Decision.ANSWERED
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    audited = {key for key in ("first", *(f"s{n}" for n in range(REQUESTS))) if _draw(config, key) < SHARE}
    assert audited
    back = embedded.Server.start(own_server.folder)
    try:
        back.wait_ready()
        with running(config):
            _until(lambda: len(_deferrals(config)) == len(audited))
            _until(lambda: not _spools(config))
        evidence = _evidence(config)
        assert {record.request_key for record in evidence.records} == {request_key("shop", key) for key in audited}
        assert (evidence.holes, evidence.live, evidence.pending.left_out) == (0, [], 0)
        assert {d.draw.place for d in _deferrals(config) if d.draw} == {
            place_text(record.place) for record in evidence.records
        }
    finally:
        back.stop()


def _serve(folder: Path, url: str) -> subprocess.Popen[bytes]:
    (folder / "demur.toml").write_text(
        f'data_folder = "{folder}"\n[redis]\nurl = "{url}"\nconnect_timeout_seconds = 0.5\n'
        'command_timeout_seconds = 1.0\n[gateway]\ngrpc_listen = "127.0.0.1:0"\nmetrics_listen = ""\n'
        'device = "cpu"\nthreads = 1\n'
    )
    environment = {**os.environ, "DEMUR_CONFIG": str(folder / "demur.toml"), "DEMUR_DATA": str(folder)}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=log, stderr=log)


def _address(config: Config) -> str:
    _until(lambda: presence.announced(config.data_folder, PROCESS))
    said = presence.announced(config.data_folder, PROCESS)
    assert said is not None
    return said.addresses["grpc"]


def test_what_cannot_be_recorded_is_refused_and_the_rest_answered(own_server: embedded.Server, tmp_path: Path) -> None:
    """While the spool is full whoever would be sampled gets RESOURCE_EXHAUSTED; nobody is answered unsampled."""
    config = _config(tmp_path, own_server.url, spool_bytes_max=64 * 1024)
    _lay_down(config)
    picture = os.urandom(8_000)
    with running(config) as gateway:
        own_server.stop()
        refused = set()
        for number in range(REQUESTS * 3):
            key = f"s{number}"
            try:
                got = _ask(gateway.address, SURE, idempotency_key=key, subject=(picture, "image/png"))
            except FullError:
                refused.add(key)
            else:
                assert got.decision is Decision.ANSWERED
        drawn = [f"s{n}" for n in range(REQUESTS * 3) if _draw(config, f"s{n}") < SHARE]
        assert refused
        assert refused == set(drawn[len(drawn) - len(refused) :])
    assert _spools(config)
