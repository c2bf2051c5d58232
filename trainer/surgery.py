"""Graph surgery: finds the last linear layer of an ONNX classifier, cuts the graph before it, and puts new weights in.

Theory of operation. Seen from the output that the manifest names, a classifier ends in

    features -> Gemm -> [Identity | Softmax]* -> output            Gemm: alpha A B + beta C, B plain or transposed
    features -> MatMul -> [Add] -> [Identity | Softmax]* -> output  the bias on either side of Add

with weights that are initialisers. `find` walks back over exactly these forms and refuses anything else with the
reason; it returns the layer as float64 `weights` (features x labels) and `bias` (labels), whatever its form in the
file. `cut` returns the graph that ends in the features. `replace` writes new weights as new initialisers and points
only this layer at them, so that weights shared with another node stay what they were for that node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trainer.errors import NotTrainableError

FEATURES: Final = "demur_features"
_TAIL_NODES_MAX: Final = 16
# Before, the axis was 1 unless given and all axes from there on were one: the same thing for two axes.
_SOFTMAX_OPSET: Final = 13
# From here on an initialiser need not stand among the graph's inputs.
_UNLISTED_IR_VERSION: Final = 4
_FLOATS: Final = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLayer:
    """Where the last linear layer is and what it computes: `features @ weights + bias`.

    `node` and `add` are positions in the graph's node list (`add` None where there is no Add); `feature` is the name
    of the tensor that goes in; `weights` (features x labels), `bias` (labels); `softmax`: whether the graph itself
    makes probabilities of it.
    """

    node: int
    add: int | None
    feature: str
    weights: Floats
    bias: Floats
    transposed: bool
    element_type: int
    softmax: bool


def find(model: Any, output: str) -> LinearLayer:
    """Return the linear layer that feeds `output`; raises NotTrainableError that names the node in the way."""
    graph = model.graph
    producers = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    if output not in {value.name for value in graph.output}:
        known = ", ".join(value.name for value in graph.output)
        raise NotTrainableError(f"output: expected one of the model's ({known}), got {output!r}")
    tensor, softmax = output, False
    for _ in range(_TAIL_NODES_MAX):
        position = producers.get(tensor)
        if position is None:
            raise _refusal(f"{tensor!r} comes straight from the model's inputs or weights, not from a linear layer")
        node = graph.node[position]
        match node.op_type, node.domain in {"", "ai.onnx"}:
            case "Identity", True:
                tensor = node.input[0]
            case "Softmax", True:
                _check_softmax(node, model, again=softmax)
                tensor, softmax = node.input[0], True
            case "Gemm", True:
                return _gemm(graph, position, softmax=softmax)
            case "Add", True:
                return _matmul_add(graph, position, producers, softmax=softmax)
            case "MatMul", True:
                return _matmul(graph, position, None, None, softmax=softmax)
            case _:
                raise _refusal(f"{_name(node)} makes {tensor!r}")
    raise _refusal(f"more than {_TAIL_NODES_MAX} nodes stand behind it")


def cut(model: Any, layer: LinearLayer) -> Any:
    """Return a model with the inputs that matter and one output, FEATURES: what goes into `layer`."""
    graph = model.graph
    kept, needed = _ancestors(graph, layer.feature)
    nodes = [graph.node[position] for position in kept]
    nodes.append(helper.make_node("Identity", [layer.feature], [FEATURES], name=FEATURES))
    part = helper.make_graph(
        nodes,
        "features",
        [value for value in graph.input if value.name in needed],
        [helper.make_tensor_value_info(FEATURES, layer.element_type, [None, len(layer.weights)])],
        initializer=[tensor for tensor in graph.initializer if tensor.name in needed],
        sparse_initializer=[tensor for tensor in graph.sparse_initializer if tensor.values.name in needed],
    )
    return helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version, functions=[*model.functions]
    )


def replace(model: Any, layer: LinearLayer, weights: Floats, bias: Floats) -> Any:
    """Return a copy of `model` whose layer computes `features @ weights + bias`; shapes as in `layer`."""
    if weights.shape != layer.weights.shape or bias.shape != layer.bias.shape:
        raise ValueError(f"expected {layer.weights.shape} and {layer.bias.shape}, got {weights.shape} and {bias.shape}")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    node = graph.node[layer.node]
    stored = weights.T if layer.transposed else weights
    listed = model.ir_version < _UNLISTED_IR_VERSION
    weight_name = _add_initializer(graph, "demur_weights", stored, layer.element_type, listed=listed)
    bias_name = _add_initializer(graph, "demur_bias", bias, layer.element_type, listed=listed)
    node.input[1] = weight_name
    if node.op_type == "Gemm":
        _rewrite_gemm(node, bias_name)
    elif layer.add is not None:
        add = graph.node[layer.add]
        side = 1 if add.input[0] == node.output[0] else 0
        add.input[side] = bias_name
    else:
        _insert_add(graph, layer.node, bias_name)
    _drop_unused(graph)
    return copy


def _gemm(graph: Any, position: int, *, softmax: bool) -> LinearLayer:
    node = graph.node[position]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if attributes.get("transA", 0):
        raise _refusal(f"{_name(node)} transposes its features (transA = 1)")
    stored, element_type = _initializer(graph, node.input[1], f"the weights of {_name(node)}", rank=2)
    transposed = bool(attributes.get("transB", 0))
    weights = attributes.get("alpha", 1.0) * (stored.T if transposed else stored)
    bias = np.zeros(weights.shape[1])
    for name in filter(None, node.input[2:]):
        bias = attributes.get("beta", 1.0) * _bias(graph, name, node, weights.shape[1])
    return LinearLayer(
        node=position,
        add=None,
        feature=_feature(graph, node),
        weights=weights,
        bias=bias,
        transposed=transposed,
        element_type=element_type,
        softmax=softmax,
    )


def _matmul_add(graph: Any, position: int, producers: dict[str, int], *, softmax: bool) -> LinearLayer:
    add = graph.node[position]
    initializers = {tensor.name for tensor in graph.initializer}
    for product, bias in (tuple(add.input), tuple(add.input)[::-1]):
        made_by = producers.get(product)
        if made_by is None or graph.node[made_by].op_type != "MatMul" or bias not in initializers:
            continue
        return _matmul(graph, made_by, position, bias, softmax=softmax)
    raise _refusal(
        f"{_name(add)} does not add an initialiser to a MatMul; it adds {add.input[0]!r} and {add.input[1]!r}"
    )


def _matmul(graph: Any, position: int, add: int | None, bias: str | None, *, softmax: bool) -> LinearLayer:
    node = graph.node[position]
    weights, element_type = _initializer(graph, node.input[1], f"the weights of {_name(node)}", rank=2)
    if bias is not None:
        readers = [other for other in graph.node if node.output[0] in other.input]
        if len(readers) > 1:
            raise _refusal(f"{_name(node)} is read by {len(readers)} nodes before its bias is added")
    return LinearLayer(
        node=position,
        add=add,
        feature=_feature(graph, node),
        weights=weights,
        bias=np.zeros(weights.shape[1]) if bias is None else _bias(graph, bias, node, weights.shape[1]),
        transposed=False,
        element_type=element_type,
        softmax=softmax,
    )


def _feature(graph: Any, node: Any) -> str:
    name = str(node.input[0])
    if name in {tensor.name for tensor in graph.initializer}:
        raise _refusal(
            f"{_name(node)} has its weights on the left; expected features on the left, weights on the right"
        )
    return name


def _initializer(graph: Any, name: str, what: str, *, rank: int | None = None) -> tuple[Floats, int]:
    for tensor in graph.initializer:
        if tensor.name != name:
            continue
        if tensor.data_type not in _FLOATS:
            raise _refusal(
                f"{what} are {TensorProto.DataType.Name(tensor.data_type)}, expected FLOAT, DOUBLE or FLOAT16"
            )
        values = numpy_helper.to_array(tensor).astype(np.float64)
        if rank is not None and values.ndim != rank:
            raise _refusal(f"{what} have shape {list(values.shape)}, expected {rank} axes")
        return values, int(tensor.data_type)
    maker = next((_name(node) for node in graph.node if name in node.output), "an input of the model")
    raise _refusal(f"{what} ({name!r}) are no initialiser: they come from {maker}")


def _bias(graph: Any, name: str, node: Any, labels: int) -> Floats:
    values, _ = _initializer(graph, name, f"the bias of {_name(node)}")
    if values.shape not in {(), (1,), (labels,), (1, 1), (1, labels)}:
        raise _refusal(f"the bias of {_name(node)} has shape {list(values.shape)}, expected [{labels}]")
    return np.broadcast_to(values.reshape(-1), (labels,)).copy()


def _check_softmax(node: Any, model: Any, *, again: bool) -> None:
    if again:
        raise _refusal(f"{_name(node)} is a second Softmax")
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    axis = next(
        (attribute.i for attribute in node.attribute if attribute.name == "axis"), -1 if opset >= _SOFTMAX_OPSET else 1
    )
    if axis not in {-1, 1}:
        raise _refusal(f"{_name(node)} runs along axis {axis}, expected the last")


def _ancestors(graph: Any, tensor: str) -> tuple[list[int], set[str]]:
    """Return the nodes that `tensor` depends on, in the graph's order, and every name they read."""
    producers = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    kept: set[int] = set()
    needed: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        position = producers.get(name)
        if position is not None and position not in kept:
            kept.add(position)
            waiting.extend(_reads(graph.node[position]))
    return sorted(kept), needed


