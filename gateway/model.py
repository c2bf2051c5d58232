"""A loaded ONNX model: one ONNX Runtime session, its signature, and one way to run it on CPU and GPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import onnxruntime
import structlog
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from fallback.errors import ConfigError, InvalidError, StateError
from gateway.manifest import TensorSpec
from gateway.slabs import Slab, Slabs
from gateway.tensor import DTYPES, Array

__all__ = ["Device", "Model", "Signature", "TensorSpec", "offered", "pick_providers"]

Device = Literal["auto", "cuda", "cpu"]
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
_DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
# Sizes to try, in this order, for an axis that may have any, when a run is made up.
_FREE_AXES: Final = (1, 8, 32, 224)
# So many runs in slabs may fail by chance.
_SLAB_FAILURES_MAX: Final = 8
# What a run refuses is told to the caller; logging it as well would let a caller fill the log.
_LOG_FATAL_ONLY: Final = 4
# What ONNX Runtime raises where a run fails, whether its input is wrong or a node cannot go on with it.
_RUN_ERRORS: Final = (ort_errors.InvalidArgument, ort_errors.Fail, ort_errors.RuntimeException, RuntimeError)
# Words of ONNX Runtime's for trouble that is the machine's, not the input's.
_MACHINE_SIGNS: Final = (
    "Failed to allocate",
    "bad_alloc",
    "out of memory",
    "CUDA failure",
    "CUDA error",
    "CUDNN failure",
    "CUBLAS failure",
    "TensorRT EP",
)
_DRIVER_LIBRARY: Final = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_TENSORRT_LIBRARY: Final = "nvinfer_10.dll" if sys.platform == "win32" else "libnvinfer.so.10"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors a model takes and gives; -1 in a shape for any size."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Model:
    """One ONNX Runtime session. `run` may be called from any thread; `provider` is what really runs it."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str, *, bind: bool | None = None) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._name = name
        self.signature = Signature(_specs(session.get_inputs()), _specs(session.get_outputs()))
        self.provider: str = session.get_providers()[0]
        self._outputs = tuple(spec.name for spec in self.signature.outputs)
        # Whether an output is text.
        self.texts = any(spec.datatype == "BYTES" for spec in self.signature.outputs)
        tensors = (*self.signature.inputs, *self.signature.outputs)
        # ONNX Runtime's Python binding cannot bind strings; and on the CPU to bind at each run gains nothing.
        wanted = self.provider != CPU if bind is None else bind
        self._bindable = wanted and all(spec.datatype != "BYTES" for spec in tensors)
        slabs = bind is None and self.provider == CPU
        self._slab_failures = 0
        self._slabs = Slabs.of(session, self.signature.inputs, self.signature.outputs) if slabs else None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: Device = "auto",
        threads: int = 0,
        bind: bool | None = None,
        provider: str | None = None,
    ) -> Self:
        """Load an ONNX file by its path; `threads` of one run on the CPU, 0 for one a core.

        `bind`: whether inputs and outputs are bound (IOBinding) at each run; None: where it runs elsewhere than on the
        CPU, which has slabs.
        `provider`: what it must run on, by ONNX Runtime's name; None: the best that there is for `device`.

        Raises ConfigError where `device` is "cuda" and the session got only the CPU, or it did not get `provider`;
        InvalidError where ONNX Runtime does not load the file.
        """
        session = _session(path, path.name, device=device, threads=threads, provider=provider)
        return cls(session, path.name, bind=bind)

    def slab(self, rows: int) -> Slab | None:
        """Return room of this thread's for so many rows, until it asks again; None where there is none, or no use."""
        slabs = self._slabs
        return None if slabs is None else slabs.find(rows)

    def run(self, feeds: Mapping[str, Array], slab: Slab | None = None) -> dict[str, Array]:
        """Run once. `feeds` has one array for each input; returns one for each output, on the CPU.

        With a `slab` of this model's they are what is in it, and the outputs nobody else's. Else an output is the
        session's memory: as long as there is one, a view of it included, all of that stays, closed or not. Whoever
        keeps it beyond its batch keeps a copy.

        Raises InvalidError where ONNX Runtime refuses the input, StateError once closed.
        """
        session = self._session
        if session is None:
            raise StateError(f"{self._name}: the model is closed")
        problem = ""
        if slab is not None:
            try:
                return slab.run()
            except Exception as error:  # noqa: BLE001 - what is wrong is told below
                problem = _brief(error)
        outputs = self._run(session, feeds)
        # An answer of other rows than were asked is refused: whoever asks for one switches nothing off for others.
        if slab is not None and slab.has_rows(outputs):
            self._tell_failed(problem, fits=slab.fits(outputs))
        return outputs

    def _tell_failed(self, problem: str, *, fits: bool) -> None:
        """Hear that a run in a slab failed and the same one without did not: do without, now or when it goes on so."""
        self._slab_failures += 1
        # Where its outputs do not fit, what the model gives is not of the size that it says.
        if not fits or self._slab_failures >= _SLAB_FAILURES_MAX:
            self._slabs = None
            log.warning("the model is run without slabs from now on", model=self._name, error=problem)

    def _run(self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            found = self._run_bound(session, feeds) if self._bindable else session.run(self._outputs, dict(feeds))
            return dict(zip(self._outputs, found, strict=True))
        except _RUN_ERRORS as error:
            if any(sign in str(error) for sign in _MACHINE_SIGNS):
                raise
            raise InvalidError(f"inputs: the model cannot be run on them: {_brief(error)}") from error

    def _run_bound(self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> Sequence[Array]:
        """Bind inputs where they lie and fetch outputs to the CPU, wherever the model runs."""
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        found: Sequence[Array] = binding.copy_outputs_to_cpu()
        return found

    def warm_up(self, rows: Sequence[int], shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        """Run once with made-up input for each number of rows, so that the first real batch of a size is not slow.

        `shapes` gives sizes, rows left out, for inputs whose axes are free. A model that no made-up input fits is left
        cold, with a warning.
        """
        for count in rows:
            problem = ""
            for size in _FREE_AXES:
                feeds = {
                    spec.name: _made_up(spec, count, size, (shapes or {}).get(spec.name))
                    for spec in self.signature.inputs
                }
                try:
                    self.run(feeds)
                    break
                except Exception as error:  # noqa: BLE001 - ONNX Runtime's own types of error are not one family
                    # Its words alone: the error itself would keep the session.
                    problem = _brief(error)
            else:
                log.warning("no made-up input fits; the model stays cold", model=self._name, error=problem)
                return

    def close(self) -> None:
        """Free the session; a run under way keeps it until it is done."""
        self._session = self._slabs = None


def pick_providers(device: Device, available: Sequence[str], *, gpus: int) -> list[str]:
    """Return the providers to ask for, best first; raises ConfigError saying what "cuda" lacks here.

    `available` are those that ONNX Runtime was built with, `gpus` how many NVIDIA GPUs the driver shows.
    """
    if device == "cpu":
        return [CPU]
    missing = ""
    if CUDA not in available:
        missing = f"this ONNX Runtime offers {', '.join(available)}; install onnxruntime-gpu in place of onnxruntime"
    elif not gpus:
        missing = "no NVIDIA GPU, or no driver for it, was found"
    if missing and device == "cuda":
        raise ConfigError(f'gateway.device: expected "cuda", got only {CPU}: {missing}')
    if missing:
        return [CPU]
    tensorrt = [TENSORRT] if TENSORRT in available and _library(_TENSORRT_LIBRARY) else []
    return [*tensorrt, CUDA, CPU]


def probe(device: Device) -> str:
    """Return the provider that a model really runs on here; raises ConfigError saying what "cuda" lacks."""
    if offered(device) == [CPU]:
        return CPU
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [x], [y])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = Model(_session(whole.SerializeToString(), "probe", device=device, threads=1), "probe")
    model.run({"x": np.ones(1, np.float32)})
    return model.provider


def offered(device: Device) -> list[str]:
    """Return the providers that are asked for here, best first; raises ConfigError saying what "cuda" lacks."""
    # A process that uses no GPU does not wake its driver.
    gpus = 0 if device == "cpu" else count_gpus()
    return pick_providers(device, onnxruntime.get_available_providers(), gpus=gpus)


def _session(
    source: Path | bytes, name: str, *, device: Device, threads: int, provider: str | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _LOG_FATAL_ONLY
    # Threads that spin between runs take a core each from everything else in the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = offered(device)
    if provider is not None:
        if provider not in wanted:
            raise ConfigError(f"{name}: expected to run on {provider}, of which there is none; got {', '.join(wanted)}")
        wanted = wanted[wanted.index(provider) :]
    if wanted == [CPU]:
        # A run would take one block for all of its tensors, of another size for each number of rows, between which the
        # session's memory falls to pieces: with several runs at a time it doubles within some hundred of them.
        options.enable_mem_pattern = False
    else:
        _preload()
    try:
        session = onnxruntime.InferenceSession(source, options, providers=wanted)
    except Exception as error:
        raise InvalidError(f"{name}: ONNX Runtime does not load it: {_brief(error)}") from error
    got = session.get_providers()
    if device == "cuda" and CUDA not in got:
        raise ConfigError(
            f'gateway.device: expected "cuda", got only {", ".join(got)}: the CUDA provider did not load. It needs '
            f"CUDA's and cuDNN's libraries: pip install 'demur[gpu]'"
        )
    if provider is not None and got[0] != provider:
        raise ConfigError(f"{name}: expected to run on {provider}, got only {', '.join(got)}: it did not load")
    if got[0] != wanted[0]:
        log.warning("a provider did not load", wanted=wanted[0], got=got[0])
    return session


def count_gpus() -> int:
    """Return how many NVIDIA GPUs the driver shows; 0 where there is no driver."""
    driver = _library(_DRIVER_LIBRARY)
    count = ctypes.c_int(0)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _preload() -> None:
    """Load CUDA's and cuDNN's libraries from their wheels, where these are installed."""
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()


def _specs(arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(argument) for argument in arguments)


def _spec(argument: Any) -> TensorSpec:
    if argument.type not in _DATATYPES:
        raise InvalidError(f"{argument.name!r} is a {argument.type}; expected a tensor of numbers or strings")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    return TensorSpec(name=argument.name, datatype=_DATATYPES[argument.type], shape=shape)


def _made_up(spec: TensorSpec, rows: int, free: int, known: Sequence[int] | None) -> Array:
    sizes: Iterator[int] = (free if size < 0 else size for size in spec.shape[1:])
    head = (rows,) if spec.shape[:1] == (-1,) else spec.shape[:1]
    shape = (*head, *(sizes if known is None else known))
    return np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, DTYPES[spec.datatype])


def _brief(error: BaseException) -> str:
    """ONNX Runtime's sentence without its source files and lines."""
    words = [word for word in str(error).split() if not word.startswith("/") and ".cc:" not in word]
    return " ".join(words)[:400]
