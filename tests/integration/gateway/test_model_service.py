"""ModelService over a real server's documents and real champions: a promoted version is live, a failed one nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import Message

from demur.v1 import model_pb2 as pb
from fallback.config import Config
from fallback.documents import Documents
from fallback.errors import (
    AbortedError,
    Code,
    DemurError,
    InvalidError,
    NotFoundError,
    StateError,
    UnauthenticatedError,
    UnavailableError,
)
from fallback.identity import Credentials
from gateway import manifest as manifests
from gateway.admission import AdmissionError, Limits
from gateway.certification import Certification
from gateway.champion import Champion
from gateway.manifest import Manifest
from gateway.metrics import Metrics
from gateway.model_service import ModelService
from gateway.policy import Policy
from gateway.registry import ModelVersion, Registry
from gateway.transport import Metadata
from gateway.watch import Watch
from tests.onnx_files import linear, save

MANIFEST = Manifest(labels=("a", "b", "c"))
TEXT = manifests.render(MANIFEST)
CHUNK_BYTES = 100


class Call:
    """One call as a transport hands it over."""

    deadline = None
    cancelled = False
    driven = False

    def __init__(self, method: str, messages: Sequence[bytes], *, peer: str = "unix:", metadata: Metadata = ()) -> None:
        self.method = method
        self.payload = messages[0] if len(messages) == 1 else b""
        self.peer = peer
        self.metadata = metadata
        self._messages = [*messages]
        self.replied: bytes | None = None
        self.failed: DemurError | None = None

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:
        assert not trailing
        self.replied = payload

    def fail(self, error: DemurError, trailing: Metadata = ()) -> None:
        assert not trailing
        self.failed = error

    async def send(self, payload: bytes) -> None:
        raise AssertionError(payload)

    async def receive(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None


class Champions:
    """The gateway's champions, one a model."""

    def __init__(self) -> None:
        self.champions: dict[str, Champion] = {}
        self.policies: dict[str, Policy] = {}
        self.certifications: dict[str, Certification] = {}

    async def ensure(self, version: ModelVersion) -> None:
        champion = self.champions.setdefault(version.model, Champion(device="cpu", threads=1))
        policy = self.policies.get(version.model, version.manifest.policy)
        champion.set_certification(self.certifications.get(version.model))
        await asyncio.to_thread(champion.swap, version, policy)

    def current(self, model: str) -> ModelVersion | None:
        champion = self.champions.get(model)
        return champion.live.version if champion is not None and champion.live is not None else None

    async def shadow(self, model: str, versions: Sequence[ModelVersion]) -> None:
        found = []
        for version in versions:
            challenger = Champion(device="cpu", threads=1)
            await asyncio.to_thread(challenger.swap, version, version.manifest.policy)
            found.append(challenger)
        if model in self.champions:
            self.champions[model].set_challengers(found)

    def shadows(self, model: str) -> list[str]:
        lives = (challenger.live for challenger in self.champions[model].challengers)
        return [live.version.version for live in lives if live is not None]

    def remove(self, model: str) -> None:
        self.champions[model].close()

    def set_policy(self, model: str, policy: Policy) -> None:
        self.policies[model] = policy
        if model in self.champions:
            self.champions[model].set_policy(policy)

    def set_certification(self, model: str, certification: Certification) -> None:
        self.certifications[model] = certification
        if model in self.champions:
            self.champions[model].set_certification(certification)

    def live(self, model: str) -> str:
        version = self.current(model)
        return "" if version is None else version.version

    def policy(self, model: str) -> Policy:
        live = self.champions[model].live
        assert live is not None
        return live.rules.policy


