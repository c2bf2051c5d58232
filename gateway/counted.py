"""What came of a model's requests, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was counted until now.

    `succeeded` and `failed`: requests by how they ended. `queued` requests waited `queue_seconds` together; `computed`
    requests were in runs, `compute_seconds` if each counts all of its run. `sizes`: by number of rows how many runs had
    so many, and their seconds.
    """

    succeeded: int = 0
    failed: int = 0
    queued: int = 0
    queue_seconds: float = 0.0
    computed: int = 0
    compute_seconds: float = 0.0
    sizes: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows were run."""
        return sum(rows * runs for rows, (runs, _) in self.sizes.items())

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return sum(runs for runs, _ in self.sizes.values())

    def since(self, before: Counted) -> Counted:
        """Return what came after `before`."""
        sizes = {}
        for rows, (runs, seconds) in self.sizes.items():
            runs_before, seconds_before = before.sizes.get(rows, (0, 0.0))
            if runs > runs_before:
                sizes[rows] = (runs - runs_before, seconds - seconds_before)
        return Counted(
            succeeded=self.succeeded - before.succeeded,
            failed=self.failed - before.failed,
            queued=self.queued - before.queued,
            queue_seconds=self.queue_seconds - before.queue_seconds,
            computed=self.computed - before.computed,
            compute_seconds=self.compute_seconds - before.compute_seconds,
            sizes=sizes,
        )
