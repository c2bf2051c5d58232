"""The benchmarks' models with 16-bit numbers: the same graph, its weights, inputs and outputs rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def halved(content: bytes) -> bytes:
    """Return the ONNX file with FP16 for every FP32, for graphs whose nodes name no type."""
    model: Any = onnx.load_model_from_string(content)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            small = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model)
    whole: bytes = model.SerializeToString()
    return whole
