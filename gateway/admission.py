"""Lets a new version in, or says why not: limits, what a trial in a process of its own finds, and what must fit what.

The manifest comes back completed with what the artefact knows: its tensors, which axis counts rows, which output is
the answer's and which input a subject becomes.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from fallback.errors import InvalidError
from gateway import trial
from gateway.confidence import SLACK
from gateway.manifest import ARTEFACT, Manifest, Preprocess, TensorSpec, check
from gateway.padding import free
from gateway.preprocess import known_shapes

TRIAL: Final = (sys.executable, "-I", "-m", trial.__name__)
_KEPT: Final = frozenset(
    {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR", "ORT_DISABLE_TELEMETRY"}
)
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
# The file is read, parsed and loaded, each time anew.
_MEMORY_PER_ARTEFACT_BYTE: Final = 4


class AdmissionError(InvalidError):
    """A version is not let in; the sentence names what is wrong, what was expected and what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an artefact may weigh and what trying it may take."""

    artefact_bytes_max: int = 1024 * 1024 * 1024
    seconds: float = 60.0
    memory_bytes_max: int = 8 * 1024 * 1024 * 1024


def check_size(artefact: Path, limits: Limits) -> None:
    """Raise AdmissionError unless `artefact` is a file of a size that is taken."""
    try:
        size = artefact.stat().st_size
    except OSError as error:
        raise AdmissionError(f"{artefact.name}: cannot be read: {error.strerror}") from error
    if not artefact.is_file():
        raise AdmissionError(f"{artefact.name}: expected a file")
    if not 0 < size <= limits.artefact_bytes_max:
        raise AdmissionError(f"{ARTEFACT}: expected 1 to {limits.artefact_bytes_max} bytes, got {size}")


def admit(artefact: Path, manifest: Manifest, *, limits: Limits) -> Manifest:
    """Try `artefact` and return `manifest` completed; raises AdmissionError. Blocks for up to `limits.seconds`."""
    try:
        check(manifest)
    except InvalidError as error:
        raise AdmissionError(error.message) from error
    report = _try(artefact, manifest, limits)
    if report.refused:
        raise AdmissionError(f"{ARTEFACT}: {report.refused}")
    return complete(manifest, report)


def complete(manifest: Manifest, report: trial.Report) -> Manifest:
    """Fill in what the trial found and raise AdmissionError where it does not fit what the manifest says."""
    tensor = _answer_output(manifest, report)
    preprocess = _subject_input(manifest.preprocess, report.inputs)
    _check_padding(manifest, report)
    _check_answer(manifest, tensor, report)
    _check_golden(manifest, tensor, report)
    return msgspec.structs.replace(
        manifest,
        output=msgspec.structs.replace(manifest.output, tensor=tensor),
        preprocess=preprocess,
        batched=report.batched,
        inputs=report.inputs,
        outputs=report.outputs,
    )


def plan(artefact: Path, manifest: Manifest, limits: Limits) -> trial.Plan:
    """Say what the child is to try, and within what."""
    return trial.Plan(
        artefact=str(artefact.resolve()),
        memory_bytes=limits.memory_bytes_max + _MEMORY_PER_ARTEFACT_BYTE * artefact.stat().st_size,
        cpu_seconds=math.ceil(2 * limits.seconds),
        parent=os.getpid(),
        # The largest batch too: a gateway that warms up with it must not be what finds that it does not fit.
        rows=tuple(sorted({1, 2, manifest.batching.max_batch_size})),
        shapes=known_shapes(manifest.preprocess),
        golden=tuple(golden.inputs for golden in manifest.golden),
    )


def verdict(code: int, output: bytes) -> trial.Report:
    """Read what the child that ended with `code` said; raises AdmissionError where it was ended or said nothing."""
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise AdmissionError(f"{ARTEFACT}: loading and trying it took more than its limits and was ended")
    if code < 0:
        raise AdmissionError(f"{ARTEFACT}: the process that tried it crashed ({signal.Signals(-code).name})")
    try:
        return msgspec.json.decode(output, type=trial.Report)
    except msgspec.DecodeError as error:
        raise AdmissionError(f"{ARTEFACT}: the process that tried it ended without a verdict") from error


def _environment() -> dict[str, str]:
    """Return what the child may know: where libraries are, no secrets; one thread, or each takes address space."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _try(artefact: Path, manifest: Manifest, limits: Limits) -> trial.Report:
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and a module of ours; the artefact's path goes by stdin
            TRIAL,
            input=msgspec.json.encode(plan(artefact, manifest, limits)),
            capture_output=True,
            timeout=limits.seconds,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AdmissionError(
            f"{ARTEFACT}: loading and trying it took more than {limits.seconds:g} s; it is tried with up to "
            f"batching.max_batch_size = {manifest.batching.max_batch_size} rows at a time"
        ) from error
    return verdict(done.returncode, done.stdout)


