"""Follows the shared documents: which version of each model is live, by which policy, and by what proof, it answers.

Theory of operation. `models/<model>` and `policies/<model>` are documents that any gateway may change,
`certifications/<model>` one that the certifier writes; every gateway reads them when it starts and whenever one of them
changes, and makes its own champions follow. What was last taken is copied to a folder of this machine, so that a
gateway starts, and answers, while Redis is away; once it is back, the documents win. A change is applied under the
model's lock, and a document that is older than what was taken is read again inside it: whoever promotes holds the same
lock from loading to writing, so that a version that is live here but not yet written is not swapped back.
A version that does not load leaves the champion as it was and is tried again at the next look.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from fallback.documents import Document, Documents
from fallback.errors import DemurError, UnavailableError
from fallback.presence import write_atomic
from gateway import lifecycle
from gateway.certification import CERTIFICATIONS, Certification
from gateway.internal import told
from gateway.lifecycle import ModelStates
from gateway.metrics import Metrics
from gateway.policy import Policy
from gateway.registry import ModelVersion, Registry

MODELS: Final = "models/"
POLICIES: Final = "policies/"
_RETRY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Champions(Protocol):
    """What serves: the live version of each model. The gateway's own, and the tests'."""

    async def ensure(self, version: ModelVersion) -> None:
        """Load, warm and swap in `version` unless it is live; a DemurError leaves the champion as it was."""

    def current(self, model: str) -> ModelVersion | None:
        """Return the live version."""

    async def shadow(self, model: str, versions: Sequence[ModelVersion]) -> None:
        """Have exactly these versions in shadow; a DemurError of one that does not load leaves it out."""

    def remove(self, model: str) -> None:
        """Have no live version of `model`."""

    def set_policy(self, model: str, policy: Policy) -> None:
        """Judge answers by `policy` from the next batch on; for a model not live yet, once it is.

        Without it a version is judged by the policy it was published with.
        """

    def set_certification(self, model: str, certification: Certification) -> None:
        """Answer by what is proved from the next batch on; for a model not live yet, once it is."""


class Watch:
    """Keeps one gateway's champions and policies as the documents say."""

    def __init__(
        self,
        *,
        documents: Documents,
        registry: Registry,
        champions: Champions,
        folder: Path,
        wait_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._documents = documents
        self._registry = registry
        self._champions = champions
        self._folder = folder
        self._wait_seconds = wait_seconds
        self._metrics = metrics
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._taken: dict[str, int] = {}
        self._cursor = ""

    def lock(self, model: str) -> asyncio.Lock:
        """Return the lock that a change of this model's champion is made under."""
        return self._locks[model]

    async def start(self) -> None:
        """Take everything as it stands: from Redis, or from this machine's copies while Redis is away."""
        copies = self._copies()
        try:
            self._cursor = await self._documents.wait_change("", timeout_seconds=0)
            found = await self._documents.read_all("")
        except UnavailableError as error:
            self._metrics.redis_errors.labels("watch").inc()
            log.warning("redis is away; starting from this machine's copies", error=error.message)
            found = {}
        await self._take({**copies, **found})

    async def run(self) -> None:
        """Follow changes until cancelled."""
        while True:
            try:
                self._cursor = await self._documents.wait_change(self._cursor, timeout_seconds=self._wait_seconds)
                await self._take(await self._documents.read_all(""))
            except DemurError as error:
                self._metrics.redis_errors.labels("watch").inc()
                log.warning("the shared documents cannot be read; going on as before", error=error.message)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - the root of the task: a gateway that follows no more serves old versions for good
                told(error, where="watch")
                await asyncio.sleep(_RETRY_SECONDS)

    async def load(self, model: str, version: str) -> ModelVersion:
        """Make `version` live here, under the model's lock; a DemurError leaves the champion as it was."""
        found = await asyncio.to_thread(self._registry.get, model, version)
        current = self._champions.current(model)
        if current is not None and current.version == version:
            return found
        try:
            await asyncio.to_thread(self._registry.verify, found)
            await self._champions.ensure(found)
        except DemurError:
            self._metrics.swap_failures.labels(model).inc()
            raise
        self._metrics.swaps.labels(model).inc()
        return found

    async def shadow(self, model: str, states: ModelStates) -> None:
        """Have in shadow what the states say, under the model's lock; a DemurError of one leaves it out."""
        versions, problem = list[ModelVersion](), None
        for version in lifecycle.shadows(states):
            try:
                found = await asyncio.to_thread(self._registry.get, model, version)
                await asyncio.to_thread(self._registry.verify, found)
            except DemurError as error:
                problem = error
            else:
                versions.append(found)
        try:
            await self._champions.shadow(model, versions)
        except DemurError as error:
            problem = error
        if problem is not None:
            self._metrics.swap_failures.labels(model).inc()
            raise problem

    async def restore(self, model: str, before: str) -> None:
        """Have live what the states say, under the model's lock; `before` where they cannot be read. Empty: nothing."""
        try:
            before = states_of(await self._documents.read(MODELS + model)).champion
        except DemurError as error:
            log.warning("the states cannot be read; going back", model=model, version=before, error=error.message)
        if before:
            await self.load(model, before)
        else:
            self._champions.remove(model)

    def keep(self, key: str, document: Document) -> None:
        """Copy a document to this machine and remember that it was taken."""
        write_atomic(self._folder / f"{key}.json", msgspec.json.encode(document))
        self._taken[key] = document.revision

    def take_policy(self, model: str, document: Document) -> None:
        """Put a policy document into force."""
        self._champions.set_policy(model, msgspec.json.decode(document.body, type=Policy))
        self.keep(POLICIES + model, document)

    def _take_certification(self, model: str, document: Document) -> None:
        self._champions.set_certification(model, msgspec.json.decode(document.body, type=Certification))
        self.keep(CERTIFICATIONS + model, document)

    async def _take(self, documents: dict[str, Document]) -> None:
        """Apply what changed; one model's trouble is logged and stays its own."""
        # Policies and proofs first, so that a champion that is swapped in finds its own.
        for key in sorted(documents, key=lambda key: key.startswith(MODELS)):
            document = documents[key]
            if self._taken.get(key) == document.revision:
                continue
            try:
                if key.startswith(POLICIES):
                    self.take_policy(key.removeprefix(POLICIES), await self._newest(key, document))
                elif key.startswith(CERTIFICATIONS):
                    self._take_certification(key.removeprefix(CERTIFICATIONS), await self._newest(key, document))
                elif key.startswith(MODELS):
                    await self._take_states(key, document)
            except (DemurError, msgspec.DecodeError) as error:
                log.error("a change could not be taken; going on as before", document=key, error=str(error))  # noqa: TRY400 - the sentence says all; a traceback would say where, not why
            except Exception as error:  # noqa: BLE001 - a full disk, a manifest nobody can read: that document's trouble
                told(error, document=key)

    async def _take_states(self, key: str, document: Document) -> None:
        model = key.removeprefix(MODELS)
        async with self._locks[model]:
            document = await self._newest(key, document)
            states = states_of(document)
            if states.champion:
                await self.load(model, states.champion)
            # Whoever serves goes on without a challenger, which then counts as wrong about what it was not asked.
            try:
                await self.shadow(model, states)
            except DemurError as error:
                log.error("a challenger could not be loaded", model=model, error=error.message)  # noqa: TRY400 - as below
            self.keep(key, document)

    async def _newest(self, key: str, document: Document) -> Document:
        """Return `document`, read again where a newer one was taken meanwhile, or the server lost what it had."""
        if self._taken.get(key, 0) <= document.revision:
            return document
        return await self._documents.read(key) or document

    def _copies(self) -> dict[str, Document]:
        copies = {}
        for prefix in (MODELS, POLICIES, CERTIFICATIONS):
            for path in sorted((self._folder / prefix).glob("*.json")):
                try:
                    copies[prefix + path.stem] = msgspec.json.decode(path.read_bytes(), type=Document)
                except (OSError, msgspec.DecodeError) as error:
                    log.warning("a copy cannot be read; going on without it", path=str(path), error=str(error))
        return copies


def states_of(document: Document | None) -> ModelStates:
    """Read a `models/<model>` document; an absent one has no versions yet."""
    return ModelStates() if document is None else lifecycle.decode(document.body)
