"""The reviewers' page in a headless Chromium, over the real app and a real queue."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, Route, expect

from fallback import embedded
from fallback.answer import AnswerKind, CantTell, Identity, Label, Task
from fallback.config import Config, load
from fallback.deferral import Source, State
from fallback.identity import OPERATOR, REVIEWER, Credentials
from fallback.queue import Queue
from fallback.workbench.app import build
from tests.serving import BRIEF_SECONDS, Site, current, digit, next_after, served

# The browser lives on one event loop for all tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")
OTHERS = [Identity(name="Bob"), Identity(name="Cleo")]


async def test_three_digits_are_reviewed_by_keyboard(site: Site) -> None:
    """Blind: no guess before the answer, the verdict after; three keys, three outcomes by this person."""
    truth = {}
    for index in (200, 201, 202):
        subject, target = digit(index)
        # The model is right about the first and wrong about the others.
        guess = target if index == 200 else (target + 1) % 10
        truth[await site.park(subject, "image/png", guess=Label(label=str(guess)))] = (target, guess)
    page = await site.open()
    await expect(page.locator("h1")).to_have_text("Which digit is this?")
    await expect(page.locator(".guidelines-text")).to_have_text("Judge what was meant.")
    await expect(page.locator("#waiting-count")).to_have_text("3")
    for done in (1, 2, 3):
        name = await current(page)
        target, guess = truth[name]
        assert "guess" not in " ".join(await page.locator(".panel > :not(.verdicts)").all_inner_texts())
        image = page.locator(".subject-image")
        assert await image.evaluate("image => [image.naturalWidth, image.width % 8, image.width >= 320]") == [
            8,
            0,
            True,
        ]
        await page.keyboard.press(str(target))
        await next_after(page, name)
        verdict = "had guessed the same, 63\u00a0% sure" if guess == target else f"had guessed {guess} (63\u00a0%)"
        await expect(page.locator(".verdict")).to_contain_text(f"The model {verdict}")
        await expect(page.locator("#done-count")).to_have_text(str(done))
    await expect(page.locator(".why")).to_have_text("The queue is empty.")
    for name, (target, _) in truth.items():
        deferral = await site.settled(name)
        assert deferral.state is State.RESOLVED
        assert deferral.outcome is not None
        assert (deferral.outcome.source, deferral.outcome.answer) == (Source.PERSON, Label(label=str(target)))
        assert [(review.reviewer, review.blind) for review in deferral.reviews] == [("Ada", True)]
    assert await site.queue.reconcile() == []


async def test_the_next_item_comes_without_a_request(site: Site) -> None:
    """Items are fetched ahead: with the server cut off, the next one is there at once."""
    for index in (1, 2):
        await site.park(digit(index)[0], "image/png")
    page = await site.open()
    await expect(page.locator("#waiting-count")).to_have_text("2")
    await page.route("**/api/**", lambda route: route.abort())
    name = await current(page)
    await page.keyboard.press("?")
    await next_after(page, name)
    assert await page.locator(".review").count() == 1
    await page.unroute_all(behavior="ignoreErrors")
    assert (await site.settled(name)).reviews[0].answer == CantTell()


async def test_an_assisted_queue_shows_the_guess_first_and_says_so(site: Site) -> None:
    """The review records that the guess was seen."""
    name = await site.park(digit(5)[0], "image/png", guess=Label(label="9"), queue="assisted")
    page = await site.open("assisted")
    await expect(page.locator(".guess")).to_contain_text("The model guesses 9")
    await page.keyboard.press("9")
    assert [review.blind for review in (await site.settled(name)).reviews] == [False]


async def held(site: Site, wanted: int) -> int:
    """How many of the digits somebody holds; looked at until it is `wanted`, or for five seconds."""
    for _ in range(50):
        count = sum(state.held for state in await site.queue.states() if state.name == "digits")
        if count == wanted:
            break
        await asyncio.sleep(0.1)
    return count


async def test_two_tabs_of_one_person_hold_different_items(site: Site) -> None:
    """Leases are a tab's; closing it gives back what it held."""
    for index in range(6):
        await site.park(digit(index)[0], "image/png")
    one, other = await site.open(), await site.open()
    assert await current(one) != await current(other)
    assert await held(site, 6) == 6
    await other.close()
    assert await held(site, 3) == 3


async def test_an_answer_outlives_a_lost_connection(site: Site) -> None:
    """It is kept, sent again with the same request id, and recorded once."""
    name = await site.park(digit(7)[0], "image/png")
    page = await site.open()
    ids: list[str] = []

    async def cut(route: Route) -> None:
        ids.append(msgspec.json.decode(route.request.post_data or "{}")["request_id"])
        # The second time the server takes the answer and its reply is lost.
        if len(ids) == 2:
            await route.fetch()
        await (route.continue_() if len(ids) > 2 else route.abort())

    await page.route("**/api/submit", cut)
    await page.keyboard.press("4")
    await expect(page.locator("#trouble")).to_contain_text("Your answer is kept and sent again.")
    await expect(page.locator(".verdict")).to_contain_text("Recorded.")
    await expect(page.locator("#trouble")).to_be_hidden()
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert [review.answer for review in (await site.settled(name)).reviews] == [Label(label="4")]


