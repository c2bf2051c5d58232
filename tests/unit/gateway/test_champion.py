"""A swap is one assignment: what runs goes on, what comes gets the new version, the old one is freed once."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fallback.errors import ConfigError, InvalidError, StateError
from gateway.batching import Batching
from gateway.certification import Certification
from gateway.champion import Champion, buckets
from gateway.model import Model
from gateway.policy import Policy
from gateway.registry import ModelVersion, Registry
from gateway.way import Way
from tests.live_gateway import JUDGED, POLICY, SURE, install, told


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Versions 1 to 3 of one model, and a 4 that does not load."""
    for version in (1, 2, 3, 4):
        install(tmp_path, "m", str(version), told(version), JUDGED)
    (tmp_path / "models" / "m" / "4" / "model.onnx").write_bytes(b"broken")
    return Registry(tmp_path / "models")


@pytest.fixture
def champion() -> Champion:
    return Champion(device="cpu", threads=1)


def _version(registry: Registry, number: int) -> ModelVersion:
    return registry.get("m", str(number))


def _says(live: Any) -> int:
    return int(live.model.run({"x": SURE})["v"][0, 0])


def test_before_the_first_swap_there_is_nothing_to_hold(champion: Champion) -> None:
    with champion.acquire() as live:
        assert live is None
    assert champion.hold() is None


def test_a_batch_keeps_its_version_while_another_is_swapped_in(registry: Registry, champion: Champion) -> None:
    """And the old one is freed when the last batch lets go, not before."""
    champion.swap(_version(registry, 1), POLICY)
    with champion.acquire() as old:
        assert old is not None
        second = champion.hold()
        champion.swap(_version(registry, 2), POLICY)
        assert _says(old) == 1
        with champion.acquire() as new:
            assert _says(new) == 2
    assert second is not None
    assert _says(second.live) == 1
    second.release()
    second.release()
    with pytest.raises(StateError, match="closed"):
        _says(old)
    assert _says(champion.live) == 2


def test_a_version_that_does_not_load_leaves_the_champion(registry: Registry, champion: Champion) -> None:
    """With a sentence that says why."""
    champion.swap(_version(registry, 1), POLICY)
    with pytest.raises(InvalidError, match="ONNX Runtime does not load it"):
        champion.swap(_version(registry, 4), POLICY)
    assert _says(champion.live) == 1


