"""PyTriton's side: Triton's C++ server in front, ONNX Runtime in this process. Arguments: FILE, the gRPC port."""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

path, port = sys.argv[1], int(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options)


@batch
def infer(x: np.ndarray) -> list[np.ndarray]:
    """Answer a batch that Triton made."""
    return session.run(None, {"x": x})


ports = {"grpc_port": port, "http_port": port + 1, "metrics_port": port + 2}
with Triton(config=TritonConfig(**ports)) as triton:
    triton.bind(
        "tiny",
        infer,
        inputs=[Tensor(name="x", dtype=np.float32, shape=(64,))],
        outputs=[Tensor(name="p", dtype=np.float32, shape=(10,))],
        config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
    )
    triton.serve()
