"""What `demur bench serve` makes of what it sees."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from benchmarks import bench_serve
from benchmarks.serve import closed, ground, measures, models
from benchmarks.serve.closed import Closed
from benchmarks.serve.measures import Loop, Measured
from fallback.errors import InvalidError, UnavailableError

SAID = (
    "finished in 2.50s, 400.00 req/s, 9KB/s\nrequests: 1000 total, 1000 started, 1000 done, 1000 succeeded\n"
    "traffic: 90KB (90000) total, 9KB (9000) headers (space savings 90%), 78.0KB (79840) data\n"
)


def test_what_h2load_says_is_read() -> None:
    """The rate, the calls without an answer, which HTTP took for successes, and percentiles of its log."""
    found = closed.read(SAID, [f"1 200 {1000 * number}" for number in range(1, 101)], calls=1000, answer_bytes=80)
    assert (found.rate, found.failed) == (400.0, 2)
    assert (found.p50_ms, found.p99_ms) == (50.0, 99.0)
    with pytest.raises(UnavailableError, match="not known"):
        closed.read("nothing", [], calls=1, answer_bytes=80)


def test_without_h2load_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than measuring a slow client."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="apt-get install nghttp2-client"):
        bench_serve.run(names=("tiny",), as_json=True, quick=True)


def test_promises_are_ratios_within_a_round() -> None:
    """Each side's rate over the other's, and the server's own time beside."""

    def loops(*rates: float) -> list[Loop]:
        return [Loop(Closed(rate, 1.0, 2.0, 3.0, 0), 40.0) for rate in rates]

    found = Measured("tiny", loops(100, 200), loops(50, 50), loops(90, 150), loops(20, 40), [("best", 1.0)] * 2)
    by_name = {figure.name: figure for figure in measures.figures(found)}
    assert by_name["tiny: cq over its raw echo"].ratio.low == 0.75
    assert by_name["tiny: cq over aio"].ratio.median == 4.125
    assert measures.cpu(found)["cq"].median == 40.0
    assert not measures.failed(found)
    assert [check.ok for check in measures.checks(list(by_name.values()))] == [True, True, False, False]


def test_models_are_what_they_say() -> None:
    """Ten probabilities a row, sure of nearly all, within the rows of one run."""
    from gateway.model import Model

    for name in ("tiny", "mid"):
        assert models.SHAPES[name].rows_max >= 32
    loaded: Model = measures._loaded("tiny", 1)
    found = loaded.run({"x": models.rows("tiny", 200)})["p"]
    assert found.shape == (200, 10)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-4)
    assert (found.max(axis=1) > models.THRESHOLD).mean() > 0.95


def test_a_model_that_is_none_is_named() -> None:
    """With those there are."""
    assert bench_serve.named(["mid"]) == ("mid",)
    assert bench_serve.named(None) == ("tiny", "mid", "conv")
    with pytest.raises(InvalidError, match="expected some of tiny, mid, conv, got 'large'"):
        bench_serve.named(["large"])


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_a_method_that_is_refused_is_no_throughput() -> None:
    """Though HTTP says 200."""
    with (
        ground.echo("cq") as served,
        pytest.raises(UnavailableError, match="does not answer"),
    ):
        closed.saturate(served.address, "/demur.bench.Echo/Nope", b"x", calls=4)
