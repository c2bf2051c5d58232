"""A version on the hold-out, by the code that serves it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.demo import evaluate
from gateway.policy import Policy
from gateway.registry import ModelVersion, Registry
from trainer import digits, first


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A first model of digits, published as the trainer does."""
    folder, found = tmp_path_factory.mktemp("models"), digits.load()
    labels = np.array([found.labels[index] for index in found.seed])
    network = first.build(found.tensor(found.seed), labels, label_count=len(digits.LABELS))
    artefact = folder / "first.onnx"
    onnx.save_model(network, str(artefact))
    return Registry(folder / "registry").publish("digits", artefact, digits.manifest("digits"))


def test_a_policy_that_answers_everything_has_the_models_own_error(version: ModelVersion) -> None:
    """Then nothing is deferred, and what is not right is wrong."""
    accuracy, deferred, error = evaluate.on_holdout(version, Policy(threshold=0.0))
    assert accuracy > 0.8
    assert deferred == 0
    assert error == pytest.approx(1 - accuracy)


def test_a_threshold_defers_the_doubtful_and_leaves_fewer_errors(version: ModelVersion) -> None:
    """The accuracy counts all, so it does not move."""
    plain = evaluate.on_holdout(version, Policy(threshold=0.0))
    strict = evaluate.on_holdout(version, Policy(threshold=0.9))
    assert strict[0] == plain[0]
    assert 0 < strict[1] < 1
    assert strict[2] < plain[2]


def test_a_policy_that_answers_nothing_makes_no_error(version: ModelVersion) -> None:
    """No automatic answer, no error among them."""
    assert evaluate.on_holdout(version, Policy(always_person=digits.LABELS))[1:] == (1.0, 0.0)
