"""Who calls: the one place that turns a call's credentials into an Identity.

With a credentials file every call carries `authorization: Bearer <token>` and the file says whose token that is, what
roles they have and what skills. Without one nothing may listen beyond loopback, and a caller on this machine gives
their own name in `demur-identity` and has every role and skill.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import unquote

import msgspec

from fallback.answer import Identity
from fallback.errors import ConfigError, ForbiddenError, InvalidError, UnauthenticatedError
from fallback.listening import check_address, is_unix

IDENTITY_KEY: Final = "demur-identity"
AUTHORIZATION_KEY: Final = "authorization"
ANONYMOUS: Final = "anonymous"
NAME_CHARS_MAX: Final = 64
TOKEN_CHARS_MAX: Final = 1_024
IDENTITIES_MAX: Final = 10_000
SKILLS_MAX: Final = 64

CLIENT: Final = "client"
REVIEWER: Final = "reviewer"
OPERATOR: Final = "operator"
ROLES: Final = frozenset({CLIENT, REVIEWER, OPERATOR})


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    token_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    roles: tuple[str, ...]
    skills: Annotated[tuple[str, ...], msgspec.Meta(max_length=SKILLS_MAX)] = ()


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    identity: Annotated[tuple[_Entry, ...], msgspec.Meta(min_length=1, max_length=IDENTITIES_MAX)]


class Credentials:
    """Who the bearers of which tokens are; only digests of tokens are kept."""

    def __init__(self, identities: Iterable[tuple[bytes, Identity]] = ()) -> None:
        self._identities = tuple(identities)

    @classmethod
    def load(cls, path: Path | str) -> Credentials:
        """Read a TOML file of `[[identity]]` tables with name, token_sha256 (hex), roles and skills; "" means none.

        Raises ConfigError naming what is wrong with the file.
        """
        if str(path) in {"", "."}:
            return cls()
        try:
            file = msgspec.convert(tomllib.loads(Path(path).read_text(encoding="utf-8")), _File)
            identities = [_identity(entry) for entry in file.identity]
        except OSError as error:
            raise ConfigError(f"fallback.credentials_file: {path} cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, InvalidError) as error:
            raise ConfigError(f"fallback.credentials_file: {path}: {error}") from error
        for field, values in (
            ("name", [who.name for _, who in identities]),
            ("token_sha256", [d for d, _ in identities]),
        ):
            if len(set(values)) != len(values):
                raise ConfigError(f"fallback.credentials_file: {path}: expected each {field} once, got one twice")
        return cls(identities)

    @property
    def configured(self) -> bool:
        """Whether callers must show a token."""
        return bool(self._identities)

    def authenticate(self, token: str) -> Identity:
        """Return whose `token` it is; raises UnauthenticatedError. Takes as long for a wrong one as for a right one."""
        digest = hashlib.sha256(token[: TOKEN_CHARS_MAX + 1].encode()).digest()
        found = None
        for known, identity in self._identities:
            if hmac.compare_digest(known, digest):
                found = identity
        if found is None or len(token) > TOKEN_CHARS_MAX:
            raise UnauthenticatedError("authorization: the token is not one of those configured")
        return found

    def identify(
        self,
        metadata: Iterable[tuple[str, str | bytes]],
        *,
        peer: str,
        require_name: bool = False,
        role: str = "",
    ) -> Identity:
        """Return who makes a call.

        `metadata` are its keys and values, `peer` is gRPC's name of the other end. `require_name` refuses callers
        without a name; `role`, when given, refuses those who do not have it. Raises UnauthenticatedError,
        ForbiddenError, or InvalidError for a name that cannot be one.
        """
        configured = bool(self._identities)
        wanted = AUTHORIZATION_KEY if configured else IDENTITY_KEY
        # The last of them, as a mapping would have it. gRPC has no keys but in lower case.
        found = ""
        for key, value in metadata:
            if key == wanted:
                found = _text(value)
        if configured:
            identity = self._bearer(found)
        elif is_local_peer(peer) and (found or not require_name):
            identity = _anybody(found or ANONYMOUS)
        else:
            raise _refusal(peer)
        if role not in identity.roles:
            require_role(identity, role)
        return identity

    def _bearer(self, said: str) -> Identity:
        scheme, _, token = said.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("authorization: expected 'Bearer <token>'")
        return self.authenticate(token.strip())


def require_role(identity: Identity, *roles: str) -> None:
    """Raise ForbiddenError unless `identity` has one of `roles`; no roles, or empty ones, ask for nothing."""
    wanted = [role for role in roles if role]
    if wanted and identity.roles.isdisjoint(wanted):
        raise ForbiddenError(f"{identity.name!r} may not do this: it takes the role {' or '.join(wanted)}")


def check_name(field: str, name: str) -> str:
    """Return `name`; raises InvalidError unless it is 1 to 64 printable characters without space around them."""
    if not (0 < len(name) <= NAME_CHARS_MAX and name.isprintable() and name == name.strip()):
        raise InvalidError(
            f"{field}: expected 1 to {NAME_CHARS_MAX} printable characters, none of them a space at an end, "
            f"got {name[:NAME_CHARS_MAX]!r}"
        )
    return name


def check_listen(key: str, address: str, credentials: Credentials, *, http: bool = False) -> None:
    """Raise ConfigError naming `key` if other machines reach `address` while nobody has to show who they are.

    Or if it is none to listen on; `http`: it is a page's (see `check_address`).
    """
    check_address(key, address, http=http)
    if not credentials.configured and not is_local_listen(address):
        raise ConfigError(
            f"{key}: without credentials nothing listens beyond loopback: expected an address such as 127.0.0.1:0, "
            f"got {address!r}; or set fallback.credentials_file"
        )


def is_local_listen(address: str) -> bool:
    """Say whether only this machine can reach a listener on `address` (host:port or unix:path)."""
    if is_unix(address):
        return True
    host = address.rpartition(":")[0].strip("[]")
    return host == "localhost" or _is_loopback(host)


@lru_cache(maxsize=4_096)
def is_local_peer(peer: str) -> bool:
    """Say whether gRPC's name of the other end (ipv4:127.0.0.1:5, ipv6:[::1]:5, unix:) is on this machine."""
    scheme, _, rest = unquote(peer).partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return True
    return scheme in {"ipv4", "ipv6"} and _is_loopback(rest.rpartition(":")[0].strip("[]"))


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _refusal(peer: str) -> UnauthenticatedError:
    """Return why nobody without credentials may call from there, or without a name."""
    if not is_local_peer(peer):
        return UnauthenticatedError("authorization: no credentials are configured, so only this machine may call")
    return UnauthenticatedError(f"{IDENTITY_KEY}: expected your name in the call's metadata, got none")


@lru_cache(maxsize=1_024)
def _anybody(name: str) -> Identity:
    """Return who may do everything, since nobody has credentials."""
    return Identity(name=check_name(IDENTITY_KEY, name), roles=ROLES)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _identity(entry: _Entry) -> tuple[bytes, Identity]:
    unknown = sorted(set(entry.roles) - ROLES)
    if unknown:
        raise InvalidError(f"roles of {entry.name!r}: expected some of {', '.join(sorted(ROLES))}, got {unknown[0]!r}")
    name = check_name("name", entry.name)
    skills = frozenset(check_name(f"skills of {name!r}", skill) for skill in entry.skills)
    return bytes.fromhex(entry.token_sha256), Identity(name=name, roles=frozenset(entry.roles), skills=skills)
