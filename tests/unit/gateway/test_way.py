"""How a version is best run: by what is measured of it, unless somebody chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import way
from gateway.batching import Batching
from gateway.champion import Champion
from gateway.cores import cores
from gateway.model import Model
from gateway.registry import Registry
from gateway.way import Way, shared
from tests.live_gateway import JUDGED, POLICY, install, told

ROWS = 16


@pytest.mark.parametrize(
    ("threads", "instances", "expected"),
    [
        (0, 0, (1, 8)),
        (2, 0, (2, 4)),
        (16, 0, (16, 1)),
        (0, 1, (8, 1)),
        (0, 3, (2, 3)),
        (0, 20, (1, 20)),
        (4, 4, (4, 4)),
    ],
)
def test_threads_and_instances_share_the_cores_out(threads: int, instances: int, expected: tuple[int, int]) -> None:
    """Of 8; what somebody chose stays."""
    assert shared(8, threads=threads, instances=instances) == expected


def test_a_heavy_model_has_several_runs_of_few_rows_and_a_light_one_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that a full batch takes; what the manifest says goes before."""
    rows, a_row = 16, {"light": 1e-5, "heavy": 1e-2, "chosen": 1e-5}
    names = iter(["light", "heavy", "heavy", "chosen"])
    monkeypatch.setattr("gateway.way._seconds", lambda _model, rows, _shapes: rows * a_row[next(names)])
    facts = msgspec.structs.replace(JUDGED, batching=Batching(max_batch_size=rows))
    install(tmp_path, "light", "1", told(1), facts)
    install(tmp_path, "heavy", "1", told(1), facts)
    chosen = msgspec.structs.replace(facts, batching=Batching(max_batch_size=rows, instances=3))
    install(tmp_path, "chosen", "1", told(1), chosen)
    registry, ways = Registry(tmp_path / "models"), {}
    for model in ("light", "heavy", "chosen"):
        champion = Champion(device="cpu")
        ways[model] = champion.swap(registry.get(model, "1"), POLICY).way
        champion.close()
    assert ways == {
        "light": Way(instances=1, rows_max=rows),
        "heavy": Way(instances=cores(), rows_max=8 if cores() > 1 else rows),
        "chosen": Way(instances=3, rows_max=rows),
    }


@pytest.mark.parametrize(
    ("a_row", "better", "threads", "expected"),
    [(1e-5, True, 0, 1), (5e-5, True, 0, 2), (5e-5, False, 0, 1), (5e-5, True, 3, 3), (1e-2, False, 0, 1)],
)
def test_a_short_run_has_several_threads_where_they_are_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_row: float, *, better: bool, threads: int, expected: int
) -> None:
    """One that is very short has one, as has one of several at a time; what the operator chose stays."""
    monkeypatch.setattr("gateway.way.cores", lambda: 2)
    monkeypatch.setattr("gateway.way._seconds", lambda _model, rows, _shapes: rows * a_row)
    monkeypatch.setattr("gateway.way._is_better", lambda *_: better)
    install(tmp_path, "m", "1", told(1), msgspec.structs.replace(JUDGED, batching=Batching(max_batch_size=ROWS)))
    champion = Champion(device="cpu", threads=threads)
    live = champion.swap(Registry(tmp_path / "models").get("m", "1"), POLICY)
    assert live.way.threads == expected
    session = live.model._session
    assert session is not None
    assert session.get_session_options().intra_op_num_threads == expected
    champion.close()


@pytest.mark.parametrize("fails", ["_seconds", "_is_better", "Model.load"])
def test_a_model_that_cannot_be_measured_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """And so is the one that it was to be compared with."""
    monkeypatch.setattr("gateway.way.cores", lambda: 2)
    monkeypatch.setattr("gateway.way._seconds", lambda _model, rows, _shapes: rows * 5e-5)
    install(tmp_path, "m", "1", told(1), msgspec.structs.replace(JUDGED, batching=Batching(max_batch_size=ROWS)))
    version = Registry(tmp_path / "models").get("m", "1")
    opened, closed, load, close = list[Model](), list[Model](), Model.load, Model.close

    def noted(*arguments: Any, **options: Any) -> Model:
        if fails == "Model.load" and opened:
            raise RuntimeError("no memory now")
        opened.append(load(*arguments, **options))
        return opened[-1]

    def fail(*_: object) -> float:
        raise RuntimeError("no memory now")

    monkeypatch.setattr(Model, "load", noted)

    def noted_too(model: Model) -> None:
        closed.append(model)
        close(model)

    monkeypatch.setattr(Model, "close", noted_too)
    if fails != "Model.load":
        monkeypatch.setattr(f"gateway.way.{fails}", fail)
    with pytest.raises(RuntimeError, match="no memory now"):
        way.load(version, device="cpu", threads=0, before=None)
    assert opened
    assert {*map(id, closed)} == {*map(id, opened)}
