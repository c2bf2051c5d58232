"""Makes one candidate: cuts the live model, refits its last layer, exports it, and has the gate judge both.

All of it is a function of the live version, the dataset and the settings: the same again gives the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import onnx

from fallback.errors import InvalidError
from gateway.confidence import Scorer
from gateway.correctness import Correctness
from gateway.manifest import Manifest
from gateway.model import Model
from gateway.policy import Policy
from gateway.registry import ModelVersion
from gateway.rules import Rules
from trainer import evaluate, export, promote, surgery
from trainer.config import TrainerSettings
from trainer.contents import Contents
from trainer.dataset import Dataset
from trainer.errors import NotTrainableError, disk
from trainer.evaluate import Judged, Metrics
from trainer.examples import Origin
from trainer.features import Floats, Table, compute
from trainer.learned import learn
from trainer.sorting import Sorting, sort
from trainer.train import Fit, balanced, forward, refit

ARTEFACT: Final = "candidate.onnx"
_PARITY_ROWS_MAX: Final = 1_000


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One version on the hold-out: on all of it, on what was imported, on what came from live requests.

    Live requests are there because they were deferred or audited, so they are harder than traffic is. `sorting` is on
    all of it, None where nothing was held out.
    """

    all: Metrics
    imported: Metrics
    live: Metrics
    sorting: Sorting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A retrained model in a file, what it is worth beside the live one, and what the gate says."""

    artefact: Path
    before: Scores
    after: Scores
    decision: promote.Decision
    fit: Fit
    parity: float
    correctness: Correctness | None


def make(
    parent: ModelVersion,
    dataset: Dataset,
    policy: Policy,
    contents: Contents,
    settings: TrainerSettings,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    go_on: Callable[[], None] = lambda: None,
) -> Candidate:
    """Retrain `parent` on `dataset` into `folder`, which exists; `policy` is the live one.

    `go_on` is called again and again; what it raises ends the work, so that a process can stop at once.
    Raises NotTrainableError where the model is of another build than surgery takes, ParityError where the export went
    wrong.
    """
    manifest = parent.manifest
    model, layer = last_layer(parent)
    cut = folder / "features.onnx"
    with disk(cut):
        onnx.save_model(surgery.cut(model, layer), cut)
    train, holdout = _features(cut, layer, dataset, manifest, contents, settings, go_on)
    fit = _fit(train, layer, len(manifest.labels), settings, go_on)
    artefact = folder / ARTEFACT
    stored = export.write(
        model, layer, fit.weights, fit.bias, artefact, output=manifest.output.tensor, metadata=metadata
    )
    parity = export.check_parity(
        artefact,
        stored,
        holdout if holdout.examples else train,
        manifest,
        contents,
        device=settings.device,
        tolerance=settings.parity_tolerance,
        rows_max=_PARITY_ROWS_MAX,
    )
    # The gate asks what the operator's own threshold would do: what is proved is proved by other examples than these.
    rules = Rules.compile(msgspec.structs.replace(policy, alpha=None), manifest.labels)
    before = evaluate.judge(forward(holdout.values, layer.weights, layer.bias), holdout.labels, rules)
    after = evaluate.judge(forward(holdout.values, stored.weights, stored.bias), holdout.labels, rules)
    learned = learn(forward(holdout.values, stored.weights, stored.bias), holdout.labels)
    return Candidate(
        artefact=artefact,
        before=_scores(
            before, holdout, manifest, _sorted(holdout, layer.weights, layer.bias, policy, manifest.correctness)
        ),
        after=_scores(after, holdout, manifest, _sorted(holdout, stored.weights, stored.bias, policy, learned)),
        decision=promote.decide(before, after, manifest.labels, tolerances(settings)),
        fit=fit,
        parity=parity,
        correctness=learned or manifest.correctness,
    )


def last_layer(parent: ModelVersion) -> tuple[onnx.ModelProto, surgery.LinearLayer]:
    """Return a version's graph and what of it is refitted; raises NotTrainableError where it has no such layer."""
    model = _read(parent.artefact)
    layer = surgery.find(model, parent.manifest.output.tensor)
    check_fits(layer, parent.manifest)
    return model, layer


