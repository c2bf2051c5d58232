"""What an address to listen on may look like; every server's is read here, when the file is and before it is used."""

from __future__ import annotations

from fallback.address import URL_CHARS_MAX, split_target
from fallback.errors import ConfigError, InvalidError

_UNIX = ("unix:", "unix-abstract:")
_EVERY = "0.0.0.0"  # noqa: S104 - said in a sentence, not listened on


def check_address(field: str, address: str, *, http: bool = False) -> None:
    """Raise ConfigError naming `field` unless `address` is host:port, port 0 being any free one, or unix:path.

    `http`: a page's, which is never a unix socket, and may leave the host out: every address of this machine.
    """
    if not http and is_unix(address):
        if len(address) > URL_CHARS_MAX or not address.partition(":")[2]:
            raise ConfigError(f"{field}: expected unix:path, got {address[:100]!r}")
        return
    try:
        split_target(field, f"{_EVERY}{address}" if http and address.startswith(":") else address, port_min=0)
    except InvalidError as error:
        hint = f"; for every address of this machine: {_EVERY}{address}" if address[:1] == ":" and not http else ""
        raise ConfigError(error.message + hint) from error


def is_unix(address: str) -> bool:
    """Say whether a server on `address` listens on a unix socket."""
    return address.startswith(_UNIX)


def check_peer(field: str, address: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of a server to be reached; raises ConfigError naming `field`."""
    try:
        return split_target(field, address)
    except InvalidError as error:
        raise ConfigError(error.message) from error
