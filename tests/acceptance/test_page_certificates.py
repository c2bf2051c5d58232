"""What is proved of the models, in a headless Chromium."""

from __future__ import annotations

import time

import msgspec
import pytest
from playwright.async_api import expect

from fallback.answer import Label
from fallback.config import Config
from fallback.documents import Documents
from gateway.amendments import AMENDMENTS, Amendment, Amendments
from gateway.certification import CERTIFICATIONS, STANDINGS, Certification, Stage, Standing, Threshold
from gateway.kept import KeptAnswer
from tests.serving import Site

# The browser lives on one event loop for all tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_person_sees_what_is_promised_and_how_far_the_proof_is(site: Site, config: Config) -> None:
    """Behind the name: the promise in words, numbers, a bar for each threshold; an alarm is said loudly."""
    page = await site.open()
    await page.locator("#person").click()
    await page.get_by_role("button", name="What is proved").click()
    await expect(page.locator(".certificates")).to_contain_text("No model promises an error rate.")
    await page.keyboard.press("Escape")
    now = int(time.time())
    proved = Certification(
        epoch="1", scorer="margin", version="3", tau=0.5, certificate="m/1", begin_second=now, expire_second=now + 900
    )
    standing = Standing(
        stage=Stage.CERTIFIED,
        alpha=0.01,
        delta=0.05,
        certificate="m/1",
        coverage=0.71,
        error_bound=0.0093,
        audits=912,
        audits_needed=140,
        requests=20_000,
        thresholds=(
            Threshold(threshold=0.9, log_peak=4.0, proved=True, coverage=0.4, audits=520, seen_error=0.0),
            Threshold(threshold=0.5, log_peak=3.0, proved=True, coverage=0.71, audits=912, errors=4, seen_error=0.004),
            Threshold(threshold=0.1, log_peak=1.5, coverage=1.0, audits=1_300, errors=26, seen_error=0.021),
        ),
        advice="140 more audits would loosen it.",
        reviewer_error=0.021,
    )
    documents = Documents.connect(config)
    try:
        await documents.write(CERTIFICATIONS + "m", msgspec.json.encode(proved), expected_revision=None)
        await documents.write(STANDINGS + "m", msgspec.json.encode(standing), expected_revision=None)
        await page.locator("#person").click()
        await page.get_by_role("button", name="What is proved").click()
        shown = page.locator('.certificate[data-model="m"]')
        await expect(shown).to_have_attribute("data-stage", "certified")
        for text in (
            "At most 1 % of the automatic answers wrong, with 95 % confidence.",
            "71 %",
            "0.93 %",
            "about 140",
            "Reviewers wrong2.1 %",
        ):
            await expect(shown).to_contain_text(text)
        picture = shown.get_by_role("img", name="Risk against coverage: 2 of 3 thresholds proved")
        said = "answers 71 % of the requests; 0.4 % of the audited were wrong, and at most 0.93 % are."
        await expect(picture.locator("desc")).to_contain_text(said)
        await expect(picture.locator("circle")).to_have_count(3)
        await expect(picture.locator("circle.proved")).to_have_count(2)
        await expect(picture.locator("circle.tau")).to_have_count(1)
        await expect(picture).to_contain_text("promised: at most 1 %")
        assert await picture.locator(".bound").bounding_box() is not None
        row = shown.get_by_role("row", name="0.5")
        await expect(row).to_contain_text("in force")
        assert await row.locator("td").all_text_contents() == ["71 %", "912", "4", "0.4 %", "in force"]
        await expect(shown.get_by_role("row", name="0.1")).to_contain_text("50 %")
        await page.keyboard.press("Escape")
        alarmed = msgspec.structs.replace(proved, alarm="10 % were wrong")
        await documents.write(CERTIFICATIONS + "m", msgspec.json.encode(alarmed), expected_revision=None)
    finally:
        await documents.close()
    await page.locator("#person").click()
    await page.get_by_role("button", name="What is proved").click()
    await expect(shown.locator(".fault")).to_contain_text("Everything goes to people. (10 % were wrong)")
    await expect(shown.locator(".facts")).not_to_contain_text("71 %")
    await expect(shown.locator("desc")).to_contain_text("An alarm took the proof back.")
    await expect(shown.locator(".proved, .tau")).to_have_count(0)


async def test_segments_and_versions_in_shadow_have_a_place_of_their_own(site: Site, config: Config) -> None:
    """Beneath the model's: what is proved of a segment, and of a version that answers nobody yet."""
    page = await site.open()
    now = int(time.time())
    proved = Certification(epoch="1", scorer="margin", version="3", tau=0.5, certificate="m/1", expire_second=now + 900)
    standing = Standing(stage=Stage.CERTIFIED, alpha=0.01, delta=0.05, version="3", certificate="m/1", coverage=0.71)
    better = msgspec.structs.replace(standing, version="4", certificate="m/2", tau=0.4, expire_second=now + 900)
    beside = msgspec.structs.replace(standing, segments={"eu": standing}, challengers={"4": better})
    documents = Documents.connect(config)
    try:
        await documents.write(CERTIFICATIONS + "m", msgspec.json.encode(proved), expected_revision=None)
        await documents.write(STANDINGS + "m", msgspec.json.encode(beside), expected_revision=None)
    finally:
        await documents.close()
    await page.locator("#person").click()
    await page.get_by_role("button", name="What is proved").click()
    await expect(page.locator(".certificate h3")).to_have_text(["m", "m · segment eu", "m · version 4, in shadow"])
    shown = page.locator('.certificate[data-model="m"]')
    await expect(shown.nth(1)).to_have_attribute("data-stage", "proving")
    await expect(shown.nth(2)).to_contain_text("It answers nobody yet.")
    await expect(shown.nth(2)).to_contain_text("71 %")


async def test_an_operator_sees_what_audits_found_wrong_and_the_answers_like_it(site: Site, config: Config) -> None:
    """Each wrong answer opens on those near to it; what clients wrote is shown as text."""
    near = KeptAnswer(client="shop", request="<b>7</b>", row=1, confidence=0.875, time=1_000.0)
    amendment = Amendment(
        deferral="queues/m/deferrals/1",
        version="3",
        client="shop",
        predicted="cat",
        answer=Label("dog"),
        confidence=0.9,
        time=2_000.0,
        nearest=(near,),
    )
    documents = Documents.connect(config)
    try:
        body = msgspec.json.encode(Amendments(amendments=(amendment,)))
        await documents.write(AMENDMENTS + "m", body, expected_revision=None)
    finally:
        await documents.close()
    page = await site.open()
    await page.locator("#person").click()
    await page.get_by_role("button", name="What is proved").click()
    found = page.locator('.amendments [data-deferral="queues/m/deferrals/1"]')
    await expect(found.locator("summary")).to_contain_text("m: shop was told “cat” (0.9000), people say “dog”")
    await found.locator("summary").click()
    await expect(found.locator("tbody")).to_contain_text("<b>7</b>, row 1")
    await expect(found.locator("tbody td").first).to_have_text("0.875")
