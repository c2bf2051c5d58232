"""Tiers, skills, waits and limits in the page, in a headless Chromium over the real app."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
from playwright.async_api import Browser, Page, expect

from fallback import keys
from fallback.answer import CantTell, Identity, Label
from fallback.config import Config, QueueSettings
from fallback.identity import REVIEWER, Credentials
from fallback.queue import Queue
from fallback.store import parse
from fallback.workbench.app import build
from tests.serving import Site, current, digit, next_after, served

# The browser lives on one event loop for all tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")
BOB = Identity(name="Bob")
TIERS = ("annotator", "radiologist")
DONE = "for another person\u2019s view: you have already answered or skipped."
LACKED = "2 items wait for the skill “b”, which you do not have."
LACKS = "is for reviewers with the skill “annotator” or “radiologist”, and you do not have any of them."


async def test_an_item_is_sent_to_the_next_tier_by_key(site: Site, browser: Browser) -> None:
    """It shows its tier; `t` in the skip dialog turns where it goes; at the last tier there is nothing to turn."""
    name = await site.park(digit(1)[0], "image/png", queue="tiers")
    page = await site.open("tiers")
    await expect(page.locator(".about .tier")).to_have_text("Tier annotator")
    await page.keyboard.press("s")
    await expect(page.locator("dialog")).to_contain_text("It goes to somebody else")
    await page.keyboard.press("t")
    await expect(page.locator("dialog")).to_contain_text("reviewers of the tier “radiologist”")
    await page.keyboard.press("t")
    await page.keyboard.press("t")
    await page.keyboard.press("1")
    await expect(page.locator("#notice")).to_contain_text("Sent to radiologist.")
    await next_after(page, name)
    deferral = await site.queue.get(name)
    assert (deferral.tier, [(skip.reviewer, skip.escalated) for skip in deferral.skips]) == (
        "radiologist",
        [("Ada", True)],
    )
    other = await browser.new_context()
    above = await site.open("tiers", name="Cleo", page=await other.new_page())
    await expect(above.locator(".about .tier")).to_have_text("Tier radiologist")
    await above.keyboard.press("s")
    await expect(above.locator("#skip-higher")).to_have_count(0)
    await above.keyboard.press("t")
    await above.keyboard.press("Escape")
    await above.keyboard.press("1")
    assert [review.tier for review in (await site.settled(name)).reviews] == ["radiologist"]
    await other.close()


async def test_a_queue_without_tiers_shows_none(site: Site) -> None:
    """Nothing is offered that is not there."""
    name = await site.park(digit(1)[0], "image/png")
    page = await site.open()
    await expect(page.locator(".tier")).to_have_count(0)
    await page.keyboard.press("s")
    await expect(page.locator("#skip-higher")).to_have_count(0)
    await page.keyboard.press("3")
    await next_after(page, name)
    assert [skip.escalated for skip in (await site.skipped(name)).skips] == [False]


async def test_the_list_of_queues_says_what_waits_where_and_which_limit_is_reached(site: Site) -> None:
    """By tier; a digit opens a queue, and the list does not take the focus away when it looks again."""
    for queue in ("tiers", "shallow"):
        await site.park(digit(1)[0], "image/png", queue=queue)
    [lease] = await site.queue.lease("tiers", reviewer=BOB)
    await site.queue.skip(lease.token, reviewer=BOB, reason="above me", request_id="up", escalate=True)
    await site.park(digit(2)[0], "image/png", queue="tiers")
    page = await site.context.new_page()
    await page.goto(site.url)
    await page.locator("#sign-in").fill("Ada")
    await page.keyboard.press("Enter")
    tiers, shallow = page.locator('[data-queue="tiers"]'), page.locator('[data-queue="shallow"]')
    await expect(tiers.locator(".tier")).to_have_text(["annotator 1", "radiologist 1"])
    await expect(tiers.locator(".queue-more").first).not_to_contain_text("over")
    await expect(shallow).to_contain_text("over its depth")
    await tiers.focus()
    async with page.expect_response("**/api/queues"):
        pass
    await page.wait_for_timeout(100)
    await expect(tiers).to_be_focused()
    await page.keyboard.press((await shallow.get_attribute("aria-keyshortcuts")) or "")
    assert (await current(page)).startswith("queues/shallow/")


@asynccontextmanager
async def signed_in(browser: Browser, config: Config, skills: frozenset[str]) -> AsyncIterator[tuple[Site, Page]]:
    """Ada with these skills, before the list of queues."""
    config = Config(
        data_folder=config.data_folder, queues={"tiers": QueueSettings(tiers=TIERS), "all": QueueSettings()}
    )
    ada = Identity(name="Ada", roles=frozenset({REVIEWER}), skills=skills)
    queue = Queue.connect(config)
    context = await browser.new_context()
    async with served(build(queue, Credentials([(sha256(b"right").digest(), ada)]), config)) as url:
        site = Site(url=url, context=context, queue=queue)
        for name in ("tiers", "all"):
            await site.park(digit(1)[0], "image/png", queue=name)
        page = await context.new_page()
        await page.goto(url)
        await page.get_by_label("Your token").fill("right")
        await page.keyboard.press("Enter")
        yield site, page
        await context.close()
    await queue.close()


async def test_without_a_fitting_skill_the_page_says_so_in_plain_words(browser: Browser, config: Config) -> None:
    """In the list and when the queue is opened anyway; there is a way on."""
    async with signed_in(browser, config, frozenset({"typist"})) as (_, page):
        await expect(page.locator('[data-queue="tiers"]')).to_contain_text("Takes a skill you do not have")
        await page.locator('[data-queue="tiers"]').click()
        await expect(page.locator("h1")).to_have_text("Nothing here for you")
        await expect(page.locator(".not-yours")).to_contain_text(LACKS)
        await page.keyboard.press("Enter")
        await page.locator('[data-queue="all"]').click()
        await expect(page.locator(".review")).to_be_visible()


async def test_what_waits_for_another_skill_is_not_said_to_be_done(browser: Browser, config: Config) -> None:
    """An annotator with nothing to do hears for whom the rest waits."""
    async with signed_in(browser, config, frozenset({"annotator"})) as (site, page):
        [lease] = await site.queue.lease("tiers", reviewer=BOB)
        await site.queue.skip(lease.token, reviewer=BOB, reason="above me", request_id="up", escalate=True)
        await page.locator('[data-queue="tiers"]').click()
        await expect(page.locator(".why")).to_have_text(
            "1 item waits for the skill “radiologist”, which you do not have."
        )


async def test_the_next_lease_to_end_is_counted_down(site: Site) -> None:
    """From the server's own figures, without a request for each second."""
    for index in range(3):
        await site.park(digit(index)[0], "image/png")
    await site.queue.lease("digits", reviewer=BOB, limit=3)
    page = await site.open()
    why = page.locator(".why")
    await expect(why).to_have_text(
        re.compile(r"^3 items are held by others; the next frees in [12]:\d\d unless they go on\.$")
    )
    await page.route("**/api/queues", lambda route: route.abort())
    before = await why.inner_text()
    await expect(why).not_to_have_text(before)


