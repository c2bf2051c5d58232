"""What came of a model's requests in Triton's words: what inference.ModelStatistics says of it.

Counted is since the version went live, whoever asked and by whichever protocol: as the metrics page has it, less what
that had when the version took over (requests of some milliseconds, and of a tenth of a second
at most while the old version's last batch runs, may count to either).

    inference_count, execution_count  rows and runs
    success   requests that were answered, those included that a person is asked about; `ns` is what requests waited and
              were computed together, since nobody measures what reading, parking and writing them takes
    fail      requests that were refused, were too late or were given up; nobody measures how long they took: 0
    queue     how long requests waited for their run
    compute_infer  the run itself; each request counts all of the run that it was in, as Triton's do
    compute_input, compute_output  nobody measures them: 0
    cache_hit, cache_miss          there is no cache: 0
    batch_stats    for each number of rows how many runs had so many, and how long these took
    last_inference when the newest run began

There is no `response_stats`, which are of models with several replies a request, nor `memory_usage`.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

from typing import Any, Final

from demur import kserve
from gateway.counted import Counted
from gateway.registry import ModelVersion

_NS: Final = 1e9
_UNMEASURED: Final = ("compute_input", "compute_output")


def model_statistics(version: ModelVersion, counted: Counted, *, last_ms: int) -> Any:
    """Return the ModelStatistics of a live version; `last_ms`: when its newest run began, Unix milliseconds."""
    found = kserve.ModelStatistics(
        name=version.model,
        version=version.version,
        last_inference=last_ms if counted.runs else 0,
        inference_count=counted.rows,
        execution_count=counted.runs,
    )
    stats = found.inference_stats
    _put(stats.success, counted.succeeded, counted.queue_seconds + counted.compute_seconds)
    _put(stats.fail, counted.failed)
    _put(stats.queue, counted.queued, counted.queue_seconds)
    _put(stats.compute_infer, counted.computed, counted.compute_seconds)
    for name in (*_UNMEASURED, "cache_hit", "cache_miss"):
        _put(getattr(stats, name))
    for rows, (runs, seconds) in sorted(counted.sizes.items()):
        batch = found.batch_stats.add(batch_size=rows)
        _put(batch.compute_infer, runs, seconds)
        for name in _UNMEASURED:
            _put(getattr(batch, name))
    return found


def _put(duration: Any, count: int = 0, seconds: float = 0.0) -> None:
    duration.SetInParent()  # there, as Triton has it, though it may be 0
    duration.count = count
    duration.ns = max(0, round(seconds * _NS))
