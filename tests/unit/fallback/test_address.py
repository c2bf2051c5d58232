"""Which addresses may be called."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.address import Rule, check_target, check_url, split_target, unwrap
from fallback.errors import ConfigError, ForbiddenError, InvalidError

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001:80b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"]
REFUSED = [
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "0.0.0.0",
    "::",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of most clouds
    "168.63.129.16",  # metadata of Azure
    "100.100.100.200",  # metadata of Alibaba
    "fd00:ec2::254",  # metadata of AWS over IPv6
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "2001:db8::1",
    "100::1",
    "::ffff:127.0.0.1",  # IPv4-mapped
    "::ffff:0:127.0.0.1",  # IPv4-translated
    "::127.0.0.1",  # IPv4-compatible
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b:1::1",  # NAT64, local
    "2002:7f00:1::",  # 6to4
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo
    "3fff::1",
    "5f00::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_global_unicast_may_be_called_with_tls_only(address: str) -> None:
    """Public addresses are called over TLS, never without."""
    Rule().check(address, encrypted=True)
    with pytest.raises(ForbiddenError, match="without TLS"):
        Rule().check(address, encrypted=False)


@pytest.mark.parametrize("address", REFUSED)
def test_all_else_is_refused(address: str) -> None:
    """Loopback, private, link-local, multicast, reserved, metadata: plain or wrapped in IPv6."""
    with pytest.raises(ForbiddenError, match="webhook_allow_networks"):
        Rule().check(address, encrypted=True)


@given(st.ip_addresses(network="127.0.0.0/8") | st.ip_addresses(network="10.0.0.0/8"), st.sampled_from([0, 1, 2, 3]))
def test_no_wrapping_hides_a_private_address(inner: ipaddress.IPv4Address, form: int) -> None:
    """Each embedding of an IPv4 address is judged as that address."""
    prefix = (0xFFFF << 32, 0x64FF9B << 96, 0xFFFF << 48, 0)[form]
    wrapped = ipaddress.IPv6Address(prefix | int(inner))
    assert unwrap(wrapped) == inner
    with pytest.raises(ForbiddenError):
        Rule().check(str(wrapped), encrypted=True)


def test_a_listed_network_may_be_called_even_without_tls() -> None:
    """The operator's list allows exactly its networks, wrapped or not."""
    rule = Rule(["10.1.0.0/16", "fd00::/8"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1"):
        rule.check(address, encrypted=False)
    for address in ("10.2.0.1", "127.0.0.1"):
        with pytest.raises(ForbiddenError):
            rule.check(address, encrypted=True)


def test_a_wrong_network_is_a_configuration_error() -> None:
    """Host bits and nonsense are named."""
    for text in ("10.0.0.1/8", "everything"):
        with pytest.raises(ConfigError, match="webhook_allow_networks"):
            Rule([text])


def test_a_socket_is_made_only_for_what_may_be_called() -> None:
    """The refusal comes before there is a socket."""
    with pytest.raises(ForbiddenError):
        Rule().open(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 80), encrypted=True)
    Rule(["127.0.0.0/8"]).open(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 80), encrypted=False).close()


@pytest.mark.parametrize(
    "url",
    ["https://example.com/hook?x=1", "http://127.0.0.1:8080/", "https://[2001:db8::1]:8443/a", "https://a_b.internal"],
)
def test_urls_of_hosts_are_taken(url: str) -> None:
    """Text is judged for what it can tell; where it leads is judged later."""
    assert check_url("callback.webhook_url", url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "//example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://exa mple.com/",
        "https://example.com/\r\nx: y",
        "https://ex\u00e4mple.com/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://[fe80::1%25eth0]/",
        "https://-example.com/",
        "https://" + "a" * 64 + ".com/",
        "https://example.com/" + "a" * 2_048,
    ],
)
def test_other_texts_are_refused_by_name_of_the_field(url: str) -> None:
    """What cannot be an http(s) URL of a host, or tries to look like another one."""
    with pytest.raises(InvalidError, match=r"callback\.webhook_url: expected"):
        check_url("callback.webhook_url", url)


def test_targets_are_host_and_port() -> None:
    """IPv6 addresses stand in brackets."""
    assert split_target("t", "example.com:443") == ("example.com", 443)
    assert split_target("t", "[2001:db8::1]:443") == ("2001:db8::1", 443)


@pytest.mark.parametrize(
    "target",
    ["", "example.com", "example.com:", ":443", "example.com:0", "example.com:65536", "2001:db8::1:443", "unix:/run/x",
     "dns:///example.com:443", "example.com:443,evil.com:443", "xds:///a:1", "x" * 300 + ":1"],
)  # fmt: skip
def test_other_targets_are_refused(target: str) -> None:
    """GRPC's other schemes would go past the rule."""
    with pytest.raises(InvalidError, match="t: expected"):
        check_target("t", target)