def _reads(node: Any) -> list[str]:
    """Return the names a node reads, those that the graphs inside it take from outside too."""
    names: list[str] = []
    waiting = [node]
    while waiting:
        here = waiting.pop()
        names.extend(name for name in here.input if name)
        for attribute in here.attribute:
            graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for graph in graphs:
                waiting.extend(graph.node)
                names.extend(value.name for value in graph.output)
    return names


def _add_initializer(graph: Any, stem: str, values: Floats, element_type: int, *, listed: bool) -> str:
    """Put `values` in under a free name; `listed` among the inputs too, as older files must have it."""
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken |= {name for node in graph.node for name in (*node.input, *node.output)}
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    stored = np.ascontiguousarray(values.astype(helper.tensor_dtype_to_np_dtype(element_type)))
    graph.initializer.append(numpy_helper.from_array(stored, name))
    if listed:
        graph.input.append(helper.make_tensor_value_info(name, element_type, stored.shape))
    return name


def _rewrite_gemm(node: Any, bias: str) -> None:
    """Take alpha and beta away, which the new weights hold already, and put in the new bias."""
    kept = [attribute for attribute in node.attribute if attribute.name not in {"alpha", "beta"}]
    del node.attribute[:]
    node.attribute.extend(kept)
    del node.input[2:]
    node.input.append(bias)


def _insert_add(graph: Any, position: int, bias: str) -> None:
    """Give a MatMul without a bias one: its product gets a new name, the sum takes the old."""
    node = graph.node[position]
    total = node.output[0]
    node.output[0] = f"{total}_product"
    add = helper.make_node("Add", [node.output[0], bias], [total], name=f"{bias}_add")
    nodes = [*graph.node]
    nodes.insert(position + 1, add)
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unused(graph: Any) -> None:
    """Remove initialisers that nothing reads any more, and the inputs that stood for them in older files."""
    read = {name for node in graph.node for name in _reads(node)} | {value.name for value in graph.output}
    unused = {tensor.name for tensor in graph.initializer} - read
    for field in (graph.initializer, graph.input):
        kept = [entry for entry in field if entry.name not in unused]
        del field[:]
        field.extend(kept)


def _name(node: Any) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else f"a {node.op_type}"


def _refusal(why: str) -> NotTrainableError:
    return NotTrainableError(
        "the last layer cannot be refitted: expected the output to come from Gemm, or MatMul and Add, with weights "
        f"that are initialisers, at most through Softmax and Identity; {why}",
    )
