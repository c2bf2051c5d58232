"""Triton's extensions of the inference protocol, so far as they are served: what clients ask before and after a load.

`model_configuration` is ModelConfig, `statistics` is ModelStatistics. Of `model_repository` only the index is served:
Triton means loading and unloading by it as well, so that it is not listed; what is live is chosen by `demur models`.
`schedule_policy` and `parameters` are what ModelInfer understands (`gateway.asked`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from demur import kserve
from fallback.errors import UnimplementedError
from fallback.identity import CLIENT, Credentials
from gateway.champion import Live
from gateway.champions import Champions
from gateway.metrics import Metrics
from gateway.model_config import model_config
from gateway.model_statistics import model_statistics
from gateway.registry import Registry
from gateway.transport import Call, Slow
from gateway.wire import message_of

EXTENSIONS: Final = ("model_configuration", "parameters", "schedule_policy", "statistics")
# What to do in place of a method of Triton's that is not served.
INSTEAD: Final = MappingProxyType(
    {
        f"/{kserve.SERVICE}/RepositoryModelLoad": "`demur models promote` makes a version live",
        f"/{kserve.SERVICE}/RepositoryModelUnload": (
            "a model stays live; `demur models promote` and `demur models rollback` choose its version"
        ),
    }
)
# Versions of a model in the index, the newest, beside the live one; and entries in all.
VERSIONS_SHOWN: Final = 100
ENTRIES_MAX: Final = 10_000
_READY: Final = "READY"
_UNAVAILABLE: Final = "UNAVAILABLE"


class Extensions:
    """The methods, as routes."""

    def __init__(self, *, champions: Champions, registry: Registry, metrics: Metrics, credentials: Credentials) -> None:
        self._champions = champions
        self._registry = registry
        self._metrics = metrics
        self._credentials = credentials

    def slow(self) -> Mapping[str, Slow]:
        """Return the handlers by full method name: nobody's request waits for them."""
        methods: dict[str, Callable[[Call], Awaitable[Any]]] = {
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
        }
        return {f"/{kserve.SERVICE}/{name}": self._answering(method) for name, method in methods.items()}

    def _answering(self, method: Callable[[Call], Awaitable[Any]]) -> Slow:
        async def answer(call: Call) -> None:
            self._credentials.identify(call.metadata, peer=call.peer, role=CLIENT)
            call.reply((await method(call)).SerializeToString())

        return answer

    async def _model_config(self, call: Call) -> Any:
        message = message_of(call.payload, kserve.ModelConfigRequest)
        live = self._champions.find_live(message.name, message.version)
        return kserve.ModelConfigResponse(config=model_config(live))

    async def _model_statistics(self, call: Call) -> Any:
        """Tell of one model, or of all where none is named; a version without a name is left aside, as by Triton."""
        message = message_of(call.payload, kserve.ModelStatisticsRequest)
        if message.name:
            lives = [self._champions.find_live(message.name, message.version)]
        else:
            lives = sorted(self._champions.live(), key=lambda live: live.version.model)
        counted = self._metrics.counted([live.version.model for live in lives])
        return kserve.ModelStatisticsResponse(
            model_stats=[
                model_statistics(live.version, counted[live.version.model], last_ms=self._last_ms(live))
                for live in lives
            ]
        )

    def _last_ms(self, live: Live) -> int:
        """Return when the model's newest run began, Unix milliseconds."""
        ago = time.monotonic() - self._champions.find(live.version.model).batcher.began
        return round(1000 * (time.time() - ago))

    async def _repository_index(self, call: Call) -> Any:
        """List what is live; unless only that is asked for, also what else is on this machine, the newest of it."""
        message = message_of(call.payload, kserve.RepositoryIndexRequest)
        if message.repository_name:
            said = message.repository_name[:100]
            raise UnimplementedError(f"repository_name: expected none, got {said!r}; there is one repository")
        lives = {live.version.model: live for live in self._champions.live()}
        found = kserve.RepositoryIndexResponse()
        for model, live in sorted(lives.items()):
            found.models.add(name=model, version=live.version.version, state=_READY)
        if not message.ready:
            for model, version in await asyncio.to_thread(lambda: [*self._others(lives)]):
                if len(found.models) >= ENTRIES_MAX:
                    break
                reason = _why(lives.get(model), version)
                found.models.add(name=model, version=version, state=_UNAVAILABLE, reason=reason)
        return found

    def _others(self, lives: Mapping[str, Live]) -> Iterator[tuple[str, str]]:
        """Yield what is on the disk and not live, of each model the newest."""
        for model in self._registry.models():
            live = lives.get(model)
            for number in self._registry.numbers(model)[-VERSIONS_SHOWN:]:
                if live is None or live.version.version != str(number):
                    yield model, str(number)


def _why(live: Live | None, version: str) -> str:
    """Return why a version is not ready."""
    if live is None:
        return "no version of it is live"
    shadows = [challenger.live for challenger in live.challengers]
    if any(shadow is not None and shadow.version.version == version for shadow in shadows):
        return f"in shadow of version {live.version.version}"
    return f"version {live.version.version} is live"
