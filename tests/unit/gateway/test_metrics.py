"""What is counted shows on the page."""

from __future__ import annotations

import urllib.request

import pytest

from fallback.errors import ConfigError
from gateway import metrics
from gateway.counted import Counted
from gateway.rules import Decision


def _page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        text: str = reply.read().decode()
        return text


def test_the_page_shows_what_was_counted() -> None:
    """Requests by model, decision and code; the champion of now only."""
    counted = metrics.Metrics()
    counted.requests.labels("digits", "answered", "OK").inc()
    counted.answered("digits", Decision.ANSWERED).inc()
    assert counted.answered("digits", "answered") is counted.answered("digits", Decision.ANSWERED)
    counted.stage_seconds.labels("digits", "queue").observe(0.001)
    for rows in (2, 2, 3, 5_000):
        counted.runs("digits").observe(1, rows, 0.125)
    counted.set_champion("digits", "1", "CPUExecutionProvider")
    counted.set_champion("digits", "2", "CPUExecutionProvider")
    page = metrics.serve(counted, "127.0.0.1:0")
    try:
        text = _page(page.address)
        assert metrics.providers(page.address) == ["CPUExecutionProvider"]
    finally:
        page.close()
    assert metrics.providers(page.address) == []
    assert 'demur_requests_total{code="OK",decision="answered",model="digits"} 2.0' in text
    for bound, count in (("1.0", 0), ("2.0", 2), ("4.0", 3), ("1024.0", 3), ("+Inf", 4)):
        assert f'demur_batch_rows_bucket{{le="{bound}",model="digits"}} {count}.0' in text
    assert 'demur_batch_rows_sum{model="digits"} 5007.0' in text
    assert 'demur_champion{model="digits",provider="CPUExecutionProvider",version="2"} 1.0' in text
    assert 'version="1"' not in text
    assert 'demur_stage_seconds_count{model="digits",stage="queue"} 1.0' in text
    assert 'demur_stage_seconds_bucket{le="0.1",model="digits",stage="compute"} 0.0' in text
    assert 'demur_stage_seconds_bucket{le="0.25",model="digits",stage="compute"} 4.0' in text
    assert 'demur_stage_seconds_sum{model="digits",stage="compute"} 0.5' in text


def test_what_is_counted_begins_anew_with_each_version() -> None:
    """Of that model alone; saying once more which version is live changes nothing."""
    counted = metrics.Metrics()

    def count(requests: int) -> None:
        counted.answered("m", Decision.ANSWERED).inc(requests)
        counted.requests.labels("m", "", "INVALID_ARGUMENT").inc()
        counted.stage_seconds.labels("m", "queue").observe_all([0.25] * requests)
        counted.runs("m").observe(requests, 2 * requests, 0.5)

    counted.set_champion("m", "1", "cpu")
    count(2)
    counted.set_champion("m", "1", "cpu")
    first = Counted(
        succeeded=2, failed=1, queued=2, queue_seconds=0.5, computed=2, compute_seconds=1.0, sizes={4: (1, 0.5)}
    )
    assert counted.counted(["m", "other"]) == {"m": first, "other": Counted()}
    counted.set_champion("m", "2", "cpu")
    assert counted.counted(["m"]) == {"m": Counted()}
    count(3)
    found = counted.counted(["m"])["m"]
    assert (found.succeeded, found.failed, found.rows, found.runs) == (3, 1, 6, 1)
    assert found.sizes == {6: (1, 0.5)}


def test_a_port_in_use_names_the_key() -> None:
    """And two gateways in one process do not meet."""
    page = metrics.serve(metrics.Metrics(), "127.0.0.1:0")
    try:
        with pytest.raises(ConfigError, match=f"gateway.metrics_listen: cannot listen on {page.address}"):
            metrics.serve(metrics.Metrics(), page.address)
    finally:
        page.close()
