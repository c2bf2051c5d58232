"""The gateway: a transport, a batcher, ONNX models, the policy that answers or defers, the registry of versions."""
