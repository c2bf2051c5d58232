"""What is parked of a plain request's slip is what the general path parks of the request."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from fallback.answer import LabelOption, Task
from fallback.deferral import Parking
from gateway.champion import Live
from gateway.declined import parted
from gateway.metrics import Metrics
from gateway.parking import parking
from gateway.policy import Policy
from gateway.quick import Answered
from gateway.rules import Rules
from gateway.slip import Blank, Terms, readable
from tests.live_gateway import JUDGED, LABELS
from tests.unit.gateway import test_plain
from tests.unit.gateway.test_plain import WAYS, outputs_of

live = test_plain.live
PARKING = Parking(
    queue="m",
    client="local",
    idempotency_key="",
    input_digest="0" * 64,
    task=Task(question="Which one?", labels=(LabelOption(label="a", key="a"),)),
    subject=b"{}",
    media_type="application/json",
    attributes={},
)


@pytest.mark.parametrize("way", WAYS)
def test_a_slip_says_all_that_is_parked(live: Live, way: str) -> None:
    """Whatever was decided; but for the digest of an input without an axis of rows, which no key asks for."""
    form, asked, wording, _ = WAYS[way]
    draw, metrics, seen = random.Random(3), Metrics(), 0
    # Numbers are any bytes here.
    live = replace(live, intake=replace(live.intake, forbid_nan=False))
    while seen < 300:
        jobs = test_plain._jobs(draw, live, form, asked, wording, metrics)
        rows = sum(job.rows for job in jobs)
        policy = Policy(threshold=0.5, audit_share=0.5, class_thresholds={"a": 0.9}, always_person=("b",))
        decisions = Rules.compile(policy, LABELS).decide(
            confidence=np.array([draw.random() for _ in range(rows)]),
            predicted=np.array([draw.randrange(3) for _ in range(rows)]),
            scores=np.ones(rows),
            draws=np.array([draw.random() for _ in range(rows)]),
        )
        batch = Answered(live, decisions, jobs, outputs_of(draw, rows), start=7.0, compute_seconds=0.25)
        answered, found = parted(batch, jobs)
        assert {id(jobs[number]) for number in answered} >= {id(one.asker) for one in found if not one.deferred}
        for one in found:
            assert one.plain is not None
            job, first = one.plain.job, one.plain.first
            assert JUDGED.task is not None
            places = (*one.deferred, *one.audited)
            slips = one.plain.slips(places)
            terms = Terms("m", "1", "m", LABELS, JUDGED.task, "x", job.question.datatype, job.fit.row)
            blank, made_before = Blank.of(terms), readable(terms, slips)
            for row, slip, values in zip(places, slips, draw.choice((made_before, [None] * len(slips))), strict=True):
                wanted = parking(job.request, job.prepared, live, decisions, first=first, row=row)
                made = msgspec.structs.replace(slip.parking(blank, values), input_digest=wanted.input_digest)
                # NaN is equal to nothing, but its bytes are.
                assert msgspec.msgpack.encode(made) == msgspec.msgpack.encode(wanted)
                seen += 1
