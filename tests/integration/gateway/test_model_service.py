"""ModelService over a real server's documents and real champions: a promoted version is live, a failed one nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from demur.v1 import model_pb2 as pb
from fallback.config import Config
from fallback.errors import (
    AbortedError,
    Code,
    InvalidError,
    NotFoundError,
    StateError,
    UnauthenticatedError,
    UnavailableError,
)
from gateway import manifest as manifests
from gateway.admission import AdmissionError
from gateway.policy import Policy
from tests.integration.gateway.model_stand import CHUNK_BYTES, TEXT, Gateway, content_of
from tests.onnx_files import linear, save


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


async def test_a_version_is_published_promoted_and_rolled_back(gateway: Gateway) -> None:
    """Each state with its reason; what is called champion is what runs."""
    first = await gateway.publish("m", content_of(0))
    assert (first.name, first.state, first.reason) == ("models/m/versions/1", pb.ModelVersion.CANDIDATE, "why")
    assert manifests.parse(first.manifest).inputs[0].name == "x"
    assert gateway.champions.live("m") == ""
    assert (await gateway.promote("1")).state == pb.ModelVersion.CHAMPION
    second = await gateway.publish("m", content_of(1), promote=True)
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


async def test_two_who_roll_back_what_both_saw_go_one_step_back(gateway: Gateway, other: Gateway) -> None:
    """At one gateway or at two: the second is told that another version is the champion by now."""
    for seed in range(3):
        await gateway.publish("m", content_of(seed), promote=True)
    await other.watch.start()
    saw = "models/m/versions/3"
    told = await asyncio.gather(
        gateway.roll_back(saw), other.roll_back(saw), gateway.roll_back(saw), return_exceptions=True
    )
    assert [each.name for each in told if isinstance(each, pb.ModelVersion)] == ["models/m/versions/2"]
    refused = [str(each) for each in told if isinstance(each, AbortedError)]
    assert len(refused) == 2
    assert all("expected version 3 to be the champion, version 2 is the champion now" in each for each in refused)
    assert await gateway.states() == {"1": "RETIRED", "2": "CHAMPION", "3": "ROLLED_BACK"}
    with pytest.raises(InvalidError, match="expected a version of 'm', got 'models/n/versions/2'"):
        await gateway.roll_back("models/n/versions/2")
    assert (await gateway.roll_back("models/m/versions/2")).name == "models/m/versions/1"


async def test_a_version_goes_into_the_shadow_and_out_of_it(gateway: Gateway, other: Gateway) -> None:
    """Beside the champion, here and at every other gateway; promoted it is no challenger any more."""
    await gateway.publish("m", content_of(0), promote=True)
    for seed in (1, 2):
        await gateway.publish("m", content_of(seed))
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
    await gateway.publish("m", content_of(0), promote=True)
    for seed in (1, 2):
        await gateway.publish("m", content_of(seed))
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
    await gateway.publish("m", content_of(0), promote=True)
    await gateway.publish("m", content_of(1))
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
        await gateway.publish("m", content_of(), text="lables = []")
    assert (await gateway.publish("m", content_of())).name == "models/m/versions/1"
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
    await gateway.publish("m", content_of(), promote=True)
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
    await gateway.publish("m", content_of(1), promote=True)
    assert gateway.champions.policy("m").threshold == 0.5, "the operator's policy outlives a version"


async def test_every_gateway_follows(gateway: Gateway, other: Gateway) -> None:
    """What one was told, another takes over by itself: versions and policies."""
    await gateway.publish("m", content_of(0), promote=True)
    await other.watch.start()
    assert other.champions.live("m") == "1"
    following = asyncio.create_task(other.watch.run())
    await gateway.publish("m", content_of(1), promote=True)
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
    await gateway.publish("m", content_of(), promote=True)
    await gateway.set_policy(pb.Policy(model="m", threshold=0.25, audit_share=0))
    monkeypatch.setenv("DEMUR_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    alone = Gateway(config, tmp_path / "one")
    await alone.watch.start()
    assert alone.champions.live("m") == "1"
    assert alone.champions.policy("m").threshold == 0.25
    with pytest.raises(UnavailableError):
        await alone.publish("m", content_of(1), promote=True)
    assert [version.version for version in alone.registry.versions("m")] == ["1"]
    await alone.close()


async def test_two_gateways_promoting_at_once_agree(gateway: Gateway, other: Gateway) -> None:
    """One after the other by compare-and-set: one champion, and both serve it once they have looked."""
    for seed in range(3):
        await gateway.publish("m", content_of(seed), promote=seed == 0)
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
    await gateway.publish("m", content_of(0), promote=True)
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
