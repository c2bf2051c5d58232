"""`demur queue ...` against a real service and a real server."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from fallback.answer import Identity
from fallback.commands import queue as app
from fallback.config import Config, QueueSettings
from fallback.errors import DemurError, InvalidError, NotFoundError, UnavailableError
from fallback.queue import Queue


async def demur_queue(*arguments: str) -> str:
    """Run one command and return what it printed; raises what it raised."""

    def invoke() -> str:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
        if isinstance(result.exception, DemurError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return await asyncio.to_thread(invoke)


@pytest.fixture
def stack(config: Config, review_address: str) -> Config:
    """The file by which commands find a running stack."""
    config.data_folder.mkdir(parents=True, exist_ok=True)
    (config.data_folder / "stack.json").write_bytes(msgspec.json.encode({"review": review_address, "page": "-"}))
    return config


@pytest.mark.usefixtures("stack")
async def test_list_says_how_long_one_waits_and_what_a_queue_is_over(park: Any, settle: Any, config: Config) -> None:
    """Unknown where nobody answered lately; the limits by the names of their settings."""
    config._queues["default"] = QueueSettings(depth_max=2)
    await park()
    assert "unknown" in await demur_queue("list")
    await settle()
    await park()
    header, line = (text.split("  ") for text in (await demur_queue("list")).splitlines())
    assert [text.strip() for text in header if text.strip()][-2:] == ["wait", "over"]
    wait, over = [text.strip() for text in line if text.strip()][-2:]
    assert (wait != "unknown", over) == (True, "depth_max")
    (queue,) = [json.loads(text) for text in (await demur_queue("list", "--json")).splitlines()]
    assert queue["expected_wait_seconds"] > 0
    assert (queue["over"], queue["depth_max"]) == (["depth_max"], 2)
    assert queue["content_bytes"] > 3 * 16
    assert (queue["asked_last_hour"], queue["budget_per_hour"]) == (0, 0)


@pytest.mark.usefixtures("stack")
async def test_list_counts_what_waits(park: Any) -> None:
    """One line a queue, found through stack.json; JSON for programs."""
    assert "no queue has anything yet" in await demur_queue("list")
    await park()
    await park()
    header, line = (text.split() for text in (await demur_queue("list")).splitlines())
    assert dict(zip(header, line, strict=False))["waiting"] == "2"
    (queue,) = [json.loads(text) for text in (await demur_queue("list", "--json")).splitlines()]
    assert (queue["name"], queue["waiting"], queue["open"], queue["assisted"]) == ("digits", 2, 2, False)


async def test_an_address_can_be_named(review_address: str, park: Any) -> None:
    """--review goes without stack.json."""
    await park()
    assert "digits" in await demur_queue("list", "--review", review_address)


@pytest.mark.usefixtures("config")
async def test_without_a_stack_it_says_how_to_start_one() -> None:
    """The sentence names the folder and the two ways on."""
    with pytest.raises(UnavailableError, match=r"start one with `demur up`, or give --review HOST:PORT"):
        await demur_queue("list")


@pytest.mark.usefixtures("stack")
async def test_items_and_show_tell_what_there_is(park: Any, settle: Any) -> None:
    """Items by state, and one in full; a guess that may still sway somebody is left out."""
    done, waiting = await settle("3"), await park()
    assert waiting in await demur_queue("items", "digits", "--state", "open")
    resolved = json.loads(await demur_queue("items", "digits", "--state", "resolved", "--json"))
    assert (resolved["name"], resolved["outcome"]["answer"]) == (done, {"label": "3"})
    assert "not shown" in await demur_queue("show", waiting)
    shown = await demur_queue("show", done)
    assert "7 (0.620, digits 1)" in shown
    assert "person" in shown
    with pytest.raises(NotFoundError):
        await demur_queue("show", "queues/digits/deferrals/" + "0" * 32)
    with pytest.raises(InvalidError):
        await demur_queue("show", "nonsense")


@pytest.mark.usefixtures("stack")
async def test_items_and_show_tell_what_reviewers_flagged_and_skipped(queue: Queue, park: Any) -> None:
    """With --flagged only such; who said it and what, without what would steer the terminal."""
    ann = Identity(name="ann")
    names = {await park(), await park()}
    (lease,) = await queue.lease("digits", reviewer=ann)
    name = lease.deferral.name
    await queue.flag(name, reviewer=ann, comment="two \x1b[2Jdigits", request_id="")
    await queue.skip(lease.token, reviewer=ann, reason="", request_id="")
    shown = await demur_queue("items", "digits", "--flagged")
    assert "1 flag, 1 skip" in shown
    assert [one for one in names if one in shown] == [name]
    (line,) = (await demur_queue("items", "digits", "--flagged", "--json")).splitlines()
    assert [flag["reviewer"] for flag in json.loads(line)["flags"]] == ["ann"]
    shown = await demur_queue("show", name)
    assert "\x1b" not in shown
    assert "ann: two \N{REPLACEMENT CHARACTER}[2Jdigits" in shown
    assert "ann: no reason given" in shown


@pytest.mark.usefixtures("stack")
async def test_nothing_from_outside_steers_the_terminal(settle: Any) -> None:
    """Control characters of an attribute are not printed."""
    name = await settle(attributes={"site": "\x1b[2Jnorth"})
    assert "\x1b" not in await demur_queue("show", name)


async def test_cancel_takes_a_question_back(queue: Queue, park: Any) -> None:
    """The deferral ends as cancelled."""
    name = await park()
    assert f"{name} is cancelled" in await demur_queue("cancel", name)
    assert (await queue.get(name)).state.value == "cancelled"


@pytest.mark.usefixtures("stack")
async def test_a_misspelt_queue_is_not_shown_as_an_empty_one(park: Any) -> None:
    """Whoever lists it is told which queue they may have meant."""
    await park()
    for arguments in (("items", "digit"), ("callbacks", "list", "digit")):
        with pytest.raises(NotFoundError, match="nothing was ever parked in 'digit'; did you mean digits"):
            await demur_queue(*arguments)


async def test_watch_prints_outcomes_as_they_come(config: Config, settle: Any) -> None:
    """From the oldest on, one JSON line each; Ctrl-C ends it without a traceback."""
    assert config
    first = await settle("1")
    # Where the tests themselves run in the background Ctrl-C is ignored, and whoever they start would ignore it too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "queue", "watch", "digits", "--from-start", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, before)
    assert child.stdout is not None
    try:
        seen = [json.loads(await child.stdout.readline())]
        second = await settle("2")
        seen.append(json.loads(await child.stdout.readline()))
        child.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(child.communicate(), 30)
    finally:
        if child.returncode is None:
            child.kill()
    assert [each["name"] for each in seen] == [first, second]
    assert seen[1]["outcome"]["answer"] == {"label": "2"}
    assert b"Traceback" not in errors


async def test_each_help_shows_an_example() -> None:
    """A person can follow every --help."""
    for name in ("list", "items", "show", "watch", "cancel"):
        assert "Example: demur queue" in " ".join((await demur_queue(name, "--help")).split())
