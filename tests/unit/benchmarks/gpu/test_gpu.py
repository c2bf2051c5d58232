"""What `demur bench gpu` makes of what it sees; nothing here has seen a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_gpu
from benchmarks.gpu import alike, alone, cards, refusals, served, swaps
from benchmarks.gpu.alike import Compared, Difference
from benchmarks.gpu.halves import halved
from benchmarks.gpu.swaps import Swapping
from benchmarks.serve import models
from benchmarks.serve.windows import Swapped
from gateway.model import CPU, CUDA, TENSORRT, Model
from tests.unit.benchmarks.serve import made_up

NEAR = Difference(mean=0.0, most=0.0, same_label=1.0)


def test_a_line_of_nvidia_smi_is_read() -> None:
    """What a card does not say is nothing, and what lists no card is none."""
    card = cards.read("0, NVIDIA H100 80GB HBM3, 550.54.15, 9.0, 81559, 1234, [N/A]")
    assert card is not None
    assert (card.name, card.compute_capability, card.memory_used_mib) == ("NVIDIA H100 80GB HBM3", "9.0", 1234.0)
    assert card.power_limit_w is None
    assert cards.read("No devices were found") is None


def test_cards_are_asked_for_and_their_memory_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all of them: which one a process uses is its own affair."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\nfor i in 0 1; do echo "$i, L4, 550, 8.9, 23034, 50$i, 72.00"; done\n')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cards.used_mib() is None, "not to be run yet"
    program.chmod(0o755)
    assert [card.power_limit_w for card in cards.cards()] == [72.0, 72.0]
    assert cards.used_mib() == 1001.0


def test_half_of_the_digits_are_hardly_another_model(tmp_path: Path) -> None:
    """Inputs and outputs are FP16 too, and each row keeps its label."""
    path = tmp_path / "model.onnx"
    path.write_bytes(halved(models.artefact("tiny")))
    model, rows = Model.load(path, device="cpu"), models.rows("tiny", 16)
    assert [spec.datatype for spec in (*model.signature.inputs, *model.signature.outputs)] == ["FP16", "FP16"]
    small = model.run({"x": rows.astype(np.float16)})["p"]
    path.write_bytes(models.artefact("tiny"))
    whole = Model.load(path, device="cpu").run({"x": rows})["p"]
    assert (small.argmax(axis=1) == whole.argmax(axis=1)).all()


def test_models_say_the_same_bound_or_not_and_from_many_threads(tmp_path: Path) -> None:
    """No two rows have the same scores, so that rows that change places are seen."""
    for name in models.SHAPES:
        found = alike.compare(tmp_path, name, "cpu", count=16)
        assert all(check.ok for check in alike.judge(name, found, "cpu")), name
        assert found.half.mean > 0, name
    rows = alike.made_up("conv", 16)
    path = tmp_path / "model.onnx"
    path.write_bytes(alike.scored(models.artefact("conv")))
    scores = Model.load(path, device="cpu").run({"x": rows})[alike.SCORES]
    assert not alike._near("", alike.difference(scores[::-1], scores), alike.MEAN_MAX, 0.0)[0].ok


def test_a_silent_fall_back_and_a_wrong_answer_are_not_ok() -> None:
    """Neither is what is no number."""
    bad = alike.difference(np.full((2, 3), np.nan), np.eye(2, 3))
    found = Compared(provider=CPU, bound=bad, unbound=NEAR, threads=NEAR, half=NEAR)
    broken = [check.name for check in alike.judge("tiny", found, "cuda") if not check.ok]
    assert broken[0] == "tiny: the session runs on a GPU's provider"
    assert broken[1].startswith("tiny, bound: mean difference")
    assert all(check.ok for check in alike.judge("tiny", found, "cpu")[3:])


def test_each_provider_of_the_gpu_is_measured_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU only where it is asked for; the first run of a size is told apart."""
    assert alone.providers("cpu") == [CPU]
    monkeypatch.setattr(alone, "offered", lambda _: [TENSORRT, CUDA, CPU])
    assert alone.providers("cuda") == [TENSORRT, CUDA]
    found = alone.sweep(tmp_path, "tiny", CPU, "cpu", half=True, sizes=(1, 3), seconds=0.01)
    assert [batch.rows for batch in found.batches] == [1, 3]
    assert all(0 < batch.p50_ms <= batch.p99_ms for batch in found.batches)
    assert (found.provider, found.datatype) == (CPU, "FP16")


def test_refusals_are_looked_for_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is there after all is not ok; the gateway's own refusal is the acceptance test's."""
    monkeypatch.setattr(refusals, "_gateway_refuses", lambda _: lambda: True)
    assert [check.ok for check in refusals.checks(tmp_path, "cpu")] == [True] * 4
    path = tmp_path / "refused.onnx"
    assert not refusals._refuses(path, "cpu", CPU)()


def test_memory_that_grows_on_the_device_is_told() -> None:
    """Where nothing tells of it nothing is promised."""
    calm = Swapped(
        failed_requests=0, failed_codes={}, mixed_batches=0, wrong_version=0, p99_ratio=1, p99_max_ms=1,
        first_request_ratio=1, rss_growth=0, p50_ms=1, p99_outside_ms=1, p99_inside_ms=1, p99_failed_loads_ms=1,
        window_ms=1, window_max_ms=1, requests_inside=1, requests=1, batches=1, lag_p99_ms=0,
    )  # fmt: skip

    def judged(settled: float | None, end: float | None) -> list[bool]:
        found = Swapping(
            transport="auto", rate=1, swaps=2, requests=calm,
            device_mib_empty=None, device_mib_settled=settled, device_mib_end=end,
        )  # fmt: skip
        return [check.ok for check in swaps.judge("tiny", found)]

    assert judged(None, None) == [True] * 3
    assert judged(1000, 1040) == [True] * 4
    assert judged(1000, 1060) == [True, True, True, False]


def test_a_gateway_that_runs_a_model_elsewhere_is_not_ok() -> None:
    """Nor one that does not say where."""
    whole = made_up.result()
    for provider, ok in ((CUDA, True), (CPU, False), ("", False)):
        assert [check.ok for check in served.judge("tiny", whole, provider, "cuda")] == [ok, True]


def test_without_a_gpu_it_says_so_and_still_prints_its_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was looked at: neither right nor wrong."""
    monkeypatch.setattr(bench_gpu, "count_gpus", lambda: 0)
    assert bench_gpu.run(as_json=True, cpu=False) == bench_gpu.NO_GPU_CODE
    said = capsys.readouterr()
    got = json.loads(said.out.splitlines()[-1])
    assert (got["gpu"], got["ok"]) == (None, False)
    assert [(check["name"], check["ok"]) for check in got["checks"]] == [("a GPU is there", False)]
    assert "no NVIDIA GPU" in said.err


def test_a_part_that_breaks_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its own words."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 700")

    monkeypatch.setattr(refusals, "_gateway_refuses", lambda _: lambda: True)
    monkeypatch.setattr(alone, "sweep", broken)
    monkeypatch.setattr(bench_gpu.Bench, "_swap", lambda *_: [])
    monkeypatch.setattr(bench_gpu.Bench, "_serve", lambda *_: [])
    assert bench_gpu.run(as_json=True, cpu=True) == 1
    got = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(got["errors"].values()) == {"RuntimeError: CUDA failure 700"}
    names = [check["name"] for check in got["checks"] if not check["ok"]]
    assert names == ["tiny: ONNX Runtime alone: ran to its end", "conv: ONNX Runtime alone: ran to its end"]
    assert set(got["compared"]) == {"tiny", "conv"}