async def test_an_answer_under_way_outlives_a_reload(site: Site) -> None:
    """It lies in the tab's storage until the server has it."""
    name = await site.park(digit(8)[0], "image/png")
    page = await site.open()
    await page.route("**/api/submit", lambda route: route.abort())
    await page.keyboard.press("8")
    await expect(page.locator("#trouble")).to_be_visible()
    await page.unroute_all(behavior="ignoreErrors")
    await page.reload()
    await expect(page.locator("#done-count")).to_have_text("1")
    assert [review.answer for review in (await site.settled(name)).reviews] == [Label(label="8")]


async def test_a_lease_that_lapses_is_said_and_the_typing_is_kept(site: Site) -> None:
    """The item goes back; whoever gets it again in this browser finds what they had typed."""
    await site.park(b"how many?", "text/plain", task=Task(question="How many?", kind=AnswerKind.NUMBER), queue="brief")
    page = await site.open("brief")
    await page.route("**/api/extend", lambda route: route.abort())
    await page.keyboard.type("4,5")
    await expect(page.locator("#notice")).to_contain_text("Time ran out", timeout=15_000)
    await page.unroute_all(behavior="ignoreErrors")
    await expect(page.locator(".number")).to_have_value("4,5")
    await page.keyboard.press("Enter")
    await expect(page.locator(".verdict")).to_contain_text("You: 4.5")


async def test_a_lease_is_extended_while_somebody_is_here(site: Site) -> None:
    """Longer than the lease lasts, the same item with the same token answers."""
    name = await site.park(digit(9)[0], "image/png", queue="brief")
    page = await site.open("brief")
    begun = time.monotonic()
    while time.monotonic() - begun <= BRIEF_SECONDS:
        async with page.expect_response("**/api/extend"):
            pass
    await expect(page.locator("#notice")).to_be_hidden()
    await page.keyboard.press("9")
    assert [review.answer for review in (await site.settled(name)).reviews] == [Label(label="9")]


async def test_having_nothing_to_do_is_explained_and_ends_by_itself(site: Site) -> None:
    """Others hold everything; then something comes."""
    for index in range(3):
        await site.park(digit(index)[0], "image/png")
    [first, *_] = await site.queue.lease("digits", reviewer=OTHERS[0], limit=3)
    page = await site.open()
    await expect(page.locator(".why")).to_contain_text("3 items are held by others")
    await expect(page.locator("#why-people")).to_have_text("1 person is at work in this queue.")
    await site.queue.release(first.token, reviewer=OTHERS[0], request_id="release-the-first")
    await expect(page.locator(".review")).to_have_attribute("data-deferral", first.deferral.name)


async def test_the_time_until_something_may_come_is_counted_down(site: Site) -> None:
    """From what the queue says of the next lease to end; between two looks the page counts by itself."""
    await site.park(digit(1)[0], "image/png")
    await site.queue.lease("digits", reviewer=OTHERS[0])
    page = await site.context.new_page()

    async def known(route: Route) -> None:
        reply = msgspec.json.decode(await (await route.fetch()).body())
        await route.fulfill(json={"queues": [queue | {"next_free_seconds": 61.0} for queue in reply["queues"]]})

    await page.route("**/api/queues", known)
    page = await site.open(page=page)
    await expect(page.locator(".why")).to_have_text("1 item is held by others; it frees in 1:00 unless they go on.")


async def test_without_a_deep_link_a_person_chooses_a_queue_and_it_is_remembered(site: Site) -> None:
    """Two queues: the choice is made once."""
    await site.park(digit(1)[0], "image/png", queue="digits")
    await site.park(digit(2)[0], "image/png", queue="letters")
    page = await site.context.new_page()
    await page.goto(site.url)
    await page.locator("#sign-in").fill("Zoë")
    await page.keyboard.press("Enter")
    await page.locator(".queue-row", has_text="letters").click()
    await page.locator(".review").wait_for()
    assert (await current(page)).startswith("queues/letters/")
    assert page.url.endswith("?queue=letters")
    again = await site.context.new_page()
    await again.goto(site.url)
    await expect(again.locator("#person")).to_have_text("Zoë")
    await expect(again.locator("#queue")).to_have_value("letters")


async def test_with_credentials_a_person_pastes_a_token(browser: Browser, config: Config) -> None:
    """A wrong one is refused with a word; the right one says who it is, and is kept in this tab only."""
    ada = Identity(name="Ada", roles=frozenset({REVIEWER}))
    queue = Queue.connect(config)
    context = await browser.new_context()
    async with served(build(queue, Credentials([(sha256(b"right").digest(), ada)]), config)) as url:
        page = await context.new_page()
        await page.goto(f"{url}/?queue=digits")
        await page.get_by_label("Your token").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#sign-in-fault")).to_contain_text("not one of those configured")
        await page.get_by_label("Your token").fill("right")
        await page.keyboard.press("Enter")
        await expect(page.locator("#person")).to_have_text("Ada")
        await expect(page.locator(".why")).to_be_visible()
        assert "right" not in await page.evaluate("JSON.stringify(localStorage)")
        await context.close()
    await queue.close()


