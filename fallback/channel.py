"""How Demur's clients reach a server: by TLS or in the clear, and what the environment says of both."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import grpc

from fallback.environment import CA, CERTIFICATE, KEY, SERVER_NAME, TOKEN
from fallback.errors import ConfigError

# Of CA: whoever the machine itself trusts.
SYSTEM: Final = "system"


class Shown(TypedDict):
    """What a client is made with beside its address."""

    identity: str
    token: str
    credentials: grpc.ChannelCredentials | None
    server_name: str


def shown(identity: str) -> Shown:
    """Return who calls and what the environment says of the way; raises ConfigError naming the variable at fault."""
    return {
        "identity": identity,
        "token": os.environ.get(TOKEN, ""),
        "credentials": _credentials(),
        "server_name": os.environ.get(SERVER_NAME, ""),
    }


def opened(
    address: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    server_name: str = "",
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """Return a channel to `address` (host:port, or unix:path), in the clear without `credentials`.

    `server_name` is what the server's certificate is for, where that is not the address's own host.
    """
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=tuple(options))
    named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
    return grpc.aio.secure_channel(address, credentials, options=(*options, *named))


def _credentials() -> grpc.ChannelCredentials | None:
    roots, certificate, key = (os.environ.get(name, "") for name in (CA, CERTIFICATE, KEY))
    if bool(certificate) != bool(key):
        missing = KEY if certificate else CERTIFICATE
        raise ConfigError(f"{missing}: expected a PEM file beside the other, got nothing")
    if not roots:
        for name in (CERTIFICATE, SERVER_NAME):
            if os.environ.get(name):
                raise ConfigError(f"{CA}: expected a PEM file or {SYSTEM!r} beside {name}, got nothing")
        return None
    return grpc.ssl_channel_credentials(
        _system() if roots == SYSTEM else _read(CA, roots),
        _read(KEY, key) if key else None,
        _read(CERTIFICATE, certificate) if certificate else None,
    )


def _system() -> bytes:
    """Return whom this machine trusts, where OpenSSL looks for that; gRPC has a list of its own else."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return _read(CA, paths.cafile)
    hashed = sorted(Path(paths.capath).glob("*.[0-9]")) if paths.capath else []
    if not hashed:
        raise ConfigError(f"{CA}: {SYSTEM}: this machine has no list of whom it trusts; give a PEM file")
    return b"\n".join(_read(CA, str(path)) for path in hashed)


def _read(name: str, path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise ConfigError(f"{name}: expected a file in PEM form, got {path}")
    return content
