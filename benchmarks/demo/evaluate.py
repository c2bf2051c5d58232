"""Each version on the hold-out, without asking the gateway: a question there might park an item for a person.

A version's artefact is taken from the registry, checked against its sha256, and run by the same code that serves it:
its manifest's preprocessing, `gateway.model`, and the policy as the gateway has it live, so that the figures of all
versions are of the same images under the same rule. Audits do not count: an audited request was answered.

The trainer's promotion gate judges by the same hold-out, so the gain of a version that passed is a little flattered by
having been chosen on it; what the version did on its part of the stream was chosen on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo import counts
from benchmarks.demo.counts import Served, Tally, Version
from benchmarks.demo.journal import Replied
from fallback import channel
from fallback.answer import Subject
from gateway.confidence import confidence
from gateway.model import Model
from gateway.model_client import ModelClient
from gateway.policy import Policy
from gateway.preprocess import PIXELS_MAX, to_tensor
from gateway.registry import ModelVersion, Registry
from gateway.rules import Rules
from gateway.stack import Stack
from trainer import digits

PLACES = 4


async def live_policy(gateway: str, model: str) -> Policy:
    """Return the policy that the gateway answers `model` by now."""
    async with ModelClient(gateway, **channel.shown("demo")) as client:
        found = await client.get_policy(model)
    return Policy(
        threshold=found.threshold,
        class_thresholds=dict(found.class_thresholds),
        always_person=tuple(found.always_person),
        audit_share=found.audit_share,
        allow_model_wish=found.allow_model_wish,
    )


async def measure_all(stack: Stack, model: str, tally: Tally, truth: Sequence[str]) -> list[Version]:
    """Return the figures of every version that a client met, in the order they were met.

    `truth` holds the true label of each request by its index. Raises what reading the registry raises.
    """
    policy = await live_policy(stack.gateway, model)
    registry = Registry(Path(stack.data) / "models")
    served = counts.served(tally.of(Replied), truth)
    return [_measure(registry, model, name, policy, served[name]) for name in tally.versions]


def _measure(registry: Registry, model: str, name: str, policy: Policy, served: Served) -> Version:
    version = registry.get(model, name)
    registry.verify(version)
    accuracy, deferred_share, auto_error = on_holdout(version, policy)
    return Version(
        version=name,
        accuracy_holdout=round(accuracy, PLACES),
        deferred_share=round(deferred_share, PLACES),
        auto_error=round(auto_error, PLACES),
        stream_requests=served.requests,
        stream_deferred_share=round(served.deferred_share, PLACES),
        stream_auto_error=None if served.auto_error is None else round(served.auto_error, PLACES),
    )


def on_holdout(version: ModelVersion, policy: Policy) -> tuple[float, float, float]:
    """Return one version's accuracy, share deferred and error among the answered on the held-out digits, in [0, 1].

    Under `policy`, audits aside; the error is 0 where nothing is answered.
    """
    scores, labels = holdout_scores(version)
    sure, predicted = confidence(scores, version.manifest.output.activation)
    answered = ~Rules.compile(policy, version.manifest.labels).decide(confidence=sure, predicted=predicted).deferred
    right = predicted == labels
    wrong = float(np.mean(~right[answered])) if answered.any() else 0.0
    return float(np.mean(right)), float(np.mean(~answered)), wrong


def holdout_scores(version: ModelVersion) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return what a version says of each held-out digit (digits, labels), and the place of its true label."""
    found, manifest = digits.load(), version.manifest
    model = Model.load(version.artefact, device="cpu", threads=1)
    try:
        spec = model.signature.inputs[0]
        subjects = [Subject(content=found.png(index), media_type="image/png") for index in found.holdout]
        rows = [
            to_tensor(subject, spec, manifest.preprocess, sizes=spec.shape[1:], pixels_max=PIXELS_MAX)
            for subject in subjects
        ]
        scores = model.run({spec.name: np.stack(rows)})[manifest.output.tensor]
    finally:
        model.close()
    labels = np.array([manifest.labels.index(found.label(index)) for index in found.holdout], np.intp)
    return scores, labels
