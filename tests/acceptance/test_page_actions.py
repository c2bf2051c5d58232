"""What a reviewer does besides answering, in a headless Chromium: undo, skip, flag, help, leaving something begun."""

from __future__ import annotations

import re

import msgspec
import pytest
from playwright.async_api import Page, Route, expect

from fallback.answer import AnswerKind, CantTell, Identity, Json, Label, LabelOption, Task
from fallback.workbench.wire import Submitted
from tests.serving import Site, current, digit, next_after

# The browser lives on one event loop for all tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")
BOB = Identity(name="Bob")
FORM = Task(question="What does it say?", kind=AnswerKind.JSON)


async def test_a_blind_answer_is_taken_back_and_corrected_before_the_guess_is_told(site: Site) -> None:
    """No reply tells of the guess as long as there is an undo; the corrected review is blind, and the only one."""
    name = await site.park(digit(4)[0], "image/png", guess=Label(label="4"), queue="undo")
    page = await site.open("undo")
    told: list[Submitted] = []

    async def listen(route: Route) -> None:
        response = await route.fetch()
        told.append(msgspec.json.decode(await response.body(), type=Submitted))
        await route.fulfill(response=response)

    await page.route(re.compile("/api/(submit|verdict)$"), listen)
    await page.keyboard.press("7")
    await expect(page.locator(".undo-left")).to_have_text("0:03")
    await expect(page.locator(".verdict")).to_contain_text("Recorded, not final yet.")
    await page.keyboard.press("u")
    await expect(page.locator(".review")).to_have_attribute("data-deferral", name)
    await expect(page.locator(".taken-back")).to_contain_text("You had answered 7.")
    await expect(page.locator('.choice[data-label="7"]')).to_have_class("choice same was")
    await expect(page.locator("#done-count")).to_have_text("0")
    await expect(page.locator(".trail li")).to_have_count(0)
    await page.keyboard.press("4")
    await expect(page.locator(".verdict")).to_contain_text("The model had guessed the same")
    await expect(page.locator(".undo")).to_be_hidden()
    assert [(one.open, one.prediction is None, one.model_agreed) for one in (told[0], told[1], told[-1])] == [
        (True, True, None),
        (True, True, None),
        (False, False, True),
    ]
    assert [one.prediction for one in told if one.open] == [None] * (len(told) - 1)
    [review] = (await site.settled(name)).reviews
    assert (review.answer, review.blind) == (Label(label="4"), True)
    await page.keyboard.press("u")
    await expect(page.locator("#notice")).to_contain_text("can no longer be taken back")


async def test_several_answers_are_taken_back_one_after_the_other(site: Site) -> None:
    """The newest first; also by the button, and where nothing is left to do."""
    for index in (1, 2):
        await site.park(digit(index)[0], "image/png", queue="undo")
    page = await site.open("undo")
    first = await current(page)
    await page.keyboard.press("1")
    await next_after(page, first)
    second = await current(page)
    await page.keyboard.press("?")
    await expect(page.locator(".why")).to_contain_text("2 items have been answered")
    await page.locator(".undo").click()
    await expect(page.locator(".review")).to_have_attribute("data-deferral", second)
    await expect(page.locator(".cant-tell")).to_have_class("choice cant-tell was")
    await page.keyboard.press("u")
    await expect(page.locator(".review")).to_have_attribute("data-deferral", first)
    await page.keyboard.press("Enter")
    await next_after(page, first)
    await page.get_by_role("button", name="Same again").click()
    answers = [(await site.settled(name)).reviews[0].answer for name in (first, second)]
    assert answers == [Label(label="1"), CantTell()]
    assert await site.queue.reconcile() == []


async def test_an_answer_that_is_still_on_its_way_is_taken_back_when_it_has_arrived(site: Site) -> None:
    """Without a connection the wish is kept, as the answer is."""
    name = await site.park(digit(4)[0], "image/png", queue="undo")
    page = await site.open("undo")
    await page.route("**/api/submit", lambda route: route.abort())
    await page.keyboard.press("7")
    await expect(page.locator("#trouble")).to_be_visible()
    await page.keyboard.press("u")
    await expect(page.locator(".verdict")).to_contain_text("Taking it back")
    await page.unroute_all(behavior="ignoreErrors")
    await expect(page.locator(".taken-back")).to_contain_text("You had answered 7.")
    assert (await site.queue.get(name)).reviews == ()


async def test_an_item_is_skipped_with_a_reason_and_not_seen_again(site: Site) -> None:
    """A digit takes a reason from the list, typing gives another, Escape changes nothing."""
    for index in (1, 2):
        await site.park(digit(index)[0], "image/png")
    page = await site.open()
    first = await current(page)
    await page.keyboard.press("s")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    assert await current(page) == first
    await page.keyboard.press("s")
    await page.keyboard.press("3")
    await next_after(page, first)
    second = await current(page)
    await page.keyboard.press("s")
    await page.get_by_label("Another reason").fill("5 hands, 2 heads")
    await page.keyboard.press("5")
    await page.keyboard.press("Enter")
    await expect(page.locator(".why")).to_contain_text("2 items wait for another person")
    skips = [(await site.skipped(name)).skips for name in (first, second)]
    assert [[(skip.reviewer, skip.reason) for skip in one] for one in skips] == [
        [("Ada", "The question does not fit it")],
        [("Ada", "5 hands, 2 heads5")],
    ]
    assert len(await site.queue.lease("digits", reviewer=BOB, limit=5)) == 2


