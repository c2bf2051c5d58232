"""Reads demur.toml, strictly, and the secrets that never stand in it.

Each package describes its own table as a struct and registers it under the entry-point group `demur.config`; this
module reads the file into them, one key at a time, so that an error can name the key, what was expected and what came.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from fallback import environment
from fallback.address import Rule
from fallback.errors import ConfigError, InvalidError
from fallback.identity import Credentials
from fallback.listening import check_address
from fallback.patience import RETRY_SECONDS
from fallback.queue_settings import QUEUE_NAME
from fallback.queue_settings import QueueSettings as QueueSettings  # noqa: PLC0414 - a table like the others here
from fallback.redis_settings import RedisSettings as RedisSettings  # noqa: PLC0414 - a table like the others here
from fallback.tables import Table, check_keys, description, read_table, shown, type_text, value_text
from fallback.tls import tls_of

DEFAULT_DATA: Final = Path("data")
DEFAULT_PATH: Final = Path("demur.toml")
QUEUES: Final = "queues"
MIB: Final = 1024 * 1024
_DAY: Final = 86_400

T = TypeVar("T")


class FallbackSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[fallback]`: where reviewers come in, how callbacks go out, how often the reaper looks."""

    grpc_listen: Annotated[str, Meta(description="address reviewers' programs reach; port 0: any free one")] = (
        "127.0.0.1:8003"
    )
    page_listen: Annotated[str, Meta(description="address of the reviewers' page; port 0: any free one")] = (
        "127.0.0.1:8080"
    )
    page_hosts: Annotated[
        tuple[str, ...],
        Meta(description="other names the page may be asked for by (Host header), e.g. behind a proxy"),
    ] = ()
    credentials_file: Annotated[
        str, Meta(description="file that says which token is whose; empty: loopback only, people name themselves")
    ] = ""
    tls_certificate_file: Annotated[
        str, Meta(description="PEM chain that reviewers' programs and browsers are shown; empty: no TLS")
    ] = ""
    tls_key_file: Annotated[str, Meta(description="PEM key of tls_certificate_file, without a pass phrase")] = ""
    tls_client_ca_file: Annotated[
        str, Meta(description="PEM certificates of which one must have signed a program's; browsers are asked for none")
    ] = ""
    message_bytes_max: Annotated[int, Meta(ge=1024, le=2**31 - 1, description="largest gRPC message taken, bytes")] = (
        16 * MIB
    )
    drain_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="how long calls under way may take when the process stops, seconds")
    ] = 10.0
    webhook_allow_networks: Annotated[
        tuple[str, ...],
        Meta(description="networks (CIDR) that webhooks may reach although they are not public, http too"),
    ] = ()
    callback_timeout_seconds: Annotated[
        float, Meta(gt=0, le=300, description="how long one attempt at a callback may take, seconds")
    ] = 15.0
    callback_retry_seconds: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=7 * _DAY)], ...],
        Meta(max_length=100, description="waits after each failed attempt at a callback, seconds; then a dead letter"),
    ] = RETRY_SECONDS
    cloudevents: Annotated[
        bool, Meta(description="webhooks carry the headers of CloudEvents 1.0 too (binary mode)")
    ] = False
    callback_ca_file: Annotated[
        str, Meta(description="PEM file of authorities that receivers' certificates may also come from; empty: none")
    ] = ""
    callback_concurrency_max: Annotated[
        int, Meta(ge=1, le=1000, description="callbacks under way at once, to all receivers")
    ] = 64
    callback_concurrency_per_endpoint_max: Annotated[
        int, Meta(ge=1, le=1000, description="callbacks under way at once, to one receiver")
    ] = 8
    callback_visibility_seconds: Annotated[
        float,
        Meta(ge=1, le=3600, description="how long a claimed callback is left to its dispatcher, seconds"),
    ] = 60.0
    reap_interval_seconds: Annotated[
        float, Meta(gt=0, le=60, description="pause between two rounds of the reaper, seconds")
    ] = 0.5
    blobs: Annotated[Literal["redis", "folder"], Meta(description="where large content is written")] = "redis"
    blob_folder: Annotated[
        str, Meta(description="folder of large content, one volume for all processes; empty: <data_folder>/blobs")
    ] = ""
    blob_bytes_min: Annotated[
        int, Meta(ge=1024, le=16 * MIB, description="content up to this stands beside its record, bytes")
    ] = MIB
    blob_concurrency_max: Annotated[
        int, Meta(ge=1, le=100, description="large contents one process writes at once, and as many read")
    ] = 4

    def check(self, _config: Config) -> None:
        """Raise ConfigError where an address or a network is none, or of the files of TLS one is not named."""
        check_address("fallback.grpc_listen", self.grpc_listen)
        check_address("fallback.page_listen", self.page_listen, http=True)
        tls_of("fallback", self)
        Rule(self.webhook_allow_networks)

    def check_here(self) -> None:
        """Raise ConfigError where a file that is named does not do."""
        from fallback.callback import read_ca

        Credentials.load(self.credentials_file)
        tls = tls_of("fallback", self)
        if tls is not None:
            tls.credentials()
        read_ca(self.callback_ca_file)


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One key of demur.toml (or one environment variable, in the table "environment")."""

    table: str
    key: str
    type: str
    default: str
    description: str


class Config:
    """What demur.toml says, checked; tables and queues that it leaves out have their defaults."""

    def __init__(
        self,
        *,
        data_folder: Path = DEFAULT_DATA,
        path: Path | None = None,
        tables: Mapping[str, Table] = MappingProxyType({}),
        queues: Mapping[str, QueueSettings] = MappingProxyType({}),
    ) -> None:
        self.data_folder = data_folder
        self.path = path
        self._tables = dict(tables)
        self._queues = dict(queues)

    def table(self, name: str, type_: type[T]) -> T:
        """Return the table `name` as the struct that its package registered."""
        found = self._tables.get(name)
        if found is None:
            return type_()
        if not isinstance(found, type_):
            raise TypeError(f"[{name}] is a {type(found).__name__}, asked for as a {type_.__name__}")
        return found

    def all_tables(self) -> list[Table]:
        """Return each table that is not a queue's, from the file or by default."""
        return [self._tables.get(name) or type_() for name, type_ in _types().items() if name != QUEUES]

    def queue(self, name: str) -> QueueSettings:
        """Return `[queues.<name>]` over `[queues.default]`; raises InvalidError for what cannot be a queue's name."""
        check_queue_name(name)
        return self._queues.get(name) or self._queues.get("default") or _DEFAULT_QUEUE

    def queue_names(self) -> tuple[str, ...]:
        """Return the queues that the file names, sorted; others come up as something is parked in them."""
        return tuple(sorted(set(self._queues) - {"default"}))


