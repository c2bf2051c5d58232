"""What was observed adds up, whoever asks for it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.observed import Observed, Runs

ROWS = (1, 2, 4)
SECONDS = (0.5, 1.0)
RUNS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.25, 0.5, 0.75, 2.0])))


@given(runs=RUNS)
def test_runs_are_on_the_page_as_if_rows_and_seconds_were_observed_apart(runs: list[tuple[int, int, float]]) -> None:
    """Bound by bound."""
    found, rows, seconds = Runs(rows=ROWS, seconds=SECONDS), Observed(ROWS), Observed(SECONDS)
    for requests, many, took in runs:
        found.observe(requests, many, took)
        rows.observe(many)
        seconds.observe(took)
    assert (found.rows(), found.seconds()) == (rows.read(), seconds.read())
    assert seconds.total() == (len(runs), sum(took for *_, took in runs))


@given(runs=RUNS)
def test_each_request_counts_all_of_its_run(runs: list[tuple[int, int, float]]) -> None:
    """And each run counts among those of as many rows."""
    found = Runs(rows=ROWS, seconds=SECONDS)
    for each in runs:
        found.observe(*each)
    requests, seconds, sizes = found.read()
    assert (requests, seconds) == (sum(each[0] for each in runs), sum(each[0] * each[2] for each in runs))
    assert {rows: many for rows, (many, _) in sizes.items()} == Counter(rows for _, rows, _ in runs)
    assert sum(took for _, took in sizes.values()) == sum(took for *_, took in runs)
