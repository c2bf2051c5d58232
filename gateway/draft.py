"""Drafts a manifest from an ONNX file: what the file says of itself, and what is still to be chosen by a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from fallback.answer import LabelOption, Task
from fallback.errors import InvalidError
from gateway.manifest import Manifest, OnDeferral, Output, TensorSpec

# Operators whose output is probabilities already.
_PROBABLE: Final = frozenset(
    {"Softmax", "Sigmoid", "Normalizer", "LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier", "ZipMap"}
)
# Operators that pass numbers on without making other numbers of them.
_PASSING: Final = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
_DATATYPES: Final = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
}
_RANGE: Final = re.compile(r"(\d{1,6})\.\.(\d{1,6})", re.ASCII)
_KEYS: Final = "1234567890abcdefghijklmnopqrstuvwxyz"


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself; `probable`: the outputs that are probabilities for sure."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    probable: frozenset[str]

    def answer(self) -> TensorSpec | None:
        """Return the one output of floats that the answer is read from, or None where there is not one."""
        floats = [spec for spec in self.outputs if spec.datatype.startswith("FP")]
        return floats[0] if len(floats) == 1 else None

    def classes(self) -> int:
        """How many labels the answer's output has room for; 0: unknown."""
        answer = self.answer()
        return max(0, answer.shape[-1]) if answer is not None and answer.shape else 0


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that nobody but the publisher knows."""

    option: str
    what: str


def outline(path: Path) -> Outline:
    """Read an ONNX file's signature; raises InvalidError where it is not one."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is not an ONNX file, or it is cut off"
        raise InvalidError(f"{path}: {reason}") from error
    if not graph.output:
        # No bytes at all read as a model without anything.
        raise InvalidError(
            f"{path}: expected an ONNX file with outputs, got one with none ({path.stat().st_size} bytes)"
        )
    constants = {tensor.name for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    outputs = tuple(map(_spec, graph.output))
    return Outline(
        inputs=tuple(_spec(value) for value in graph.input if value.name not in constants),
        outputs=outputs,
        probable=frozenset(spec.name for spec in outputs if _is_probable(spec.name, producers)),
    )


def _spec(value: object) -> TensorSpec:
    tensor = value.type.tensor_type  # type: ignore[attr-defined]  # onnx's messages have no types here
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    return TensorSpec(
        name=value.name,  # type: ignore[attr-defined]  # onnx's messages have no types here
        datatype=_DATATYPES.get(tensor.elem_type, ""),
        shape=shape,
    )


def _is_probable(name: str, producers: dict[str, object]) -> bool:
    for _ in range(len(producers) + 1):
        node = producers.get(name)
        if node is None:
            return False
        if node.op_type in _PROBABLE:  # type: ignore[attr-defined]  # onnx's messages have no types here
            return True
        if node.op_type not in _PASSING:  # type: ignore[attr-defined]  # onnx's messages have no types here
            return False
        name = node.input[0]  # type: ignore[attr-defined]  # onnx's messages have no types here
    return False


def parse_labels(text: str) -> tuple[str, ...]:
    """Read labels separated by commas or line ends; `0..9` stands for a range of whole numbers."""
    found = _RANGE.fullmatch(text.strip())
    if found is not None:
        return tuple(str(number) for number in range(int(found.group(1)), int(found.group(2)) + 1))
    separated = text.splitlines() if "\n" in text.strip() else text.split(",")
    return tuple(label.strip() for label in separated if label.strip())


def options(labels: Sequence[str]) -> tuple[LabelOption, ...]:
    """Give each label a key: itself where it is one character, else the first free of 1 to 9, 0 and a to z."""
    own = {label for label in labels if len(label) == 1 and label != "?"}
    free = iter([key for key in _KEYS if key not in own])
    return tuple(LabelOption(label=label, key=label if label in own else next(free, "")) for label in labels)


def missing(manifest: Manifest, outlined: Outline, *, reviewed: bool, activation: str | None) -> list[Missing]:
    """List what is still to be chosen before this can be published."""
    classes = outlined.classes()
    left = []
    if not manifest.labels:
        left.append(Missing(option="--labels", what=f"what its {classes or ''} outputs mean".replace("  ", " ")))
    answer = outlined.answer()
    decided = activation is not None or manifest.output.activation != "none"
    if answer is not None and answer.name not in outlined.probable and not decided:
        left.append(Missing(option="--activation", what=f"whether {answer.name!r} holds scores or probabilities"))
    if reviewed and manifest.task is None:
        left.append(Missing(option="--question", what="what a reviewer is asked"))
    if reviewed and manifest.on_deferral is None:
        left.append(Missing(option="--on-deferral", what="what a client that knows nothing of deferrals gets"))
    return left


def fill(
    manifest: Manifest,
    *,
    labels: Sequence[str] = (),
    question: str = "",
    on_deferral: OnDeferral | None = None,
    activation: str | None = None,
    queue: str = "",
    threshold: float | None = None,
) -> Manifest:
    """Return `manifest` with what was chosen; what is empty stays as it is."""
    changes: dict[str, object] = {}
    if labels:
        changes["labels"] = tuple(labels)
    if question:
        known = tuple(labels) or manifest.labels
        changes["task"] = Task(question=question, labels=options(known))
    if on_deferral is not None:
        changes["on_deferral"] = on_deferral
    if activation is not None:
        changes["output"] = msgspec.convert({"tensor": manifest.output.tensor, "activation": activation}, Output)
    if queue:
        changes["queue"] = queue
    if threshold is not None:
        changes["policy"] = msgspec.structs.replace(manifest.policy, threshold=threshold)
    return msgspec.structs.replace(manifest, **changes)
