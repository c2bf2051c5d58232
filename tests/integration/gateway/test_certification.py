"""What is proved reaches every gateway within a second and outlives Redis; what is answered is what was proved."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton

from demur.v1 import model_pb2 as pb
from fallback import embedded
from fallback.config import Config, RedisSettings
from fallback.documents import Documents
from fallback.errors import InvalidError, StateError, UnavailableError
from gateway import policy_commands
from gateway.certification import CERTIFICATIONS, STANDINGS, Certification, Proof, Stage, Standing
from gateway.client import Client, Result
from gateway.model_client import ModelClient
from gateway.policy import Policy
from gateway.rules import Decision
from gateway.segments import Segment
from gateway.server import Gateway
from tests.live_gateway import JUDGED, LABELS, SURE, UNSURE, install, promote, running, settings, told

# What a change may take to reach a gateway that nobody told of it.
TAKEN_SECONDS: Final = 1.0
# So rarely audited that no test meets one by chance; more is another test's.
POLICY: Final = Policy(alpha=0.05, threshold=0.0, audit_share=1e-6)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A server that a test may stop."""
    server = embedded.Server.start(tmp_path_factory.mktemp("own"))
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture
def laid(own_server: embedded.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration with one live model that promises something. Documents are looked at only when one changes."""
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)
    redis = RedisSettings(url=own_server.url, connect_timeout_seconds=0.5, command_timeout_seconds=1.0)
    config = settings(Config(data_folder=tmp_path), {"redis": redis}, watch_seconds=600.0)
    install(tmp_path, "m", "1", told(1), msgspec.structs.replace(JUDGED, policy=POLICY))
    promote(config, "m", "1")
    return config


def _proved(tau: float | None = 0.5, *, seconds: int = 1_000, **fields: Any) -> Certification:
    now = int(time.time())
    facts = {
        "epoch": "1",
        "scorer": "margin",
        "versions": ("1",),
        "version": "1",
        "tau": tau,
        "certificate": f"m/{tau}",
        "begin_second": now - 1,
        "expire_second": now + seconds,
        "alpha": 0.05,
        "delta": 0.05,
    }
    return Certification(**{**facts, **fields})


@asynccontextmanager
async def _documents(config: Config) -> AsyncIterator[Documents]:
    found = Documents.connect(config)
    try:
        yield found
    finally:
        await found.close()


def _write(config: Config, document: Certification | Standing) -> None:
    async def write() -> None:
        prefix = CERTIFICATIONS if isinstance(document, Certification) else STANDINGS
        async with _documents(config) as documents:
            await documents.write(prefix + "m", msgspec.json.encode(document), expected_revision=None)

    asyncio.run(write())


def _ask(gateway: Gateway, x: np.ndarray, **fields: Any) -> Result:
    async def ask() -> Result:
        async with Client(gateway.address, identity="shop") as client:
            return await client.predict("m", inputs={"x": x}, **fields)

    return asyncio.run(ask())


def _until(gateway: Gateway, decision: Decision, *, seconds: float = TAKEN_SECONDS) -> Result:
    """Ask for what the model is sure of until it gets `decision`; fails after `seconds`."""
    until = time.monotonic() + seconds
    while (found := _ask(gateway, SURE)).decision is not decision:
        assert time.monotonic() < until, f"still {found.decision} after {seconds} s: {found.rules}"
    return found


def _certificate(gateway: Gateway) -> pb.Certificate:
    async def get() -> pb.Certificate:
        async with ModelClient(gateway.address, identity="shop") as client:
            return await client.certificate("m")

    return asyncio.run(get())


def test_what_is_proved_answers_within_a_second_and_an_alarm_ends_it(laid: Config) -> None:
    """Before it everything goes to a person; each reply says why, and names the certificate."""
    with running(laid) as gateway:
        before = _ask(gateway, SURE)
        assert (before.decision, before.certificate) == (Decision.DEFERRED, "")
        assert before.rules[0].evaluation == "nothing is proved yet: all go to a person"
        _write(laid, _proved())
        under = _until(gateway, Decision.ANSWERED)
        assert under.certificate == "m/0.5"
        assert under.confidence == pytest.approx(0.9)
        assert under.rules[0].evaluation == "margin 0.85 >= 0.50, proved by m/0.5"
        unsure = _ask(gateway, UNSURE)
        assert (unsure.decision, unsure.certificate) == (Decision.DEFERRED, "m/0.5")
        assert _ask(gateway, SURE, version="1").decision is Decision.ANSWERED
        _write(laid, _proved(alarm="10 % were wrong"))
        after = _until(gateway, Decision.DEFERRED)
        assert after.certificate == ""
        assert "10 % were wrong" in after.rules[0].evaluation


def test_a_plain_inference_client_is_told_the_certificate(laid: Config) -> None:
    """In the reply's parameters, where one is in force."""
    _write(laid, _proved())
    with running(laid) as gateway, triton.InferenceServerClient(gateway.address) as client:
        given = triton.InferInput("x", [1, 3], "FP32")
        given.set_data_from_numpy(SURE)
        parameters = client.infer("m", [given]).get_response().parameters
        assert parameters["demur_decision"].string_param == "answered"
        assert parameters["demur_certificate"].string_param == "m/0.5"
        _write(laid, _proved(None))
        _until(gateway, Decision.DEFERRED)
        assert "demur_certificate" not in client.infer("m", [given]).get_response().parameters


def test_until_it_is_proved_the_own_threshold_may_answer(laid: Config) -> None:
    """Each such reply is marked UNCERTIFIED, on both protocols, and names no certificate; a proof ends it."""
    _write(laid, _proved(None))
    with running(laid) as gateway, triton.InferenceServerClient(gateway.address) as client:
        given = triton.InferInput("x", [1, 3], "FP32")
        given.set_data_from_numpy(SURE)
        assert _ask(gateway, SURE).decision is Decision.DEFERRED
        with pytest.raises(InvalidError, match="--until-proved: expected ask, answer; got 'hope'"):
            policy_commands.policy_set("m", until_proved="hope", gateway=gateway.address)
        policy_commands.policy_set("m", threshold=0.8, until_proved="answer", gateway=gateway.address)
        sure = _ask(gateway, SURE)
        assert (sure.decision, sure.certificate) == (Decision.UNCERTIFIED, "")
        assert _ask(gateway, UNSURE).decision is Decision.DEFERRED
        parameters = client.infer("m", [given]).get_response().parameters
        assert parameters["demur_decision"].string_param == "uncertified"
        assert "demur_certificate" not in parameters
        _write(laid, _proved(0.5))
        assert _until(gateway, Decision.ANSWERED).certificate == "m/0.5"


def test_what_was_proved_outlives_redis_and_the_gateway(laid: Config, own_server: embedded.Server) -> None:
    """A gateway that starts while Redis is away answers by its own copy, and defers what that says."""
    _write(laid, _proved())
    with running(laid) as gateway:
        assert _ask(gateway, SURE).decision is Decision.ANSWERED
        own_server.stop()
        assert _ask(gateway, SURE).decision is Decision.ANSWERED
    with running(laid) as gateway:
        found = _ask(gateway, SURE)
        assert (found.decision, found.certificate) == (Decision.ANSWERED, "m/0.5")
        with pytest.raises(UnavailableError):
            _ask(gateway, UNSURE)


def test_an_alarm_outlives_redis_too(laid: Config, own_server: embedded.Server) -> None:
    """What was taken back is not back because nobody can be asked."""
    _write(laid, _proved())
    with running(laid) as gateway:
        _write(laid, _proved(alarm="drift"))
        _until(gateway, Decision.DEFERRED)
    own_server.stop()
    with running(laid) as gateway, pytest.raises(UnavailableError):
        _ask(gateway, SURE)


def test_a_certificate_ends_by_itself(laid: Config, own_server: embedded.Server) -> None:
    """In its second, though no document changes and Redis is away."""
    proved = _proved(seconds=3)
    _write(laid, proved)
    with running(laid) as gateway:
        assert _ask(gateway, SURE).decision is Decision.ANSWERED
        own_server.stop()
        time.sleep(max(0.0, proved.expire_second - time.time()))
        with pytest.raises(UnavailableError):
            _ask(gateway, SURE)


def test_a_new_version_has_nothing_proved(laid: Config) -> None:
    """What was proved of the one before says nothing of it."""
    _write(laid, _proved())
    install(laid.data_folder, "m", "2", told(2), msgspec.structs.replace(JUDGED, policy=POLICY))
    with running(laid) as gateway:
        assert _ask(gateway, SURE).decision is Decision.ANSWERED
        promote(laid, "m", "2")
        after = _until(gateway, Decision.DEFERRED, seconds=10)
        assert (after.version, after.certificate) == ("2", "")
        _write(laid, _proved(version="2", versions=("2",), certificate="m/2"))
        assert _until(gateway, Decision.ANSWERED).certificate == "m/2"


def test_a_promise_that_is_made_stronger_is_not_kept_by_the_old_proof(laid: Config) -> None:
    """From the reply of UpdatePolicy on; a promise that cannot be proved is refused."""

    async def update(gateway: Gateway, **fields: Any) -> pb.Policy:
        async with ModelClient(gateway.address, identity="shop") as client:
            found = await client.get_policy("m")
            for field, value in fields.items():
                setattr(found, field, value)
            return await client.update_policy(found)

    _write(laid, _proved())
    with running(laid) as gateway:
        assert _ask(gateway, SURE).decision is Decision.ANSWERED
        assert asyncio.run(update(gateway, alpha=0.01)).alpha == 0.01
        assert _ask(gateway, SURE).decision is Decision.DEFERRED
        for wrong, sentence in (
            ({"alpha": 0.7}, "policy.alpha: expected a number above 0"),
            ({"audit_share": 0.0}, "policy.audit_share: expected above 0 where alpha is set"),
            ({"scorer": "energy"}, "policy.scorer: expected margin, max_softmax or learned"),
        ):
            with pytest.raises(InvalidError, match=sentence):
                asyncio.run(update(gateway, **wrong))


def test_a_promise_is_checked_against_the_evidence_before_anything_changes(laid: Config) -> None:
    """One whose plan has problems is refused, unless they are accepted; what promises nothing new is not."""
    evidence: dict[str, Any] = {
        "requests_per_hour": 600.0,
        "risks": ((0.4, 0.002), (0.8, 0.02), (1.0, 0.09)),
        "processes": 2,
    }
    _write(laid, Standing(stage=Stage.PROVING, alpha=0.05, delta=0.05, **evidence))

    async def ask(gateway: Gateway) -> None:
        async with ModelClient(gateway.address, identity="shop") as client:
            found = await client.get_policy("m")
            assert not found.HasField("plan")
            found.audit_share = 0.2
            told = (await client.update_policy(found)).plan
            assert (told.work.coverage, told.work.true_error, told.work.requests_per_hour) == (0.8, 0.02, 600.0)
            assert (told.audits > 0, told.person_hours > 0, [*told.problems]) == (True, True, [])
            kept = await client.get_policy("m")
            kept.reviews_per_hour_max, kept.alpha = 10, 0.001
            with pytest.raises(StateError) as caught:
                await client.update_policy(kept)
            for sentence in ("alpha 0.001 cannot be proved", "reviews_per_hour_max 10: until there is", "under the"):
                assert sentence in caught.value.message
            seen = await client.update_policy(kept, validate_only=True, accept_problems=True)
            assert (len(seen.plan.problems), seen.revision) == (3, kept.revision)
            assert (await client.get_policy("m")).alpha == POLICY.alpha
            better = pb.Work(true_error=0.0, model_error=0.0)
            seen = await client.update_policy(kept, work=better, validate_only=True, accept_problems=True)
            assert len(seen.plan.problems) == 2
            forced = await client.update_policy(kept, accept_problems=True)
            assert (forced.revision, forced.alpha) == (kept.revision + 1, 0.001)
            forced.always_person.append("b")
            assert (await client.update_policy(forced)).always_person == ["b"]

    with running(laid) as gateway:
        asyncio.run(ask(gateway))


def test_the_command_sets_and_shows_what_is_promised(laid: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """In words; a number that may be absent is taken back with 0."""
    with running(laid) as gateway:
        address = gateway.address

        def said(**fields: Any) -> str:
            capsys.readouterr()
            policy_commands.policy_set("m", **fields, gateway=address)
            return " ".join(capsys.readouterr().out.split())

        shown = said(
            alpha=0.01, delta=0.1, scorer="max_softmax", reviews_per_hour_max=30.0, expire_days=7.0, lifetime=True
        )
        assert "promise at most 1 % of the answers wrong with confidence 90 % over all certificates ever" in shown
        assert "compared with max_softmax, at the threshold that is proved" in shown
        assert "certificates end after 7 days reviews an hour 30" in shown
        assert "threshold 0 (counts for nothing beside a promise)" in shown
        shown = said(reviews_per_hour_max=0.0, lifetime=False)
        assert "for each certificate" in shown
        assert "reviews an hour nobody said" in shown
        assert "promise" not in said(alpha=0.0)
        with pytest.raises(InvalidError, match="--scorer: expected margin, max_softmax, energy, learned; got 'luck'"):
            said(scorer="luck")


def test_how_the_proof_stands_is_told(laid: Config) -> None:
    """From what the certifier wrote; before that, that nobody counts yet."""
    with running(laid) as gateway:
        assert _certificate(gateway).stage == pb.Certificate.SURVEYING
        _write(laid, _proved())
        _write(
            laid,
            Standing(stage=Stage.CERTIFIED, alpha=0.05, delta=0.05, certificate="m/0.5", coverage=0.75, audits=40),
        )
        told_ = _certificate(gateway)
        assert (told_.stage, told_.tau, told_.coverage, told_.audits) == (pb.Certificate.CERTIFIED, 0.5, 0.75, 40)


def test_requests_of_several_segments_in_one_batch_get_each_its_own(laid: Config) -> None:
    """Whatever runs together: each reply is judged by its segment's proof, and holds its own numbers."""
    segments = (Segment(name="north", attributes={"region": "north"}, alpha=0.01),)
    policy = msgspec.structs.replace(POLICY, segments=segments)
    north = _proved(0.9, certificate="m/north", alpha=0.01, eligibility=policy.eligibility)
    proof = Proof(**{field: getattr(north, field) for field in Proof.__struct_fields__})

    async def ask(gateway: Gateway) -> list[tuple[str, float, Result]]:
        rng = np.random.default_rng(3)

        async def one(client: Client) -> tuple[str, float, Result]:
            x = rng.dirichlet([0.3, 0.3, 0.3], 1).astype(np.float32)
            low, high = np.sort(x[0].astype(np.float64))[1:]
            region = ("north", "south", "")[int(rng.integers(3))]
            attributes = {"region": region} if region else {}
            result = await client.predict("m", inputs={"x": x}, attributes=attributes)
            assert result.label == LABELS[int(x.argmax())]
            assert result.confidence == pytest.approx(float(x.max()))
            return region, float(high - low), result

        async with Client(gateway.address, identity="shop") as client:
            return await asyncio.gather(*(one(client) for _ in range(200)))

    with running(laid) as gateway:
        policy_commands.policy_set("m", segment=["north:region=north:0.01"], gateway=gateway.address)
        _write(laid, _proved(segments={"north": proof}, eligibility=policy.eligibility))
        _until(gateway, Decision.ANSWERED)
        found = asyncio.run(ask(gateway))
    for region, margin, result in found:
        tau, certificate = (0.9, "m/north") if region == "north" else (0.5, "m/0.5")
        assert result.certificate == certificate
        assert (result.decision is Decision.ANSWERED) == (margin >= tau), (region, margin, result.rules)


def test_no_row_is_answered_below_the_threshold_in_force(laid: Config) -> None:
    """While thresholds change under load: each reply is right by the certificate that it names, and only by that."""
    taus = (0.2, 0.9, 0.5, 0.7, 0.05, None)

    async def change(stop: asyncio.Event) -> None:
        async with _documents(laid) as documents:
            for tau in itertools.cycle(taus):
                if stop.is_set():
                    return
                body = msgspec.json.encode(_proved(tau, certificate=f"m/{tau}" if tau else ""))
                await documents.write(CERTIFICATIONS + "m", body, expected_revision=None)
                await asyncio.sleep(0.02)

    async def ask(client: Client, rng: np.random.Generator) -> list[tuple[float, Result]]:
        found = []
        for _ in range(60):
            x = rng.dirichlet([0.5, 0.5, 0.5], 1).astype(np.float32)
            low, high = np.sort(x[0].astype(np.float64))[1:]
            found.append((float(high - low), await client.predict("m", inputs={"x": x})))
        return found

    async def load(gateway: Gateway) -> list[tuple[float, Result]]:
        stop = asyncio.Event()
        async with Client(gateway.address, identity="shop") as client:
            changing = asyncio.create_task(change(stop))
            parts = await asyncio.gather(*(ask(client, np.random.default_rng(seed)) for seed in range(8)))
            stop.set()
            await changing
        return [each for part in parts for each in part]

    with running(laid) as gateway:
        found = asyncio.run(load(gateway))
    for margin, result in found:
        proved = result.certificate.partition("/")[2]
        answered = bool(proved) and margin >= float(proved)
        assert (result.decision is Decision.ANSWERED) == answered, (margin, result.rules)
    assert {result.certificate for _, result in found} >= {"", "m/0.2", "m/0.9", "m/0.5"}
