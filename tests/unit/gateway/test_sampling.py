"""Which of a request's rows is evidence."""

from __future__ import annotations

from collections import Counter

import numpy as np

from gateway.policy import draw
from gateway.sampling import Epoch
from trainer.certificate import Evidence, advance, begin, certified

ALPHA, DELTA = 0.05, 0.05
EPOCH = Epoch(model="m", name="1", secret=b"s" * 32)


def test_a_row_is_drawn_by_the_key_alone() -> None:
    """Each as often as any other, the same for a retry, independent of the audits' draw; of one row it is that one."""
    found = [EPOCH.evidence_row(f"k{number}", 5) for number in range(5_000)]
    assert found == [EPOCH.evidence_row(f"k{number}", 5) for number in range(5_000)]
    counts = Counter(found)
    assert set(counts) == set(range(5))
    assert max(counts.values()) - min(counts.values()) < 200
    audited = [row for number, row in enumerate(found) if EPOCH.draw(f"k{number}") < 0.2]
    assert abs(np.mean(audited) - 2) < 0.2
    assert EPOCH.evidence_row("k", 1) == 0
    assert EPOCH.draw("k") == draw(EPOCH.secret, model="m", epoch="1", request_key="k")


def test_rows_that_are_wrong_together_prove_nothing_when_each_counts() -> None:
    """Eight rows a request, all right or all wrong, a risk just above alpha: counted each for itself they prove alpha
    far too often, one drawn of each at most as often as was said.
    """  # noqa: D205 - one sentence needs two lines
    rng, runs, requests, rows = np.random.default_rng(5), 150, 500, 8
    false = {"all": 0, "one": 0}
    for _ in range(runs):
        errors = (rng.random(requests) < 1.02 * ALPHA).astype(np.float64)
        for name, seen in (("all", np.repeat(errors, rows)), ("one", errors)):
            ones = np.ones(len(seen))
            state = advance(begin(1), Evidence(confidence=ones, weight=ones, error=seen), np.array([0.5]), ALPHA)
            false[name] += int(certified(state, DELTA)) == 1
    assert false["one"] <= 15
    assert false["all"] > 45
