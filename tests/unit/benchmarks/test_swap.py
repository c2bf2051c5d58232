"""What `demur bench swap` makes of what it sees, and what its client makes of HTTP/2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.serve import measures, models, sender, windows
from benchmarks.serve.sender import Load
from benchmarks.serve.sending import Shots
from benchmarks.serve.windows import Left, Window
from gateway.model import Model


def shots(*rows: tuple[float, float, int, int, tuple[float, float, float]]) -> Shots:
    """Return columns of (due s, latency ms, code, version, run)."""
    due, latency, code, version, run = zip(*rows, strict=True)
    return Shots(
        due=np.array(due),
        lag_ms=np.zeros(len(rows)),
        latency_ms=np.array(latency),
        code=np.array(code, np.int16),
        retry=np.zeros(len(rows), np.bool_),
        version=np.array(version, np.int32),
        run=np.array(run),
    )


def test_windows_are_told_from_the_time_outside() -> None:
    """A window's p99 over that outside; the first that a new version answered; loads that fail are in neither."""
    found = windows.judged(
        shots(
            (0.5, 1.0, 0, 1, (1.0, 0.1, 0.1)),
            (1.5, 3.0, 0, 1, (1.0, 0.2, 0.1)),
            (1.6, 2.0, 0, 2, (2.0, 0.3, 0.1)),
            (2.5, 1.0, 0, 2, (2.0, 0.4, 0.1)),
            (3.5, 9.0, 0, 2, (2.0, 0.5, 0.1)),
            (4.5, 7.0, 8, 0, (0.0, 0.0, 0.0)),
        ),
        [Window(1.0, 2.0, 2), Window(3.0, 4.0, None)],
        {1: 1.0, 2: 2.0},
        [100, 100, 104],
        settled=2,
    )
    assert (found.p99_ratio, found.p99_max_ms, found.first_request_ratio) == (3.0, 3.0, 2.0)
    assert (found.failed_requests, found.mixed_batches, found.wrong_version, found.batches) == (1, 0, 0, 5)
    assert found.failed_codes == {8: 1}
    assert (found.rss_growth, found.p99_failed_loads_ms, found.window_ms) == (0.04, 9.0, 1000.0)
    broken = {each.name for each in windows.checks(found, Left(0.0, 1, 0), swaps=1, wanted=1) if not each.ok}
    assert broken == {
        "failed requests",
        "p99 in swap windows over p99 outside",
        "threads that failed loads left behind",
    }


def test_a_batch_whose_replies_differ_in_version_is_seen() -> None:
    """By the name in the reply or by the mark of what ran; and a reply that names another than ran is wrong."""
    found = windows.judged(
        shots(
            (0.1, 1.0, 0, 1, (1.0, 0.5, 0.5)),
            (0.2, 1.0, 0, 2, (1.0, 0.5, 0.5)),
            (0.3, 1.0, 0, 2, (2.0, 0.6, 0.5)),
            (0.4, 1.0, 0, 2, (2.0, 0.6, 0.5)),
        ),
        [Window(0.25, 0.5, 2)],
        {1: 1.0, 2: 2.0},
        [1],
        settled=1,
    )
    assert (found.mixed_batches, found.wrong_version, found.batches) == (1, 1, 2)


def test_a_marked_model_tells_its_version_and_its_batch(tmp_path: Path) -> None:
    """In every row: the mark, and sums over the batch that tell it from any other."""
    for name in ("tiny", "conv"):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(models.artefact(name, mark=7.0))
        rows = models.rows(name, 3)
        run = Model.load(path, device="cpu", threads=1).run({"x": rows})[models.RUN]
        sums = rows.reshape(3, -1)[:, :2].astype(float).sum(axis=0)
        assert np.allclose(run, [[7.0, *sums]] * 3)


def test_each_request_is_stamped() -> None:
    """Where its row's first two numbers are, with numbers of its own, and nothing else is changed."""
    payload = measures.asked("tiny")
    at = len(payload) - models.rows("tiny", 1).nbytes
    load = Load(address="", payload=payload, start=0.0, rate=100.0, seconds_max=1.0, stamp_at=at)
    made = sender.Sender(load, [])
    first, second = made.stamped(0), made.stamped(1)
    assert first != second
    assert {first[:at] + first[at + 8 :], second[:at] + second[at + 8 :]} == {payload[:at] + payload[at + 8 :]}
