"""What is on its way to the queue is bounded in rows and in bytes, and what there is no room for is refused."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fallback.answer import Subject
from gateway.backlog import Backlog
from gateway.declined import Declined


def declined(weight: int, *, rows: int = 1, subject: bytes = b"") -> Declined:
    """A request of `weight` bytes, its subject apart, `rows` of which go to people."""
    arrays = {"x": np.zeros(weight, np.uint8)}
    shown = Subject(content=subject, media_type="image/png") if subject else None
    asker = SimpleNamespace(
        request=SimpleNamespace(tensors=arrays, subject=shown), prepared=SimpleNamespace(arrays=arrays)
    )
    return Declined(asker=cast("Any", asker), deferred=tuple(range(rows)), audited=())


def test_a_request_weighs_what_it_brought() -> None:
    """Its tensors once, though they are prepared without a copy, and its subject."""
    assert declined(100).weight == 100
    assert declined(100, subject=b"12345").weight == 105


def test_texts_and_what_the_model_made_of_a_request_weigh_too() -> None:
    """A text is more than the reference to it."""
    texts = np.array([["x" * 1_000, "y" * 500]], object)
    asker = SimpleNamespace(
        request=SimpleNamespace(tensors={"text": texts}, subject=None), prepared=SimpleNamespace(arrays={})
    )
    result = SimpleNamespace(outputs={"embedding": np.zeros((1, 1_000), np.float32)})
    result.kept = lambda: result
    found = Declined(asker=cast("Any", asker), deferred=(0,), audited=(), result=cast("Any", result))
    assert found.weight == 1_500 + texts.nbytes + 4_000


@pytest.mark.parametrize("limit", ["parkings_max", "parkings_bytes_max"])
def test_what_there_is_no_room_for_is_refused_and_told_which_setting_says_so(limit: str) -> None:
    """Of a batch as many go as there is room for, smaller ones behind larger ones too."""
    rows_max, bytes_max = (3, 10_000) if limit == "parkings_max" else (1_000, 30)
    backlog = Backlog(rows_max=rows_max, bytes_max=bytes_max)
    batch = [declined(20), declined(20, rows=3), declined(5)]
    wanted, refused = backlog.admit(batch)
    assert (wanted, [one for one, _ in refused]) == ([batch[0], batch[2]], [batch[1]])
    (error,) = (error for _, error in refused)
    assert limit in error.message.partition("setting ")[2].rstrip(")").split()
    assert error.retry_after_seconds
    backlog.leave(wanted)
    assert backlog.admit([batch[1]]) == ([batch[1]], [])


def test_a_request_larger_than_all_goes_alone() -> None:
    """It would never go otherwise; nothing goes beside it."""
    backlog = Backlog(rows_max=10, bytes_max=10)
    large, small = declined(1_000), declined(1)
    assert backlog.admit([large]) == ([large], [])
    assert not backlog.admit([small])[0]
    backlog.leave([large])
    assert backlog.admit([small]) == ([small], [])
    assert not backlog.admit([large])[0]


def test_what_left_has_made_room_for_as_much() -> None:
    """After any number of batches nothing is counted that is not there."""
    draw, backlog = random.Random(1), Backlog(rows_max=20, bytes_max=1_000)
    under_way: list[Declined] = []
    for _ in range(500):
        wanted, _ = backlog.admit([declined(draw.randrange(400), rows=draw.randrange(1, 6)) for _ in range(3)])
        under_way += wanted
        assert sum(each.rows for each in under_way) <= 20
        assert sum(each.weight for each in under_way) <= 1_000
        gone = under_way[: draw.randrange(len(under_way) + 1)]
        del under_way[: len(gone)]
        backlog.leave(gone)
    backlog.leave(under_way)
    assert backlog.admit([declined(1_000, rows=20)])[0]
