"""What the page shows and how each kind of answer is given, in a headless Chromium over the real app."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable

import pytest
from PIL import Image
from playwright.async_api import Page, Route, expect

from fallback import keys
from fallback.answer import Answer, AnswerKind, Box, Boxes, Json, Label, LabelOption, Labels, Number, Task
from fallback.store import parse
from tests.serving import Site, current, next_after

# The browser lives on one event loop for all tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_text_and_json_are_shown_as_text(site: Site) -> None:
    """Markup in them stays characters; JSON is set out without changing a digit."""
    task = Task(question="Fine?", labels=(LabelOption(label="yes"), LabelOption(label="no")))
    hostile = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> & more'
    await site.park(hostile.encode(), "text/plain", task=task)
    await site.park(b'{"n":18446744073709551616,"p":1.0,"t":"<b onclick=x>"}', "application/json", task=task)
    page = await site.open()
    await expect(page.locator(".subject-text pre")).to_have_text(hostile)
    name = await current(page)
    await page.keyboard.press("1")
    await next_after(page, name)
    await expect(page.locator(".json")).to_contain_text('"n": 18446744073709551616,')
    await expect(page.locator(".json")).to_contain_text('"p": 1.0,')
    await expect(page.locator(".json")).to_contain_text('"t": "<b onclick=x>"')
    assert await page.evaluate("window.pwned") is None


async def test_json_that_is_too_deep_for_a_tree_is_shown_as_text(site: Site) -> None:
    """However deep it is nested, it is there to read and to answer, and what comes after it is seen."""
    for depth in (200, 201, 3_000):
        await site.park(b"[" * depth + b"1" + b"]" * depth, "application/json")
    page = await site.open()
    for key, shown in (("1", ".json"), ("2", ".subject-text pre"), ("3", ".subject-text pre")):
        await expect(page.locator(shown)).to_contain_text("[")
        name = await current(page)
        await page.keyboard.press(key)
        await next_after(page, name)
    await expect(page.locator(".why")).to_be_visible()


async def test_what_the_page_cannot_show_can_be_left_to_others(site: Site) -> None:
    """An item that the page fails at offers Skip, Flag and Put back, and the next one is shown as ever."""
    names = [await site.park(text, "text/plain") for text in (b"unheard of", b"plain")]
    page = await site.context.new_page()

    async def of_a_kind_to_come(route: Route) -> None:
        reply = await route.fetch()
        body = await reply.json()
        for lease in body.get("leases", []):
            if lease["deferral"] == names[0]:
                lease["task"]["kind"] = "melody"
        await route.fulfill(response=reply, json=body)

    await page.route("**/api/lease", of_a_kind_to_come)
    await site.open(page=page)
    await expect(page.locator(".missing")).to_have_text("This page cannot show this item.")
    assert await current(page) == names[0]
    await expect(page.locator(".action")).to_have_text(["Skip s", "Flag f", "Put back p"], use_inner_text=True)
    await page.keyboard.press("s")
    await page.locator("dialog .field").fill("cannot be shown")
    await page.keyboard.press("Enter")
    await next_after(page, names[0])
    await expect(page.locator(".subject-text pre")).to_have_text("plain")
    assert [skip.reason for skip in (await site.skipped(names[0])).skips] == ["cannot be shown"]
    await page.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg" onload="window.pwned=1"/>'),
        ("text/html", b"<script>window.pwned=1</script>"),
        ("image/png", b"\x89PNG\r\n\x1a\nbroken"),
    ],
)
async def test_what_is_not_known_to_be_safe_is_only_a_download(site: Site, media_type: str, content: bytes) -> None:
    """SVG, HTML and broken images are offered as a file, byte for byte, and never rendered."""
    await site.park(content, media_type)
    page = await site.open()
    async with page.expect_download() as downloading:
        await page.locator(".subject-file a").click()
    download = await downloading.value
    assert download.suggested_filename.endswith(".bin")
    assert await asyncio.to_thread((await download.path()).read_bytes) == content
    assert await page.evaluate("window.pwned") is None


async def labels_answer(page: Page) -> Answer:
    """Two on, one off again."""
    for key in ("2", "3", "1", "2", "Enter"):
        await page.keyboard.press(key)
    return Labels(labels=("sky", "water"))


async def number_answer(page: Page) -> Answer:
    """No number at first, then one."""
    await page.keyboard.type("four")
    await page.keyboard.press("Enter")
    await expect(page.locator(".fault")).to_contain_text("not a number")
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type("-4.25")
    await page.keyboard.press("Enter")
    return Number(number=-4.25)


async def json_answer(page: Page) -> Answer:
    """Broken JSON is not sent."""
    await page.keyboard.type('{"name": ')
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".fault")).to_contain_text("not JSON yet")
    await page.keyboard.type('"Ada"}')
    await page.keyboard.press("Control+Enter")
    return Json(json='{"name": "Ada"}')


async def boxes_answer(page: Page) -> Answer:
    """One drawn and kept, one drawn and deleted, one made, labelled and moved by keys alone."""
    image = page.locator(".subject-image")
    await expect(image).to_be_visible()
    place = await image.bounding_box()
    assert place is not None
    scale = place["width"] / 200

    async def drag(left: float, top: float, right: float, bottom: float) -> None:
        await page.mouse.move(place["x"] + left * scale, place["y"] + top * scale)
        await page.mouse.down()
        await page.mouse.move(place["x"] + right * scale, place["y"] + bottom * scale)
        await page.mouse.up()

    await drag(20, 10, 60, 50)
    await page.keyboard.press("2")
    await drag(100, 10, 140, 50)
    await expect(page.locator(".box-row")).to_have_count(2)
    await page.keyboard.press("Delete")
    await expect(page.locator(".box-row")).to_have_count(1)
    await page.get_by_text("Add a box without dragging").click()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Shift+ArrowUp")
    await page.keyboard.press("Enter")
    drawn = Box(label="sky", x=20, y=10, width=40, height=40)
    return Boxes(boxes=(drawn, Box(label="sea", x=52, y=25, width=100, height=48)))


@pytest.mark.parametrize(
    ("kind", "labels", "give"),
    [
        (AnswerKind.LABELS, ("water", "tree", "sky"), labels_answer),
        (AnswerKind.NUMBER, (), number_answer),
        (AnswerKind.JSON, (), json_answer),
        (AnswerKind.BOXES, ("sky", "sea"), boxes_answer),
    ],
)
async def test_the_other_kinds_of_answer_have_a_form(
    site: Site, kind: AnswerKind, labels: tuple[str, ...], give: Callable[[Page], Awaitable[Answer]]
) -> None:
    """Each is given by hand and arrives as what was meant."""
    picture = io.BytesIO()
    Image.new("RGB", (200, 100), (90, 120, 150)).save(picture, "PNG")
    task = Task(question="What?", kind=kind, labels=tuple(LabelOption(label=label) for label in labels))
    name = await site.park(picture.getvalue(), "image/png", task=task)
    page = await site.open()
    wanted = await give(page)
    [review] = (await site.settled(name)).reviews
    if isinstance(wanted, Boxes):
        assert isinstance(review.answer, Boxes)
        assert [box.label for box in review.answer.boxes] == [box.label for box in wanted.boxes]
        for box, near in zip(review.answer.boxes, wanted.boxes, strict=True):
            edges = (box.x, box.y, box.width, box.height)
            assert edges == pytest.approx((near.x, near.y, near.width, near.height), abs=1.0)
    else:
        assert review.answer == wanted


@pytest.mark.parametrize("width", [320, 375, 1280])
@pytest.mark.parametrize("labels", [("cat", "dog", "yes"), ("WWW", "mmm", "no"), tuple("1234567"), ("a", "ok")])
async def test_short_labels_stand_on_one_line(site: Site, labels: tuple[str, ...], width: int) -> None:
    """Beside the key they have, in a queue where each has one; nothing sticks out."""
    options = tuple(LabelOption(label=label, key=str(number)) for number, label in enumerate(labels, 1))
    await site.park(b"which?", "text/plain", task=Task(question="Which?", labels=options))
    page = await site.open()
    await page.set_viewport_size({"width": width, "height": 800})
    lines = "all => all.map(one => one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight))"
    found = await page.locator(".choice-label").evaluate_all(lines)
    assert len(found) == len(labels)
    assert max(found) < 1.5
    out = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert await page.locator(".choices .choice").evaluate_all(out) == 0


async def test_many_labels_are_found_by_typing(site: Site) -> None:
    """A filter narrows them down and Enter takes the first."""
    species = Task(question="Which?", labels=tuple(LabelOption(label=f"species {number}") for number in range(120)))
    name = await site.park(b"a bird", "text/plain", task=species)
    page = await site.open()
    await page.keyboard.type("s 117")
    await page.keyboard.press("Backspace")
    assert await page.locator(".choice:visible[data-label]").count() == 11
    await page.keyboard.type("7")
    await page.keyboard.press("Enter")
    assert (await site.settled(name)).reviews[0].answer == Label(label="species 117")


async def test_a_double_click_answers_one_item(site: Site) -> None:
    """Its second half falls on the next item's button and must not answer that."""
    for text in (b"one", b"two"):
        await site.park(text, "text/plain")
    page = await site.open()
    name = await current(page)
    await page.locator('.choice[data-label="4"]').dblclick()
    await next_after(page, name)
    await expect(page.locator("#done-count")).to_have_text("1")
    await page.wait_for_timeout(200)
    assert await page.locator(".review").count() == 1