def check_fits(layer: surgery.LinearLayer, manifest: Manifest) -> None:
    """Raise NotTrainableError unless `layer` gives one score a label, made probabilities of exactly once."""
    if not manifest.training.enabled:
        raise NotTrainableError(f"the manifest of {manifest.model} says training.enabled = false")
    if layer.weights.shape[1] != len(manifest.labels):
        raise NotTrainableError(
            f"the last layer gives {layer.weights.shape[1]} scores; expected one for each of the "
            f"{len(manifest.labels)} labels",
        )
    if layer.softmax is (manifest.output.activation == "softmax"):
        found = "both in the graph and in the manifest" if layer.softmax else "nowhere"
        raise NotTrainableError(
            f"the scores must become probabilities by exactly one Softmax, in the graph or as output.activation in the "
            f"manifest; it is {found}",
        )


def tolerances(settings: TrainerSettings) -> promote.Tolerances:
    """Return what the gate lets through."""
    return promote.Tolerances(
        holdout_min=settings.gate_holdout_min,
        accuracy_drop_max=settings.gate_accuracy_drop_max,
        recall_drop_max=settings.gate_recall_drop_max,
        error_rise_max=settings.gate_error_rise_max,
        significance=settings.gate_significance,
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load_model(path, load_external_data=False)
    except Exception as error:
        raise InvalidError(f"{path.name}: expected an ONNX file, got {error}") from error


def _features(
    path: Path,
    layer: surgery.LinearLayer,
    dataset: Dataset,
    manifest: Manifest,
    contents: Contents,
    settings: TrainerSettings,
    go_on: Callable[[], None],
) -> tuple[Table, Table]:
    model = Model.load(path, device=settings.device)
    try:
        train, holdout = (
            compute(model, surgery.FEATURES, manifest, examples, contents, columns=len(layer.weights), go_on=go_on)
            for examples in (dataset.train, dataset.holdout)
        )
    finally:
        model.close()
    return train, holdout


def _fit(
    train: Table, layer: surgery.LinearLayer, labels: int, settings: TrainerSettings, go_on: Callable[[], None]
) -> Fit:
    sample_weights: Floats = np.array(
        [settings.correction_weight if example.fresh else 1.0 for example in train.examples], dtype=np.float64
    )
    if settings.class_weights == "balanced" and train.examples:
        sample_weights = sample_weights * balanced(train.labels, labels)
    return refit(
        train.values,
        train.labels,
        sample_weights,
        weights=layer.weights,
        bias=layer.bias,
        regularisation=settings.regularisation,
        iterations_max=settings.iterations_max,
        go_on=go_on,
    )


def _sorted(
    holdout: Table, weights: Floats, bias: Floats, policy: Policy, learned: Correctness | None
) -> Sorting | None:
    """Return how well the score that is certified sorts; the margin where nothing is promised, or learned yet."""
    logits = holdout.values @ weights + bias
    scorer, promise = (Scorer.MARGIN, None) if policy.alpha is None else (policy.scored_by, policy.promise())
    if scorer is Scorer.LEARNED and learned is None:
        scorer = Scorer.MARGIN
    return sort(logits, holdout.labels, scorer, promise, learned)


def _scores(judged: Judged, holdout: Table, manifest: Manifest, sorting: Sorting | None) -> Scores:
    live = np.array([example.origin is Origin.LIVE for example in holdout.examples], dtype=np.bool_)
    return Scores(
        all=evaluate.measure(judged, manifest.labels),
        imported=evaluate.measure(evaluate.select(judged, ~live), manifest.labels),
        live=evaluate.measure(evaluate.select(judged, live), manifest.labels),
        sorting=sorting,
    )
