"""Reads demur.toml, strictly, and the secrets that never stand in it.

Each package describes its own table as a struct and registers it under the entry-point group `demur.config`; this
module reads the file into them, one key at a time, so that an error can name the key, what was expected and what came.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from fallback import environment
from fallback.errors import ConfigError, InvalidError
from fallback.patience import RETRY_SECONDS
from fallback.redis_settings import RedisSettings as RedisSettings  # noqa: PLC0414 - a table like the others here
from fallback.tables import check_keys, description, read_table, shown, type_text, value_text

DEFAULT_DATA: Final = Path("data")
DEFAULT_PATH: Final = Path("demur.toml")
QUEUES: Final = "queues"
# Each has an index of its own.
TIERS_MAX: Final = 4
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
MIB: Final = 1024 * 1024
_DAY: Final = 86_400

T = TypeVar("T")


class FallbackSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `[queues.<name>]`; what it leaves out comes from `[queues.default]`."""

    reviews_wanted: Annotated[int, Meta(ge=1, le=25, description="reviews by distinct people at first (N)")] = 1
    reviews_max: Annotated[
        int, Meta(ge=1, le=25, description="reviews at most (M) while no answer has more than half; at least N")
    ] = 3
    assisted: Annotated[bool, Meta(description="reviewers see the model's guess before they answer")] = False
    gold_share: Annotated[
        float, Meta(ge=0, le=0.5, description="share of what reviewers take that are gold items, where there are any")
    ] = 0.02
    lease_seconds: Annotated[
        float, Meta(gt=0, le=_DAY, description="how long a reviewer may hold an item without a sign of life, seconds")
    ] = 120.0
    review_seconds: Annotated[
        float, Meta(gt=0, le=365 * _DAY, description="how long people may take until a deferral expires, seconds")
    ] = float(_DAY)
    on_expiry: Annotated[
        Literal["answer_unreviewed", "abstain", "escalate"],
        Meta(description="what happens when nobody came in time; abstain where there is no next tier or no prediction"),
    ] = "abstain"
    tiers: Annotated[
        tuple[str, ...], Meta(description="tiers of reviewers, first to last, each a skill; empty: one for everybody")
    ] = ()
    tier_reviews_wanted: Annotated[
        int, Meta(ge=1, le=25, description="reviews at a tier that an item is escalated to, at least")
    ] = 1
    priority_boost_seconds: Annotated[
        float,
        Meta(ge=0, le=365 * _DAY, description="how much earlier each step of priority makes an item's turn, seconds"),
    ] = 3600.0
    undo_seconds: Annotated[
        float,
        Meta(ge=0, le=3600, description="how long reviews may be taken back before their outcome is final, seconds"),
    ] = 0.0
    skips_max: Annotated[
        int, Meta(ge=1, le=100, description="people who may skip an item before it is listed as flagged")
    ] = 5
    depth_max: Annotated[
        int, Meta(ge=1, le=100_000_000, description="open deferrals; beyond it the queue does as when_over says")
    ] = 1_000_000
    budget_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000_000,
            description="reviews an hour that may be asked for, audits always; beyond it as when_over says; 0: any",
        ),
    ] = 0
    when_over: Annotated[
        Literal["refuse", "answer_unreviewed", "keep"],
        Meta(
            description="a request over depth or budget: refused; answered by the model, marked unreviewed; parked all "
            "the same"
        ),
    ] = "refuse"
    open_max: Annotated[
        int, Meta(ge=1, le=100_000_000, description="open deferrals that keep never goes beyond; at least depth_max")
    ] = 2_000_000
    bytes_max: Annotated[
        int, Meta(ge=1, le=2**50, description="subjects and inputs stored, bytes in all; more are refused")
    ] = 16 * 1024 * MIB
    drafts_bytes_max: Annotated[
        int, Meta(ge=1, le=2**50, description="drafts stored, bytes in all; more are refused")
    ] = 256 * MIB
    outbox_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="outcomes still to be told, dead letters too; at that, requests with a callback are refused",
        ),
    ] = 1_000_000
    subject_bytes_max: Annotated[int, Meta(ge=1, le=256 * MIB, description="largest subject, bytes")] = 8 * MIB
    inputs_bytes_max: Annotated[
        int, Meta(ge=1, le=256 * MIB, description="largest inputs kept for training, bytes")
    ] = 32 * MIB
    retention_seconds: Annotated[
        float,
        Meta(ge=1, le=3650 * _DAY, description="how long a deferral is kept after its outcome, seconds"),
    ] = 7.0 * _DAY
    request_seconds: Annotated[
        float, Meta(ge=1, le=_DAY, description="how long a repeated request id gets the stored reply, seconds")
    ] = 3600.0
    orphan_seconds: Annotated[
        float, Meta(ge=1, le=_DAY, description="how long content is kept whose deferral was never accepted, seconds")
    ] = 600.0


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
        tables: Mapping[str, msgspec.Struct] = MappingProxyType({}),
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
        raise ConfigError(f"{found}: {error.message}") from error


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


def without_password(url: str) -> str:
    """Return an address as it may be shown."""
    parts = urlsplit(url)
    return url if parts.password is None else urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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
    redis = tables.get("redis")
    if isinstance(redis, RedisSettings) and urlsplit(redis.url).password:
        raise ConfigError("redis.url: expected no password here, got one; set $DEMUR_REDIS_URL instead")
    return Config(data_folder=Path(os.environ.get("DEMUR_DATA") or folder), path=path, tables=tables, queues=queues)


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
        if settings.reviews_max < settings.reviews_wanted:
            raise ConfigError(
                f"{QUEUES}.{name}.reviews_max: expected at least reviews_wanted ({settings.reviews_wanted}), "
                f"got {settings.reviews_max}"
            )
        distinct = {tier for tier in settings.tiers if QUEUE_NAME.fullmatch(tier)}
        if not len(distinct) == len(settings.tiers) <= TIERS_MAX:
            raise ConfigError(
                f"{QUEUES}.{name}.tiers: expected at most {TIERS_MAX} names of letters, digits, '_', '.' and '-', "
                f"each once, got {shown(settings.tiers)}"
            )
    return found


@functools.cache
def _entry_points() -> Mapping[str, metadata.EntryPoint]:
    return MappingProxyType({point.name: point for point in metadata.entry_points(group="demur.config")})


def _type(name: str) -> type[msgspec.Struct]:
    loaded: type[msgspec.Struct] = _entry_points()[name].load()
    return loaded


def _types() -> dict[str, type[msgspec.Struct]]:
    return {name: _type(name) for name in _entry_points()}


def _row(table: str, key: str, type_: str, default: str, description: str) -> Explained:
    return Explained(table=table, key=key, type=type_, default=default, description=description)