_DEFAULT_QUEUE: Final = QueueSettings()


def check_queue_name(name: str) -> None:
    """Raise InvalidError unless `name` may name a queue."""
    if not QUEUE_NAME.fullmatch(name):
        raise InvalidError(
            f"queue: expected a letter or digit, then at most 62 letters, digits, '_', '.' or '-', got {name[:100]!r}"
        )


def load(path: Path | None = None) -> Config:
    """Read demur.toml from `path`, else $DEMUR_CONFIG, else ./demur.toml if it is there, else take the defaults.

    $DEMUR_DATA wins over the key `data_folder`. Raises ConfigError naming the file, the key, expected and got.
    """
    named = path or (Path(os.environ["DEMUR_CONFIG"]) if os.environ.get("DEMUR_CONFIG") else None)
    found = named or (DEFAULT_PATH if DEFAULT_PATH.is_file() else None)
    document = {} if found is None else _read(found)
    try:
        return _config(document, found)
    except ConfigError as error:
        raise ConfigError(f"{found}: {error.message}" if found else error.message) from error


def explain() -> list[Explained]:
    """Return every key of demur.toml with its type, default and meaning, then the environment variables."""
    rows = [_row("", "data_folder", "text", str(DEFAULT_DATA), "folder of everything that must outlive a restart")]
    for name, type_ in _types().items():
        table = f"{QUEUES}.<name>" if name == QUEUES else name
        rows += [
            _row(table, field.name, type_text(field.type), value_text(field.default), description(field.type))
            for field in msgspec.structs.fields(type_)
        ]
    variables = environment.VARIABLES.items()
    return [*rows, *(_row("environment", key, "text", "", description) for key, description in variables)]