async def test_an_item_is_flagged_with_a_comment_and_answered_afterwards(site: Site) -> None:
    """What is typed is text: no key of the page fires."""
    name = await site.park(digit(1)[0], "image/png")
    page = await site.open()
    await page.keyboard.press("f")
    await page.keyboard.type("ups? 3 of us")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".flagged")).to_be_visible()
    assert await current(page) == name
    await page.keyboard.press("1")
    deferral = await site.settled(name)
    assert [(flag.reviewer, flag.comment) for flag in deferral.flags] == [("Ada", "ups? 3 of us")]
    assert [review.answer for review in deferral.reviews] == [Label(label="1")]


async def forget(page: Page) -> None:
    """Leave nothing in the browser but the name."""
    await page.evaluate(
        "Object.keys(localStorage).filter(key => key.includes('draft')).forEach(key => localStorage.removeItem(key))"
    )


async def test_what_was_begun_is_saved_on_the_server_once_a_second(site: Site) -> None:
    """With the browser's own copy gone, it is there after a reload; meanwhile not a request a key."""
    name = await site.park(b"{}", "application/json", task=FORM)
    page = await site.open()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.url.endswith("/draft") else None)
    await page.locator(".code").press_sequentially('{"total": 12.5', delay=100)
    await page.get_by_text("Add a note").click()
    await page.get_by_label("Note that goes").fill("smudged")
    await expect(page.locator(".kept")).to_have_text("Draft saved")
    assert 1 <= len(sent) <= 4
    await forget(page)
    await page.reload()
    await expect(page.locator(".code")).to_have_value('{"total": 12.5')
    await expect(page.get_by_label("Note that goes")).to_have_value("smudged")
    await page.locator(".code").press_sequentially("}")
    await page.keyboard.press("Control+Enter")
    [review] = (await site.settled(name)).reviews
    assert (review.answer, review.comment) == (Json(json='{"total": 12.5}'), "smudged")


async def test_what_was_begun_goes_with_the_item_when_the_tab_is_closed(site: Site) -> None:
    """Even what was typed in the last second; nobody else gets it."""
    await site.park(b"{}", "application/json", task=FORM)
    page = await site.open()
    await page.locator(".code").fill("[1, 2")
    await page.goto("about:blank")
    [lease] = await site.queue.lease("digits", reviewer=BOB, wait_seconds=5)
    assert lease.draft == ""
    await site.queue.release(lease.token, reviewer=BOB, request_id="give-it-back")
    [lease] = await site.queue.lease("digits", reviewer=Identity(name="Ada"), wait_seconds=5)
    assert msgspec.json.decode(lease.draft)["draft"] == {"answer": "[1, 2"}


async def test_where_labels_use_the_letters_shift_does_what_they_did(site: Site) -> None:
    """The task's keys win; the help says which are left."""
    task = Task(question="Which letter?", labels=tuple(LabelOption(label=letter) for letter in "fhpsuSx"))
    name = await site.park(digit(1)[0], "image/png", task=task)
    page = await site.open()
    await page.keyboard.press("Shift+H")
    await expect(page.locator(".help")).to_contain_text("Shift F")
    await expect(page.locator(".help")).to_contain_text("by its button")
    await page.keyboard.press("Shift+H")
    await expect(page.locator("dialog")).to_have_count(0)
    await page.keyboard.press("Shift+F")
    await page.keyboard.press("Escape")
    await page.keyboard.press("s")
    assert [review.answer for review in (await site.settled(name)).reviews] == [Label(label="s")]


async def test_keys_do_nothing_while_somebody_types(site: Site) -> None:
    """A note with every letter in it is a note; Escape gives the keys back."""
    name = await site.park(digit(1)[0], "image/png")
    page = await site.open()
    await page.get_by_text("Add a note").click()
    await page.get_by_label("Note that goes").press_sequentially("usfph?1")
    assert await current(page) == name
    await expect(page.locator("dialog")).to_have_count(0)
    await page.keyboard.press("Escape")
    await page.keyboard.press("1")
    assert [review.comment for review in (await site.settled(name)).reviews] == ["usfph?1"]


async def test_opening_the_note_puts_the_cursor_in_it(site: Site) -> None:
    """What is typed next is the note; with it closed again its heading has the focus, where no label's key fires."""
    name = await site.park(digit(1)[0], "image/png")
    await site.park(digit(2)[0], "image/png")
    page = await site.open()
    heading = page.get_by_text("Add a note")
    await heading.click()
    await page.keyboard.type("1 or 7")
    await expect(page.get_by_label("Note that goes")).to_have_value("1 or 7")
    await heading.click()
    await expect(page.get_by_label("Note that goes")).to_be_hidden()
    await page.keyboard.press("7")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Note that goes")).to_be_focused()
    assert await current(page) == name
    await page.keyboard.press("Escape")
    await page.keyboard.press("7")
    await next_after(page, name)
    assert [review.comment for review in (await site.settled(name)).reviews] == ["1 or 7"]


async def test_a_notice_covers_no_button_on_a_small_phone(site: Site) -> None:
    """At 320 by 568 pixels whatever is beside answering stays in reach while something is said."""
    await site.park(digit(1)[0], "image/png")
    await site.park(digit(2)[0], "image/png")
    page = await site.open()
    await page.set_viewport_size({"width": 320, "height": 568})
    name = await current(page)
    await page.get_by_role("button", name="Put back").click()
    await next_after(page, name)
    await expect(page.locator("#notice")).to_have_text(re.compile("Put back"))
    covered = """([notice, ...buttons]) => {
      const over = notice.getBoundingClientRect();
      return buttons.map((button) => button.getBoundingClientRect())
        .filter((box) => box.top < over.bottom && box.bottom > over.top)
        .filter((box) => box.left < over.right && box.right > over.left).length;
    }"""
    assert await page.locator("#notice, .panel button").evaluate_all(covered) == 0
