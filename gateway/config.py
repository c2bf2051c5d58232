"""The table `[gateway]` of demur.toml."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MIB = 1024 * 1024


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    threads: Annotated[int, Meta(ge=0, le=1024, description="threads of one model's run on the CPU; 0: one a core")] = 0
    message_bytes_max: Annotated[int, Meta(ge=1024, le=2**31 - 1, description="largest gRPC message taken, bytes")] = (
        32 * MIB
    )
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
