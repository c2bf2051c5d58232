"""What holds for every connection, whichever transport carries it: limits, age, keepalive, TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from fallback.tls import Tls

_MILLISECONDS: Final = 1000
_UNLIMITED: Final = -1
# The core's own limit on the metadata of a request; said here since it bounds what a stranger may send.
_METADATA_BYTES_MAX: Final = 16 * 1024
# Calls that wait to be taken in. From 1,000 on the core would cut some off by chance, as CANCELLED and without a word
# when to come back; to refuse is this program's own affair (`calls_max`).
_PENDING_MAX: Final = 65_536

Options = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """`calls_max` of one connection; 0: no limit, no question. Options: grpc/impl/channel_arg_names.h."""

    calls_max: int = 0
    age_seconds: float = 0.0
    age_grace_seconds: float = 0.0
    keepalive_seconds: float = 0.0
    keepalive_timeout_seconds: float = 20.0
    ping_seconds_min: float = 0.0
    tls: Tls | None = None

    def options(self, message_bytes_max: int) -> Options:
        """Return the options of a server."""
        options = [
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.absolute_max_metadata_size", _METADATA_BYTES_MAX),
            ("grpc.so_reuseport", 0),
            ("grpc.server.max_pending_requests", _PENDING_MAX),
            ("grpc.server.max_pending_requests_hard_limit", _PENDING_MAX),
        ]
        if self.calls_max:
            options.append(("grpc.max_concurrent_streams", self.calls_max))
        if self.age_seconds:
            options.append(("grpc.max_connection_age_ms", _ms(self.age_seconds)))
            if self.age_grace_seconds:
                options.append(("grpc.max_connection_age_grace_ms", _ms(self.age_grace_seconds)))
        if self.keepalive_seconds:
            options.append(("grpc.keepalive_time_ms", _ms(self.keepalive_seconds)))
            options.append(("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_seconds)))
            options.append(("grpc.keepalive_permit_without_calls", 1))
        if self.ping_seconds_min:
            options.append(("grpc.http2.min_ping_interval_without_data_ms", _ms(self.ping_seconds_min)))
        return tuple(options)

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return what TLS takes, None without; raises ConfigError that names the file that does not do."""
        return None if self.tls is None else self.tls.credentials()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * _MILLISECONDS))