class Gateway:
    """What one gateway has of all this: its own champions, the shared registry and documents."""

    def __init__(self, config: Config, folder: Path, *, artefact_bytes_max: int = 10**6) -> None:
        self.documents = Documents.connect(config)
        self.registry = Registry(config.data_folder / "models")
        self.champions = Champions()
        self.watch = Watch(
            documents=self.documents,
            registry=self.registry,
            champions=self.champions,
            folder=folder,
            wait_seconds=5,
            metrics=Metrics(),
        )
        self.service = ModelService(
            registry=self.registry,
            documents=self.documents,
            watch=self.watch,
            limits=Limits(artefact_bytes_max=artefact_bytes_max),
            credentials=Credentials(),
        )

    async def call(self, method: str, *requests: Message, peer: str = "unix:") -> bytes:
        call = Call(method, [request.SerializeToString() for request in requests], peer=peer)
        await self.service.routes()[f"/demur.v1.ModelService/{method}"](call)
        if call.failed is not None:
            raise call.failed
        assert call.replied is not None
        return call.replied

    async def publish(self, model: str, content: bytes, *, promote: bool = False, text: str = TEXT) -> pb.ModelVersion:
        header = pb.PublishModelVersionRequest.Header(model=model, manifest=text, promote=promote, reason="why")
        parts = [pb.PublishModelVersionRequest(header=header)]
        parts += [
            pb.PublishModelVersionRequest(chunk=content[start : start + CHUNK_BYTES])
            for start in range(0, len(content), CHUNK_BYTES)
        ]
        return pb.ModelVersion.FromString(await self.call("PublishModelVersion", *parts))

    async def promote(self, version: str) -> pb.ModelVersion:
        request = pb.PromoteModelVersionRequest(name=f"models/m/versions/{version}", reason="better")
        return pb.ModelVersion.FromString(await self.call("PromoteModelVersion", request))

    async def shadow(self, version: str, *, stop: bool = False) -> pb.ModelVersion:
        request = pb.ShadowModelVersionRequest(name=f"models/m/versions/{version}", stop=stop)
        return pb.ModelVersion.FromString(await self.call("ShadowModelVersion", request))

    async def roll_back(self) -> pb.ModelVersion:
        request = pb.RollBackModelRequest(model="m", reason="worse")
        return pb.ModelVersion.FromString(await self.call("RollBackModel", request))

    async def states(self) -> dict[str, str]:
        reply = await self.call("ListModelVersions", pb.ListModelVersionsRequest(model="m"))
        found = pb.ListModelVersionsResponse.FromString(reply)
        state = pb.ModelVersion.State.Name
        return {version.name.rpartition("/")[2]: state(version.state) for version in found.versions}

    async def policy(self) -> pb.Policy:
        return pb.Policy.FromString(await self.call("GetPolicy", pb.GetPolicyRequest(model="m")))

    async def set_policy(self, policy: pb.Policy) -> pb.Policy:
        reply = await self.call("UpdatePolicy", pb.UpdatePolicyRequest(policy=policy))
        return pb.Policy.FromString(reply)

    async def close(self) -> None:
        await self.documents.close()


