"""Who calls."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fallback.errors import ConfigError, ForbiddenError, InvalidError, UnauthenticatedError
from fallback.identity import Credentials, check_listen, check_name, is_local_listen, is_local_peer

LOCAL = "ipv4:127.0.0.1:50000"
AWAY = "ipv4:10.0.0.5:50000"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    path = tmp_path / "credentials.toml"
    path.write_text(
        f"""
        [[identity]]
        name = "ann"
        token_sha256 = "{digest("ann's token")}"
        roles = ["reviewer"]
        skills = ["doctor", "reader"]

        [[identity]]
        name = "shop"
        token_sha256 = "{digest("shop's token")}"
        roles = ["client", "operator"]
        """
    )
    return Credentials.load(path)


def test_a_token_says_who_calls_from_anywhere(credentials: Credentials) -> None:
    """The bearer of a token is its identity, whatever name the metadata holds and wherever it comes from."""
    metadata = [("demur-identity", "boss"), ("authorization", "Bearer ann's token")]
    for peer in (LOCAL, AWAY):
        identity = credentials.identify(metadata, peer=peer)
        assert identity.name == "ann"
        assert identity.roles == {"reviewer"}
        assert identity.skills == frozenset({"doctor", "reader"})


def test_who_has_no_skills_in_the_file_has_none_and_without_a_file_everybody_has_all(credentials: Credentials) -> None:
    """A queue with tiers is for those the file says; on this machine alone it is for everybody."""
    shop = credentials.identify([("authorization", "Bearer shop's token")], peer=AWAY)
    assert shop.skills == frozenset()
    assert Credentials.load("").identify([("demur-identity", "ann")], peer=LOCAL).skills is None


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic ann's token", "Bearer wrong", "ann's token", "Bearer " + "x" * 5_000]
)
def test_without_a_known_token_nobody_calls(credentials: Credentials, value: str) -> None:
    """Not even from loopback, and not by name."""
    with pytest.raises(UnauthenticatedError, match="authorization"):
        credentials.identify([("authorization", value), ("demur-identity", "ann")], peer=LOCAL)


def test_a_role_that_is_missing_is_forbidden(credentials: Credentials) -> None:
    """Who is known may still lack the role, and is told which one."""
    with pytest.raises(ForbiddenError, match="'shop' may not do this: it takes the role reviewer"):
        credentials.identify([("authorization", "bearer shop's token")], peer=AWAY, role="reviewer")


def test_without_credentials_people_on_this_machine_name_themselves() -> None:
    """A name is taken from the metadata on loopback and unix sockets; clients may go without."""
    none = Credentials.load("")
    assert none.configured is False
    for peer in (
        LOCAL,
        "ipv6:[::1]:50000",
        "ipv6:%5B::1%5D:50000",
        "ipv4:127.9.9.9:1",
        "unix:",
        "unix:/run/demur.sock",
    ):
        assert none.identify([("demur-identity", "ann")], peer=peer, require_name=True).name == "ann"
        assert none.identify([], peer=peer).name == "anonymous"
        with pytest.raises(UnauthenticatedError, match="expected your name"):
            none.identify([], peer=peer, require_name=True)


@pytest.mark.parametrize("peer", [AWAY, "ipv6:[2001:db8::1]:5", "ipv4:127.0.0.1.evil.example:5", "", "unknown"])
def test_without_credentials_other_machines_do_not_call(peer: str) -> None:
    """A name from elsewhere is worth nothing."""
    with pytest.raises(UnauthenticatedError):
        Credentials.load("").identify([("demur-identity", "ann")], peer=peer)
    assert not is_local_peer(peer)


@pytest.mark.parametrize("name", ["", "x" * 65, " ann", "ann ", "a\nb", "a\x00b", "a\u200eb", "\u2028"])
def test_a_name_is_short_and_printable(name: str) -> None:
    """1 to 64 printable characters without space at an end."""
    with pytest.raises(InvalidError, match="name: expected 1 to 64 printable characters"):
        check_name("name", name)


def test_names_of_people_are_names() -> None:
    """Letters of any script and inner spaces are fine."""
    for name in ("ann", "Łucja Nowak", "山田", "x" * 64):
        assert check_name("name", name) == name


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "identity"),
        ('identity = "ann"', "identity"),
        ("[[identity]]\nname = 'ann'\ntoken_sha256 = 'abc'\nroles = []", "token_sha256"),
        (f"[[identity]]\nname = 'ann'\ntoken_sha256 = '{digest('a')}'\nroles = ['boss']", "'boss'"),
        (f"[[identity]]\nname = 'ann'\ntoken_sha256 = '{digest('a')}'\nroles = []\ntoken = 'a'", "token"),
        (f"[[identity]]\nname = ''\ntoken_sha256 = '{digest('a')}'\nroles = []", "name"),
        (
            "".join(f"[[identity]]\nname = 'ann'\ntoken_sha256 = '{digest(t)}'\nroles = []\n" for t in "ab"),
            "each name once",
        ),
        (
            "".join(f"[[identity]]\nname = '{n}'\ntoken_sha256 = '{digest('a')}'\nroles = []\n" for n in "ab"),
            "each token_sha256 once",
        ),
        ("[[identity", "credentials_file"),
    ],
)
def test_a_wrong_credentials_file_names_what_is_wrong(tmp_path: Path, body: str, sentence: str) -> None:
    """The file is strict: the process does not start on half an understanding of who may call."""
    path = tmp_path / "credentials.toml"
    path.write_text(body)
    with pytest.raises(ConfigError, match=sentence):
        Credentials.load(path)


def test_a_missing_credentials_file_is_an_error(tmp_path: Path) -> None:
    """A path that leads nowhere never means that there are no credentials."""
    with pytest.raises(ConfigError, match="credentials_file"):
        Credentials.load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/run/demur.sock"])
def test_loopback_may_listen_without_credentials(address: str) -> None:
    """What only this machine reaches needs none."""
    check_listen("fallback.grpc_listen", address, Credentials())
    assert is_local_listen(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:80", "[::]:80", ":80", "10.0.0.5:80", "example.com:80", "localhost.evil:80"]
)
def test_beyond_loopback_listening_takes_credentials(address: str, credentials: Credentials) -> None:
    """Without credentials the process does not start."""
    check_listen("fallback.page_listen", address, credentials, http=True)
    with pytest.raises(ConfigError, match=r"fallback\.page_listen: .*nothing listens beyond loopback"):
        check_listen("fallback.page_listen", address, Credentials(), http=True)
