"""Which addresses may be called."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.address import Rule, asks_tls, check_target, check_url, receiver_of, split_target, unwrap
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
    "2002:808:808::1",  # 6to4 of a public address: a relay of anybody's
    "::8.8.8.8",  # IPv4-compatible of a public address
    "::ffff:0:8.8.8.8",  # IPv4-translated of a public address
    "64:ff9b:1::808:808",  # NAT64, local, of a public address
    "64:ff9b:1:ffff::10.0.0.1",
    "169.254.170.2",
    "fd20:ce::254",
    "2001:0:808:808::1",  # Teredo
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


def test_a_scheme_in_capitals_is_kept_in_small_letters() -> None:
    """The rest is the receiver's own, and stays."""
    assert check_url("callback.webhook_url", "HTTPS://Shop.example/Hook?A=B") == "https://Shop.example/Hook?A=B"
    assert asks_tls("HTTPS://shop.example/")


@pytest.mark.parametrize(
    ("receiver", "targets"),
    [
        ("h.example:443", ["https://h.example/x", "https://h.example:443", "HTTPS://H.example./y", "h.example:443"]),
        ("h.example:443", ["https://h.example?a=1", "https://h.example?a=2", "https://h.example#f"]),
        ("h.example:80", ["http://h.example", "http://h.example:80/x"]),
        ("h.example:8443", ["https://h.example:8443/x"]),
        ("[2001:db8::1]:443", ["https://[2001:db8::1]/", "https://[2001:0DB8:0::1]:443/", "[2001:db8:0:0::1]:443"]),
        ("nonsense", ["nonsense"]),
        ("https://h:x/", ["https://h:x/"]),
    ],
)
def test_one_receiver_is_one_however_it_is_spelt(receiver: str, targets: list[str]) -> None:
    """Limits and paces count by host and port."""
    assert {receiver_of(target) for target in targets} == {receiver}


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


NEVER_NETWORKS = [
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8"),
    *("224.0.0.0/4", "240.0.0.0/4", "198.18.0.0/15", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001::/32", "2002::/16", "64:ff9b:1::/48", "2001:db8::/32"),
    *("::/96", "::ffff:0:0:0/96", "100::/64", "3fff::/20", "5f00::/16"),
]


@pytest.mark.parametrize("network", NEVER_NETWORKS)
@given(draw=st.data())
def test_nothing_in_a_special_network_is_ever_called(network: str, draw: st.DataObject) -> None:
    """Any address of a network that is not for the Internet, with TLS or without, also mapped and through NAT64."""
    address = draw.draw(st.ip_addresses(network=network))
    spellings = [str(address)]
    if isinstance(address, ipaddress.IPv4Address):
        spellings += [f"::ffff:{address}", f"64:ff9b::{address}"]
    for spelling in spellings:
        for encrypted in (True, False):
            with pytest.raises(ForbiddenError):
                Rule().check(spelling, encrypted=encrypted)


@given(st.ip_addresses(v=6) | st.ip_addresses(v=4))
def test_what_is_called_is_global_unicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever passes is public by the standard library's judgement too, as is the IPv4 address that it may carry."""
    try:
        Rule().check(str(address), encrypted=True)
    except ForbiddenError:
        return
    for each in {address, unwrap(address)}:
        nat64 = each in ipaddress.ip_network("64:ff9b::/96") if each.version == 6 else False
        mapped = getattr(each, "ipv4_mapped", None)
        assert nat64 or mapped or (each.is_global and not each.is_multicast and not each.is_link_local), each


@given(st.ip_addresses(network="10.0.0.0/8"), st.sampled_from(["::ffff:0:{}", "::{}", "64:ff9b::{}"]))
def test_a_listed_network_is_not_reached_through_a_relay(inner: ipaddress.IPv4Address, form: str) -> None:
    """Only the address itself, and its mapped spelling, are what the operator listed."""
    rule = Rule(["10.0.0.0/8"])
    rule.check(str(inner), encrypted=False)
    rule.check(f"::ffff:{inner}", encrypted=False)
    for relayed in (form.format(inner), str(ipaddress.IPv6Address((0x2002 << 112) | (int(inner) << 80)))):
        for encrypted in (True, False):
            with pytest.raises(ForbiddenError):
                rule.check(relayed, encrypted=encrypted)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "100.100.100.200", "168.63.129.16"]
)
def test_metadata_is_not_listed_by_accident(address: str) -> None:
    """A broad network does not allow the address that hands out credentials; naming it does."""
    broad = Rule(["0.0.0.0/0", "::/0"])
    for encrypted in (True, False):
        with pytest.raises(ForbiddenError):
            broad.check(address, encrypted=encrypted)
    Rule([address.removeprefix("::ffff:")]).check(address, encrypted=False)


@given(st.ip_addresses(v=4))
def test_no_odd_spelling_of_an_address_passes_as_a_host(address: ipaddress.IPv4Address) -> None:
    """Decimal, octal, hexadecimal and short forms are no hosts, in URLs and in targets, with a final dot or without."""
    number, parts = int(address), str(address).split(".")
    odd = [
        *(str(number), hex(number), f"0{number:o}", ".".join(hex(int(part)) for part in parts)),
        *(".".join(f"0{int(part):o}" for part in parts), f"{parts[0]}.{number & 0xFFFFFF}", f"{address}."),
    ]
    for host in odd:
        if host == str(address):
            continue
        with pytest.raises(InvalidError):
            check_url("u", f"https://{host}/")
        with pytest.raises(InvalidError):
            check_target("t", f"{host}:443")