def test_a_version_that_fails_to_warm_leaves_the_champion(
    registry: Registry, champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half-loaded one is freed."""
    champion.swap(_version(registry, 1), POLICY)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gateway.model.Model.warm_up", fail)
    with pytest.raises(MemoryError):
        champion.swap(_version(registry, 2), POLICY)
    assert _says(champion.live) == 1


def test_a_new_policy_judges_from_the_next_batch_on(registry: Registry, champion: Champion) -> None:
    """The model stays, its holds too."""
    champion.swap(_version(registry, 1), POLICY)
    with champion.acquire() as before:
        champion.set_policy(Policy(threshold=0.1))
        assert before is not None
        assert before.rules.policy == POLICY
    with champion.acquire() as after:
        assert after is not None
        assert after.rules.policy.threshold == 0.1
        assert after.model is before.model
    champion.swap(_version(registry, 2), POLICY)
    with pytest.raises(StateError, match="closed"):
        _says(before)


def test_what_is_proved_is_in_force_from_the_next_batch_on(registry: Registry, champion: Champion) -> None:
    """Also for a version that loads when it comes, and for whoever has held the version since before."""
    promised = Policy(alpha=0.05)
    proved = Certification(epoch="1", scorer="margin", version="2", tau=0.5, expire_second=10)
    champion.set_certification(proved)
    champion.swap(_version(registry, 1), promised)
    assert champion.live is not None
    assert champion.live.rules.tau(5) is None, "it is of another version"
    live = champion.swap(_version(registry, 2), promised)
    assert live.rules.tau(5) == 0.5
    with champion.acquire() as held:
        assert held is not None
        champion.set_certification(msgspec.structs.replace(proved, alarm="drift"))
        assert held.rules.tau(5) == 0.5
        renewed = champion.renewed(held)
        assert renewed.model is held.model
        assert renewed.rules.tau(5) is None
        champion.swap(_version(registry, 3), promised)
        assert champion.renewed(held) is held, "the rules of another version are none of its own"
    champion.set_policy(POLICY)
    champion.set_policy(promised)
    assert champion.live.rules.certification is not None, "a policy leaves what is proved"


def test_an_alarm_that_comes_while_a_version_loads_is_kept(
    registry: Registry, champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was proved when the loading began is not in force for a moment."""
    proved = Certification(epoch="1", scorer="margin", version="2", tau=0.5, expire_second=10)
    champion.set_certification(proved)
    warm_up = Model.warm_up

    def alarmed(model: Model, *args: Any) -> None:
        warm_up(model, *args)
        champion.set_certification(msgspec.structs.replace(proved, alarm="drift"))

    monkeypatch.setattr(Model, "warm_up", alarmed)
    assert champion.swap(_version(registry, 2), Policy(alpha=0.05)).rules.tau(5) is None


def test_a_version_without_the_policys_score_is_not_swapped_in(registry: Registry, champion: Champion) -> None:
    """Every request of it would fail."""
    with pytest.raises(InvalidError, match=r"policy.scorer: expected margin, max_softmax or learned"):
        champion.swap(_version(registry, 1), Policy(alpha=0.05, scorer="energy"))
    assert champion.live is None


def test_under_load_every_run_finds_its_model_open(registry: Registry, champion: Champion) -> None:
    """Four threads run while versions are swapped to and fro."""
    champion.swap(_version(registry, 1), POLICY)
    stop = threading.Event()
    problems: list[object] = []
    runs: list[set[int]] = []

    def load() -> None:
        while not stop.is_set():
            with champion.acquire() as live:
                assert live is not None
                try:
                    said = {_says(live), _says(live)}
                except StateError as error:
                    problems.append(error)
                    return
                if said != {int(live.version.version)}:
                    problems.append(said)
                runs.append(said)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (2, 3, 1, 2, 3, 1):
        champion.swap(_version(registry, number), POLICY)
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert runs


def test_after_closing_there_is_nothing_to_hold(registry: Registry, champion: Champion) -> None:
    """What still runs ends first."""
    champion.swap(_version(registry, 1), POLICY)
    with champion.acquire() as live:
        champion.close()
        assert champion.hold() is None
        assert _says(live) == 1
    with pytest.raises(StateError, match="closed"):
        _says(live)


def test_buckets_are_powers_of_two_and_the_most() -> None:
    assert buckets(1) == [1]
    assert buckets(16) == [1, 2, 4, 8, 16]
    assert buckets(48) == [1, 2, 4, 8, 16, 32, 48]


def test_a_version_like_the_one_before_is_run_as_that_was(
    registry: Registry, champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To measure anew takes the cores from requests; one of another size, or batched otherwise, is measured."""
    way = champion.swap(_version(registry, 1), POLICY).way
    measured: list[Any] = []

    def seconds(*arguments: object) -> float:
        measured.append(arguments)
        return 0.0

    monkeypatch.setattr("gateway.way._seconds", seconds)
    assert champion.swap(_version(registry, 2), POLICY).way is way
    assert not measured
    other = _version(registry, 3)
    batching = msgspec.structs.replace(other.manifest.batching, max_batch_size=3)
    other = dataclasses.replace(other, manifest=msgspec.structs.replace(other.manifest, batching=batching))
    assert champion.swap(other, POLICY).way == Way(instances=1, rows_max=3)
    assert measured


def test_cuda_where_there_is_none_says_what_is_missing(registry: Registry) -> None:
    """Never the CPU in silence."""
    from gateway.model import count_gpus

    if count_gpus():
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(ConfigError, match='expected "cuda", got only CPUExecutionProvider'):
        Champion(device="cuda").swap(_version(registry, 1), POLICY)


def test_inputs_that_the_model_refuses_are_invalid(tmp_path: Path) -> None:
    """ONNX Runtime's own sentence, without its source files."""
    from gateway.model import Model
    from tests.live_gateway import table

    path = tmp_path / "table.onnx"
    path.write_bytes(table())
    model = Model.load(path, device="cpu")
    assert model.run({"i": np.array([1])})["y"].tolist() == [[3, 4]]
    with pytest.raises(InvalidError, match="out of data bounds") as caught:
        model.run({"i": np.array([7])})
    assert ".cc" not in caught.value.message


def test_whoever_swaps_waits_for_the_last_batch_and_frees(registry: Registry, champion: Champion) -> None:
    """So that the thread that answers does not; one that takes longer is not waited for, and frees when it is done."""
    first = champion.swap(_version(registry, 1), POLICY)
    hold = champion.hold()
    assert hold is not None
    threading.Timer(0.02, hold.release).start()
    champion.swap(_version(registry, 2), POLICY)
    with pytest.raises(StateError):
        _says(first)


@pytest.mark.parametrize(("batched", "expected"), [(True, (2, 1)), (False, (1,))])
def test_on_the_cpu_a_full_batch_and_one_row_are_warmed_up(
    registry: Registry, champion: Champion, monkeypatch: pytest.MonkeyPatch, batched: bool, expected: tuple[int, ...]
) -> None:
    """As it will be run: a batch that nobody runs takes the cores from requests for nothing."""
    warmed = list[tuple[int, ...]]()
    version = _version(registry, 1)
    batching = Batching(max_batch_size=4)
    version = dataclasses.replace(
        version, manifest=msgspec.structs.replace(version.manifest, batched=batched, batching=batching)
    )
    way = Way(instances=3, rows_max=2 if batched else 1)
    monkeypatch.setattr("gateway.champion.load", lambda version, **_: (Model.load(version.artefact), way))
    monkeypatch.setattr(Model, "warm_up", lambda _, rows, __: warmed.append(tuple(rows)))
    champion.swap(version, POLICY)
    assert warmed == [expected]


def test_on_a_gpu_every_size_is_warmed_up(
    registry: Registry, champion: Champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a size that was never run is slow the first time."""
    warmed = list[tuple[int, ...]]()

    def load(version: ModelVersion, **_: object) -> tuple[Model, Way]:
        model = Model.load(version.artefact)
        model.provider = "CUDAExecutionProvider"
        return model, Way(instances=1, rows_max=16)

    monkeypatch.setattr("gateway.champion.load", load)
    monkeypatch.setattr(Model, "warm_up", lambda _, rows, __: warmed.append(tuple(rows)))
    champion.swap(_version(registry, 1), POLICY)
    assert warmed == [(1, 2, 4, 8, 16)]