async def test_an_item_without_content_says_so(site: Site) -> None:
    """A request may come without a subject; the reviewer is not left before an empty space."""
    await site.park(b"", "")
    page = await site.open()
    await expect(page.locator(".subject-file")).to_have_text("This item came without anything to look at.")


async def test_the_small_parts_of_the_page_do_what_they_say(site: Site) -> None:
    """Keys, numbers, JSON and boxes: the pure functions of the modules, called in the browser."""
    page = await site.open()
    assert await page.evaluate(
        """async () => {
          const names = ["keys", "answers/number", "json-view", "answers/boxes", "drafts"];
          const load = (name) => import(`/static/${name}.js`);
          const [keys, number, json, boxes, drafts] = await Promise.all(names.map(load));
          const option = (label, key = "") => ({ label, key });
          const pair = [option("a", "x"), option("b", "X")];
          const size = { width: 100, height: 50 };
          return {
            given: keys.withKeys([option("a", "x"), option("b")]).map(({ key }) => key),
            digits: keys.withKeys([option("7"), option("8")]).map(({ key }) => key),
            words: keys.withKeys([option("yes"), option("no")]).map(({ key }) => key),
            actions: [[], ["S", "u"], ["s", "S"]].map((taken) => {
              const own = keys.actionKeys(taken.map((key) => option("a", key)));
              return [own.get("skip"), own.get("undo"), keys.actionOfKey(own, "S"), keys.actionOfKey(own, "F")];
            }),
            drafts: [
              { type: "number", number: 4.5 }, { type: "labels", labels: ["a"] }, { type: "json", json: "[]" },
              { type: "boxes", boxes: [] }, { type: "label", label: "a" }, { type: "cant_tell" },
            ].map((answer) => drafts.draftOf(answer, "").answer ?? null),
            found: [[[pair[0]], "X"], [pair, "X"], [[option("a")], ""]].map((call) => keys.labelOfKey(...call)),
            numbers: ["1,5", "-2e3", ".5", "1,2,3", "1.000,5", "", "Infinity", "0x10", "\\u22124"]
              .map(number.readNumber),
            json: ["{", "[1,2", "1 2", "[]"].map((text) => json.readJson(text) === null),
            box: boxes.boxBetween("a", { x: 120, y: -5 }, { x: 50.123, y: 20 }, size),
            moved: boxes.nudged({ label: "a", x: 90, y: 0, width: 10, height: 10 }, 5, -5, false, size),
            grown: boxes.nudged({ label: "a", x: 90, y: 0, width: 10, height: 10 }, -50, 0, true, size),
          };
        }"""
    ) == {
        "given": ["x", ""],
        "digits": ["7", "8"],
        "words": ["1", "2"],
        "actions": [["s", "u", "skip", "flag"], ["", "U", None, "flag"], ["", "u", None, "flag"]],
        "drafts": ["4.5", ["a"], "[]", [], None, None],
        "found": ["a", "b", None],
        "numbers": [1.5, -2000, 0.5, None, None, None, None, None, -4],
        "json": [True, True, True, False],
        "box": {"label": "a", "x": 50.12, "y": 0, "width": 49.88, "height": 20},
        "moved": {"label": "a", "x": 90, "y": 0, "width": 10, "height": 10},
        "grown": {"label": "a", "x": 90, "y": 0, "width": 10, "height": 10},
    }


async def test_erased_and_lost_content_is_said_so(site: Site) -> None:
    """A plain sentence in its place; the item can still be answered."""
    erased, lost = [await site.park(b"a name", "text/plain") for _ in range(2)]
    await site.queue.erase(erased, request_id="e")
    await site.queue._store.connection.redis.unlink(keys.subject(*parse(lost)))
    page = await site.open()
    await expect(page.locator(".missing")).to_have_text("The content was erased.")
    name = await current(page)
    await page.keyboard.press("1")
    await next_after(page, name)
    await expect(page.locator(".missing")).to_have_text("The content is gone.")
