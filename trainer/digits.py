"""Scikit-learn's 1,797 real handwritten digits, in three parts that never change, and what a model of them declares.

The parts are drawn by the sha256 of each digit's number, so that they are the same on every machine: 200 to train a
first model on (20 of each label), 1,200 to stream as traffic, 397 to judge by and never train on.
Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallback.answer import LabelOption, Task
from gateway.manifest import Manifest, Output, Preprocess, TensorSpec
from gateway.policy import Policy

LABELS: Final = tuple("0123456789")
SIDE_PIXELS: Final = 8
INPUT: Final = "image"
OUTPUT: Final = "probabilities"
SEED_PER_LABEL: Final = 20
STREAM_COUNT: Final = 1200
HOLDOUT_COUNT: Final = 397
THRESHOLD: Final = 0.9
AUDIT_SHARE: Final = 0.1
_INK_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """All digits: `pixels` (1797, 8, 8) uint8, `labels` (1797); the parts as numbers of digits, disjoint."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seed: tuple[int, ...]
    stream: tuple[int, ...]
    holdout: tuple[int, ...]

    def png(self, index: int) -> bytes:
        """Return one digit as an 8 x 8 greyscale PNG."""
        from PIL import Image

        target = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(target, "PNG")
        return target.getvalue()

    def label(self, index: int) -> str:
        """Return what one digit is, "0" to "9"."""
        return LABELS[int(self.labels[index])]

    def tensor(self, indices: tuple[int, ...]) -> NDArray[np.float32]:
        """Return digits as the model takes them: (count, 1, 8, 8) in [0, 1], as the manifest's preprocessing makes."""
        return self.pixels[list(indices)][:, np.newaxis].astype(np.float32) * np.float32(1 / 255)


@cache
def load() -> Digits:
    """Read the digits; they come with scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.rint(found.images * (255 / _INK_MAX)).astype(np.uint8)
    labels = found.target.astype(np.int64)
    order = sorted(range(len(labels)), key=lambda index: hashlib.sha256(b"digit %d" % index).digest())
    left = dict.fromkeys(range(len(LABELS)), SEED_PER_LABEL)
    seed: list[int] = []
    rest: list[int] = []
    for index in order:
        label = int(labels[index])
        (seed if left[label] else rest).append(index)
        left[label] = max(0, left[label] - 1)
    return Digits(
        pixels=pixels,
        labels=labels,
        seed=tuple(seed),
        stream=tuple(rest[:STREAM_COUNT]),
        holdout=tuple(rest[STREAM_COUNT:]),
    )


def task() -> Task:
    """Return what a person is asked of a digit."""
    return Task(
        question="Which digit is this?",
        labels=tuple(LabelOption(label=label, key=label) for label in LABELS),
        cant_tell=True,
    )


def manifest(model: str) -> Manifest:
    """Return what a model of digits declares when it is published under the name `model`."""
    return Manifest(
        model=model,
        labels=LABELS,
        task=task(),
        on_deferral="provisional",
        output=Output(tensor=OUTPUT, activation="none"),
        inputs=(TensorSpec(name=INPUT, datatype="FP32", shape=(-1, 1, SIDE_PIXELS, SIDE_PIXELS)),),
        outputs=(TensorSpec(name=OUTPUT, datatype="FP32", shape=(-1, len(LABELS))),),
        preprocess=Preprocess(
            kind="image", input=INPUT, width=SIDE_PIXELS, height=SIDE_PIXELS, mode="L", layout="NCHW", scale=1 / 255
        ),
        policy=Policy(threshold=THRESHOLD, audit_share=AUDIT_SHARE),
    )