@pytest.fixture
async def gateway(config: Config, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(config, tmp_path / "one")
    yield made
    await made.close()


@pytest.fixture
async def other(config: Config, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(config, tmp_path / "other")
    yield made
    await made.close()


def _content(seed: int = 0) -> bytes:
    content: bytes = linear(seed=seed).SerializeToString()
    return content


async def test_a_version_is_published_promoted_and_rolled_back(gateway: Gateway) -> None:
    """Each state with its reason; what is called champion is what runs."""
    first = await gateway.publish("m", _content(0))
    assert (first.name, first.state, first.reason) == ("models/m/versions/1", pb.ModelVersion.CANDIDATE, "why")
    assert manifests.parse(first.manifest).inputs[0].name == "x"
    assert gateway.champions.live("m") == ""
    assert (await gateway.promote("1")).state == pb.ModelVersion.CHAMPION
    second = await gateway.publish("m", _content(1), promote=True)
    assert second.state == pb.ModelVersion.CHAMPION
    assert gateway.champions.live("m") == "2"
    assert await gateway.states() == {"1": "RETIRED", "2": "CHAMPION"}
    back = await gateway.roll_back()
    assert (back.name, back.reason) == ("models/m/versions/1", "rolled back: worse")
    assert gateway.champions.live("m") == "1"
    assert await gateway.states() == {"1": "CHAMPION", "2": "ROLLED_BACK"}
    with pytest.raises(StateError, match="no champion before version 1"):
        await gateway.roll_back()
    with pytest.raises(StateError, match="version 1 is the champion already"):
        await gateway.promote("1")


async def test_a_version_goes_into_the_shadow_and_out_of_it(gateway: Gateway, other: Gateway) -> None:
    """Beside the champion, here and at every other gateway; promoted it is no challenger any more."""
    await gateway.publish("m", _content(0), promote=True)
    for seed in (1, 2):
        await gateway.publish("m", _content(seed))
    with pytest.raises(StateError, match="version 2 of 'm': version 2 is candidate, not in shadow; all is as it was"):
        await gateway.shadow("2", stop=True)
    assert (await gateway.shadow("2")).state == pb.ModelVersion.SHADOW
    assert (await gateway.shadow("3")).reason == "in shadow"
    assert gateway.champions.shadows("m") == ["2", "3"]
    assert (await gateway.shadow("3", stop=True)).state == pb.ModelVersion.CANDIDATE
    assert (gateway.champions.live("m"), gateway.champions.shadows("m")) == ("1", ["2"])
    await gateway.promote("2")
    assert (gateway.champions.live("m"), gateway.champions.shadows("m")) == ("2", [])
    await gateway.shadow("1")
    assert await gateway.states() == {"1": "SHADOW", "2": "CHAMPION", "3": "CANDIDATE"}
    await other.watch.start()
    assert (other.champions.live("m"), other.champions.shadows("m")) == ("2", ["1"])


async def test_a_challenger_that_does_not_load_changes_nothing(gateway: Gateway) -> None:
    """The sentence says why; what was in shadow stays there."""
    await gateway.publish("m", _content(0), promote=True)
    for seed in (1, 2):
        await gateway.publish("m", _content(seed))
    await gateway.shadow("2")
    artefact = gateway.registry.get("m", "3").artefact
    artefact.chmod(0o644)
    artefact.write_bytes(b"changed on the disk")
    with pytest.raises(StateError, match=r"version 3 of 'm': .* was changed: .*; all is as it was"):
        await gateway.shadow("3")
    assert gateway.champions.shadows("m") == ["2"]
    assert await gateway.states() == {"1": "CHAMPION", "2": "SHADOW", "3": "CANDIDATE"}


async def test_a_version_that_does_not_load_changes_nothing(gateway: Gateway) -> None:
    """Neither here nor in the documents; the sentence says what stays."""
    await gateway.publish("m", _content(0), promote=True)
    await gateway.publish("m", _content(1))
    artefact = gateway.registry.get("m", "2").artefact
    artefact.chmod(0o644)
    artefact.write_bytes(b"changed on the disk")
    with pytest.raises(
        StateError, match=r"version 2 of 'm' could not be loaded: .* was changed: .*; version 1 stays live"
    ):
        await gateway.promote("2")
    assert gateway.champions.live("m") == "1"
    assert await gateway.states() == {"1": "CHAMPION", "2": "CANDIDATE"}


async def test_what_admission_refuses_leaves_no_version(gateway: Gateway) -> None:
    """INVALID_ARGUMENT with the sentence, and no number used up."""
    with pytest.raises(AdmissionError, match="not an ONNX file") as caught:
        await gateway.publish("m", b"no model" * 100)
    assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(InvalidError, match="did you mean `labels`"):
        await gateway.publish("m", _content(), text="lables = []")
    assert (await gateway.publish("m", _content())).name == "models/m/versions/1"
    assert not list(gateway.registry.folder.glob(".upload-*"))


async def test_a_stream_is_judged_message_by_message(gateway: Gateway, config: Config, tmp_path: Path) -> None:
    """A header first, then chunks, no more bytes than the limit."""
    chunk = pb.PublishModelVersionRequest(chunk=b"x")
    header = pb.PublishModelVersionRequest(header=pb.PublishModelVersionRequest.Header(model="m", manifest=TEXT))
    with pytest.raises(InvalidError, match="header: expected as the first message"):
        await gateway.call("PublishModelVersion", chunk)
    with pytest.raises(InvalidError, match="chunk: expected in every message after the first"):
        await gateway.call("PublishModelVersion", header, header)
    small = Gateway(config, tmp_path / "small", artefact_bytes_max=CHUNK_BYTES)
    with pytest.raises(InvalidError, match=r"chunk: expected at most 100 bytes in all"):
        await small.publish("m", b"x" * 1000)
    await small.close()
    assert gateway.registry.models() == []


async def test_unknown_models_and_versions_are_not_found(gateway: Gateway) -> None:
    """Each with what there is instead."""
    with pytest.raises(NotFoundError, match="model 'm' is not here; there are: none"):
        await gateway.promote("1")
    with pytest.raises(NotFoundError, match="model 'm' is not here"):
        await gateway.roll_back()
    with pytest.raises(NotFoundError, match="model 'm' is not here"):
        await gateway.policy()
    assert await gateway.states() == {}
    with pytest.raises(InvalidError, match=r"name: expected models/<model>/versions/<version>, got 'm/1'"):
        await gateway.call("PromoteModelVersion", pb.PromoteModelVersionRequest(name="m/1"))
    with pytest.raises(NotFoundError, match="model 'm' is not here"):
        await gateway.call("GetCertificate", pb.GetCertificateRequest(model="m"))


async def test_only_operators_change_models(gateway: Gateway) -> None:
    """Without credentials, only this machine."""
    with pytest.raises(UnauthenticatedError, match="only this machine may call"):
        await gateway.call("RollBackModel", pb.RollBackModelRequest(model="m"), peer="ipv4:192.0.2.1:5")


async def test_a_policy_is_changed_by_compare_and_set(gateway: Gateway) -> None:
    """It is in force at once; a stale revision and a wrong label are refused."""
    await gateway.publish("m", _content(), promote=True)
    found = await gateway.policy()
    assert (found.revision, found.threshold) == (0, 0.9)
    found.threshold = 0.5
    found.always_person.append("c")
    found.class_thresholds["a"] = 0.7
    written = await gateway.set_policy(found)
    assert written.revision > 0
    assert gateway.champions.policy("m") == Policy(threshold=0.5, class_thresholds={"a": 0.7}, always_person=("c",))
    assert await gateway.policy() == written
    stale = pb.Policy(model="m", revision=written.revision + 1, threshold=0.1, audit_share=0)
    with pytest.raises(AbortedError, match=r"policy.revision: expected"):
        await gateway.set_policy(stale)
    with pytest.raises(InvalidError, match=r"policy: expected labels of the model \(a, b, c\), got 'z'"):
        await gateway.set_policy(pb.Policy(model="m", threshold=0.9, audit_share=0, always_person=["z"]))
    for wrong in (1.5, -0.1, float("nan"), float("inf")):
        with pytest.raises(InvalidError, match=r"policy.threshold: expected a number in \[0, 1\]"):
            await gateway.set_policy(pb.Policy(model="m", threshold=wrong, audit_share=0))
    for missing, half in (
        ("audit_share", pb.Policy(model="m", threshold=0.9)),
        ("threshold", pb.Policy(model="m", audit_share=0.1)),
    ):
        with pytest.raises(InvalidError, match=rf"policy.{missing}: expected a number in \[0, 1\], got none"):
            await gateway.set_policy(half)
    await gateway.publish("m", _content(1), promote=True)
    assert gateway.champions.policy("m").threshold == 0.5, "the operator's policy outlives a version"


async def test_every_gateway_follows(gateway: Gateway, other: Gateway) -> None:
    """What one was told, another takes over by itself: versions and policies."""
    await gateway.publish("m", _content(0), promote=True)
    await other.watch.start()
    assert other.champions.live("m") == "1"
    following = asyncio.create_task(other.watch.run())
    await gateway.publish("m", _content(1), promote=True)
    await _until(lambda: other.champions.live("m") == "2")
    await gateway.set_policy(pb.Policy(model="m", threshold=0.25, audit_share=0))
    await _until(lambda: other.champions.policy("m").threshold == 0.25)
    await gateway.roll_back()
    await _until(lambda: other.champions.live("m") == "1")
    following.cancel()


async def test_a_gateway_starts_from_its_own_copies_while_redis_is_away(
    gateway: Gateway, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the champion and the policy it had; publishing waits until Redis is back."""
    await gateway.publish("m", _content(), promote=True)
    await gateway.set_policy(pb.Policy(model="m", threshold=0.25, audit_share=0))
    monkeypatch.setenv("DEMUR_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    alone = Gateway(config, tmp_path / "one")
    await alone.watch.start()
    assert alone.champions.live("m") == "1"
    assert alone.champions.policy("m").threshold == 0.25
    with pytest.raises(UnavailableError):
        await alone.publish("m", _content(1), promote=True)
    assert [version.version for version in alone.registry.versions("m")] == ["1"]
    await alone.close()


async def test_two_gateways_promoting_at_once_agree(gateway: Gateway, other: Gateway) -> None:
    """One after the other by compare-and-set: one champion, and both serve it once they have looked."""
    for seed in range(3):
        await gateway.publish("m", _content(seed), promote=seed == 0)
    await other.watch.start()
    following = [asyncio.create_task(one.watch.run()) for one in (gateway, other)]
    await asyncio.gather(gateway.promote("2"), other.promote("3"))
    states = await gateway.states()
    champion = next(version for version, state in states.items() if state == "CHAMPION")
    assert sorted(states.values()) == ["CHAMPION", "RETIRED", "RETIRED"]
    await _until(lambda: {gateway.champions.live("m"), other.champions.live("m")} == {champion})
    for task in following:
        task.cancel()


async def test_a_champion_answers_while_it_is_replaced(gateway: Gateway, tmp_path: Path) -> None:
    """The swap is real: the same input gets another version's answer."""
    await gateway.publish("m", _content(0), promote=True)
    inputs = {"x": np.eye(4, dtype=np.float32)}
    with gateway.champions.champions["m"].acquire() as held:
        assert held is not None
        before = held.model.run(inputs)["y"]
        await gateway.publish("m", save(linear(seed=1), tmp_path / "m.onnx").read_bytes(), promote=True)
        np.testing.assert_array_equal(held.model.run(inputs)["y"], before)
    with gateway.champions.champions["m"].acquire() as live:
        assert live is not None
        assert live.version.version == "2"
        assert not np.allclose(live.model.run(inputs)["y"], before)


async def _until(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)
