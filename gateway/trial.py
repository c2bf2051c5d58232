"""Tries an artefact nobody has vouched for: read, checked, loaded and run once, in a process of its own.

`gateway.admission` starts `python -m gateway.trial` with a Plan on its standard input and reads a Report from its
standard output. The process takes its limits upon itself before it reads a byte of the artefact; whatever a hostile or
broken file does to it (crash, hang, eat memory) ends there.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fallback.errors import InvalidError
from gateway import leash
from gateway.humble import give_way
from gateway.manifest import TENSORS_MAX, TensorSpec

if TYPE_CHECKING:
    from gateway.model import Model
    from gateway.tensor import Array

# Operators that ONNX Runtime brings itself; anything else would need a library of the publisher's.
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Sizes to try, in this order, for an axis that may have any.
_FREE_AXES: Final = (1, 8, 32, 224)
_MESSAGE_CHARS_MAX: Final = 600


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to try. `rows`: sizes of the first axis where it is free; `shapes`: known sizes of an input's other axes."""

    artefact: str
    memory_bytes: int
    cpu_seconds: int
    parent: int
    rows: tuple[int, ...] = (1, 2)
    shapes: dict[str, tuple[int, ...]] = {}
    golden: tuple[dict[str, list[Any]], ...] = ()


class OutputFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one output looked like when it was tried: its shape for the last rows, its range, whether all was finite."""

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 0.0
    finite: bool = True


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `refused` is empty or the sentence that says why; `golden`: where the outputs are highest."""

    refused: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batched: bool = False
    facts: dict[str, OutputFacts] = {}
    golden: tuple[dict[str, int], ...] = ()


class RefusedError(Exception):
    """The artefact is not let in; the text says why."""


def examine(plan: Plan) -> Report:
    """Read, check, load and run the artefact; a refusal is a Report too."""
    path = Path(plan.artefact)
    try:
        check_graph(path.read_bytes())
        return _run(path, plan)
    except RefusedError as error:
        return Report(refused=_tidy(str(error), path))
    except InvalidError as error:
        return Report(refused=_tidy(error.message, path))
    except MemoryError:
        return Report(refused=f"trying it took more than {plan.memory_bytes} bytes of memory")


def check_graph(content: bytes) -> None:
    """Raise RefusedError unless `content` is an ONNX model in one file that needs no library of its own."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise RefusedError("this is not an ONNX file, or it is cut off") from error
    if not model.opset_import or not model.graph.node:
        raise RefusedError("this is not an ONNX file, or it is cut off: it holds no graph")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise RefusedError(_external(tensor))
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
            raise RefusedError(
                f"node {node.name!r} is the operator {node.op_type!r} of the domain {node.domain!r}; models that need "
                f"a custom-operator library are not let in",
            )
    try:
        onnx.checker.check_model(content)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise RefusedError(f"onnx.checker refuses it: {error}") from error


def _external(tensor: Any) -> str:
    where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    path = PurePosixPath(where)
    absolute = path.is_absolute() or PureWindowsPath(where).is_absolute()
    how = "an absolute path" if absolute else "outside its folder" if ".." in path.parts else "a second file"
    return (
        f"tensor {tensor.name!r} keeps its data outside the model, at {where[:200]!r} ({how}); expected one file that "
        f"holds everything: onnx.save_model(model, path, save_as_external_data=False)"
    )


def _graphs(model: Any) -> Iterator[Any]:
    """Every graph and function of the model, those inside nodes too; a list of its own, since graphs nest deep."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []:
                yield from (sparse.values, sparse.indices)
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)


def _run(path: Path, plan: Plan) -> Report:
    """Load and run it as the gateway will, on the CPU."""
    from gateway.model import Model

    model = Model.load(path, device="cpu", threads=1)
    inputs, outputs = model.signature.inputs, model.signature.outputs
    for what, specs in (("inputs", inputs), ("outputs", outputs)):
        if not 1 <= len(specs) <= TENSORS_MAX:
            raise RefusedError(f"expected 1 to {TENSORS_MAX} {what}, got {len(specs)}")
    batched = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    found: dict[str, Array] = {}
    for rows in plan.rows if batched else (1,):
        found = _try(model, plan, rows if batched else None)
        strays = [name for name, value in found.items() if batched and value.shape[:1] != (rows,)]
        if strays:
            raise RefusedError(
                f"output {strays[0]!r} has shape {list(found[strays[0]].shape)} for {rows} rows; expected {rows} rows, "
                f"since the first axis of every tensor is free",
            )
    return Report(
        inputs=inputs,
        outputs=outputs,
        batched=batched,
        facts={name: _facts(value) for name, value in found.items()},
        golden=tuple(_golden(model, row, batched=batched) for row in plan.golden),
    )


