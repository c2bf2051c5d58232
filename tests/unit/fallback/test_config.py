"""What demur.toml may say, and what Demur says of a file that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from fallback.config import (
    Config,
    FallbackSettings,
    QueueSettings,
    RedisSettings,
    check_queue_name,
    explain,
    load,
    redis_url,
)
from fallback.errors import ConfigError, InvalidError


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and no variable of the machine's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "DATA", "REDIS_URL", "WEBHOOK_SECRET", "AUDIT_SECRET"):
        monkeypatch.delenv(f"DEMUR_{name}", raising=False)


def _load(text: str) -> Config:
    path = Path("demur.toml")
    path.write_text(text)
    return load(path)


def test_without_a_file_everything_has_its_default() -> None:
    """Nothing needs to be configured."""
    config = load()
    assert (config.data_folder, config.path) == (Path("data"), None)
    assert config.table("redis", RedisSettings) == RedisSettings()
    assert config.queue("digits") == QueueSettings()


def test_the_file_is_found_by_argument_then_variable_then_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order."""
    for name in ("demur", "named", "given"):
        (tmp_path / f"{name}.toml").write_text(f'data_folder = "{name}"')
    assert load().data_folder == Path("demur")
    monkeypatch.setenv("DEMUR_CONFIG", "named.toml")
    assert load().data_folder == Path("named")
    assert load(Path("given.toml")).data_folder == Path("given")
    monkeypatch.setenv("DEMUR_DATA", "/somewhere")
    assert load().data_folder == Path("/somewhere")


