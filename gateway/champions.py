"""All models that this gateway serves, each with its pipeline; what the watch tells which version is live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from fallback.errors import DemurError, FullError, NotFoundError
from gateway.certification import Certification
from gateway.champion import Champion, Live
from gateway.kept import Kept
from gateway.metrics import Metrics
from gateway.model import Device
from gateway.pipeline import Pipeline
from gateway.policy import Policy
from gateway.registry import ModelVersion
from gateway.turns import take_turns

NAMES_SHOWN = 20
# How long the thread that brings requests runs them itself before it looks for others.
HERE_SECONDS_MAX: Final = 0.005
# A thread that has nothing to do ends in that.
_CLOSE_SECONDS_MIN: Final = 0.1

log = structlog.get_logger(__name__)


class Champions:
    """Pipelines by model. `make` builds one around a Champion."""

    def __init__(
        self, make: Callable[[str, Champion], Pipeline], *, device: Device, threads: int, metrics: Metrics
    ) -> None:
        self._make = make
        self._device = device
        self._threads = threads
        self._metrics = metrics
        self._pipelines: dict[str, Pipeline] = {}
        self._policies: dict[str, Policy] = {}
        self._certifications: dict[str, Certification] = {}
        self._provider = ""

    @property
    def provider(self) -> str:
        """What models really run on; empty while none is loaded."""
        return self._provider

    def find(self, model: str) -> Pipeline:
        """Return a model's pipeline; raises NotFoundError naming what there is."""
        found = self._pipelines.get(model)
        if found is None:
            there = sorted(self._pipelines)[:NAMES_SHOWN]
            raise NotFoundError(f"model {model[:100]!r} is not served here; there are: {', '.join(there) or 'none'}")
        return found

    def find_live(self, model: str, version: str) -> Live:
        """Return a model's live version; raises NotFoundError where there is none, or it is not `version` (if any)."""
        live = self.find(model).champion.live
        if live is None or version not in {"", live.version.version}:
            loaded = "none" if live is None else live.version.version
            raise NotFoundError(f"model {model!r} has no version {version[:20]!r} loaded; loaded is {loaded}")
        return live

    def live(self) -> list[Live]:
        """Return the live versions."""
        found = (pipeline.champion.live for pipeline in list(self._pipelines.values()))
        return [live for live in found if live is not None]

    def kept(self, model: str) -> Kept | None:
        """Return the last automatic answers of a model; None for one that is not served here."""
        pipeline = self._pipelines.get(model)
        return None if pipeline is None else pipeline.kept

    def drained(self) -> None:
        """Run what driven calls brought: short runs here and by turns, for a while; others on their models' threads."""
        # A copy: another model may be published meanwhile.
        waiting = [pipeline for pipeline in list(self._pipelines.values()) if pipeline.rows]
        if not waiting:
            return
        until = time.monotonic() + HERE_SECONDS_MAX
        if len(waiting) > 1:
            for pipeline in waiting:
                if not pipeline.quick:
                    pipeline.drained()
            take_turns([pipeline for pipeline in waiting if pipeline.quick], until)
        for pipeline in waiting:
            pipeline.drained(until)

    def refusal(self) -> DemurError | None:
        """Return why no request can be taken now, whichever model it asks: the queues of all are full.

        What a request asks, and who asks, is not known before its message is taken in: it is told no name. It counts as
        one to the only model there is.
        """
        problem: FullError | None = None
        for pipeline in list(self._pipelines.values()):
            problem = pipeline.batcher.refusal()
            if problem is None:
                return None
        if problem is None:
            return None
        model = next(iter(self._pipelines)) if len(self._pipelines) == 1 else ""
        self._metrics.requests.labels(model, "", problem.code.name).inc()
        return FullError("the queues of all models are full", retry_after_seconds=problem.retry_after_seconds)

    def current(self, model: str) -> ModelVersion | None:
        """Return the live version."""
        pipeline = self._pipelines.get(model)
        live = None if pipeline is None else pipeline.champion.live
        return None if live is None else live.version

    async def ensure(self, version: ModelVersion) -> None:
        """Load, warm and swap in `version` unless it is live; a DemurError leaves the champion as it was."""
        current = self.current(version.model)
        if current is not None and current.version == version.version:
            return
        pipeline = self._pipelines.get(version.model)
        champion = Champion(device=self._device, threads=self._threads) if pipeline is None else pipeline.champion
        policy = self._policies.get(version.model, version.manifest.policy)
        champion.set_certification(self._certifications.get(version.model))
        live = await asyncio.to_thread(champion.swap, version, policy)
        if pipeline is None:
            pipeline = self._pipelines[version.model] = self._make(version.model, champion)
        pipeline.swapped(live)
        if (changed := self._policies.get(version.model, policy)) is not policy:
            pipeline.champion.set_policy(changed)  # it came while this one was loading
        # Of a model that is loaded for the first time the champion is told of changes only from now on.
        champion.set_certification(self._certifications.get(version.model))
        self._provider = live.model.provider
        self._metrics.set_champion(version.model, version.version, live.model.provider)
        log.info("swapped", model=version.model, version=version.version, provider=live.model.provider)

    async def shadow(self, model: str, versions: Sequence[ModelVersion]) -> None:
        """Have exactly these versions in shadow; a DemurError of one that does not load leaves it out."""
        pipeline = self._pipelines.get(model)
        if pipeline is None:
            return
        there = {
            live.version.version: challenger
            for challenger in pipeline.champion.challengers
            if (live := challenger.live) is not None
        }
        wanted, problem = list[Champion](), None
        for version in versions:
            challenger = there.get(version.version)
            if challenger is None:
                challenger = Champion(device=self._device, threads=self._threads)
                policy = self._policies.get(model, version.manifest.policy)
                try:
                    await asyncio.to_thread(challenger.swap, version, policy)
                except DemurError as error:
                    problem = error
                    continue
                if (changed := self._policies.get(model, policy)) is not policy:
                    challenger.set_policy(changed)  # it came while this one was loading
                log.info("in shadow", model=model, version=version.version)
            wanted.append(challenger)
        pipeline.champion.set_challengers(wanted)
        if problem is not None:
            raise problem

    def remove(self, model: str) -> None:
        """Have no live version of `model`; what runs ends first."""
        pipeline = self._pipelines.get(model)
        if pipeline is not None:
            pipeline.champion.close()
            self._metrics.unset_champion(model)

    def set_policy(self, model: str, policy: Policy) -> None:
        """Judge answers by `policy` from the next batch on."""
        self._policies[model] = policy
        pipeline = self._pipelines.get(model)
        if pipeline is not None:
            pipeline.champion.set_policy(policy)

    def set_certification(self, model: str, certification: Certification) -> None:
        """Answer by what is proved, from the next batch on; it counts where the policy has an alpha."""
        self._certifications[model] = certification
        pipeline = self._pipelines.get(model)
        if pipeline is not None:
            pipeline.champion.set_certification(certification)

    def close(self, grace_seconds: float) -> None:
        """Run what waits for up to `grace_seconds`, that of all models together, then free them."""
        until = time.monotonic() + grace_seconds
        for pipeline in self._pipelines.values():
            pipeline.close(max(_CLOSE_SECONDS_MIN, until - time.monotonic()))
