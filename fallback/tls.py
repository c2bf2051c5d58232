"""The certificate that a server shows, and whose certificates it asks of callers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from fallback.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the server's chain and key; with `client_ca_file` callers must show a certificate that it signed.

    `table` is the table of the settings that name them.
    """

    table: str
    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC takes; raises ConfigError that names the file that does not do."""
        context = self.context()
        chain = self._read("tls_certificate_file", self.certificate_file)
        key = self._read("tls_key_file", self.key_file)
        roots = None if self.client_ca_file is None else self._roots(self.client_ca_file, context)
        return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=roots is not None)

    def context(self) -> ssl.SSLContext:
        """Return what a server of HTTP takes, without `client_ca_file`; raises ConfigError as `credentials` does."""
        for field, path in (("tls_certificate_file", self.certificate_file), ("tls_key_file", self.key_file)):
            self._read(field, path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{self.table}.tls_certificate_file: expected a PEM certificate and, in {self.table}.tls_key_file, its "
                f"key without a pass phrase, got {self.certificate_file} and {self.key_file}"
            ) from error
        return context

    def _roots(self, path: Path, context: ssl.SSLContext) -> bytes:
        roots = self._read("tls_client_ca_file", path)
        try:
            context.load_verify_locations(path)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"{self.table}.tls_client_ca_file: expected PEM certificates, got {path}") from error
        return roots

    def _read(self, field: str, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.table}.{field}: {path} cannot be read: {error.strerror}") from error


class Files(Protocol):
    """Settings that name the files of TLS, each empty for none."""

    @property
    def tls_certificate_file(self) -> str:
        """What callers are shown."""

    @property
    def tls_key_file(self) -> str:
        """Its key."""

    @property
    def tls_client_ca_file(self) -> str:
        """Who must have signed what callers show."""


def tls_of(table: str, files: Files) -> Tls | None:
    """Return what the settings of `table` say, None where all are empty; raises ConfigError where one is missing."""
    if not (files.tls_certificate_file or files.tls_key_file or files.tls_client_ca_file):
        return None
    for field in ("tls_certificate_file", "tls_key_file"):
        if not getattr(files, field):
            raise ConfigError(
                f"{table}.{field}: expected the path of a PEM file beside the other tls files, got nothing"
            )
    return Tls(
        table=table,
        certificate_file=Path(files.tls_certificate_file),
        key_file=Path(files.tls_key_file),
        client_ca_file=Path(files.tls_client_ca_file) if files.tls_client_ca_file else None,
    )


def _no_password() -> str:
    raise ValueError("the key has a pass phrase")