def test_a_file_that_was_named_must_be_there() -> None:
    """A path that leads nowhere is no reason to take the defaults."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        load(Path("nowhere.toml"))


def test_a_queue_takes_what_it_does_not_say_from_the_default_queue() -> None:
    """[queues.<name>] over [queues.default] over the defaults."""
    config = _load("[queues.default]\nlease_seconds = 7\nreviews_wanted = 2\n[queues.digits]\nassisted = true\n")
    digits, other = config.queue("digits"), config.queue("other")
    assert (digits.lease_seconds, digits.reviews_wanted, digits.assisted) == (7, 2, True)
    assert (other.lease_seconds, other.reviews_wanted, other.assisted) == (7, 2, False)
    assert config.queue_names() == ("digits",)


def test_a_table_of_another_package_is_read_by_its_own_struct() -> None:
    """The gateway's table comes through the entry points."""
    with pytest.raises(ConfigError, match=r"gateway\.grpc_listne: no such key; did you mean gateway\.grpc_listen\?"):
        _load('[gateway]\ngrpc_listne = "x"')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[fallbak]", r"fallbak: no such table or key; did you mean fallback?"),
        ("data_foldr = 'x'", r"data_foldr: no such table or key; did you mean data_folder?"),
        ("[redis]\nurll = 'x'", r"redis.urll: no such key; did you mean redis.url?"),
        ("[queues.a]\nlease_second = 3", r"queues.a.lease_second: no such key; did you mean queues.a.lease_seconds?"),
        ("[queues.default]\nzzz = 3", r"queues.default.zzz: no such key; known: assisted, "),
        ("[queues]\nlease_seconds = 3", r"got 3 (int); for all queues write it under [queues.default]"),
        ("[queues.'a b']", r"a letter or digit first, got 'a b'"),
        ("redis = 3", r"redis: expected a table [redis], got 3 (int)"),
        ("data_folder = 3", r"data_folder: expected a path as text, got 3"),
        (
            "[redis]\nconnections_max = 'x'",
            r"redis.connections_max: expected whole number >= 4, <= 10000, got 'x'",
        ),
        ("[redis]\nconnections_max = 3", r"redis.connections_max: expected whole number >= 4, <= 10000, got 3"),
        ("[redis]\nconnections_max = true", r"expected whole number >= 4, <= 10000, got True (bool)"),
        ("[queues.a]\nassisted = 1", r"queues.a.assisted: expected true or false, got 1 (int)"),
        ("[queues.a]\nlease_seconds = nan", r"queues.a.lease_seconds: expected "),
        ("[queues.a]\nlease_seconds = inf", r"queues.a.lease_seconds: expected "),
        ("[queues.a]\non_expiry = 'x'", r'expected "abstain" or "answer_unreviewed" or "escalate", got '),
        ("[fallback]\nwebhook_allow_networks = [1]", r"expected list of texts, got [1] (list)"),
        ("[queues.a]\ntiers = ['a', 'b', 'c', 'd', 'e']", r"queues.a.tiers: expected at most 4 names of letters, "),
        (
            "[queues.a]\ntiers = ['a', 'a']",
            r"queues.a.tiers: expected at most 4 names of letters, digits, '_', '.' and '-', each once",
        ),
        (
            "[queues.a]\ntiers = ['a b']",
            r"queues.a.tiers: expected at most 4 names of letters, digits, '_', '.' and '-', each once",
        ),
        ("[queues.a]\nreviews_wanted = 4", r"queues.a.reviews_max: expected at least reviews_wanted (4), got 3"),
        ("[redis]\nurl = 'redis://:pw@h/0'", r"redis.url: expected no password here, got one; set $DEMUR_REDIS_URL"),
        ("[redis]\nurl = 'redis://h/0?password=pw'", r"redis.url: expected no password here, got one"),
        ("[redis]\nurl = 'http://h'", r"redis.url: expected redis://, rediss:// or unix://, as in redis://host:6379/0"),
        ("[redis]\nurl = 'redis://h:99999'", r"redis.url: expected redis://, rediss:// or unix://"),
        (
            "[redis]\nsentinels = ['h']\nsentinel_service = 'main'",
            r"redis.sentinels: expected host:port with a port from 1 to 65535, got 'h'",
        ),
        ("[redis]\nsentinels = ['h:1']", r"redis.sentinel_service: expected together with redis.sentinels"),
        (
            "[fallback]\ngrpc_listen = 'nonsense'",
            r"fallback.grpc_listen: expected host:port with a port from 0 ",
        ),
        (
            "[fallback]\npage_listen = 'unix:/p'",
            r"fallback.page_listen: expected host:port with a port from 0 ",
        ),
        ("[fallback]\npage_listen = ':x'", r"fallback.page_listen: expected host:port with a port from 0 "),
        ("[fallback]\ngrpc_listen = ':80'", r"got ''; for every address of this machine: 0.0.0.0:80"),
        (
            "[fallback]\nwebhook_allow_networks = ['300.0.0.0/8']",
            r"fallback.webhook_allow_networks: expected networks such as 10.1.0.0/16: '300.0.0.0/8' does not appear",
        ),
        ("[fallback]\ntls_key_file = 'k'", r"fallback.tls_certificate_file: expected the path of a PEM file"),
        ("[gateway]\ntls_key_file = 'k'", r"gateway.tls_certificate_file: expected the path of a PEM file"),
        (
            "[gateway]\nmetrics_listen = 'abc'",
            r"gateway.metrics_listen: expected host:port with a port from 0 ",
        ),
        (
            "[gateway]\nrejoin_seconds = 3600",
            r"gateway.rejoin_seconds: expected less than trainer.lost_seconds (3600), got 3600",
        ),
        ("[trainer]\nlost_seconds = 60", r"expected less than trainer.lost_seconds (60), got 600"),
        (
            '[queues.a]\nwhen_over = "keep"\ndepth_max = 9\nopen_max = 8',
            r"queues.a.open_max: expected at least depth_max (9), got 8",
        ),
        (
            '[queues.default]\nwhen_over = "keep"\ndepth_max = 3_000_000',
            r"open_max: expected at least depth_max (3000000), got 2000000",
        ),
        ("x = = 3", r"demur.toml: expected TOML, got "),
    ],
)
def test_a_wrong_file_is_refused_in_words_that_help(text: str, told: str) -> None:
    """The file, the key, what was expected, what came, the nearest right key."""
    with pytest.raises(ConfigError, match=re.escape(told)) as raised:
        _load(text)
    assert raised.value.message.startswith("demur.toml: ")
    assert "pw" not in raised.value.message


def test_the_largest_and_the_smallest_value_are_taken() -> None:
    """Bounds belong to their range, but for those that say more than."""
    assert _load("[queues.a]\nreviews_wanted = 25\nreviews_max = 25").queue("a").reviews_wanted == 25


@pytest.mark.parametrize("name", ["digits", "a.b_c-9", "A", "x" * 63])
def test_names_of_queues(name: str) -> None:
    """Letters, digits, '_', '.', '-', as models are called."""
    check_queue_name(name)


