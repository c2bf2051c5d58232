"""The server that is measured: asked what it is, what its model takes, and once for an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
from google.protobuf.message import DecodeError

from benchmarks.serve import requests, results, serving
from benchmarks.serve.requests import Given
from benchmarks.serve.results import Asked, Tensor
from benchmarks.serve.sender import METHOD
from benchmarks.serve.splits import Page, Source, Statistics
from demur import kserve
from fallback.errors import InvalidError, UnavailableError

_MESSAGE_BYTES_MAX: Final = 512 * 1024 * 1024
# Trial answers that tell whether all are of one length.
_TRIALS: Final = 5
_PORT_MAX: Final = 65_535
# What our gateway calls itself.
_OURS: Final = "demur"
_DEFERRED: Final = ("deferred", "provisional")
# Random requests that are tried.
_SEEDS: Final = 4
_PARKED: Final = (
    "the gateway is not sure of these made-up requests and parks each for review: this measures parking too, and fills "
    "the queue; benchmark a model whose policy answers"
)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured, as it was asked for; `address` is host:port."""

    address: str
    model: str
    shapes: tuple[Given, ...] = ()
    rows: int | None = None
    timeout_seconds: float = 10.0
    # A file of authorities; with one the connection is TLS.
    ca: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    pid: int | None = None
    # Where a gateway's or Triton's page for Prometheus is; looked for where it is not said.
    metrics: str | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is there: the server, its model, the request, whether all answers are of one length, and what to know."""

    target: results.Target
    model: Asked
    payload: bytes
    steady: bool
    source: Source | None
    notes: tuple[str, ...]


def metadata(said: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `KEY=VALUE` pairs; raises InvalidError for what cannot be a header."""
    pairs = []
    for each in said:
        key, equals, value = each.partition("=")
        key = key.strip().lower()
        plain = all(" " <= letter <= "~" for letter in value)
        if not equals or not key.replace("-", "").replace("_", "").replace(".", "").isalnum() or not plain:
            raise InvalidError(f"--metadata: expected KEY=VALUE in ASCII, got {key + equals!r}...")
        if key.startswith("grpc-") or key.endswith("-bin"):
            raise InvalidError(f"--metadata: expected neither gRPC's own keys nor binary ones, got {key!r}")
        pairs.append((key, value))
    return tuple(pairs)


def address(said: str) -> str:
    """Return host:port as it was said; raises InvalidError for what is none."""
    host, _, port = said.rpartition(":")
    if not host or "/" in said or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
        raise InvalidError(f"--target: expected HOST:PORT, got {said!r}")
    return said


@contextlib.contextmanager
def asked(wish: Wish) -> Iterator[Found]:
    """Ask the server; its statistics can be read until the block ends.

    Raises UnavailableError where it does not answer, and InvalidError where the request that is wished does not fit.
    """
    with _channel(wish) as channel:
        yield _found(wish, _Asking(wish, channel), channel)


def _channel(wish: Wish) -> grpc.Channel:
    options = [(f"grpc.max_{way}_message_length", _MESSAGE_BYTES_MAX) for way in ("send", "receive")]
    if wish.ca is None:
        return grpc.insecure_channel(wish.address, options)
    try:
        roots = Path(wish.ca).read_bytes()
    except OSError as error:
        raise InvalidError(f"--ca {wish.ca}: expected a file of certificates in PEM form, got {error}") from error
    return grpc.secure_channel(wish.address, grpc.ssl_channel_credentials(roots), options)


class _Asking:
    """Calls of the server."""

    def __init__(self, wish: Wish, channel: grpc.Channel) -> None:
        self._wish = wish
        self._channel = channel

    def method(self, name: str, request: Any, reply: Any) -> Any:
        """Return the reply of one method; raises UnavailableError with what the server says."""
        method = f"/{kserve.SERVICE}/{name}"
        try:
            return reply.FromString(self.raw(method, request.SerializeToString()))
        except grpc.RpcError as error:
            raise UnavailableError(f"{self._wish.address}, {name}: {_said(error)}") from error
        except DecodeError as error:
            raise UnavailableError(
                f"{self._wish.address}, {name}: its reply is none of KServe's v2 protocol"
            ) from error

    def raw(self, method: str, request: bytes) -> bytes:
        """Call it; raises grpc.RpcError."""
        call: Any = self._channel.unary_unary(method)
        return bytes(call(request, timeout=self._wish.timeout_seconds, metadata=self._wish.metadata))


def _said(error: grpc.RpcError) -> str:
    known = isinstance(error, grpc.Call)
    return f"{error.code().name}: {error.details()}" if known else str(error)


def _found(wish: Wish, asking: _Asking, channel: grpc.Channel) -> Found:
    model = _declared(wish, asking)
    tensors = requests.inputs(_tensors(model.inputs), wish.shapes, wish.rows)
    rows = requests.rows_of(tensors, wish.rows)
    payload, answers, notes = _answered(wish, asking, tensors)
    target = _target(wish, asking)
    told = Asked(
        name=wish.model,
        version=model.versions[-1] if len(model.versions) == 1 else ", ".join(model.versions),
        platform=model.platform,
        inputs=tensors,
        outputs=_tensors(model.outputs),
        rows=rows,
        request_bytes=len(payload),
        reply_bytes=len(answers[0]),
    )
    return Found(
        target=target,
        model=told,
        payload=payload,
        steady=len(set(map(len, answers))) == 1,
        source=_source(wish, target, channel),
        notes=(*notes, *_forwarded(wish)),
    )


