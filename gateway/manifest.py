"""What a model version says of itself: `manifest.toml`, strict, beside `model.onnx`.

What the artefact knows (its tensors) is read from it at admission; what it cannot know (labels, the task, what an
unaware client gets for a deferred request) is chosen by whoever publishes it, never by default.
"""

from __future__ import annotations

import difflib
import math
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from fallback.answer import AnswerKind, LabelOption, Task, check_task
from fallback.errors import InvalidError
from gateway import toml
from gateway.batching import Batching, Padding, QueuePolicy, check_batching
from gateway.confidence import Scorer
from gateway.correctness import Correctness
from gateway.policy import Policy
from gateway.segments import ATTRIBUTES_MAX, SEGMENTS_MAX, Segment

ARTEFACT: Final = "model.onnx"
MANIFEST: Final = "manifest.toml"
MANIFEST_BYTES_MAX: Final = 1024 * 1024
LABELS_MAX: Final = 100_000
LABEL_CHARS_MAX: Final = 256
TENSORS_MAX: Final = 256
GOLDEN_MAX: Final = 64
# What the trainer notes in `provenance` for itself: of its own ledger and registry, and of no others.
LEDGER_ROW: Final = "ledger_row"
HELD_OUT: Final = "holdout_share"
PARENT: Final = "parent"
_ORIGIN: Final = "origin_"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)

OnDeferral = Literal["provisional", "wait", "refuse"]
DATATYPES: Final = frozenset(
    {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"},
)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the manifest: a misspelt key is an error."""


class TensorSpec(_Table, frozen=True, kw_only=True):
    """One tensor of the model; `datatype` by KServe's name, -1 in `shape` for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Output(_Table, frozen=True, kw_only=True):
    """Which output is the answer's (empty: the model's only one of floats), and what makes probabilities of it."""

    tensor: str = ""
    activation: Literal["none", "softmax"] = "none"


class Preprocess(_Table, frozen=True, kw_only=True):
    """How a subject becomes a tensor: (pixel * scale - mean) / std for images, named numbers in order for JSON.

    Empty `input`: the model's only input. `width`, `height` in pixels; `mean`, `std` one number or one a channel.
    """

    kind: Literal["image", "json"]
    input: str = ""
    width: Annotated[int, msgspec.Meta(ge=0, le=16_384)] = 0
    height: Annotated[int, msgspec.Meta(ge=0, le=16_384)] = 0
    mode: Literal["L", "RGB"] = "L"
    layout: Literal["NCHW", "NHWC", "flat"] = "NCHW"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    fields: tuple[str, ...] = ()


class Training(_Table, frozen=True, kw_only=True):
    """Whether the trainer may make new versions of this one from corrections."""

    enabled: bool = True


class Golden(_Table, frozen=True, kw_only=True):
    """An input the model must give a known label for, or it is not let in: one row of each input, as nested numbers."""

    inputs: dict[str, list[Any]]
    label: str


class Manifest(_Table, frozen=True, kw_only=True):
    """All that is known of a model version.

    `version`, `create_time`, `inputs`, `outputs`, `batched` and `files` are set when it is published. `queue` is where
    its deferrals wait (empty: the model's name). `correctness` is what the score `learned` is made of;
    `temperature` divides the logits before people are told how sure a version is, and decides nothing. `batched`:
    the first axis of every tensor counts rows. `files` maps each file's name to its sha256 (hex).
    """

    model: str = ""
    version: str = ""
    create_time: datetime | None = None
    labels: tuple[str, ...] = ()
    task: Task | None = None
    queue: str = ""
    on_deferral: OnDeferral | None = None
    output: Output = Output()
    correctness: Correctness | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0.05, le=20.0)] = 1.0
    preprocess: Preprocess | None = None
    policy: Policy = Policy()
    forbid_nan: bool = True
    batching: Batching = Batching()
    batched: bool = True
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    training: Training = Training()
    provenance: dict[str, str] = {}
    golden: tuple[Golden, ...] = ()
    files: dict[str, str] = {}

    @property
    def review_queue(self) -> str:
        """The queue its deferrals wait in."""
        return self.queue or self.model


