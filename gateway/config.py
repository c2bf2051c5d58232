"""The table `[gateway]` of demur.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from fallback.listening import check_address
from fallback.tables import Table
from fallback.tls import tls_of
from gateway.connections import Connections

if TYPE_CHECKING:
    from fallback.config import Config

MIB = 1024 * 1024


class GatewaySettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway may use and how much it takes; per-model settings stand in the model's manifest."""

    grpc_listen: Annotated[str, Meta(description="address the gateway answers gRPC on; port 0: any free one")] = (
        "127.0.0.1:8001"
    )
    metrics_listen: Annotated[str, Meta(description="address of the Prometheus page /metrics; empty: none")] = (
        "127.0.0.1:8002"
    )
    device: Annotated[
        Literal["auto", "cuda", "cpu"],
        Meta(description="what models run on; cuda refuses to start where only the CPU is to be had"),
    ] = "auto"
    threads: Annotated[
        int,
        Meta(
            ge=0,
            le=1024,
            description="threads of one run on the CPU; 0: measured, or the cores shared out among a model's instances",
        ),
    ] = 0
    message_bytes_max: Annotated[int, Meta(ge=1024, le=2**31 - 1, description="largest gRPC message taken, bytes")] = (
        32 * MIB
    )
    transport: Annotated[
        Literal["auto", "cq", "aio"],
        Meta(description="what carries the calls: cq is gRPC's core itself; auto: cq where it is proven, else aio"),
    ] = "auto"
    tls_certificate_file: Annotated[str, Meta(description="PEM chain that callers are shown; empty: no TLS")] = ""
    tls_key_file: Annotated[str, Meta(description="PEM key of tls_certificate_file, without a pass phrase")] = ""
    tls_client_ca_file: Annotated[
        str, Meta(description="PEM certificates of which one must have signed the caller's; empty: none is asked for")
    ] = ""
    connection_age_seconds: Annotated[
        float, Meta(ge=0, le=31_536_000, description="age at which a connection is asked to go; 0: none, seconds")
    ] = 0.0
    connection_age_grace_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="what its calls may then still take; 0: without limit, seconds")
    ] = 0.0
    connection_calls_max: Annotated[
        int, Meta(ge=0, le=1_000_000, description="calls under way on one connection; 0: without limit, calls")
    ] = 0
    keepalive_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="silence after which a connection is asked whether it lives; 0: never")
    ] = 0.0
    keepalive_timeout_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="how long it may then take to say so, seconds")
    ] = 20.0
    ping_seconds_min: Annotated[
        float,
        Meta(ge=0, le=86_400, description="a client that asks oftener than this is cut off; 0: gRPC's own 300 seconds"),
    ] = 0.0
    drain_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="how long requests under way may take when the gateway stops, seconds")
    ] = 20.0
    artefact_bytes_max: Annotated[
        int, Meta(ge=1024, le=2**31 - 1, description="largest model.onnx that is admitted, bytes")
    ] = 1024 * MIB
    admission_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="how long loading and trying a new version may take, seconds")
    ] = 60.0
    admission_memory_bytes_max: Annotated[
        int, Meta(ge=256 * MIB, le=2**46, description="address space of the process that tries a new version, bytes")
    ] = 8192 * MIB
    watch_seconds: Annotated[
        float,
        Meta(gt=0, le=600, description="longest wait before states and policies are read again unasked, seconds"),
    ] = 15.0
    queue_rows_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="rows that wait for one model's run before callers are refused, rows")
    ] = 4096
    calls_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="calls under way at a time, waits and streams among them, calls")
    ] = 8192
    requests_bytes_max: Annotated[
        int,
        Meta(ge=1024, le=2**46, description="what the requests of all calls under way may weigh, waits too, bytes"),
    ] = 2048 * MIB
    image_pixels_max: Annotated[int, Meta(ge=1, le=2**30, description="largest image taken as a subject, pixels")] = (
        16 * MIB
    )
    parkings_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="rows on their way to the queue at a time, rows")
    ] = 10_000
    parkings_bytes_max: Annotated[
        int,
        Meta(
            ge=1024,
            le=2**46,
            description="what the requests of rows on their way to the queue may weigh; one alone always goes, bytes",
        ),
    ] = 256 * MIB
    keys_max: Annotated[
        int, Meta(ge=0, le=10_000_000, description="idempotency keys of answered requests that are remembered, keys")
    ] = 65_536
    answers_kept: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="last automatic answers of a model that are remembered, without what was asked; 0: none",
        ),
    ] = 100_000
    nearest_max: Annotated[
        int, Meta(ge=0, le=100, description="answers that are listed beside one that an audit found wrong")
    ] = 20
    spool_bytes_max: Annotated[
        int,
        Meta(
            ge=64 * 1024,
            le=2**46,
            description="what a model's audits and evidence on their way to Redis may weigh on disk, bytes",
        ),
    ] = 1024 * MIB
    rejoin_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="silence after which evidence goes on under a new name, less than trainer.lost_seconds",
        ),
    ] = 600.0
    wait_seconds_max: Annotated[
        float, Meta(gt=0, le=86_400, description="longest wait for a person within one call, seconds")
    ] = 3600.0
    redis_away: Annotated[
        Literal["refuse", "answer_unreviewed"],
        Meta(description="what an uncertain request gets while Redis is away: UNAVAILABLE, or an answer marked so"),
    ] = "refuse"

    clerk: Annotated[
        bool, Meta(description="a process beside the gateway parks what plain requests leave to people")
    ] = True

    def check(self, _config: Config) -> None:
        """Raise ConfigError where an address is none, or of the files of TLS one is not named."""
        check_address("gateway.grpc_listen", self.grpc_listen)
        if self.metrics_listen:
            check_address("gateway.metrics_listen", self.metrics_listen, http=True)
        tls_of("gateway", self)

    def check_here(self) -> None:
        """Raise ConfigError where a file of TLS does not do."""
        self.connections.credentials()

    @property
    def connections(self) -> Connections:
        """What holds for each connection; raises ConfigError where the TLS files are not all named."""
        return Connections(
            calls_max=self.connection_calls_max,
            age_seconds=self.connection_age_seconds,
            age_grace_seconds=self.connection_age_grace_seconds,
            keepalive_seconds=self.keepalive_seconds,
            keepalive_timeout_seconds=self.keepalive_timeout_seconds,
            ping_seconds_min=self.ping_seconds_min,
            tls=tls_of("gateway", self),
        )
