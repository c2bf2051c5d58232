"""Latencies as histograms."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.serve import latencies


def test_percentiles_are_those_of_the_values_to_three_digits() -> None:
    """From the median to p99.99 and the slowest, and the curve rises in both directions."""
    took = np.random.default_rng(1).exponential(2.0, 50_000)
    got = latencies.latency(latencies.histogram(took))
    for value, share in ((got.p50_ms, 0.5), (got.p99_ms, 0.99), (got.p9999_ms, 0.9999), (got.max_ms, 1.0)):
        assert value == pytest.approx(np.quantile(took, share), rel=2e-3)
    assert got.count == 50_000
    assert got.mean_ms == pytest.approx(took.mean(), rel=1e-3)
    percentiles, ms = zip(*got.curve, strict=True)
    assert list(percentiles) == sorted(percentiles)
    assert list(ms) == sorted(ms)
    assert (percentiles[0], percentiles[-1], ms[-1]) == (0, 100, got.max_ms)


def test_histograms_of_several_processes_merge_exactly() -> None:
    """As if one had seen it all; one that saw nothing adds nothing."""
    took = np.random.default_rng(2).exponential(5.0, 10_000)
    parts = [latencies.latency(latencies.histogram(part)).hdr for part in np.array_split(took, 3)]
    assert latencies.latency(latencies.merged("", *parts)) == latencies.latency(latencies.histogram(took))


def test_nothing_took_no_time() -> None:
    """Rather than an error in the middle of a run of which nothing came back."""
    got = latencies.latency(latencies.histogram(np.array([])))
    assert (got.count, got.p99_ms, got.curve, got.hdr) == (0, 0, (), "")
