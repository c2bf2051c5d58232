"""The page's JSON API: tiers, and going on with what one holds, over a real queue on a real port."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from fallback.config import Config, QueueSettings
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.workbench import departures
from fallback.workbench.app import build
from tests.serving import served
from tests.unit.fallback.workbench.calls import REQUEST_ID, Page, opened


async def test_an_item_is_sent_to_the_next_tier(config: Config) -> None:
    """The lease names it; above the last one there is nobody to send it to."""
    config = Config(data_folder=config.data_folder, queues={"digits": QueueSettings(tiers=("one", "two"))})
    async with opened(config) as page:
        name = await page.park()
        lease = await page.lease()
        assert (lease["tier"], lease["next_tier"], lease["resumed"]) == ("one", "two", False)
        skip = {"token": lease["token"], "reason": "above me", "escalate": True, "request_id": REQUEST_ID}
        assert await page.call("skip", skip) == (200, {"skipped": True})
        assert (await page.queue.get(name)).tier == "two"
        _, listed = await page.call("queues")
        assert listed["queues"][0]["tiers"] == [["one", 0], ["two", 1]]
        _, reply = await page.call("lease", {"queue": "digits"}, name="Bob")
        [lease] = reply["leases"]
        assert (lease["tier"], lease["next_tier"]) == ("two", "")
        status, error = await page.call("skip", skip | {"token": lease["token"]}, name="Bob")
        assert (status, error["code"]) == (409, "FAILED_PRECONDITION")


async def test_a_queue_says_when_the_next_lease_ends(page: Page) -> None:
    """In seconds from now, so that the page needs no clock of the server's."""
    await page.park()
    assert (await page.call("queues"))[1]["queues"][0]["next_free_seconds"] is None
    await page.lease()
    [state] = (await page.call("queues"))[1]["queues"]
    assert 100 < state["next_free_seconds"] <= 120
    assert (state["expected_wait_seconds"], state["over"]) == (None, [])


async def test_who_goes_on_elsewhere_has_it_there_only(page: Page) -> None:
    """With the draft, under a new token; the old one is refused for a reason that the page knows."""
    name = await page.park()
    lease = await page.lease()
    await page.call("draft", {"token": lease["token"], "draft": '{"a": 1}', "request_id": REQUEST_ID})
    assert (await page.call("lease", {"queue": "digits"}))[1] == {"leases": []}
    again = await page.lease(resume=True)
    assert (again["deferral"], again["draft"], again["resumed"]) == (name, '{"a": 1}', True)
    for path, body in (
        ("extend", {}),
        ("submit", {"answer": {"type": "label", "label": "3"}}),
        ("draft", {"draft": "1"}),
    ):
        status, error = await page.call(path, body | {"token": lease["token"], "request_id": REQUEST_ID + path})
        assert (status, error["reason"]) == (409, "taken_over")
    assert (await page.call("extend", {"token": again["token"], "request_id": REQUEST_ID}))[0] == 200


async def test_a_page_that_is_left_holds_on_for_a_moment(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come back and go on; if it does not, the item goes to others."""
    monkeypatch.setattr(departures, "GRACE_SECONDS", 0.5)
    await page.park()
    lease = await page.lease()
    leave = {"releases": [{"token": lease["token"], "draft": "[1]", "request_id": REQUEST_ID}], "leaving": True}
    await page.call("release", leave)
    assert (await page.call("lease", {"queue": "digits"}, name="Bob"))[1] == {"leases": []}
    again = await page.lease(resume=True)
    assert again["draft"] == "[1]"
    await asyncio.sleep(0.7)
    assert (await page.call("lease", {"queue": "digits"}, name="Bob"))[1] == {"leases": []}
    leave = {"releases": [{"token": again["token"], "request_id": REQUEST_ID + "2"}], "leaving": True}
    await page.call("release", leave)
    _, reply = await page.call("lease", {"queue": "digits", "wait_seconds": 5}, name="Bob")
    assert len(reply["leases"]) == 1


async def test_a_server_that_stops_gives_back_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page has just left does not wait for its lease to lapse; nor where too many are left at once."""
    monkeypatch.setattr(departures, "GRACE_SECONDS", 60)
    monkeypatch.setattr(departures, "DEPARTURES_MAX", 1)
    queue = Queue.connect(config)
    async with served(build(queue, Credentials(), config)) as url, aiohttp.ClientSession() as session:
        page = Page(session, url, queue)
        names = [await page.park(key) for key in ("one", "two")]
        _, reply = await page.call("lease", {"queue": "digits", "limit": 2})
        for number, lease in enumerate(reply["leases"]):
            left = {"token": lease["token"], "request_id": f"{REQUEST_ID}{number}"}
            await page.call("release", {"releases": [left], "leaving": True})
        assert [state.held for state in await queue.states()] == [1]
    assert len(names) == 2
    assert [state.held for state in await queue.states()] == [0]
    await queue.close()
