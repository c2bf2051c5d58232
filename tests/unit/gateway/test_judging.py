"""What plain requests are drawn for audits by."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gateway.champion import Live
from gateway.intake import Intake
from gateway.judging import Judge
from gateway.metrics import Metrics
from gateway.model import Model
from gateway.policy import Policy
from gateway.registry import ModelVersion
from gateway.rules import Rules
from gateway.way import Way
from tests.live_gateway import JUDGED, LABELS, told

SHARE = 0.25
ROWS = (*[1] * 3_000, *[7] * 300, 600, 1, 600)


def test_each_plain_row_has_a_draw_of_its_own(tmp_path: Path) -> None:
    """However many come together; so the share that is audited is the one that was asked for."""
    path = tmp_path / "model.onnx"
    path.write_bytes(told(1))
    model = Model.load(path, device="cpu", threads=1)
    facts = msgspec.structs.replace(JUDGED, model="m", version="1", inputs=model.signature.inputs)
    live = Live(
        version=ModelVersion(
            model="m", version="1", folder=tmp_path, manifest=facts, sha256="", create_time=datetime.now(tz=UTC)
        ),
        model=model,
        rules=Rules.compile(Policy(threshold=0.0, audit_share=SHARE), LABELS),
        intake=Intake(inputs=model.signature.inputs, batched=True, preprocess=None, forbid_nan=True, rows_max=16),
        way=Way(instances=1, rows_max=16),
    )
    nobody: Any = None  # nothing is evidence here
    judge = Judge("m", recorder=nobody, hold_off=nobody, metrics=Metrics(), secret=b"", pixels_max=0)
    found = []
    for rows in ROWS:
        decisions, _ = judge.judge([], live, {"p": np.full((rows, 3), 1 / 3, np.float32)}, rows, plain=True)
        assert decisions is not None
        assert len(decisions.draws) == rows
        found.append(decisions)
    draws, audited = (np.concatenate([getattr(each, name) for each in found]) for name in ("draws", "audited"))
    assert len(np.unique(draws)) == len(draws)
    assert ((draws >= 0) & (draws < 1)).all()
    np.testing.assert_array_equal(audited, draws < SHARE)
    assert abs(audited.mean() - SHARE) < 0.04
