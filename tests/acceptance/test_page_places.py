"""Going on where one was, in a headless Chromium: after a reload, a crash, in another tab or on another machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from playwright.async_api import Browser, Error, Page, async_playwright, expect

from fallback.answer import AnswerKind, Identity, Json, Label, Task
from fallback.workbench import departures
from tests.acceptance.conftest import ARGUMENTS
from tests.serving import Site, current, digit

# The browser lives on one event loop for all tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")
ADA, BOB = Identity(name="Ada"), Identity(name="Bob")
FORM = Task(question="What does it say?", kind=AnswerKind.JSON)
BEGUN = '{"total": 12.5'
CARD = "You went on in another place"


@asynccontextmanager
async def elsewhere(site: Site, browser: Browser, queue: str = "digits") -> AsyncIterator[Page]:
    """Ada's other machine: another profile, with nothing of hers in it."""
    context = await browser.new_context()
    yield await site.open(queue, page=await context.new_page())
    await context.close()


async def begin(page: Page) -> None:
    """Type half of an answer and see it saved."""
    await page.locator(".code").fill(BEGUN)
    await expect(page.locator(".kept")).to_have_text("Draft saved")


async def test_a_reload_keeps_the_item_although_others_wait_for_one(site: Site) -> None:
    """What is held stays held while the page is loaded anew; what was typed is there."""
    name = await site.park(b"{}", "application/json", task=FORM)
    page = await site.open()
    await begin(page)
    waiting = asyncio.create_task(site.queue.lease("digits", reviewer=BOB, wait_seconds=departures.GRACE_SECONDS + 2))
    await page.reload()
    await expect(page.locator(".code")).to_have_value(BEGUN)
    assert await current(page) == name
    await expect(page.locator("#announce")).to_have_text("You go on where you were.")
    assert await waiting == []
    await page.locator(".code").press_sequentially("}")
    await page.keyboard.press("Control+Enter")
    assert [review.answer for review in (await site.settled(name)).reviews] == [Json(json='{"total": 12.5}')]


async def test_after_the_browser_was_killed_another_goes_on(site: Site, chromium: str, browser: Browser) -> None:
    """Nobody gave the item back and its lease still runs; its holder has it again, with what they had typed."""
    name = await site.park(b"{}", "application/json", task=FORM)
    async with async_playwright() as playwright:
        doomed = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        await begin(await site.open(page=await doomed.new_page()))
        with suppress(Error):
            await (await doomed.new_browser_cdp_session()).send("Browser.crash")
    assert await site.queue.lease("digits", reviewer=BOB) == []
    async with elsewhere(site, browser) as page:
        await expect(page.locator(".code")).to_have_value(BEGUN)
        assert await current(page) == name
        await page.locator(".code").press_sequentially("}")
        await page.keyboard.press("Control+Enter")
        assert len((await site.settled(name)).reviews) == 1


async def test_two_places_never_take_from_each_other_by_themselves(site: Site, browser: Browser) -> None:
    """The first one says what happened and waits to be asked; asked, it goes on and the second one says so."""
    name = await site.park(b"{}", "application/json", task=FORM)
    first = await site.open()
    await begin(first)
    async with elsewhere(site, browser) as second:
        await expect(second.locator(".code")).to_have_value(BEGUN)
        await first.locator(".code").press_sequentially(",")
        await expect(first.locator("h1")).to_have_text(CARD)
        await first.wait_for_timeout(4_000)
        await expect(first.locator("h1")).to_have_text(CARD)
        assert await current(second) == name
        await second.locator(".code").press_sequentially(', "n": 1')
        await expect(second.locator(".kept")).to_have_text("Draft saved")
        await expect(first.get_by_role("button", name="Go on here")).to_be_focused()
        await first.keyboard.press("Enter")
        await expect(first.locator(".code")).to_have_value(BEGUN + ', "n": 1')
        await second.evaluate("dispatchEvent(new Event('focus'))")
        await expect(second.locator("h1")).to_have_text(CARD, timeout=15_000)
        await first.locator(".code").press_sequentially("}")
        await first.keyboard.press("Control+Enter")
        assert [review.reviewer for review in (await site.settled(name)).reviews] == ["Ada"]
    assert await site.queue.reconcile() == []


async def test_an_answer_from_where_one_no_longer_is_counts_for_nothing_and_is_not_lost(
    site: Site, browser: Browser
) -> None:
    """It is refused, said so, and stands there as taken back when they go on there."""
    name = await site.park(digit(1)[0], "image/png")
    first = await site.open()
    async with elsewhere(site, browser) as second:
        assert await current(second) == name
        await first.keyboard.press("7")
        await expect(first.locator("h1")).to_have_text(CARD)
        await expect(first.locator("#notice")).to_contain_text("was not taken")
        assert (await site.queue.get(name)).reviews == ()
        await first.keyboard.press("Enter")
        await expect(first.locator(".taken-back")).to_contain_text("7")
        await first.keyboard.press("1")
        assert [review.answer for review in (await site.settled(name)).reviews] == [Label(label="1")]


async def test_a_tab_beside_another_takes_nothing_from_it(site: Site) -> None:
    """The second works on an item of its own; with it closed, the first goes on alone."""
    names = [await site.park(b"{}", "application/json", task=FORM) for _ in range(6)]
    one = await site.open()
    await begin(one)
    other = await site.open()
    assert await current(other) in set(names[3:])
    await one.bring_to_front()
    await one.locator(".code").press_sequentially("}")
    await expect(one.locator(".kept")).to_have_text("Draft saved")
    await other.close()
    # By then the first knows that there is none beside it any more.
    await one.wait_for_timeout(2_500)
    await one.reload()
    await expect(one.locator(".code")).to_have_value(BEGUN + "}")
    assert await current(one) == names[0]


async def test_a_page_that_is_closed_gives_back_what_it_held_a_moment_later(site: Site) -> None:
    """Long before the lease would lapse."""
    await site.park(digit(1)[0], "image/png")
    page = await site.open()
    await page.close(run_before_unload=False)
    assert len(await site.queue.lease("digits", reviewer=BOB, wait_seconds=departures.GRACE_SECONDS + 5)) == 1