# msgspec looks at a type when it is first used, and crashes where two threads do that at once: here it is alone.
_KNOWN: Final = msgspec.json.Decoder(Manifest)


def check_name(field: str, name: str) -> None:
    """Raise InvalidError unless `name` may name a model or a queue: it becomes a folder and a part of keys."""
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"{field}: expected 1 to 63 of A-Z a-z 0-9 _ . - that begin with a letter or digit, got {name[:100]!r}",
        )


def is_version(name: str) -> bool:
    """Whether `name` is a positive whole number, as a version's folder is called."""
    return _VERSION.fullmatch(name) is not None


def check_version(field: str, version: str) -> None:
    """Raise InvalidError unless `version` is a positive whole number."""
    if not is_version(version):
        raise InvalidError(f"{field}: expected a whole number from 1 on, got {version[:100]!r}")


def parse(text: str) -> Manifest:
    """Read a manifest; raises InvalidError that names the key, and the nearest right one for a misspelt one."""
    size = len(text.encode())
    if size > MANIFEST_BYTES_MAX:
        raise InvalidError(f"{MANIFEST}: expected at most {MANIFEST_BYTES_MAX} bytes, got {size}")
    try:
        return msgspec.toml.decode(text, type=Manifest)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{MANIFEST}: {_explain(str(error))}") from error
    except msgspec.DecodeError as error:
        raise InvalidError(f"{MANIFEST}: expected TOML, got {error}") from error


def render(manifest: Manifest) -> str:
    """Write a manifest as TOML text; `parse` reads it back equal."""
    return toml.dumps(msgspec.to_builtins(manifest, builtin_types=(datetime,), str_keys=True))


def brought_in(manifest: Manifest) -> Manifest:
    """Return the manifest of a version from elsewhere as it may be published here.

    What its trainer noted for itself is kept as `origin_...`: a row of its ledger is none of the ledger here.
    """
    own = {LEDGER_ROW, HELD_OUT, PARENT}
    provenance = {(_ORIGIN if key in own else "") + key: value for key, value in manifest.provenance.items()}
    return msgspec.structs.replace(manifest, version="", create_time=None, files={}, provenance=provenance)


def check(manifest: Manifest) -> None:
    """Raise InvalidError, naming the field, for a manifest that could not be served as it stands."""
    check_name("model", manifest.model)
    if manifest.queue:
        check_name("queue", manifest.queue)
    _check_labels(manifest.labels)
    if len(manifest.golden) > GOLDEN_MAX:
        raise InvalidError(f"golden: expected at most {GOLDEN_MAX}, got {len(manifest.golden)}")
    _check_task(manifest)
    _check_preprocess(manifest.preprocess)
    told = 0 if manifest.correctness is None else len(manifest.correctness.by_label)
    if told not in {0, len(manifest.labels)}:
        raise InvalidError(f"correctness.by_label: expected none or {len(manifest.labels)}, one a label, got {told}")
    check_batching(manifest.batching)
    check_policy(manifest.policy, manifest)


def check_policy(policy: Policy, manifest: Manifest) -> None:
    """Raise InvalidError where `policy` names a label the model does not know, or promises what cannot be proved."""
    unknown = sorted({*policy.class_thresholds, *policy.always_person} - set(manifest.labels))
    if unknown:
        offered = ", ".join(manifest.labels[:20]) or "none"
        raise InvalidError(f"policy: expected labels of the model ({offered}), got {unknown[0][:100]!r}")
    if policy.alpha is None:
        if policy.segments:
            raise InvalidError("policy.segments: expected an alpha beside them, the rest's promise; got none")
        return
    _check_segments(policy)
    if manifest.task is None:
        raise InvalidError("policy.alpha: expected a model with labels and a task; without people nothing is proved")
    if policy.audit_share <= 0:
        raise InvalidError("policy.audit_share: expected above 0 where alpha is set; without audits nothing is proved")
    check_scorer(policy, manifest)


