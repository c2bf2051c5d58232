"""All models of a gateway: when none can take a request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fallback.errors import DemurError, FullError
from gateway.champions import Champions
from gateway.metrics import Metrics


def _champions(**problems: FullError | None) -> tuple[Champions, Metrics]:
    metrics = Metrics()
    champions = Champions(lambda *_: None, device="cpu", threads=1, metrics=metrics)  # type: ignore[arg-type]  # makes none
    for model, problem in problems.items():
        pipeline: Any = SimpleNamespace(batcher=SimpleNamespace(refusal=lambda problem=problem: problem))
        champions._pipelines[model] = pipeline
    return champions, metrics


def _refused(metrics: Metrics, model: str) -> float:
    return float(metrics.requests.labels(model, "", "RESOURCE_EXHAUSTED")._value.get())


def _check(problem: DemurError | None, retry_after_seconds: float) -> None:
    """No name: who asks is not known yet."""
    assert isinstance(problem, FullError)
    assert (problem.message, problem.retry_after_seconds) == ("the queues of all models are full", retry_after_seconds)


def test_a_request_is_refused_unseen_where_the_only_model_is_full() -> None:
    """And counts as one to that model."""
    champions, metrics = _champions(m=FullError("model 'm': full", retry_after_seconds=1.5))
    _check(champions.refusal(), 1.5)
    assert _refused(metrics, "m") == 1


def test_a_request_is_looked_at_while_any_model_has_room() -> None:
    """It may ask that one; where all are full it counts as one to nobody knows which."""
    full = FullError("full", retry_after_seconds=1.0)
    champions, metrics = _champions(m=full, n=None)
    assert champions.refusal() is None
    champions, metrics = _champions(m=full, n=full)
    _check(champions.refusal(), 1.0)
    assert _refused(metrics, "") == 1
    assert _champions()[0].refusal() is None
