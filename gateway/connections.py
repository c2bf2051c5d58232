"""What holds for every connection, whichever transport carries it: limits, age, keepalive, TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from fallback.errors import ConfigError

_MILLISECONDS: Final = 1000
_UNLIMITED: Final = -1
# The core's own limit on the metadata of a request; said here since it bounds what a stranger may send.
_METADATA_BYTES_MAX: Final = 16 * 1024
# Calls that wait to be taken in. From 1,000 on the core would cut some off by chance, as CANCELLED and without a word
# when to come back; to refuse is this program's own affair (`calls_max`).
_PENDING_MAX: Final = 65_536

Options = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the server's chain and key; with `client_ca_file` callers must show a certificate that it signed."""

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None


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
        if self.tls is None:
            return None
        chain = _read("tls_certificate_file", self.tls.certificate_file)
        key = _read("tls_key_file", self.tls.key_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.tls.certificate_file, self.tls.key_file, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"gateway.tls_certificate_file: expected a PEM certificate and, in gateway.tls_key_file, its key "
                f"without a pass phrase, got {self.tls.certificate_file} and {self.tls.key_file}"
            ) from error
        roots = None if self.tls.client_ca_file is None else self._roots(self.tls.client_ca_file, context)
        return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=roots is not None)

    @staticmethod
    def _roots(path: Path, context: ssl.SSLContext) -> bytes:
        roots = _read("tls_client_ca_file", path)
        try:
            context.load_verify_locations(path)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"gateway.tls_client_ca_file: expected PEM certificates, got {path}") from error
        return roots


def tls_of(certificate_file: str, key_file: str, client_ca_file: str) -> Tls | None:
    """Return what the settings say, None where all are empty; raises ConfigError where one is missing."""
    if not (certificate_file or key_file or client_ca_file):
        return None
    for field, value in (("tls_certificate_file", certificate_file), ("tls_key_file", key_file)):
        if not value:
            raise ConfigError(
                f"gateway.{field}: expected the path of a PEM file beside the other tls files, got nothing"
            )
    return Tls(
        certificate_file=Path(certificate_file),
        key_file=Path(key_file),
        client_ca_file=Path(client_ca_file) if client_ca_file else None,
    )


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"gateway.{field}: {path} cannot be read: {error.strerror}") from error


def _no_password() -> str:
    raise ValueError("the key has a pass phrase")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * _MILLISECONDS))
