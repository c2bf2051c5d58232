"""Evidence while Redis is away, a queue or the disk is full, and after a death: what is kept, and what is not begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fallback import embedded, presence
from fallback.config import Config, QueueSettings
from fallback.errors import FullError, UnavailableError
from gateway import hold_off
from gateway.request import request_key
from gateway.rules import Decision
from gateway.samples import place_text
from gateway.server import PROCESS
from tests.integration.gateway.certified import (
    REQUESTS,
    SHARE,
    UNPROVED,
    ask,
    configured,
    deferrals_of,
    draw_of,
    evidence_of,
    lay_down,
    spools_of,
    until,
)
from tests.live_gateway import SURE, UNSURE, running, settings

# Serves until it is killed; the configuration is in the environment and in demur.toml.
SERVE: Final = "from fallback.config import load; from gateway.server import serve; serve(load())"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A server that a test may stop."""
    server = embedded.Server.start(tmp_path_factory.mktemp("own"))
    server.wait_ready()
    yield server
    server.stop()


def test_while_redis_is_away_evidence_waits_on_the_disk(own_server: embedded.Server, tmp_path: Path) -> None:
    """Answers are given, audited or not; what goes to a person is refused; afterwards all of it comes, in its order."""
    config = configured(tmp_path, own_server.url)
    lay_down(config)
    with running(config) as gateway:
        own_server.stop()
        for number in range(REQUESTS):
            assert ask(gateway.address, SURE, idempotency_key=f"s{number}").decision is Decision.ANSWERED
        with pytest.raises(UnavailableError):
            ask(gateway.address, UNSURE, idempotency_key="u")
        back = embedded.Server.start(own_server.folder)
        try:
            back.wait_ready()
            retried = ask(gateway.address, UNSURE, idempotency_key="u", attempts=20)
            audited = sum(draw_of(config, f"s{number}") < SHARE for number in range(REQUESTS))
            until(lambda: len(deferrals_of(config)) == audited + 1)
            until(lambda: len(evidence_of(config).records) == audited + 1)
            evidence = evidence_of(config)
            (record,) = [each for each in evidence.records if each.request_key == request_key("shop", "u")]
            (deferral,) = [each for each in deferrals_of(config) if each.name == retried.deferral.name]
            assert deferral.draw
            assert deferral.draw.place == place_text(record.place), "the record of the first try"
            gateway.drain()
        finally:
            back.stop()


@pytest.mark.parametrize("redis_away", ["refuse", "answer_unreviewed"])
def test_an_outage_before_the_first_proof_leaves_few_errors(
    own_server: embedded.Server, tmp_path: Path, redis_away: str
) -> None:
    """While nothing is proved and Redis is known to be away, who is refused, or answered all the same, is not recorded;
    afterwards all are again.

    One that was recorded and not parked would count as an error.
    """  # noqa: D205 - one sentence needs two lines
    config = configured(tmp_path, own_server.url, redis_away=redis_away)
    lay_down(config, certification=UNPROVED)
    with running(config) as gateway:
        assert ask(gateway.address, SURE, idempotency_key="before").deferral
        own_server.stop()
        for number in range(10):
            if redis_away == "refuse":
                with pytest.raises(UnavailableError):
                    ask(gateway.address, SURE, idempotency_key=f"away{number}")
            else:
                assert ask(gateway.address, SURE, idempotency_key=f"away{number}").decision is Decision.UNREVIEWED
        back = embedded.Server.start(own_server.folder)
        try:
            back.wait_ready()
            until(lambda: not gateway._deferring.hold_off.away)
            assert ask(gateway.address, SURE, idempotency_key="after").deferral
            gateway.drain()
            keys = [record.request_key for record in evidence_of(config).records]
            assert keys == [request_key("shop", key) for key in ("before", "away0", "after")]
        finally:
            back.stop()