def _declared(wish: Wish, asking: _Asking) -> Any:
    """Return the model's metadata; of a server that serves none an empty one, as if it declared nothing."""
    try:
        return asking.method(
            "ModelMetadata", kserve.ModelMetadataRequest(name=wish.model), kserve.ModelMetadataResponse
        )
    except UnavailableError as error:
        cause = error.__cause__
        if isinstance(cause, grpc.Call) and cause.code() == grpc.StatusCode.UNIMPLEMENTED:
            return kserve.ModelMetadataResponse()
        raise


def _tensors(declared: Any) -> tuple[Tensor, ...]:
    return tuple(Tensor(name=each.name, datatype=each.datatype, declared=tuple(each.shape)) for each in declared)


def _answered(wish: Wish, asking: _Asking, tensors: Sequence[Tensor]) -> tuple[bytes, list[bytes], tuple[str, ...]]:
    """Return a request that the server answers, and its first answers: raw bytes, or typed where it wants that."""
    refusals: list[str] = []
    for raw in (True, False) if requests.typed(tensors) else (True,):
        try:
            payload, answer = _first(wish, asking, tensors, raw=raw)
            answers = [answer, *(asking.raw(METHOD, payload) for _ in range(_TRIALS - 1))]
        except grpc.RpcError as error:
            refusals.append(_said(error))
            continue
        notes = [] if raw else [f"tensors go in typed fields: of raw bytes the server said {refusals[0]}"]
        return payload, answers, (*notes, *([_PARKED] if deferring(answer) else []))
    shapes = ", ".join(f"{each.name} {each.datatype} {list(each.sent or ())}" for each in tensors)
    raise UnavailableError(f"{wish.address}, ModelInfer of {wish.model!r} with {shapes}: {refusals[0]}")


def _first(wish: Wish, asking: _Asking, tensors: Sequence[Tensor], *, raw: bool) -> tuple[bytes, bytes]:
    """Return the first of a few random requests that a gateway answers without a person, or the last, and its answer.

    Raises grpc.RpcError.
    """
    for seed in range(_SEEDS):
        payload, last = requests.message(wish.model, tensors, seed=seed, raw=raw), seed + 1 == _SEEDS
        try:
            answer = asking.raw(METHOD, payload)
        except grpc.RpcError as error:
            if last or error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            continue
        if last or not deferring(answer):
            break
    return payload, answer


def deferring(answer: bytes) -> bool:
    """Return whether it is an answer of a Demur gateway that it asks a person about."""
    said = kserve.ModelInferResponse.FromString(answer).parameters
    return "demur_decision" in said and said["demur_decision"].string_param in _DEFERRED


def _target(wish: Wish, asking: _Asking) -> results.Target:
    about = kserve.ServerMetadataResponse()
    with contextlib.suppress(UnavailableError):
        about = asking.method("ServerMetadata", kserve.ServerMetadataRequest(), kserve.ServerMetadataResponse)
    pids = _pids(wish)
    return results.Target(
        address=wish.address,
        tls=wish.ca is not None,
        name=about.name,
        version=about.version,
        extensions=tuple(about.extensions),
        pids=pids,
        command=serving.command(pids[0]) if pids else "",
    )


def _pids(wish: Wish) -> tuple[int, ...]:
    if wish.pid is not None:
        serving.expect(wish.pid)
        return serving.family([wish.pid])
    return () if _forwarder(wish) else serving.family(_listening(wish))


def _listening(wish: Wish) -> tuple[int, ...]:
    host, _, port = wish.address.rpartition(":")
    return serving.listening(int(port)) if serving.is_here(host.strip("[]")) else ()


def _forwarder(wish: Wish) -> str:
    """Return what listens for a server that is another process; empty where the server itself does."""
    return next((serving.command(pid) for pid in _listening(wish) if serving.forwards(pid)), "")


def _forwarded(wish: Wish) -> tuple[str, ...]:
    by = "" if wish.pid is not None else _forwarder(wish)
    if not by:
        return ()
    return (f"{by} listens for the server, whose processor time is not seen: --pid names it if it runs here",)


def _source(wish: Wish, target: results.Target, channel: grpc.Channel) -> Source | None:
    """Return who can tell how long requests wait and are computed; raises InvalidError where the page said does not."""
    if wish.metrics is not None:
        page = Page(wish.metrics, wish.model)
        if page.read() is None:
            expected = "the Prometheus page of a Demur gateway or a Triton"
            raise InvalidError(f"--metrics {wish.metrics}: expected {expected}, got none")
        return page
    own = int(wish.address.rpartition(":")[2])
    others = [port for port in serving.ports(target.pids) if port != own]
    pages: list[Source] = [Page(f"127.0.0.1:{port}", wish.model) for port in others]
    statistics: list[Source] = [Statistics(channel, wish.model, wish.metadata)]
    # Our gateway's page goes on counting when a version is swapped, and is what earlier results are of.
    sources = pages + statistics if target.name == _OURS else statistics + pages
    return next((source for source in sources if source.read() is not None), None)


def grpc_timeout(seconds: float) -> str:
    """Return how gRPC writes a timeout in a header: at most eight digits and a unit."""
    return f"{max(1, round(1000 * seconds))}m"
