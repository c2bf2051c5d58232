"""The last automatic answers of a model: which are kept, which are nearest, what is forgotten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gateway.kept import Kept
from gateway.policy import Policy
from gateway.rules import Decisions, Rules

LABELS = ("a", "b")


@dataclass(frozen=True)
class _Asker:
    """A request as far as it is kept."""

    client: str
    name: str
    rows: int = 1


def _decisions(*rows: tuple[float, str]) -> Decisions:
    return Rules.compile(Policy(threshold=0.0, audit_share=0.0), LABELS).decide(
        confidence=np.array([confidence for confidence, _ in rows]),
        predicted=np.array([LABELS.index(label) for _, label in rows], np.intp),
    )


def _add(kept: Kept, *rows: tuple[float, str], first: int = 0, version: str = "1") -> None:
    jobs = [_Asker("shop", str(first + number)) for number in range(len(rows))]
    kept.add(jobs, _decisions(*rows), version, LABELS)


def test_the_nearest_are_of_the_same_version_and_label_by_confidence_and_then_by_age() -> None:
    """Of two that are as near the newer one comes first; a label the version does not know has none."""
    kept = Kept(100)
    _add(kept, (0.9, "a"), (0.7, "a"), (0.81, "b"), (0.6, "a"))
    _add(kept, (0.8, "a"), first=10, version="2")
    _add(kept, (0.7, "a"), first=20)
    found = kept.nearest("1", "a", 0.8, 3)
    assert [answer.request for answer in found] == ["0", "20", "1"]
    assert [answer.confidence for answer in found] == [0.9, 0.7, 0.7]
    assert [answer.request for answer in kept.nearest("2", "a", 0.1, 9)] == ["10"]
    assert kept.nearest("1", "c", 0.8, 3) == kept.nearest("3", "a", 0.8, 3) == []


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_of_what_is_too_much_the_last_stay(batch: int) -> None:
    """However the batches lie across the ring's end, and though one is larger than the ring."""
    kept = Kept(10)
    for first in range(0, 40, batch):
        rows = [(number / 100, "a") for number in range(first, min(40, first + batch))]
        _add(kept, *rows, first=first)
    assert len(kept) == 10
    assert {answer.request for answer in kept.nearest("1", "a", 0.0, 100)} == {str(number) for number in range(30, 40)}
    assert [answer.request for answer in kept.nearest("1", "a", 0.352, 2)] == ["35", "36"]


def test_each_row_is_of_its_own_request_and_rows_left_out_shift_no_other() -> None:
    """A request's name is with all of its rows, and each says which it is."""
    kept, jobs = Kept(10), [_Asker("x", "one", 3), _Asker("y", "two")]
    decisions = _decisions((0.1, "a"), (0.2, "a"), (0.3, "b"), (0.4, "a"))
    kept.add(jobs, decisions, "1", LABELS, np.array([False, True, True, True]))
    found = [(answer.client, answer.request, answer.row) for answer in kept.nearest("1", "a", 0.0, 9)]
    assert found == [("x", "one", 1), ("y", "two", 0)]
    assert [(answer.request, answer.row) for answer in kept.nearest("1", "b", 0.0, 9)] == [("one", 2)]


def test_a_gateway_that_is_told_to_keep_none_keeps_none() -> None:
    """And takes no room for them."""
    kept = Kept(0)
    _add(kept, (0.5, "a"))
    assert (len(kept), kept.nearest("1", "a", 0.5, 3)) == (0, [])
