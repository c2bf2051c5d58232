"""What every request and reply of the page passes: known Host, same Origin, bounded body, strict headers.

A page on a loopback address is reachable from every site the reviewer visits. Three things keep those out: the Host
must be one that this page is served under (a name rebound to 127.0.0.1 is not), a request that changes something must
come from the page's own origin, and it must carry a header that no form and no cross-origin request without a
preflight can carry; preflights are never answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fallback.errors import DemurError, ForbiddenError, InvalidError
from fallback.workbench.wire import error_response

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
PAGE_HEADER: Final = "x-demur-page"
# An answer of the largest size a task allows, with every character escaped, fits.
BODY_BYTES_MAX: Final = 1 << 20

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
)
SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-frame-options": "DENY",
}


class Guard:
    """The outermost layer of the page: refuses foreign hosts and adds the security headers to every reply."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts) | LOCAL_HOSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            check_host(Headers(scope=scope).getlist("host"), hosts=self.hosts, server=scope.get("server"))
        except DemurError as error:
            await error_response(error)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)


def host_name(authority: str) -> str:
    """Return the host of `host`, `host:port`, `[v6]` or `[v6]:port`, lower case, without brackets; "" if malformed."""
    if authority.startswith("["):
        name, closed, rest = authority[1:].partition("]")
        well_formed = bool(closed) and (rest == "" or (rest[0] == ":" and rest[1:].isdecimal()))
    else:
        name, colon, port = authority.partition(":")
        well_formed = not colon or port.isdecimal()
    return name.lower().removesuffix(".") if well_formed else ""


def check_host(values: list[str], *, hosts: frozenset[str], server: tuple[str, int | None] | None) -> None:
    """Raise ForbiddenError unless the one Host header names a known host or the very address the connection came to.

    An IP address cannot be rebound to, so that the server's own one is safe to take.
    """
    name = host_name(values[0]) if len(values) == 1 else ""
    if name and (name in hosts or (server is not None and _same_address(name, server[0]))):
        return
    raise ForbiddenError(
        f"host: expected this page's own address, got {values[0][:100] if values else 'none'!r}; "
        "other names are listed under fallback.page_hosts in demur.toml"
    )


def _same_address(name: str, server: str) -> bool:
    try:
        return ip_address(name) == ip_address(server)
    except ValueError:
        return False


def check_same_origin(headers: Headers) -> None:
    """Raise ForbiddenError unless the request comes from the page itself."""
    if headers.get(PAGE_HEADER) != "1":
        raise ForbiddenError("x-demur-page: expected 1, got nothing; calls come from the page itself")
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise ForbiddenError(f"sec-fetch-site: expected same-origin, got {headers['sec-fetch-site'][:20]!r}")
    origin = headers.get("origin")
    if origin is None:
        return
    scheme, _, authority = origin.partition("://")
    if scheme not in {"http", "https"} or authority.lower() != headers.get("host", "").lower():
        raise ForbiddenError(f"origin: expected this page's own, got {origin[:100]!r}")


async def read_body(request: Request, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Return the request's JSON body; raises InvalidError as soon as it is known to be too large or no JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidError(f"content-type: expected application/json, got {media_type[:100]!r}")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > bytes_max:
                raise InvalidError(f"body: expected at most {bytes_max} bytes, got more")
    except ClientDisconnect as error:
        raise InvalidError("body: expected all of it, the connection ended before") from error
    return bytes(body)
