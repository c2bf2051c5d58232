"""The gateway: a transport, a batcher, ONNX models, the policy that answers or defers, the registry of versions.

ONNX Runtime sends what it is used for to its maker, and keeps it in ~/.cache/Microsoft until it is sent: the names and
paths of models, the texts of errors. It looks once, when it is imported, whether it may. No other package imports it,
and this file comes before every module here, so this is where it is told not to; who sets the variable decides.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