async def test_figures_are_put_into_words(site: Site) -> None:
    """The pure functions of the module, called in the browser."""
    page = await site.open()
    assert await page.evaluate(
        """async () => {
          const queues = await import("/static/queues.js");
          const queue = (more) => ({
            open: 5, waiting: 0, held: 0, tiers: [], over: [], expected_wait_seconds: null, ...more,
          });
          const wait = (seconds, waiting = 1) =>
            queues.expectedWait(queue({ waiting, expected_wait_seconds: seconds }));
          const tiers = [["a", 1], ["b", 2]];
          return {
            waits: [wait(null), wait(20), wait(725), wait(7200), wait(400_000), wait(60, 0)],
            over: ["depth_max", "budget_per_hour", "odd_max"].map(queues.overWords),
            why: [
              queues.whyNothing(queue({ waiting: 3, held: 2, tiers }), ["a"], 42),
              queues.whyNothing(queue({ waiting: 2, held: 2, tiers: [["a", 0], ["b", 2]] }), ["a"], 42),
              queues.whyNothing(queue({ waiting: 3, tiers }), null),
              queues.whyNothing(queue({ held: 1 }), null, 3),
              queues.whyNothing(queue({ open: 0 }), null),
            ],
          };
        }"""
    ) == {
        "waits": ["", "under 1 min wait", "about 12 min wait", "about 2 h wait", "about 5 days wait", ""],
        "over": ["over its depth", "over its hourly budget", "at its limit odd_max"],
        "why": [
            f"1 item waits {DONE} {LACKED}",
            f"2 items are held by others; the next frees in 0:42 unless they go on. {LACKED}",
            f"3 items wait {DONE}",
            "1 item is held by others; it frees in 0:03 unless they go on.",
            "The queue is empty.",
        ],
    }


async def test_where_the_content_is_gone_one_can_still_decline(site: Site) -> None:
    """Can't tell and skip work beside the sentence."""
    erased, lost = [await site.park(b"a name", "text/plain") for _ in range(2)]
    await site.queue.erase(erased, request_id="e")
    await site.queue._store.connection.redis.unlink(keys.subject(*parse(lost)))
    page = await site.open()
    await expect(page.locator(".subject-file")).to_contain_text("erased")
    await page.keyboard.press("?")
    await next_after(page, erased)
    await expect(page.locator(".subject-file")).to_contain_text("gone")
    await page.keyboard.press("s")
    await page.keyboard.press("2")
    await next_after(page, lost)
    assert [review.answer for review in (await site.settled(erased)).reviews] == [CantTell()]
    assert [skip.reason for skip in (await site.skipped(lost)).skips] == ["It is broken or does not show"]


async def test_the_expected_wait_is_shown(site: Site) -> None:
    """From reviews given lately."""
    for index in range(3):
        await site.park(digit(index)[0], "image/png", queue="tiers")
    for number in range(2):
        [lease] = await site.queue.lease("tiers", reviewer=BOB)
        await site.queue.submit(lease.token, reviewer=BOB, answer=Label(label="1"), request_id=f"answer-{number}")
    page = await site.context.new_page()
    await page.goto(site.url)
    await page.locator("#sign-in").fill("Ada")
    await page.keyboard.press("Enter")
    await expect(page.locator('[data-queue="tiers"]')).to_contain_text(re.compile(r"(about \d+|under 1) min wait"))