def _check_segments(policy: Policy) -> None:
    if len(policy.segments) > SEGMENTS_MAX:
        raise InvalidError(f"policy.segments: expected at most {SEGMENTS_MAX}, got {len(policy.segments)}")
    names = [segment.name for segment in policy.segments]
    for number, segment in enumerate(policy.segments):
        check_name(f"policy.segments[{number}].name", segment.name)
        if names.count(segment.name) > 1:
            raise InvalidError(f"policy.segments: expected each name once, got {segment.name!r} more than once")
        if not 0 < len(segment.attributes) <= ATTRIBUTES_MAX:
            raise InvalidError(
                f"policy.segments[{number}].attributes: expected 1 to {ATTRIBUTES_MAX}, got {len(segment.attributes)}"
            )


def check_scorer(policy: Policy, manifest: Manifest) -> None:
    """Raise InvalidError where a version has no such score as the policy compares with the proved threshold."""
    if policy.scored_by is Scorer.ENERGY and manifest.output.activation == "none":
        raise InvalidError(
            "policy.scorer: expected margin, max_softmax or learned for a model that gives probabilities, got energy"
        )
    if policy.scored_by is Scorer.LEARNED and manifest.correctness is None:
        raise InvalidError(
            "policy.scorer: expected margin, max_softmax or energy for a version whose manifest has no [correctness], "
            "got learned; the trainer's versions have one"
        )


def _explain(message: str) -> str:
    """Add the nearest right key to msgspec's sentence about a wrong one."""
    found = re.search(r"unknown field `([^`]*)`", message)
    if found is None:
        return message
    structs = (
        Manifest,
        Output,
        Preprocess,
        Policy,
        Task,
        LabelOption,
        TensorSpec,
        Training,
        Golden,
        Batching,
        QueuePolicy,
        Padding,
        Segment,
        Correctness,
    )
    known = sorted({field.encode_name for struct in structs for field in msgspec.structs.fields(struct)})
    near = difflib.get_close_matches(found.group(1), known, n=1, cutoff=0.5)
    return message + (f"; did you mean `{near[0]}`?" if near else "")


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(labels) > LABELS_MAX:
        raise InvalidError(f"labels: expected at most {LABELS_MAX}, got {len(labels)}")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise InvalidError(f"labels: expected each once, got {twice!r} more than once")
    for number, label in enumerate(labels):
        if not label or len(label) > LABEL_CHARS_MAX:
            raise InvalidError(f"labels[{number}]: expected 1 to {LABEL_CHARS_MAX} characters, got {len(label)}")


def _check_task(manifest: Manifest) -> None:
    if manifest.task is None:
        if manifest.on_deferral is not None:
            raise InvalidError("task: expected what a person is asked, since on_deferral is set; got none")
        return
    check_task(manifest.task)
    if not manifest.labels:
        raise InvalidError(
            "labels: expected the model's labels in the order of its output, since a task is set; without them nothing "
            "is ever deferred; got none",
        )
    if manifest.on_deferral is None:
        raise InvalidError(
            "on_deferral: expected provisional, wait or refuse (what a client that knows nothing of deferrals gets); "
            "got none",
        )
    if manifest.task.kind is not AnswerKind.LABEL:
        return
    missing = sorted(set(manifest.labels) - manifest.task.label_names())
    if missing:
        raise InvalidError(f"task.labels: expected all of the model's labels, got none that is {missing[0]!r}")


def _check_preprocess(preprocess: Preprocess | None) -> None:
    if preprocess is None:
        return
    if preprocess.kind == "image":
        if not preprocess.width or not preprocess.height:
            raise InvalidError(
                f"preprocess: an image needs width and height in pixels, got {preprocess.width} x {preprocess.height}",
            )
        channels = len(preprocess.mode)
        for field, values in (("mean", preprocess.mean), ("std", preprocess.std)):
            if len(values) not in {0, 1, channels}:
                raise InvalidError(f"preprocess.{field}: expected 1 or {channels} numbers, got {len(values)}")
    numbers = (preprocess.scale, *preprocess.mean, *preprocess.std)
    if not all(map(math.isfinite, numbers)) or 0 in preprocess.std:
        raise InvalidError("preprocess: expected finite scale, mean and std, and no std of 0")