async def test_a_token_without_the_role_is_said_and_another_can_be_given(browser: Browser, config: Config) -> None:
    """An operator's token reviews nothing; the page asks for another one, not for patience."""
    ada = Identity(name="Ada", roles=frozenset({REVIEWER}))
    olga = Identity(name="Olga", roles=frozenset({OPERATOR}))
    queue = Queue.connect(config)
    context = await browser.new_context()
    known = Credentials([(sha256(b"right").digest(), ada), (sha256(b"hers").digest(), olga)])
    async with served(build(queue, known, config)) as url:
        page = await context.new_page()
        await page.goto(url)
        await page.get_by_label("Your token").fill("hers")
        await page.keyboard.press("Enter")
        await expect(page.locator("#sign-in-fault")).to_contain_text("it takes the role reviewer")
        await expect(page.locator("#sign-in-fault")).to_contain_text("sign in with another token")
        await page.get_by_label("Your token").fill("right")
        await page.keyboard.press("Enter")
        await expect(page.locator("#person")).to_have_text("Ada")
        await context.close()
    await queue.close()


async def test_what_waits_is_counted_once(site: Site) -> None:
    """What the tab holds is counted with what waits, from the first figure that is shown."""
    for index in range(5):
        await site.park(digit(index)[0], "image/png")
    page = await site.context.new_page()
    await page.add_init_script("""
      addEventListener("DOMContentLoaded", () => {
        window.told = [];
        new MutationObserver(() => window.told.push(document.getElementById("waiting-count").textContent))
          .observe(document.getElementById("waiting-count"), { childList: true, characterData: true, subtree: true });
      });
    """)
    page = await site.open(page=page)
    await expect(page.locator("#waiting-count")).to_have_text("5")
    async with page.expect_response("**/api/queues"):
        pass
    told = await page.evaluate("window.told")
    assert set(told) <= {"…", "0", "5"}
    name = await current(page)
    await page.keyboard.press("1")
    await next_after(page, name)
    await expect(page.locator("#waiting-count")).to_have_text("4")


async def test_a_link_to_a_queue_that_is_not_there_says_so(site: Site) -> None:
    """It offers those there are; should something be parked there after all, it is shown."""
    await site.park(digit(1)[0], "image/png")
    page = await site.open("nosuch")
    await expect(page.locator(".why")).to_have_text("Nothing was ever parked in “nosuch”.")
    await page.locator('[data-queue="digits"]').click()
    assert (await current(page)).startswith("queues/digits/")
    page = await site.open("later")
    await expect(page.locator("h1")).to_have_text("No such queue")
    await site.park(digit(2)[0], "image/png", queue="later")
    await page.locator(".review").wait_for()
    assert (await current(page)).startswith("queues/later/")


async def test_a_narrow_screen_scrolls_in_one_direction_only(site: Site) -> None:
    """At 320 CSS pixels nothing sticks out (WCAG 1.4.10), and fingers have room."""
    await site.park(digit(3)[0], "image/png")
    page = await site.open()
    await page.set_viewport_size({"width": 320, "height": 640})
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    heights = await page.locator(".choice").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert min(heights) >= 44


async def test_keys_can_be_switched_off(site: Site) -> None:
    """WCAG 2.1.4: single keys must not be the only way, and must go when they are unwanted."""
    name = await site.park(digit(3)[0], "image/png")
    page = await site.open()
    await page.locator("#person").click()
    await page.get_by_label("Answer by single keys").uncheck()
    await page.get_by_role("button", name="Close").click()
    await page.keyboard.press("3")
    await page.wait_for_timeout(200)
    assert await current(page) == name
    await page.locator('.choice[data-label="3"]').click()
    assert (await site.settled(name)).reviews[0].answer == Label(label="3")


async def test_the_queue_being_away_is_said_and_passes(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is stopped and started again: the page says so, keeps the answer, and goes on."""
    folder = tmp_path / "valkey"
    server = embedded.Server.start(folder)
    server.wait_ready()
    monkeypatch.setenv("DEMUR_REDIS_URL", server.url)
    monkeypatch.chdir(tmp_path)
    config = load()
    queue = Queue.connect(config)
    context = await browser.new_context()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(queue.close)
        url = await stack.enter_async_context(served(build(queue, Credentials(), config)))
        stack.push_async_callback(context.close)
        site = Site(url=url, context=context, queue=queue)
        name = await site.park(digit(4)[0], "image/png")
        page = await site.open()
        server.stop()
        await page.keyboard.press("4")
        await expect(page.locator("#trouble")).to_contain_text("Your answer is kept and sent again.", timeout=15_000)
        server = embedded.Server.start(folder)
        stack.callback(server.stop)
        server.wait_ready()
        await expect(page.locator(".verdict")).to_contain_text("Recorded.", timeout=20_000)
        assert [review.answer for review in (await site.settled(name)).reviews] == [Label(label="4")]