def _try(model: Model, plan: Plan, rows: int | None) -> dict[str, Array]:
    """Run once with made-up rows; an axis of any size is tried in a few."""
    problem: Exception | None = None
    for size in _FREE_AXES:
        feeds = {
            spec.name: _made_up(spec, plan.shapes.get(spec.name, ()), rows, size) for spec in model.signature.inputs
        }
        try:
            return model.run(feeds)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own types of error are not one family
            problem = problem or error
    raise RefusedError(f"a run with made-up input fails: {problem}") from problem


def _made_up(spec: TensorSpec, known: Sequence[int], rows: int | None, free: int) -> Array:
    """Random numbers in [0, 1) for floats, zeros for whole numbers (an index that every table has), empty strings."""
    import numpy as np

    from gateway.tensor import DTYPES

    head = () if rows is None else (rows,)
    rest = spec.shape if rows is None else spec.shape[1:]
    rest = tuple(known) if len(known) == len(rest) else rest
    shape = (*head, *(free if size < 0 else size for size in rest))
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "O":
        return np.full(shape, "", dtype=object)
    if dtype.kind == "f":
        return np.random.default_rng(0).random(shape).astype(dtype)
    return np.zeros(shape, dtype)


def _facts(value: Array) -> OutputFacts:
    import numpy as np

    if value.dtype.kind != "f" or not value.size:
        return OutputFacts(shape=value.shape)
    finite = bool(np.isfinite(value).all())
    known = np.nan_to_num(value.astype(np.float64))
    return OutputFacts(shape=value.shape, low=float(known.min()), high=float(known.max()), finite=finite)


def _golden(model: Model, row: Mapping[str, list[Any]], *, batched: bool) -> dict[str, int]:
    import numpy as np

    from gateway.tensor import DTYPES

    feeds = {}
    for spec in model.signature.inputs:
        if spec.name not in row:
            raise RefusedError(f"golden: expected a value for input {spec.name!r}, got {', '.join(row) or 'none'}")
        try:
            value = np.asarray(row[spec.name], dtype=DTYPES[spec.datatype])
        except (ValueError, TypeError, OverflowError) as error:
            raise RefusedError(f"golden: input {spec.name!r} expects {spec.datatype}: {error}") from error
        feeds[spec.name] = value[np.newaxis] if batched else value
    try:
        outputs = model.run(feeds)
    except Exception as error:
        raise RefusedError(f"golden: a run fails: {error}") from error
    return {name: int(value.argmax()) for name, value in outputs.items() if value.dtype.kind == "f" and value.size}


def _tidy(message: str, path: Path) -> str:
    """Take folders and source lines out of a library's sentence, and bound it."""
    message = message.replace(str(path), path.name).removeprefix(f"{path.name}: ")
    message = re.sub(r"\S*\.(?:cc|cpp|h|cu):\d+\s?", "", message)
    message = " ".join(message.split())
    return message if len(message) <= _MESSAGE_CHARS_MAX else message[: _MESSAGE_CHARS_MAX - 3] + "..."


def _limit(plan: Plan) -> None:
    for what, most in (
        (resource.RLIMIT_AS, plan.memory_bytes),
        (resource.RLIMIT_CPU, plan.cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


def main() -> None:
    """Read a Plan from standard input, write a Report to standard output."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    if sys.platform == "linux":
        leash.die_with(plan.parent)
    _limit(plan)
    give_way()
    # A library may print; only the Report may reach standard output.
    answer = os.dup(1)
    os.dup2(2, 1)
    report = msgspec.json.encode(examine(plan))
    while report:
        report = report[os.write(answer, report) :]


if __name__ == "__main__":
    main()
