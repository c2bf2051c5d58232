"""What the page refuses before anything looks at a request."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from fallback.errors import ForbiddenError, InvalidError
from fallback.workbench.guard import LOCAL_HOSTS, check_host, check_same_origin, host_name, read_body

OURS = {"host": "localhost:8080", "x-demur-page": "1"}


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("localhost:8080", "localhost"),
        ("LOCALHOST.", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("[::1", ""),
        ("[::1]evil", ""),
        ("localhost:80@evil.example", ""),
        ("localhost:", ""),
        ("a:b:c", ""),
        ("", ""),
    ],
)
def test_a_host_is_read_without_its_port_and_a_malformed_one_is_nobody(authority: str, name: str) -> None:
    """The name alone is compared, and what is no authority matches nothing."""
    assert host_name(authority) == name


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:8080", "[::1]:8080", "review.example", "10.0.0.5:8080"])
def test_known_hosts_and_the_servers_own_address_pass(host: str) -> None:
    """Loopback, the configured names and the very address that was connected to are this page's."""
    check_host([host], hosts=LOCAL_HOSTS | {"review.example"}, server=("10.0.0.5", 8080))


@pytest.mark.parametrize(
    "values", [[], [""], ["evil.example"], ["localhost.evil.example"], ["10.0.0.6"], ["localhost", "evil.example"]]
)
def test_a_foreign_host_is_refused(values: list[str]) -> None:
    """A name that was rebound to this machine, another address, none, or two are refused."""
    with pytest.raises(ForbiddenError, match="host: expected this page's own address"):
        check_host(values, hosts=LOCAL_HOSTS, server=("10.0.0.5", 8080))


@pytest.mark.parametrize("origin", ["http://localhost:8080", "https://localhost:8080", "http://LOCALHOST:8080"])
def test_the_pages_own_origin_passes(origin: str) -> None:
    """The scheme may differ behind a proxy that ends TLS; host and port may not."""
    check_same_origin(Headers({**OURS, "origin": origin, "sec-fetch-site": "same-origin"}))
    check_same_origin(Headers(OURS))


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"host": "localhost:8080"}, "x-demur-page"),
        ({**OURS, "origin": "http://localhost:9090"}, "origin"),
        ({**OURS, "origin": "https://evil.example"}, "origin"),
        ({**OURS, "origin": "null"}, "origin"),
        ({**OURS, "origin": "file://localhost:8080"}, "origin"),
        ({**OURS, "sec-fetch-site": "cross-site"}, "sec-fetch-site"),
        ({**OURS, "sec-fetch-site": "same-site"}, "sec-fetch-site"),
    ],
)
def test_another_origin_is_refused_by_name(headers: dict[str, str], field: str) -> None:
    """Each of the signs of a foreign caller is enough."""
    with pytest.raises(ForbiddenError, match=f"^{field}: expected"):
        check_same_origin(Headers(headers))


def request(chunks: list[bytes], media_type: str = "application/json") -> Request:
    """A request whose body comes in `chunks`; None at the end means that the caller hung up."""
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
        for index, chunk in enumerate(chunks)
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return Request({"type": "http", "headers": [(b"content-type", media_type.encode())]}, receive)


async def test_a_body_is_read_up_to_its_limit() -> None:
    """All of it, in as many pieces as it came."""
    assert await read_body(request([b"ab", b"cd"]), bytes_max=4) == b"abcd"


async def test_a_body_over_the_limit_is_refused_before_it_is_all_in() -> None:
    """The limit bounds what is kept, whatever the caller claims or goes on sending."""
    with pytest.raises(InvalidError, match="body: expected at most 4 bytes"):
        await read_body(request([b"ab", b"cde", b"f" * 1_000]), bytes_max=4)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_a_form_could_send_is_refused(media_type: str) -> None:
    """Only JSON is read: no simple cross-origin request can carry it."""
    with pytest.raises(InvalidError, match="content-type: expected application/json"):
        read_body(request([b"{}"], media_type)).send(None)
