"""The demo's last act: the last version promises an error rate, and proves it on fresh requests.

The version is published once more under a name of its own, for which nothing is trained: people's answers there are
evidence about a version that never sees them. Its requests are drawn from the held-out digits with replacement, after
the version was made: it was trained on none of them. That the promotion gate looked at the same digits does not matter,
for what is proved is proved of requests that are drawn from these. What only the demo knows is the truth about all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.demo.evaluate import holdout_scores
from benchmarks.demo.journal import Failed, Replied, Reviewed
from benchmarks.demo.stream import report
from benchmarks.demo.stream.run import Plan, Stream
from benchmarks.demo.stream.scores import Scores, make
from benchmarks.figures import Check
from gateway.manifest import Manifest, Training
from gateway.registry import ModelVersion, Registry
from gateway.stack import Stack
from trainer import digits

ALPHA: Final = 0.05
DELTA: Final = 0.05
AUDIT_SHARE: Final = 0.2
ERROR_RATE: Final = 0.02
REQUESTS: Final = 1_000
PEOPLE: Final = 6
PER_SECOND: Final = 35.0
PLACES: Final = 4


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; shares in [0, 1].

    `tau` is in force at the end, None: nothing is proved yet, and about `audits_needed` more would prove something
    (None: nobody can tell). `coverage` and `risk` are of all held-out digits at tau, `realised_error` of the answers
    that clients got under the certificate.
    """

    model: str
    version: str
    alpha: float
    delta: float
    stage: str
    requests: int
    failed: int
    reviews: int
    audits: int
    audits_needed: int | None
    tau: float | None
    coverage: float
    risk: float | None
    coverage_stream: float
    realised_error: float | None
    violations: int
    advice: str


def run(
    stack: Stack,
    folder: Path,
    *,
    model: str,
    version: str,
    seed: int,
    show: Callable[[Stream], None],
) -> Certified:
    """Certify `version` of `model` as `<model>-certified`; raises what a run of the stream raises."""
    registry = Registry(Path(stack.data) / "models")
    found = registry.get(model, version)
    values, labels = holdout_scores(found)
    scores = make(values, labels, activation=found.manifest.output.activation)
    folder.mkdir(parents=True, exist_ok=True)
    stream = Stream(plan(stack, folder, found, scores, seed), show)
    asyncio.run(stream.run())
    return result(stream, scores, model=model, version=version, seed=seed)


def plan(stack: Stack, folder: Path, version: ModelVersion, scores: Scores, seed: int) -> Plan:
    """Return what is streamed: held-out digits, to a copy of `version`."""
    found = digits.load()
    return Plan(
        stack=stack,
        folder=folder,
        artefact=version.artefact,
        manifest=copy(version.manifest),
        input=digits.INPUT,
        values=found.tensor(found.holdout),
        scores=scores,
        rows=scores.draw(REQUESTS, seed),
        alpha=ALPHA,
        delta=DELTA,
        audit_share=AUDIT_SHARE,
        error_rate=ERROR_RATE,
        people=PEOPLE,
        per_second=PER_SECOND,
        seed=seed,
    )


def copy(manifest: Manifest) -> Manifest:
    """Return a version's manifest for publishing it under a name of its own, where nothing is trained."""
    blank = Manifest()
    return msgspec.structs.replace(
        manifest,
        model=f"{manifest.model}-certified",
        version=blank.version,
        create_time=blank.create_time,
        queue=blank.queue,
        files=blank.files,
        training=Training(enabled=False),
        provenance={"copy_of": f"models/{manifest.model}/versions/{manifest.version}"},
    )


def result(stream: Stream, scores: Scores, *, model: str, version: str, seed: int) -> Certified:
    """Return what came of a stream."""
    tally, standing = stream.tally, stream.standing
    served = report.serve(tally.of(Replied), scores.draw(REQUESTS, seed), scores)
    tau = standing.tau
    return Certified(
        model=model,
        version=version,
        alpha=ALPHA,
        delta=DELTA,
        stage=standing.stage,
        requests=served.requests,
        failed=len(tally.of(Failed)),
        reviews=len(tally.of(Reviewed)),
        audits=standing.audits,
        audits_needed=standing.audits_needed,
        tau=tau,
        coverage=round(0.0 if tau is None else scores.coverage(tau), PLACES),
        risk=None if tau is None else round(scores.risk(tau), PLACES),
        coverage_stream=round(served.coverage, PLACES),
        realised_error=None if served.error is None else round(served.error, PLACES),
        violations=stream.proofs.violations(ALPHA),
        advice=standing.advice,
    )


def judge(found: Certified) -> list[Check]:
    """Return what is promised of the last act: that all came back, and a certificate or how many audits are missing."""
    told = found.tau is not None or found.audits_needed is not None
    return [
        Check(name="requests for the certificate that failed", value=found.failed, goal="= 0", ok=found.failed == 0),
        Check(
            name="last version certified, or it is said how many audits are missing",
            value=float(told),
            goal="= 1",
            ok=told,
        ),
    ]


def sentence(found: Certified) -> str:
    """Return what came of it, for people."""
    promise = f"at most {found.alpha:.0%} wrong, with {1 - found.delta:.0%} confidence"
    if found.tau is None:
        missing = "nobody can tell how many" if found.audits_needed is None else f"about {found.audits_needed}"
        return (
            f"version {found.version} is not certified ({promise}): {missing} more audits are missing; {found.advice}"
        )
    error = "none yet" if found.realised_error is None else f"{found.realised_error:.1%} of them wrong"
    return (
        f"version {found.version} is certified ({promise}) after {found.audits} audits: from now on it answers "
        f"{found.coverage:.0%} of the requests by itself, {found.risk or 0:.1%} of them wrong in truth; while this "
        f"was proved it answered {found.coverage_stream:.0%} of {found.requests}, {error}"
    )
