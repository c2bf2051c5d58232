"""How a model's requests are batched: the manifest's table `[batching]`, in Triton's words.

What a word means is what Triton's model configuration says of it (ModelDynamicBatching, ModelQueuePolicy:
https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto); `max_batch_size` counts rows,
and `instances` is the count of its instance group.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fallback.errors import InvalidError

LEVELS_MAX: Final = 100
INSTANCES_MAX: Final = 256
SIZES_MAX: Final = 16
_MICROSECONDS_MAX: Final = 3_600_000_000

Microseconds = Annotated[int, Meta(ge=0, le=_MICROSECONDS_MAX)]


class QueuePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how many requests of one priority level may wait.

    After `default_timeout_microseconds` (0: never) a request is refused (REJECT), or waits behind all that are in time,
    of its level and of those before it (DELAY). A request may ask for a shorter timeout where `allow_timeout_override`.
    `max_queue_size`: requests that wait at most, 0 for no such limit.
    """

    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"
    default_timeout_microseconds: Microseconds = 0
    allow_timeout_override: bool = False
    max_queue_size: Annotated[int, Meta(ge=0, le=1_000_000)] = 0

    def timeout_us(self, asked_us: int) -> int:
        """Return after how long a request that asks for `asked_us` (0: nothing) is out of time; 0: never."""
        default = self.default_timeout_microseconds
        if self.allow_timeout_override and asked_us and (not default or asked_us < default):
            return asked_us
        return default

    @property
    def delays(self) -> bool:
        """Whether who is out of time goes on waiting."""
        return self.timeout_action == "DELAY"


class Padding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs whose `axis` (0 is that of rows) may have any size are filled up with `value` to the next of `sizes`.

    Outputs whose same axis may have any size are cut back. For models to which what is filled up makes no difference.
    """

    axis: Annotated[int, Meta(ge=1, le=7)]
    sizes: Annotated[tuple[Annotated[int, Meta(ge=1, le=1_000_000)], ...], Meta(min_length=1, max_length=SIZES_MAX)]
    value: float = 0.0


class Batching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests are put together, who goes first, and how long anybody waits.

    `max_batch_size` in rows. Level 1 goes first; a request that names no level, or none that there is, has
    `default_priority_level`. `preserve_ordering`: replies go out in the order in which requests came. `instances`: runs
    that may be under way at a time, 0 for as many as make sense.
    """

    max_batch_size: Annotated[int, Meta(ge=1, le=4096)] = 64
    max_queue_delay_microseconds: Microseconds = 0
    priority_levels: Annotated[int, Meta(ge=0, le=LEVELS_MAX)] = 0
    default_priority_level: Annotated[int, Meta(ge=0, le=LEVELS_MAX)] = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    priority_queue_policy: dict[int, QueuePolicy] = {}
    preserve_ordering: bool = False
    instances: Annotated[int, Meta(ge=0, le=INSTANCES_MAX)] = 0
    padding: Padding | None = None

    @property
    def plain(self) -> bool:
        """Whether all are alike, and only their deadlines end their waiting."""
        return not self.priority_levels and self.default_queue_policy == QueuePolicy()

    def level(self, asked: int) -> int:
        """Return the level of a request that asks for `asked`; 0 where there are none."""
        return asked if 1 <= asked <= self.priority_levels else self.default_priority_level

    def policy(self, level: int) -> QueuePolicy:
        """Return what holds for a level."""
        return self.priority_queue_policy.get(level, self.default_queue_policy)


def check_batching(batching: Batching) -> None:
    """Raise InvalidError, naming the field, where the settings contradict each other."""
    levels, default = batching.priority_levels, batching.default_priority_level
    least = min(1, levels)
    if not least <= default <= levels:
        said = f"1 to {levels}" if levels else "0 where priority_levels is 0"
        raise InvalidError(f"batching.default_priority_level: expected {said}, got {default}")
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            said = f"levels from 1 to {levels}" if levels else "none where priority_levels is 0"
            raise InvalidError(f"batching.priority_queue_policy: expected {said}, got {level}")
    if batching.padding is not None and list(batching.padding.sizes) != sorted(set(batching.padding.sizes)):
        raise InvalidError(f"batching.padding.sizes: expected them rising, got {list(batching.padding.sizes)}")
    if not batching.preserve_ordering:
        return
    if levels > 1:
        raise InvalidError(f"batching.priority_levels: expected at most 1 where preserve_ordering is set, got {levels}")
    policies = (batching.default_queue_policy, *batching.priority_queue_policy.values())
    if any(policy.delays for policy in policies):
        raise InvalidError("batching.timeout_action: expected REJECT where preserve_ordering is set, got DELAY")