@pytest.mark.parametrize("name", ["", ".a", "a/b", "a b", "{a}", "x" * 64, "é", "a\n"])
def test_what_is_no_name_of_a_queue(name: str) -> None:
    """A brace would change the hash tag of its keys."""
    with pytest.raises(InvalidError, match="queue: expected"):
        check_queue_name(name)


def test_the_servers_address_comes_from_the_environment_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """For it may hold a password."""
    config = _load('[redis]\nurl = "redis://host/0"')
    assert redis_url(config) == "redis://host/0"
    monkeypatch.setenv("DEMUR_REDIS_URL", "redis://:pw@host/1")
    assert redis_url(config) == "redis://:pw@host/1"
    assert redis_url(Config()) == "redis://:pw@host/1"


def test_beside_sentinels_the_address_says_how_not_where() -> None:
    """It is not the embedded server that is meant."""
    assert redis_url(_load('[redis]\nsentinels = ["a:26379"]\nsentinel_service = "main"')) == "redis://"


def test_everything_is_explained() -> None:
    """Each key of each table with its type and default, each in words, units where there is a quantity."""
    rows = {(row.table, row.key): row for row in explain()}
    for table, type_ in (("redis", RedisSettings), ("fallback", FallbackSettings), ("queues.<name>", QueueSettings)):
        for name in type_.__struct_fields__:
            row = rows[table, name]
            assert row.description, name
            assert row.type, name
            if name.endswith("_seconds"):
                assert "seconds" in row.description, name
            if name.endswith("_bytes_max"):
                assert "bytes" in row.description, name
    assert rows["queues.<name>", "lease_seconds"].default == "120.0"
    assert rows["queues.<name>", "lease_seconds"].type == "number > 0, <= 86400"
    assert rows["", "data_folder"].default == "data"
    assert rows["environment", "DEMUR_REDIS_URL"].description
    assert {table for table, _ in rows} >= {"gateway", "trainer"}


def test_a_table_asked_for_as_something_else_is_a_mistake_of_ours() -> None:
    """Two packages cannot own one table."""

    class Other(msgspec.Struct):
        pass

    with pytest.raises(TypeError, match="redis"):
        _load("[redis]\nconnections_max = 8").table("redis", Other)


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "x", "", "8o", "+1", " 1"])
@pytest.mark.parametrize(
    "key", ["gateway.grpc_listen", "gateway.metrics_listen", "fallback.grpc_listen", "fallback.page_listen"]
)
def test_a_port_is_one(key: str, port: str) -> None:
    """Not one that a server would change by the bits it has room for."""
    table, name = key.split(".")
    with pytest.raises(ConfigError, match=rf"{key}: expected host:port with a port from 0 to 65535, got '127"):
        _load(f"[{table}]\n{name} = '127.0.0.1:{port}'")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "0.0.0.0:65535", "[::1]:80", "localhost:80", "unix:/run/demur.sock"]
)
def test_what_may_be_listened_on(address: str) -> None:
    """An address and a port, or a socket."""
    assert _load(f"[fallback]\ngrpc_listen = '{address}'").table("fallback", FallbackSettings).grpc_listen == address


def test_an_http_page_may_leave_the_host_out() -> None:
    """It is then every address of the machine."""
    config = _load("[fallback]\npage_listen = ':80'\n[gateway]\nmetrics_listen = ''")
    assert config.table("fallback", FallbackSettings).page_listen == ":80"


def test_networks_from_the_environment_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file there is none to name."""
    monkeypatch.setenv("DEMUR_WEBHOOK_ALLOW_NETWORKS", "300.0.0.0/8")
    with pytest.raises(ConfigError, match=r"^fallback\.webhook_allow_networks: expected networks"):
        load()


@pytest.mark.parametrize("key", ["credentials_file", "callback_ca_file"])
def test_a_file_that_is_named_is_looked_for_where_it_is_used(key: str) -> None:
    """Commands on other machines read the same demur.toml; what serves, and `demur config`, say that it is missing."""
    settings = _load(f"[fallback]\n{key} = 'nowhere'").table("fallback", FallbackSettings)
    with pytest.raises(ConfigError, match=rf"fallback\.{key}.*nowhere.*No such file"):
        settings.check_here()


def test_the_servers_address_in_the_environment_is_checked_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password."""
    monkeypatch.setenv("DEMUR_REDIS_URL", "http://:geheim@h")
    with pytest.raises(ConfigError, match=r"^DEMUR_REDIS_URL: expected redis://.* got 'http://h'"):
        RedisSettings().check_here()
