"""The manifest's table of batching: strict, in Triton's words, and without contradictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import InvalidError
from gateway import manifest
from gateway.batching import Batching, Padding, QueuePolicy, check_batching

WHOLE = """
[batching]
max_batch_size = 8
max_queue_delay_microseconds = 100
priority_levels = 2
default_priority_level = 2
instances = 4

[batching.default_queue_policy]
timeout_action = "DELAY"
default_timeout_microseconds = 5000
allow_timeout_override = true
max_queue_size = 16

[batching.priority_queue_policy.1]
max_queue_size = 4
"""


def test_a_table_is_read_and_written_back_equal() -> None:
    """Levels are numbers, as keys of TOML are text."""
    found = manifest.parse(WHOLE)
    assert found.batching == Batching(
        max_batch_size=8,
        max_queue_delay_microseconds=100,
        priority_levels=2,
        default_priority_level=2,
        instances=4,
        default_queue_policy=QueuePolicy(
            timeout_action="DELAY", default_timeout_microseconds=5000, allow_timeout_override=True, max_queue_size=16
        ),
        priority_queue_policy={1: QueuePolicy(max_queue_size=4)},
    )
    assert manifest.parse(manifest.render(found)) == found
    check_batching(found.batching)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_batch = 8", "did you mean `max_batch_size`?"),
        ("priority_level = 8", "did you mean `priority_levels`?"),
        ("default_queue_policy = {timeout_actions = 'DELAY'}", "did you mean `timeout_action`?"),
        (
            "default_queue_policy = {timeout_action = 'WAIT'}",
            "Invalid enum value 'WAIT' - at `$.batching.default_queue",
        ),
        ("max_batch_size = 0", "`int` >= 1 - at `$.batching.max_batch_size`"),
        ("max_queue_delay_microseconds = 1.5", "Expected `int`, got `float` - at `$.batching.max_queue_delay_micro"),
        ("priority_queue_policy = {high = {}}", "Expected `int`, got `str`"),
        ("padding = {axis = 0, sizes = [4]}", "`int` >= 1 - at `$.batching.padding.axis`"),
        ("padding = {axis = 1, sizes = []}", "length >= 1 - at `$.batching.padding.sizes`"),
        ("padding = {axis = 1, size = [4]}", "did you mean `sizes`?"),
        ("instances = 100000", "`int` <= 256 - at `$.batching.instances`"),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, sentence: str) -> None:
    """Field, expected, got, and the nearest right key."""
    with pytest.raises(InvalidError) as caught:
        manifest.parse(f"[batching]\n{text}")
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("batching", "sentence"),
    [
        (Batching(priority_levels=2), "batching.default_priority_level: expected 1 to 2, got 0"),
        (Batching(priority_levels=2, default_priority_level=3), "default_priority_level: expected 1 to 2, got 3"),
        (Batching(default_priority_level=1), "default_priority_level: expected 0 where priority_levels is 0, got 1"),
        (
            Batching(priority_queue_policy={1: QueuePolicy()}),
            "batching.priority_queue_policy: expected none where priority_levels is 0, got 1",
        ),
        (
            Batching(priority_levels=2, default_priority_level=1, priority_queue_policy={3: QueuePolicy()}),
            "batching.priority_queue_policy: expected levels from 1 to 2, got 3",
        ),
        (
            Batching(priority_levels=2, default_priority_level=1, preserve_ordering=True),
            "batching.priority_levels: expected at most 1 where preserve_ordering is set, got 2",
        ),
        (
            Batching(padding=Padding(axis=1, sizes=(8, 4))),
            "batching.padding.sizes: expected them rising, got [8, 4]",
        ),
        (
            Batching(preserve_ordering=True, default_queue_policy=QueuePolicy(timeout_action="DELAY")),
            "batching.timeout_action: expected REJECT where preserve_ordering is set, got DELAY",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(batching: Batching, sentence: str) -> None:
    """As Triton refuses it, too."""
    with pytest.raises(InvalidError) as caught:
        check_batching(batching)
    assert sentence in caught.value.message


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.booleans())
def test_a_request_may_only_ask_for_less_time_and_where_it_may(default: int, asked: int, override: bool) -> None:
    """0 is without end on either side."""
    policy = QueuePolicy(default_timeout_microseconds=default, allow_timeout_override=override)
    found = policy.timeout_us(asked)
    assert found in {default, asked}
    if not override or not asked:
        assert found == default
    elif default:
        assert found == min(default, asked)
    else:
        assert found == asked
