"""The KServe SDK's side: a custom Model, with ONNX Runtime behind it. Arguments: the SDK's own, and --path FILE."""

import argparse
import logging

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.logging import KSERVE_LOGGER_NAME


class Onnx(Model):
    """The model in the file `path`."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options)
        self.ready = True

    async def get_input_types(self) -> list[dict]:
        """Declare what it takes."""
        return [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]

    async def get_output_types(self) -> list[dict]:
        """Declare what it gives."""
        return [{"name": "p", "datatype": "FP32", "shape": [-1, 10]}]

    async def predict(self, payload: InferRequest, _headers: object = None, **_: object) -> InferResponse:
        """Answer one request."""
        (p,) = self._session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput("p", list(p.shape), "FP32")
        output.set_data_from_numpy(p)
        return InferResponse(payload.id, self.name, [output])


parser = argparse.ArgumentParser(parents=[model_server.parser])
parser.add_argument("--path", required=True)
args, _ = parser.parse_known_args()
server = ModelServer(enable_latency_logging=False)
# It writes a line for each call, which neither of the others does.
logging.getLogger(KSERVE_LOGGER_NAME).setLevel(logging.WARNING)
server.start([Onnx(args.model_name, args.path)])