def _answer_output(manifest: Manifest, report: trial.Report) -> str:
    """Name the output that the answer is read from; none where nothing says what to read there."""
    floats = [spec.name for spec in report.outputs if spec.datatype in _FLOATS]
    wanted = manifest.output.tensor
    if wanted:
        if wanted not in floats:
            raise AdmissionError(f"output.tensor: expected one of {', '.join(floats) or 'none'}, got {wanted!r}")
        return wanted
    fitting = [
        name for name in floats if manifest.labels and _width(report.facts[name], report) == len(manifest.labels)
    ]
    for names in (floats, fitting):
        if len(names) == 1:
            return names[0]
    if not manifest.labels:
        return ""
    raise AdmissionError(
        f"output.tensor: expected the name of the output that holds the scores; the model has "
        f"{', '.join(floats) or 'no output of floats'}",
    )


def _subject_input(preprocess: Preprocess | None, inputs: tuple[TensorSpec, ...]) -> Preprocess | None:
    if preprocess is None:
        return None
    names = [spec.name for spec in inputs]
    texts = [spec.name for spec in inputs if spec.datatype == "BYTES"]
    if texts:
        raise AdmissionError(f"preprocess: makes numbers of a {preprocess.kind}; input {texts[0]!r} expects BYTES")
    if preprocess.input and preprocess.input not in names:
        raise AdmissionError(f"preprocess.input: expected one of {', '.join(names)}, got {preprocess.input!r}")
    if len(names) > 1:
        raise AdmissionError(f"preprocess: expected a model with one input, got {', '.join(names)}")
    filled = msgspec.structs.replace(preprocess, input=names[0])
    shape, known = inputs[0].shape[1:], known_shapes(filled).get(names[0])
    if known is not None and (
        len(known) != len(shape) or any(b not in {-1, a} for a, b in zip(known, shape, strict=True))
    ):
        raise AdmissionError(
            f"preprocess: makes {list(known)} of a {filled.width} x {filled.height} {filled.mode} image in layout "
            f"{filled.layout}; input {names[0]!r} expects {list(shape)} a row",
        )
    if filled.kind == "json" and filled.fields and shape not in {(len(filled.fields),), (-1,)}:
        raise AdmissionError(
            f"preprocess.fields: input {names[0]!r} expects {list(shape)} a row, got {len(filled.fields)}"
        )
    return filled


def _check_padding(manifest: Manifest, report: trial.Report) -> None:
    padding = manifest.batching.padding
    if padding is not None and not (report.batched and free(report.inputs, padding)):
        raise AdmissionError(
            f"batching.padding: expected an input whose axis {padding.axis} may have any size, got none"
        )


def _width(facts: trial.OutputFacts, report: trial.Report) -> int:
    """Return how many values an output has a row."""
    return math.prod(facts.shape[report.batched :])


def _check_answer(manifest: Manifest, tensor: str, report: trial.Report) -> None:
    if not tensor:
        return
    facts = report.facts[tensor]
    if not facts.finite:
        raise AdmissionError(f"{ARTEFACT}: output {tensor!r} holds NaN or infinity for input in [0, 1)")
    if not manifest.labels:
        return
    width = _width(facts, report)
    if width != len(manifest.labels):
        raise AdmissionError(
            f"labels: output {tensor!r} has {width} values a row, one a label; got {len(manifest.labels)} labels",
        )
    probable = facts.low >= -SLACK and facts.high <= 1 + SLACK
    if manifest.output.activation == "none" and not probable:
        raise AdmissionError(
            f"output.activation: {tensor!r} ranges from {facts.low:.3g} to {facts.high:.3g}, which are no "
            f'probabilities; expected activation = "softmax" for a model that gives scores',
        )


def _check_golden(manifest: Manifest, tensor: str, report: trial.Report) -> None:
    for number, (golden, outputs) in enumerate(zip(manifest.golden, report.golden, strict=True)):
        place = outputs.get(tensor, len(manifest.labels))
        got = manifest.labels[place] if place < len(manifest.labels) else ""
        if got != golden.label:
            raise AdmissionError(f"golden[{number}]: expected the label {golden.label!r}, the model says {got!r}")
