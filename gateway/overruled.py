"""What people said, in the place of what the model said: the outputs for a caller who waited for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from fallback.answer import Label
from fallback.deferral import Deferral
from fallback.errors import OverdueError, StateError
from gateway.request import Result
from gateway.tensor import Array


def overruled(result: Result, deferrals: Mapping[int, Deferral]) -> dict[str, Array]:
    """Return a result's outputs with the answers of `deferrals`, by row.

    The scores of such a row are 1 for its answer and 0 elsewhere. An output of one value a row that names the model's
    label, by its text or its number as scikit-learn's classifiers do, names the answer. Raises OverdueError where
    nobody answered, StateError where the answer is none that the model could give.
    """
    labels = {row: _label(result, deferral) for row, deferral in deferrals.items()}
    outputs = dict(result.outputs)
    for name, output in outputs.items():
        if name == result.answer_output or output.size == result.rows:
            rows = output.copy().reshape(result.rows, -1)
            for row, label in labels.items():
                if name == result.answer_output:
                    rows[row] = np.arange(rows.shape[1]) == result.labels.index(label)
                else:
                    rows[row] = _named(rows[row], result.label(row), label, result.labels)
            outputs[name] = rows.reshape(output.shape)
    return outputs


def _label(result: Result, deferral: Deferral) -> str:
    outcome = deferral.outcome
    if outcome is None:
        raise OverdueError(f"{deferral.name}: nobody answered within the call's deadline; ask for it by WaitDeferral")
    match outcome.answer:
        case Label(label=label) if label in result.labels:
            return label
        case None:
            raise StateError(f"{deferral.name}: ended without an answer ({outcome.source.value})")
        case other:
            said = msgspec.json.encode(other).decode()[:200]
            raise StateError(f"{deferral.name}: the answer is none that the model could give: {said}")


def _named(value: Array, predicted: str, label: str, labels: tuple[str, ...]) -> Array:
    """Return what stands for `label` where `value` stands for `predicted`, else `value`; both of shape (1,)."""
    found = value.tolist()[0]
    if value.dtype.kind == "O" and found == predicted:
        return np.array([label], object)
    if value.dtype.kind not in "iu":
        return value
    # A label that is a number stands for itself.
    if str(found) == predicted:
        return np.array([label]).astype(value.dtype) if label.lstrip("-").isdigit() else value
    if found == labels.index(predicted):
        return np.array([labels.index(label)], value.dtype)
    return value