def redis_url(config: Config) -> str:
    """Return where the server is: $DEMUR_REDIS_URL, else `redis.url`, else empty (the embedded server).

    Beside Sentinels, which say where it is, only how it is reached.
    """
    settings = config.table("redis", RedisSettings)
    return os.environ.get("DEMUR_REDIS_URL") or settings.url or ("redis://" if settings.sentinels else "")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from error


def _config(document: dict[str, Any], path: Path | None) -> Config:
    check_keys(document, ["data_folder", *_entry_points()], "", "table or key")
    folder = document.pop("data_folder", str(DEFAULT_DATA))
    if not isinstance(folder, str) or not folder:
        raise ConfigError(f"data_folder: expected a path as text, got {folder!r}")
    for name, table in document.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: expected a table [{name}], got {shown(table)}")
    queues = _queues(document.pop(QUEUES, {}))
    tables = {name: read_table(name, table, _type(name)) for name, table in document.items()}
    networks = os.environ.get("DEMUR_WEBHOOK_ALLOW_NETWORKS", "")
    if networks:
        fallback = tables.get("fallback") or FallbackSettings()
        assert isinstance(fallback, FallbackSettings)
        more = tuple(network.strip() for network in networks.split(",") if network.strip())
        allowed = (*fallback.webhook_allow_networks, *more)
        tables["fallback"] = msgspec.structs.replace(fallback, webhook_allow_networks=allowed)
    found = Config(data_folder=Path(os.environ.get("DEMUR_DATA") or folder), path=path, tables=tables, queues=queues)
    if tables:
        # All, since what one says may not do beside the defaults of another.
        for table in found.all_tables():
            table.check(found)
    return found


def _queues(tables: Mapping[str, Any]) -> dict[str, QueueSettings]:
    for name, table in tables.items():
        if not QUEUE_NAME.fullmatch(name):
            raise ConfigError(
                "queues: expected names of 1 to 63 letters, digits, '_', '.' and '-', a letter or digit first, "
                f"got {name[:100]!r}"
            )
        if not isinstance(table, dict):
            hint = (
                f"; for all queues write it under [{QUEUES}.default]" if name in QueueSettings.__struct_fields__ else ""
            )
            raise ConfigError(f"{QUEUES}.{name}: expected a table [{QUEUES}.{name}], got {shown(table)}{hint}")
    base = tables.get("default", {})
    found = {name: read_table(f"{QUEUES}.{name}", {**base, **table}, QueueSettings) for name, table in tables.items()}
    for name, settings in found.items():
        settings.check(f"{QUEUES}.{name}")
    return found


@functools.cache
def _entry_points() -> Mapping[str, metadata.EntryPoint]:
    return MappingProxyType({point.name: point for point in metadata.entry_points(group="demur.config")})


def _type(name: str) -> type[Any]:
    loaded: type[Any] = _entry_points()[name].load()
    return loaded


def _types() -> dict[str, type[Any]]:
    return {name: _type(name) for name in _entry_points()}


def _row(table: str, key: str, type_: str, default: str, description: str) -> Explained:
    return Explained(table=table, key=key, type=type_, default=default, description=description)
