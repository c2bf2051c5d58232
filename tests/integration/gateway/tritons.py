"""What the tests ask an unmodified tritonclient, and read in its answers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

SECONDS: Final = 10.0


def inputs(**arrays: np.ndarray) -> list[triton.InferInput]:
    """Arrays as inputs of a request, by name."""
    found = []
    for name, array in arrays.items():
        each = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        each.set_data_from_numpy(array)
        found.append(each)
    return found


def infer(client: Any, model: str, x: np.ndarray, **options: Any) -> Any:
    """What comes of one request of the input `x`."""
    return client.infer(model, inputs(x=x), client_timeout=SECONDS, **options)


def parameters_of(result: Any) -> dict[str, Any]:
    """The parameters of an answer."""
    parameters = result.get_response().parameters
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}


def trailing(error: Any) -> dict[str, str]:
    """What came behind a refusal."""
    return dict(error.trailing_metadata())
