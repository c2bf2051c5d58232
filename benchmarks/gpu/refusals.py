"""A GPU that is asked for and not there is refused with what is missing, and never replaced by the CPU in silence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.figures import Check
from benchmarks.serve import ground, models
from fallback.errors import ConfigError, UnavailableError
from gateway.model import CUDA, TENSORRT, Device, Model, offered

# How a process is shown no GPU.
_HIDDEN: Final = "CUDA_VISIBLE_DEVICES"
_MISSING: Final = 'expected "cuda", got only'


def checks(folder: Path, device: Device) -> list[Check]:
    """Return whether each of them is refused."""
    path = folder / "refused.onnx"
    path.write_bytes(models.artefact("tiny"))
    found = [
        _check("a provider that does not exist is refused", _refuses(path, device, "NoSuchExecutionProvider")),
        _check("a provider of a GPU is refused to who asks for the CPU", _refuses(path, "cpu", CUDA)),
        _check("a gateway with device = cuda that is shown no GPU does not start", _gateway_refuses(folder)),
    ]
    if TENSORRT not in offered(device):
        found.append(_check("TensorRT, whose library is not here, is refused", _refuses(path, device, TENSORRT)))
    return found


def _check(name: str, holds: Callable[[], bool]) -> Check:
    ok = holds()
    return Check(name=name, value=float(ok), goal="= 1", ok=ok)


def _refuses(path: Path, device: Device, provider: str) -> Callable[[], bool]:
    def holds() -> bool:
        try:
            Model.load(path, device=device, provider=provider)
        except ConfigError:
            return True
        return False

    return holds


def _gateway_refuses(folder: Path) -> Callable[[], bool]:
    def holds() -> bool:
        try:
            with _no_gpu(), ground.gateway(folder, transport="auto", settings=('device = "cuda"',)):
                return False
        except UnavailableError as error:
            return _MISSING in str(error)

    return holds


@contextlib.contextmanager
def _no_gpu() -> Iterator[None]:
    """Show processes that are started within the block no GPU."""
    before = os.environ.get(_HIDDEN)
    os.environ[_HIDDEN] = "-1"
    try:
        yield
    finally:
        del os.environ[_HIDDEN]
        if before is not None:
            os.environ[_HIDDEN] = before
