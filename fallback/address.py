"""Which addresses Demur may call: what a target's text must look like, and where its connection may really go.

A client names where it wants to be called back, so a callback is a request that somebody else steers (server-side
request forgery). What counts is the address that is connected to, not the name or its first resolution: both kinds of
callback are judged on the numeric address, at the moment of connecting.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from fallback.errors import ConfigError, ForbiddenError, InvalidError

URL_CHARS_MAX: Final = 2_048
HOST_CHARS_MAX: Final = 253
PORT_MAX: Final = 65_535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PORTS: Final = {"https": 443, "http": 80}
_PORT: Final = re.compile(r"[0-9]{1,5}")
# Prefixes whose addresses hold an IPv4 address, with the number of bits to the right of it (RFC 6052, 3056; RFC 4291
# for the deprecated IPv4-compatible form). Teredo, which hides its client's address by inversion, and NAT64's prefix
# for local use, where it stands depends on the network, are refused whole.
_EMBEDDING: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
    (ipaddress.IPv6Network("::/96"), 0),
)
# IPv6 that leads through a relay or translator of somebody else's, whatever address it carries: IPv4-translated, 6to4
# (RFC 7526 ended it) and IPv4-compatible. What is mapped (::ffff:a.b.c.d) is the IPv4 address itself; through NAT64's
# well-known prefix a network without IPv4 reaches public addresses, and none but those (RFC 6052, 3.1).
_RELAYED: Final = tuple(ipaddress.IPv6Network(text) for text in ("::ffff:0:0:0/96", "2002::/16", "::/96"))
# Where clouds hand out a machine's credentials. A network that merely contains one of them does not allow it; only
# its own /32 or /128 does.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",  # AWS, credentials of a container
        "169.254.170.23",  # AWS, identity of a pod
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google, over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
    )
)
# Not for unicast on the Internet, whatever `is_global` of this Python's version says.
_NEVER: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # Azure's metadata service
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)


def unwrap(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one that merely carries it (mapped, translated, NAT64, 6to4)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    bare = ipaddress.IPv6Address(int(address))
    if bare.is_loopback or bare.is_unspecified:
        return bare
    for network, shift in _EMBEDDING:
        if bare in network:
            return ipaddress.IPv4Address((int(bare) >> shift) & 0xFFFF_FFFF)
    return bare


class Rule:
    """Which numeric addresses may be called: global unicast ones, and those in the operator's own list."""

    def __init__(self, allow_networks: Iterable[str] = ()) -> None:
        try:
            self._allowed = tuple(ipaddress.ip_network(text) for text in allow_networks)
        except ValueError as error:
            raise ConfigError(
                f"fallback.webhook_allow_networks: expected networks such as 10.1.0.0/16: {error}"
            ) from error

    def listed(self, text: str) -> bool:
        """Say whether the numeric address `text` is in a network that the operator allows.

        A mapped address is the IPv4 address itself; other forms that carry one are listed only as what they are.
        """
        address = _itself(_address(text))
        if address in _METADATA:
            return any(network.num_addresses == 1 and address in network for network in self._allowed)
        return any(address in network for network in self._allowed)

    def check(self, text: str, *, encrypted: bool) -> None:
        """Raise ForbiddenError unless the numeric address `text` may be called; unencrypted only if listed."""
        if self.listed(text):
            return
        address = _address(text)
        if not encrypted:
            raise ForbiddenError(f"{text}: without TLS only networks in fallback.webhook_allow_networks may be called")
        if not _is_public(unwrap(address)) or _is_relayed(address) or address in _METADATA:
            raise ForbiddenError(
                f"{text}: only public addresses may be called; for others, name the network in "
                "fallback.webhook_allow_networks"
            )

    def open(self, family: int, kind: int, proto: int, sockaddr: tuple[Any, ...], *, encrypted: bool) -> socket.socket:
        """Return a socket that is about to connect to `sockaddr`; raises ForbiddenError instead if it may not."""
        self.check(str(sockaddr[0]), encrypted=encrypted)
        return socket.socket(family, kind, proto)


def check_url(field: str, url: str) -> str:
    """Return `url`, its scheme in small letters; raises InvalidError naming `field` for what is no http(s) URL.

    Nor may there be a user or password in it.
    """
    if not url or len(url) > URL_CHARS_MAX:
        raise InvalidError(f"{field}: expected a URL of 1 to {URL_CHARS_MAX} characters, got {len(url)}")
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise InvalidError(f"{field}: expected a URL of printable ASCII characters without spaces, got {url[:100]!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidError(f"{field}: expected a URL, got {url[:100]!r}: {error}") from error
    if parts.scheme not in {"https", "http"}:
        raise InvalidError(f"{field}: expected https (or http where the operator allows it), got {parts.scheme!r}")
    if parts.username is not None or parts.password is not None:
        raise InvalidError(f"{field}: expected no user or password in the URL; a receiver checks the signature")
    if port == 0:
        raise InvalidError(f"{field}: expected a port from 1 to {PORT_MAX}, got 0")
    _check_host(field, parts.hostname or "")
    return parts.scheme + url[len(parts.scheme) :]


def asks_tls(url: str) -> bool:
    """Say whether `url` is called with TLS; one that an earlier version stored may have its scheme in capitals."""
    return urlsplit(url).scheme == "https"


def receiver_of(target: str) -> str:
    """Return host and port of a URL or host:port, the same for all spellings of them; what is neither, as it is."""
    try:
        if "://" in target:
            parts = urlsplit(target)
            host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        else:
            host, port = split_target("target", target)
    except (ValueError, KeyError, InvalidError):
        return target
    if ":" in host:
        host = f"[{ipaddress.ip_address(host).compressed}]" if _is_ip(host) else f"[{host}]"
    return f"{host.lower().removesuffix('.')}:{port}"


def check_target(field: str, target: str) -> str:
    """Return `target`; raises InvalidError naming `field` unless it is host:port."""
    split_target(field, target)
    return target


def split_target(field: str, target: str, *, port_min: int = 1) -> tuple[str, int]:
    """Return host and port of `host:port` (an IPv6 address in brackets); raises InvalidError naming `field`."""
    host, _, port = target.rpartition(":") if len(target) <= URL_CHARS_MAX else ("", "", "")
    if not (_PORT.fullmatch(port) and port_min <= int(port) <= PORT_MAX):
        raise InvalidError(
            f"{field}: expected host:port with a port from {port_min} to {PORT_MAX}, got {target[:100]!r}"
        )
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in host and bare == host:
        raise InvalidError(f"{field}: expected host:port, an IPv6 address in brackets, got {target[:100]!r}")
    _check_host(field, bare)
    return bare, int(port)


def _check_host(field: str, host: str) -> None:
    """Refuse what is no host; a last label that is a number makes it an IPv4 address, written as usual (WHATWG URL)."""
    numeric = _NUMERIC.fullmatch(host.removesuffix(".").rpartition(".")[2])
    fits = _is_ip(host) if numeric or ":" in host else _HOST.fullmatch(host)
    if len(host) > HOST_CHARS_MAX or not fits:
        raise InvalidError(f"{field}: expected a host name or an IP address, got {host[:100]!r}")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _itself(address: Address) -> Address:
    """Return the IPv4 address where an IPv6 one is merely another spelling of it."""
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _is_relayed(address: Address) -> bool:
    return any(address in network for network in _RELAYED)


def _address(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])


def _is_public(address: Address) -> bool:
    refused = (
        address.is_multicast
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_reserved
        or address.is_unspecified
        or not address.is_global
    )
    return not refused and not any(address in network for network in _NEVER)
