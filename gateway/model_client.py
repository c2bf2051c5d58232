"""A client of demur.v1.ModelService: publish a file, list, promote, roll back, read and change a policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc

from demur.v1 import model_pb2 as pb
from demur.v1 import model_pb2_grpc
from fallback import channel
from fallback.edge import error_of
from fallback.identity import AUTHORIZATION_KEY, IDENTITY_KEY

CHUNK_BYTES: Final = 256 * 1024
CALL_SECONDS: Final = 30.0
# Admission may try a version for a minute, and the file must get there.
PUBLISH_SECONDS: Final = 300.0

T = TypeVar("T")


class ModelClient:
    """Calls one gateway at `address` (host:port) as `identity`; use it as an asynchronous context manager.

    With `credentials` (grpc.ssl_channel_credentials) it is reached by TLS; its certificate is for `server_name`, or
    else for the address's host. Every method raises a DemurError with the server's sentence.
    """

    def __init__(
        self,
        address: str,
        *,
        identity: str = "",
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str = "",
    ) -> None:
        self.address = address
        self._channel = channel.opened(address, credentials=credentials, server_name=server_name)
        self._stub = model_pb2_grpc.ModelServiceStub(self._channel)
        self._metadata = grpc.aio.Metadata()
        if identity:
            self._metadata.add(IDENTITY_KEY, identity)
        if token:
            self._metadata.add(AUTHORIZATION_KEY, f"Bearer {token}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def publish(
        self,
        model: str,
        artefact: Path,
        manifest: str,
        *,
        promote: bool = False,
        reason: str = "",
        timeout_seconds: float = PUBLISH_SECONDS,
    ) -> pb.ModelVersion:
        """Send a file with its manifest (TOML text); returns once it is admitted, and live if `promote`."""
        header = pb.PublishModelVersionRequest.Header(model=model, manifest=manifest, promote=promote, reason=reason)
        call = self._stub.PublishModelVersion(
            _chunks(header, artefact), timeout=timeout_seconds, metadata=self._metadata
        )
        return await self._told(call)

    async def list(self, model: str = "") -> list[pb.ModelVersion]:
        """Return all versions of `model`, or of all models."""
        request = pb.ListModelVersionsRequest(model=model)
        reply = await self._told(
            self._stub.ListModelVersions(request, timeout=CALL_SECONDS, metadata=self._metadata),
        )
        return [*reply.versions]

    async def promote(
        self, model: str, version: str, *, reason: str = "", timeout_seconds: float = PUBLISH_SECONDS
    ) -> pb.ModelVersion:
        """Make a version the champion; returns once the gateway called serves it."""
        request = pb.PromoteModelVersionRequest(name=f"models/{model}/versions/{version}", reason=reason)
        return await self._told(
            self._stub.PromoteModelVersion(request, timeout=timeout_seconds, metadata=self._metadata),
        )

    async def shadow(
        self,
        model: str,
        version: str,
        *,
        stop: bool = False,
        reason: str = "",
        timeout_seconds: float = PUBLISH_SECONDS,
    ) -> pb.ModelVersion:
        """Put a version in shadow, or take it out; returns once the gateway called has it there."""
        request = pb.ShadowModelVersionRequest(name=f"models/{model}/versions/{version}", reason=reason, stop=stop)
        return await self._told(
            self._stub.ShadowModelVersion(request, timeout=timeout_seconds, metadata=self._metadata),
        )

    async def roll_back(
        self, model: str, *, reason: str = "", expected_champion: str = "", timeout_seconds: float = PUBLISH_SECONDS
    ) -> pb.ModelVersion:
        """Go back to the champion before this one, and return it.

        Raises AbortedError where `expected_champion` (a version's name; empty: any) is not the champion any more.
        """
        request = pb.RollBackModelRequest(model=model, reason=reason, expected_champion=expected_champion)
        return await self._told(self._stub.RollBackModel(request, timeout=timeout_seconds, metadata=self._metadata))

    async def get_policy(self, model: str) -> pb.Policy:
        """Return the policy in force, with its revision."""
        request = pb.GetPolicyRequest(model=model)
        return await self._told(self._stub.GetPolicy(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def update_policy(
        self,
        policy: pb.Policy,
        *,
        work: pb.Work | None = None,
        accept_problems: bool = False,
        validate_only: bool = False,
    ) -> pb.Policy:
        """Put a policy into force, with its plan where it promises something; see UpdatePolicyRequest.

        A `revision` other than 0 must be the stored one. Raises StateError for a new promise whose plan has problems.
        """
        request = pb.UpdatePolicyRequest(
            policy=policy, work=work, accept_problems=accept_problems, validate_only=validate_only
        )
        return await self._told(self._stub.UpdatePolicy(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def certificate(self, model: str) -> pb.Certificate:
        """Return how the proof of a model stands."""
        request = pb.GetCertificateRequest(model=model)
        return await self._told(self._stub.GetCertificate(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def amendments(self, model: str) -> Sequence[pb.Amendment]:
        """Return answers of a model that audits found wrong, each with those near to it, the newest first."""
        request = pb.ListAmendmentsRequest(model=model)
        reply = await self._told(
            self._stub.ListAmendments(request, timeout=CALL_SECONDS, metadata=self._metadata),
        )
        return tuple(reply.amendments)

    async def _told(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error


async def _chunks(
    header: pb.PublishModelVersionRequest.Header, artefact: Path
) -> AsyncIterator[pb.PublishModelVersionRequest]:
    yield pb.PublishModelVersionRequest(header=header)
    with artefact.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield pb.PublishModelVersionRequest(chunk=chunk)
