"""The family of errors that Demur raises on purpose.

Each class carries the gRPC status code that an edge answers with; a message says what, which id, and what to do.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """gRPC's status codes (https://grpc.io/docs/guides/status-codes/), without importing grpc."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class DemurError(Exception):
    """What a caller may be told; anything else that escapes is answered as INTERNAL without its text."""

    code: Code = Code.INTERNAL

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class InvalidError(DemurError):
    """A field is wrong; the sentence names it, what was expected and what came."""

    code = Code.INVALID_ARGUMENT


class NotFoundError(DemurError):
    """Nothing has that name."""

    code = Code.NOT_FOUND


class ConflictError(DemurError):
    """An idempotency key or a version was used for something else."""

    code = Code.ALREADY_EXISTS


class StateError(DemurError):
    """The thing is not in a state that allows this; the sentence says which state it is in."""

    code = Code.FAILED_PRECONDITION


class TakenOverError(StateError):
    """The caller went on with this in another place, so that what they held it by here is stale."""


class AbortedError(DemurError):
    """Somebody else changed it first: read it again, then retry."""

    code = Code.ABORTED


class TrimmedError(DemurError):
    """What was asked for is older than what is kept; the sentence says where to go on."""

    code = Code.OUT_OF_RANGE


class FullError(DemurError):
    """A limit is reached; `retry_after_seconds` says when to come back."""

    code = Code.RESOURCE_EXHAUSTED


class OverError(FullError):
    """A queue is at the limit that its setting `limit` names; `unreviewed`: it has the model's answer given instead."""

    def __init__(
        self,
        message: str,
        *,
        queue: str = "",
        limit: str = "",
        unreviewed: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.queue = queue
        self.limit = limit
        self.unreviewed = unreviewed


class UnavailableError(DemurError):
    """Something this needs is away; `retry_after_seconds` says when to come back."""

    code = Code.UNAVAILABLE


class AwayError(UnavailableError):
    """The queue's server cannot be reached, or does not answer in time: whoever asks it now is told the same."""


class OverdueError(DemurError):
    """The caller's deadline passed."""

    code = Code.DEADLINE_EXCEEDED


class UnauthenticatedError(DemurError):
    """The call names nobody, or nobody known."""

    code = Code.UNAUTHENTICATED


class ForbiddenError(DemurError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED


class UnimplementedError(DemurError):
    """The contract has it, this version does not."""

    code = Code.UNIMPLEMENTED


class ConfigError(DemurError):
    """The configuration or the machine does not fit; the process does not start."""

    code = Code.FAILED_PRECONDITION
