"""What is counted shows on the page."""

from __future__ import annotations

import urllib.request

import pytest

from fallback.errors import ConfigError
from gateway import metrics
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
    counted.batch_rows.labels("digits").observe(2)
    counted.batch_rows.labels("digits").observe_all([2, 3, 5_000])
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


def test_a_port_in_use_names_the_key() -> None:
    """And two gateways in one process do not meet."""
    page = metrics.serve(metrics.Metrics(), "127.0.0.1:0")
    try:
        with pytest.raises(ConfigError, match=f"gateway.metrics_listen: cannot listen on {page.address}"):
            metrics.serve(metrics.Metrics(), page.address)
    finally:
        page.close()
