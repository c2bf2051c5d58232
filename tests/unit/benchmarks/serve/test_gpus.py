"""What nvidia-smi says, and a program of that name that says it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.serve import gpus

LINES = ("0, NVIDIA H100, 40, 1000, 210.50", "1, NVIDIA H100, 0, 4, [N/A]", "0, NVIDIA H100, 90, 3000, 309.50")


def test_samples_are_summed_by_card() -> None:
    """Means of load and power, the most memory; a card that tells no power has none, and other lines none at all."""
    samples = [gpus.sample(line, 1.0) for line in LINES]
    first, second = gpus.summed([each for each in samples if each is not None])
    assert (first.index, first.samples, first.utilisation_mean, first.utilisation_max) == (0, 2, 65.0, 90.0)
    assert (first.memory_mib_max, first.power_w_mean) == (3000.0, 260.0)
    assert (second.index, second.power_w_mean) == (1, None)
    assert gpus.sample("No devices were found", 1.0) is None
    assert gpus.sample("0, NVIDIA H100, [N/A], 1000, 210.50", 1.0) is None


def test_cards_are_watched_while_a_load_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only what was sampled between two moments counts; where there is no card there is nothing to see."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nwhile :; do echo '{LINES[0]}'; sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with gpus.watching(wanted=True) as watch:
        begin = time.monotonic()
        until = begin + 10
        while not watch.between(begin, time.monotonic()) and time.monotonic() < until:
            time.sleep(0.02)
        (found,) = watch.between(begin, time.monotonic())
        assert found.utilisation_max == 40.0
        assert watch.between(0, begin - 1) == ()
    with gpus.watching(wanted=False) as watch:
        assert watch.between(0, time.monotonic()) == ()
    monkeypatch.setenv("PATH", "")
    with gpus.watching(wanted=True) as watch:
        assert watch.between(0, time.monotonic()) == ()