@pytest.mark.parametrize("limit", ["depth_max", "parkings_max"])
def test_a_queue_over_its_limit_before_the_first_proof_leaves_few_errors(
    config: Config, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who would not be parked is not recorded while the queue is known to take nothing, and answered or refused as the
    operator chose; a retry gets its deferral.
    """  # noqa: D205 - one sentence needs two lines
    monkeypatch.setattr(hold_off, "_SECONDS_MIN", 60.0)
    over = limit == "depth_max"
    rules: dict[str, Any] = {"depth_max": 1, "when_over": "answer_unreviewed"} if over else {}
    config = settings(Config(data_folder=config.data_folder, queues={"m": QueueSettings(**rules)}))
    lay_down(config, certification=UNPROVED)
    with running(config) as gateway:
        first = ask(gateway.address, SURE, idempotency_key="first").deferral.name
        if not over:
            gateway._deferring.backlog.rows_max = 0
        for number in range(10):
            if over:
                got = ask(gateway.address, SURE, idempotency_key=f"over{number}")
                assert got.decision is Decision.UNREVIEWED
                assert [rule.rule for rule in got.rules if "answered unreviewed" in rule.evaluation] == ["over"]
            else:
                with pytest.raises(FullError, match="on their way to the queue"):
                    ask(gateway.address, SURE, idempotency_key=f"over{number}")
        gateway._deferring.backlog.rows_max = 1_000
        assert ask(gateway.address, SURE, idempotency_key="first").deferral.name == first
    keys = [record.request_key for record in evidence_of(config).records]
    assert keys == [request_key("shop", "first"), request_key("shop", "over0")]


def test_a_gateway_that_is_killed_loses_no_audit(own_server: embedded.Server, tmp_path: Path) -> None:
    """Killed with SIGKILL while Redis is away, after it answered: the next gateway on its folder parks every audit that
    the draws ask for, sends every record, and closes the dead one's last second.
    """  # noqa: D205 - one sentence needs two lines
    config = configured(tmp_path, own_server.url)
    lay_down(config)
    process = _serve(tmp_path, own_server.url)
    try:
        address = _address(config)
        assert ask(address, SURE, idempotency_key="first").decision is Decision.ANSWERED
        own_server.stop()
        for number in range(REQUESTS):
            assert ask(address, SURE, idempotency_key=f"s{number}").decision is Decision.ANSWERED
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    audited = {key for key in ("first", *(f"s{n}" for n in range(REQUESTS))) if draw_of(config, key) < SHARE}
    assert audited
    back = embedded.Server.start(own_server.folder)
    try:
        back.wait_ready()
        with running(config):
            until(lambda: len(deferrals_of(config)) == len(audited))
            until(lambda: not spools_of(config))
        evidence = evidence_of(config)
        assert {record.request_key for record in evidence.records} == {request_key("shop", key) for key in audited}
        assert (evidence.holes, evidence.live, evidence.pending.left_out) == (0, [], 0)
        assert {d.draw.place for d in deferrals_of(config) if d.draw} == {
            place_text(record.place) for record in evidence.records
        }
    finally:
        back.stop()


def _serve(folder: Path, url: str) -> subprocess.Popen[bytes]:
    (folder / "demur.toml").write_text(
        f'data_folder = "{folder}"\n[redis]\nurl = "{url}"\nconnect_timeout_seconds = 0.5\n'
        'command_timeout_seconds = 1.0\n[gateway]\ngrpc_listen = "127.0.0.1:0"\nmetrics_listen = ""\n'
        'device = "cpu"\nthreads = 1\n'
    )
    environment = {**os.environ, "DEMUR_CONFIG": str(folder / "demur.toml"), "DEMUR_DATA": str(folder)}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=log, stderr=log)


def _address(config: Config) -> str:
    until(lambda: presence.announced(config.data_folder, PROCESS))
    said = presence.announced(config.data_folder, PROCESS)
    assert said is not None
    return said.addresses["grpc"]


def test_what_cannot_be_recorded_is_refused_and_the_rest_answered(own_server: embedded.Server, tmp_path: Path) -> None:
    """While the spool is full whoever would be sampled gets RESOURCE_EXHAUSTED; nobody is answered unsampled."""
    config = configured(tmp_path, own_server.url, spool_bytes_max=64 * 1024)
    lay_down(config)
    picture = os.urandom(8_000)
    with running(config) as gateway:
        own_server.stop()
        refused = set()
        for number in range(REQUESTS * 3):
            key = f"s{number}"
            try:
                got = ask(gateway.address, SURE, idempotency_key=key, subject=(picture, "image/png"))
            except FullError:
                refused.add(key)
            else:
                assert got.decision is Decision.ANSWERED
        drawn = [f"s{n}" for n in range(REQUESTS * 3) if draw_of(config, f"s{n}") < SHARE]
        assert refused
        assert refused == set(drawn[len(drawn) - len(refused) :])
    assert spools_of(config)
