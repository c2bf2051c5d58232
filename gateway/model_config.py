"""A live model's configuration in Triton's words: what inference.ModelConfig says of it.

Only what is so here is said. `dims` are without the axis of rows, `max_batch_size` is in rows, 0 for a model whose
tensors have no such axis. The one version that is live is a "specific" version policy. A model always has dynamic
batching, whatever its runs hold: what that says of priorities and timeouts is in force for each. That replies come one
a request (`decoupled` is false), and that there are neither sequences nor ensembles, is what load generators ask for.
Of padding, labels and what is done with a subject Triton's configuration knows no words.

https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from demur import kserve
from gateway.batching import Batching, QueuePolicy
from gateway.champion import Live
from gateway.manifest import ARTEFACT, TensorSpec
from gateway.model import CPU
from gateway.way import rows_max

PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
# ONNX Runtime's providers take the first one unless told otherwise.
_GPU: Final = 0


def model_config(live: Live) -> Any:
    """Return the ModelConfig of what is live."""
    manifest, signature = live.manifest, live.model.signature
    found = kserve.ModelConfig(
        name=live.version.model,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=rows_max(manifest) if manifest.batched else 0,
        default_model_filename=ARTEFACT,
        model_transaction_policy={"decoupled": False},
    )
    found.version_policy.specific.versions.append(int(live.version.version))
    _add(found.input, signature.inputs, batched=manifest.batched)
    _add(found.output, signature.outputs, batched=manifest.batched)
    kind, gpus = ("KIND_CPU", []) if live.model.provider == CPU else ("KIND_GPU", [_GPU])
    found.instance_group.add(name=live.version.model, kind=kind, count=live.way.instances, gpus=gpus)
    _describe(found.dynamic_batching, manifest.batching)
    return found


def _add(listed: Any, specs: Sequence[TensorSpec], *, batched: bool) -> None:
    for spec in specs:
        listed.add(name=spec.name, data_type=data_type(spec.datatype), dims=spec.shape[batched:])


def data_type(datatype: str) -> str:
    """Return what a configuration calls an element type that messages call `datatype`."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _describe(found: Any, batching: Batching) -> None:
    found.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
    found.preserve_ordering = batching.preserve_ordering
    found.priority_levels = batching.priority_levels
    found.default_priority_level = batching.default_priority_level
    _put(found.default_queue_policy, batching.default_queue_policy)
    for level, policy in batching.priority_queue_policy.items():
        _put(found.priority_queue_policy[level], policy)


def _put(found: Any, policy: QueuePolicy) -> None:
    found.SetInParent()  # said, though it may have nothing but defaults
    found.timeout_action = found.TimeoutAction.Value(policy.timeout_action)
    found.default_timeout_microseconds = policy.default_timeout_microseconds
    found.allow_timeout_override = policy.allow_timeout_override
    found.max_queue_size = policy.max_queue_size
