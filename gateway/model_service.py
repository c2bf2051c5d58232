"""demur.v1.ModelService: publishing, promoting and rolling back versions, and the policy of each model.

Promotion loads first and writes second: the gateway that took the call has the version live before anybody is told, so
that a version that does not load changes nothing anywhere; if the states then cannot be written, it goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from google.protobuf.message import Message

from demur.v1 import model_pb2 as pb
from fallback.documents import Document, Documents
from fallback.errors import (
    AbortedError,
    DemurError,
    FullError,
    InvalidError,
    NotFoundError,
    OverdueError,
    StateError,
)
from fallback.identity import OPERATOR, Credentials
from gateway import admission, lifecycle
from gateway.amendments import AMENDMENTS, amendments_of
from gateway.certification import CERTIFICATIONS, STANDINGS, Certification, Standing
from gateway.lifecycle import ModelStates
from gateway.manifest import MANIFEST_BYTES_MAX, Manifest, check_name, check_policy, parse
from gateway.model_wire import (
    amendment_to_wire,
    certificate_to_wire,
    policy_from_wire,
    policy_to_wire,
    version_to_wire,
    work_from_wire,
)
from gateway.policy import Policy
from gateway.quote import Plan, Said, check_problems, plan
from gateway.registry import ModelVersion, Registry, parse_name, version_of
from gateway.transport import Call, Slow
from gateway.watch import MODELS, POLICIES, Watch, states_of
from gateway.wire import message_of

SERVICE: Final = "demur.v1.ModelService"
# The methods whose client streams.
READS: Final = frozenset({f"/{SERVICE}/PublishModelVersion"})
# Uploads and trials under way; each may take as much disk as an artefact.
_PUBLISHING_MAX: Final = 4
# Between two messages of an upload.
CHUNK_SECONDS_MAX: Final = 60.0
_FULL_RETRY_SECONDS: Final = 5.0
_WRITE_ATTEMPTS_MAX: Final = 8

log = structlog.get_logger(__name__)
S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class ModelService:
    """The methods, over the transport's seam."""

    def __init__(
        self,
        *,
        registry: Registry,
        documents: Documents,
        watch: Watch,
        limits: admission.Limits,
        credentials: Credentials,
        chunk_seconds_max: float = CHUNK_SECONDS_MAX,
    ) -> None:
        self._credentials = credentials
        self._registry = registry
        self._documents = documents
        self._watch = watch
        self._limits = limits
        self._admitting = asyncio.Semaphore(1)
        self._publishing = 0
        self._chunk_seconds_max = chunk_seconds_max
        self._tasks: set[asyncio.Task[Any]] = set()

    def routes(self) -> Mapping[str, Slow]:
        """Return the handlers by full method name."""
        methods: dict[str, Callable[[Call], Awaitable[Message]]] = {
            "PublishModelVersion": self._publish,
            "ListModelVersions": self._list,
            "PromoteModelVersion": self._promote,
            "RollBackModel": self._roll_back,
            "ShadowModelVersion": self._shadow,
            "GetPolicy": self._get_policy,
            "UpdatePolicy": self._update_policy,
            "GetCertificate": self._get_certificate,
            "ListAmendments": self._list_amendments,
        }
        return {f"/{SERVICE}/{name}": self._answering(method) for name, method in methods.items()}

    def _answering(self, method: Callable[[Call], Awaitable[Message]]) -> Slow:
        async def answer(call: Call) -> None:
            try:
                role = "" if method in {self._list, self._get_policy, self._get_certificate} else OPERATOR
                self._credentials.identify(call.metadata, peer=call.peer, role=role)
                reply = await method(call)
            except DemurError as error:
                call.fail(error)
            else:
                call.reply(reply.SerializeToString())

        return answer

    async def _publish(self, call: Call) -> Message:
        first = await call.receive()
        request = message_of(first or b"", pb.PublishModelVersionRequest)
        if request.WhichOneof("part") != "header":
            raise InvalidError("header: expected as the first message of the stream")
        header = request.header
        check_name("header.model", header.model)
        if len(header.manifest.encode()) > MANIFEST_BYTES_MAX:
            raise InvalidError(f"header.manifest: expected at most {MANIFEST_BYTES_MAX} bytes")
        manifest = parse(header.manifest)
        # Fails now, not after minutes of upload and trial, when Redis is away.
        await self._documents.read(MODELS + header.model)
        folder = self._take_room()
        try:
            await self._receive(call, folder / "model.onnx")
        except BaseException:
            self._give_room(folder)
            raise
        return await self._to_its_end(self._published(header, manifest, folder))

    def _take_room(self) -> Path:
        """Return a folder for one more upload; raises FullError where as many are under way as may be."""
        if self._publishing >= _PUBLISHING_MAX:
            raise FullError(
                f"{self._publishing} versions are being published, the most at a time",
                retry_after_seconds=_FULL_RETRY_SECONDS,
            )
        folder = self._registry.upload_folder()
        self._publishing += 1
        return folder

    def _give_room(self, folder: Path) -> None:
        self._publishing -= 1
        shutil.rmtree(folder, ignore_errors=True)

    async def _published(
        self, header: pb.PublishModelVersionRequest.Header, manifest: Manifest, folder: Path
    ) -> Message:
        try:
            # One at a time: a trial takes a core and much memory.
            async with self._admitting:
                version = await asyncio.to_thread(
                    self._registry.publish, header.model, folder / "model.onnx", manifest, limits=self._limits
                )
        finally:
            self._give_room(folder)
        reason = header.reason or "published"
        states = await self._write(
            header.model, lambda states: lifecycle.add(states, version.version, reason=reason, time=time.time())
        )
        log.info("published", model=version.model, version=version.version, sha256=version.sha256)
        if header.promote:
            states = await self._make_champion(version.model, version.version, reason)
        return version_to_wire(version, states)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end though its caller may leave: what is half done would be live and nowhere written."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever asked for it was told, or has left

    async def _receive(self, call: Call, artefact: Path) -> None:
        """Write the stream's chunks to a file, no more than the limit."""
        size = 0
        with artefact.open("xb") as file:
            while (message := await self._next(call)) is not None:
                request = message_of(message, pb.PublishModelVersionRequest)
                if request.WhichOneof("part") != "chunk":
                    raise InvalidError("chunk: expected in every message after the first")
                size += len(request.chunk)
                if size > self._limits.artefact_bytes_max:
                    raise InvalidError(f"chunk: expected at most {self._limits.artefact_bytes_max} bytes in all")
                await asyncio.to_thread(file.write, request.chunk)

    async def _next(self, call: Call) -> bytes | None:
        """Return the stream's next message; a publisher that sends nothing must not keep the room of others."""
        try:
            return await asyncio.wait_for(call.receive(), self._chunk_seconds_max)
        except TimeoutError:
            raise OverdueError(f"chunk: expected the next within {self._chunk_seconds_max:g} s, got nothing") from None

    async def _list(self, call: Call) -> Message:
        wanted = message_of(call.payload, pb.ListModelVersionsRequest).model
        if wanted:
            check_name("model", wanted)
        reply = pb.ListModelVersionsResponse()
        for model in [wanted] if wanted else await asyncio.to_thread(self._registry.models):
            states = states_of(await self._documents.read(MODELS + model))
            versions = await asyncio.to_thread(self._registry.versions, model)
            reply.versions.extend(version_to_wire(version, states) for version in versions)
        return reply

    async def _promote(self, call: Call) -> Message:
        request = message_of(call.payload, pb.PromoteModelVersionRequest)
        model, number = parse_name(request.name)
        version = await asyncio.to_thread(self._registry.get, model, number)
        states = await self._make_champion(model, number, request.reason or "promoted")
        return version_to_wire(version, states)

    async def _make_champion(self, model: str, version: str, reason: str) -> ModelStates:
        def promoted(states: ModelStates) -> ModelStates:
            known = lifecycle.add(states, version, reason="published", time=time.time())
            return lifecycle.promote(known, version, reason=reason, time=time.time())

        return await self._to_its_end(self._change_champion(model, promoted))

    async def _roll_back(self, call: Call) -> Message:
        request = message_of(call.payload, pb.RollBackModelRequest)
        check_name("model", request.model)
        await asyncio.to_thread(self._known, request.model)
        reason, expected = request.reason or "rolled back by hand", version_of(request.model, request.expected_champion)

        def back(states: ModelStates) -> ModelStates:
            return lifecycle.roll_back(states, reason=reason, time=time.time(), expected=expected)

        states = await self._to_its_end(self._change_champion(request.model, back))
        version = await asyncio.to_thread(self._registry.get, request.model, states.champion)
        return version_to_wire(version, states)

    async def _shadow(self, call: Call) -> Message:
        request = message_of(call.payload, pb.ShadowModelVersionRequest)
        model, number = parse_name(request.name)
        version = await asyncio.to_thread(self._registry.get, model, number)
        reason = request.reason or ("out of the shadow" if request.stop else "in shadow")

        def changed(states: ModelStates) -> ModelStates:
            known = lifecycle.add(states, number, reason="published", time=time.time())
            change = lifecycle.unshadow if request.stop else lifecycle.shadow
            return change(known, number, reason=reason, time=time.time())

        return version_to_wire(version, await self._to_its_end(self._change_shadows(model, number, changed)))

    async def _change_shadows(
        self, model: str, version: str, change: Callable[[ModelStates], ModelStates]
    ) -> ModelStates:
        """Load what is to be in shadow, then write the states; on trouble all is as it was."""
        async with self._watch.lock(model):
            before = states_of(await self._documents.read(MODELS + model))
            try:
                await self._watch.shadow(model, change(before))
                states = await self._write(model, change)
            except DemurError as error:
                with contextlib.suppress(DemurError):
                    await self._watch.shadow(model, before)
                raise StateError(f"version {version} of {model!r}: {error.message}; all is as it was") from error
        log.info("shadows", model=model, versions=lifecycle.shadows(states))
        return states

    def _known(self, model: str) -> None:
        if not self._registry.numbers(model):
            raise NotFoundError(
                f"model {model!r} is not here; there are: {', '.join(self._registry.models()) or 'none'}"
            )

    async def _change_champion(self, model: str, change: Callable[[ModelStates], ModelStates]) -> ModelStates:
        """Load the version that `change` makes the champion, then write the states; on trouble all is as it was."""
        async with self._watch.lock(model):
            before = states_of(await self._documents.read(MODELS + model))
            target = change(before).champion
            await self._load(model, target, before.champion)
            try:
                states = await self._write(model, change)
            except DemurError:
                await self._watch.restore(model, before.champion)
                raise
            if states.champion != target:
                await self._watch.load(model, states.champion)
            await self._follow_shadows(model, states)
        log.info("champion", model=model, version=states.champion, before=before.champion)
        return states

    async def _follow_shadows(self, model: str, states: ModelStates) -> None:
        """Have in shadow what is left there; one that does not load is no reason to go back."""
        try:
            await self._watch.shadow(model, states)
        except DemurError as error:
            log.error("a challenger could not be loaded", model=model, error=error.message)  # noqa: TRY400 - the sentence says all

    async def _load(self, model: str, target: str, before: str) -> None:
        try:
            await self._watch.load(model, target)
        except DemurError as error:
            stays = f"version {before} stays live" if before else "the model has no live version"
            raise StateError(f"version {target} of {model!r} could not be loaded: {error.message}; {stays}") from error

    async def _write(self, model: str, change: Callable[[ModelStates], ModelStates]) -> ModelStates:
        """Compare and set, again from the new states when somebody else was first."""
        key = MODELS + model
        for attempt in range(_WRITE_ATTEMPTS_MAX):
            document = await self._documents.read(key)
            states = change(states_of(document))
            try:
                written = await self._documents.write(
                    key, lifecycle.encode(states), expected_revision=document.revision if document else 0
                )
            except AbortedError:
                if attempt == _WRITE_ATTEMPTS_MAX - 1:
                    raise
                continue
            self._watch.keep(key, written)
            return states
        raise AssertionError("unreachable: the loop returns or raises")

    async def _get_policy(self, call: Call) -> Message:
        model = message_of(call.payload, pb.GetPolicyRequest).model
        return policy_to_wire(model, *await self._policy(model))

    async def _policy(self, model: str) -> tuple[Policy, int]:
        """Return the policy in force and its revision, 0 for the one that the version was published with."""
        version = await self._judged(model)
        document = await self._documents.read(POLICIES + model)
        return _decode(document, Policy) or version.manifest.policy, document.revision if document else 0

    async def _update_policy(self, call: Call) -> Message:
        request = message_of(call.payload, pb.UpdatePolicyRequest)
        wire = request.policy
        version = await self._judged(wire.model)
        policy = policy_from_wire(wire)
        check_policy(policy, version.manifest)
        found = await self._plan(wire.model, policy, work_from_wire(request.work))
        before, stored = await self._policy(wire.model)
        if wire.revision not in {0, stored}:
            raise AbortedError(f"policy.revision: expected {stored}, got {wire.revision}; read it again, then retry")
        if found is not None and not request.accept_problems:
            check_problems(found, policy, before)
        if request.validate_only:
            return policy_to_wire(wire.model, policy, stored, found)
        body = msgspec.json.encode(policy)
        written = await self._documents.write(POLICIES + wire.model, body, expected_revision=stored)
        self._watch.take_policy(wire.model, written)
        log.info("policy", model=wire.model, revision=written.revision, policy=msgspec.to_builtins(policy))
        return policy_to_wire(wire.model, policy, written.revision, found)

    async def _plan(self, model: str, policy: Policy, said: Said) -> Plan | None:
        """Return what the promise of `policy` costs, as far as anybody knows."""
        standing = _decode(await self._documents.read(STANDINGS + model), Standing)
        return await asyncio.to_thread(plan, policy, said, standing)

    async def _judged(self, model: str) -> ModelVersion:
        """Return the version whose labels a policy of `model` must know: the champion, else the newest."""
        check_name("model", model)
        await asyncio.to_thread(self._known, model)
        champion = states_of(await self._documents.read(MODELS + model)).champion
        if champion:
            return await asyncio.to_thread(self._registry.get, model, champion)
        return (await asyncio.to_thread(self._registry.versions, model))[-1]

    async def _get_certificate(self, call: Call) -> Message:
        model = message_of(call.payload, pb.GetCertificateRequest).model
        policy, _ = await self._policy(model)
        return certificate_to_wire(
            model,
            policy,
            certification=_decode(await self._documents.read(CERTIFICATIONS + model), Certification),
            standing=_decode(await self._documents.read(STANDINGS + model), Standing),
            second=int(time.time()),
        )

    async def _list_amendments(self, call: Call) -> Message:
        model = message_of(call.payload, pb.ListAmendmentsRequest).model
        check_name("model", model)
        await asyncio.to_thread(self._known, model)
        found = amendments_of(await self._documents.read(AMENDMENTS + model))
        return pb.ListAmendmentsResponse(amendments=[amendment_to_wire(model, each) for each in found.amendments])


def _decode(document: Document | None, type_: type[S]) -> S | None:
    return None if document is None else msgspec.json.decode(document.body, type=type_)
