"""What is streamed: files that hold it, draws, and the truth about a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo.stream import model, scores
from fallback.errors import InvalidError
from gateway.confidence import score
from gateway.manifest import check
from gateway.model import Model

VALUES = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.55, 0.45], [0.5, 0.5]])
LABELS = np.array([0, 1, 0, 1, 1])
FOUND = scores.make(VALUES, LABELS)


def test_the_truth_about_a_threshold() -> None:
    """How much it lets through, and how much of that is wrong."""
    assert FOUND.activation == "none"
    assert FOUND.wrong.tolist() == [False, False, False, True, True]
    assert (FOUND.coverage(0.5), FOUND.risk(0.5)) == (0.4, 0.0)
    assert (FOUND.coverage(0.05), FOUND.risk(0.05)) == (0.8, 0.25)
    assert (FOUND.coverage(1.0), FOUND.risk(1.0)) == (0.0, 0.0)


def test_the_oracle_takes_the_loosest_threshold_and_never_splits_a_tie() -> None:
    """The third row alone would be let through without an error, but no threshold tells it from the fourth."""
    assert FOUND.oracle(0.0) == 0.4
    assert FOUND.oracle(0.25) == 0.8
    assert FOUND.oracle(0.4) == 1.0
    assert scores.make(VALUES, 1 - LABELS).oracle(0.1) == 0.0


def test_scores_that_are_no_probabilities_are_taken_for_logits() -> None:
    """And become probabilities as the gateway makes them."""
    logits = np.array([[3.0, -1.0], [0.5, 2.0]])
    found = scores.make(logits, np.array([0, 1]))
    assert found.activation == "softmax"
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(found.margins, np.abs(expected[:, 0] - expected[:, 1]))


def test_draws_are_with_replacement_and_the_seeds_own() -> None:
    """More requests than rows, the same again for the same seed."""
    rows = FOUND.draw(1000, 3)
    assert np.array_equal(rows, FOUND.draw(1000, 3))
    assert not np.array_equal(rows, FOUND.draw(1000, 4))
    assert set(rows.tolist()) == set(range(5))


@pytest.mark.parametrize(
    ("values", "labels", "said"),
    [
        (VALUES[0], LABELS, "--scores: expected an array"),
        (VALUES[:, :1], LABELS, "--scores: expected an array"),
        (VALUES.astype(int), LABELS, "--scores: expected finite"),
        (VALUES * np.nan, LABELS, "--scores: expected finite"),
        (VALUES, LABELS[:3], "--labels: expected 5 whole numbers"),
        (VALUES, LABELS.astype(float), "--labels: expected 5 whole numbers"),
        (VALUES, LABELS + 1, "--labels: expected numbers from 0 to 1, got 1 to 2"),
    ],
)
def test_what_cannot_be_streamed_is_refused(values: np.ndarray, labels: np.ndarray, said: str) -> None:
    """By the option's name, with what was expected and got."""
    with pytest.raises(InvalidError, match=said):
        scores.make(values, labels)


def test_files_that_hold_no_arrays_are_refused(tmp_path: Path) -> None:
    """A file that is not there, one that is something else, and pickles, which are never read."""
    good = tmp_path / "labels.npy"
    np.save(good, LABELS)
    text = tmp_path / "text.npy"
    text.write_text("hello")
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    for path in (tmp_path / "none.npy", text, objects):
        with pytest.raises(InvalidError, match=r"--scores .*: expected an .npy file"):
            scores.load(path, good)
    np.save(tmp_path / "scores.npy", VALUES)
    assert scores.load(tmp_path / "scores.npy", good).oracle(0.0) == 0.4


def test_the_model_says_what_the_file_says(tmp_path: Path) -> None:
    """Run as the gateway runs it, it gives the same margins to the last bit, and its manifest may be published."""
    rng = np.random.default_rng(0)
    found = scores.make(rng.dirichlet(np.ones(4), size=50), rng.integers(4, size=50))
    loaded = Model.load(model.save(4, tmp_path / "stream.onnx"), device="cpu", threads=1)
    try:
        said = loaded.run({model.INPUT: found.values})[model.OUTPUT]
    finally:
        loaded.close()
    assert np.array_equal(score(said, found.activation)[0], found.margins)
    check(model.manifest("stream", found))
