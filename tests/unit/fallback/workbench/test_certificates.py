"""How proofs stand, on the page: what the certifier wrote, and nothing that is not in force any more."""

from __future__ import annotations

from hashlib import sha256
from math import log
from typing import Any

import aiohttp
import msgspec
import pytest

from fallback.answer import Identity
from fallback.config import Config
from fallback.documents import Document, Documents
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.workbench.app import build
from fallback.workbench.certificates import AMENDMENTS, CertificateView, ThresholdView, views
from gateway.certification import CERTIFICATIONS, STANDINGS, Alarm, Certification, Proof, Stage, Standing, Threshold
from tests.serving import served
from tests.unit.fallback.workbench.calls import Page

PROVED = Certification(
    epoch="7", scorer="margin", version="3", tau=0.625, certificate="m/7/1", begin_second=100, expire_second=200
)
STANDING = Standing(
    stage=Stage.CERTIFIED,
    alpha=0.01,
    delta=0.05,
    version="3",
    certificate="m/7/1",
    tau=0.625,
    coverage=0.75,
    error_bound=0.009,
    audits=900,
    audits_needed=120,
    requests=4_000,
    thresholds=(
        Threshold(threshold=0.75, log_peak=9.0, proved=True, coverage=0.5, audits=600),
        Threshold(
            threshold=0.625, log_peak=log(20), proved=True, coverage=0.75, audits=900, errors=9, seen_error=0.004
        ),
        Threshold(threshold=0.5, log_peak=-1.0),
    ),
    advice="120 more audits loosen it",
)


def _documents(standing: Standing = STANDING, proved: Certification | None = PROVED) -> dict[str, Document]:
    bodies: dict[str, Any] = {STANDINGS + "m": standing, "policies/m": {}, "models/m": {}}
    if proved is not None:
        bodies[CERTIFICATIONS + "m"] = proved
    return {key: Document(revision=1, body=msgspec.json.encode(body)) for key, body in bodies.items()}


def _view(second: int = 150, **documents: Any) -> CertificateView:
    [found] = views(_documents(**documents), second=second)
    return found


def test_segments_and_versions_in_shadow_are_shown_beside() -> None:
    """Each segment by what is in force for it; of a version in shadow what would be, though it answers nobody."""
    own = msgspec.structs.replace(STANDING, certificate="m/8/1", coverage=0.25)
    better = msgspec.structs.replace(STANDING, version="4", tau=0.5, certificate="m/9/1", expire_second=300)
    standing = msgspec.structs.replace(
        STANDING, segments={"north": own, "south": own}, challengers={"4": msgspec.structs.replace(better)}
    )
    north = Proof(version="3", tau=0.75, certificate="m/8/1", begin_second=100, expire_second=200)
    found = views(
        _documents(standing=standing, proved=msgspec.structs.replace(PROVED, segments={"north": north})), second=150
    )
    assert [(each.segment, each.version, each.shadow, each.stage, each.tau, each.coverage) for each in found] == [
        ("", "3", False, "certified", 0.625, 0.75),
        ("north", "3", False, "certified", 0.75, 0.25),
        ("south", "3", False, "proving", None, None),
        ("", "4", True, "certified", 0.5, 0.75),
    ]


def test_what_the_certifier_wrote_is_shown() -> None:
    """Numbers as they stand, and how far each threshold's proof is."""
    found = _view()
    assert (found.model, found.stage, found.certificate, found.tau) == ("m", "certified", "m/7/1", 0.625)
    assert (found.coverage, found.error_bound, found.audits, found.audits_needed) == (0.75, 0.009, 900, 120)
    assert (found.expire_second, found.advice) == (200, "120 more audits loosen it")
    assert [(each.threshold, each.evidence, each.proved) for each in found.thresholds] == [
        (0.75, 1.0, True),
        (0.625, 1.0, True),
        (0.5, 0.0, False),
    ]
    assert found.thresholds[1] == ThresholdView(
        threshold=0.625, evidence=1.0, proved=True, coverage=0.75, audits=900, errors=9, seen_error=0.004
    )


def test_how_far_a_proof_is_goes_by_what_it_takes() -> None:
    """A stricter threshold has less of delta, and takes more."""
    strict = Threshold(threshold=0.9, log_peak=4.0, log_needed=8.0)
    found = _view(standing=msgspec.structs.replace(STANDING, thresholds=(strict,)))
    assert [each.evidence for each in found.thresholds] == [0.5]


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"second": 200}, "proving"),
        ({"proved": msgspec.structs.replace(PROVED, tau=None)}, "proving"),
        ({"proved": msgspec.structs.replace(PROVED, alarm="10 % wrong")}, "alarmed"),
        ({"proved": None, "standing": msgspec.structs.replace(STANDING, stage=Stage.SURVEYING)}, "surveying"),
    ],
)
def test_what_is_not_in_force_any_more_is_not_shown(changes: dict[str, Any], stage: str) -> None:
    """After its end and after an alarm, whatever was counted a moment ago."""
    found = _view(**changes)
    assert found.stage == stage
    assert (found.tau, found.coverage, found.error_bound, found.certificate) == (None, None, None, "")


def test_a_segment_that_rang_is_shown_as_such_beside_what_was_proved_after() -> None:
    """With its own alarm's words; what says nothing of alarms by segment was written before there were any."""
    alarm = Alarm(version="3", segment="north", said="10 % wrong in the north", second=90)
    newer = msgspec.structs.replace(alarm, segment="west", said="20 % wrong in the west")
    standing = msgspec.structs.replace(STANDING, segments={"north": STANDING, "south": STANDING})
    proved = msgspec.structs.replace(PROVED, alarm=newer.said, alarms=(alarm, newer))
    found = views(_documents(standing=standing, proved=proved), second=150)
    assert [(each.segment, each.stage, each.alarm) for each in found] == [
        ("", "certified", ""),
        ("north", "alarmed", "10 % wrong in the north"),
        ("south", "alarmed", "20 % wrong in the west"),
    ]
    before = views(_documents(standing=standing, proved=msgspec.structs.replace(proved, alarms=())), second=150)
    assert [(each.stage, each.tau) for each in before] == [("alarmed", None)] * 3


def test_numbers_of_another_certificate_are_not_shown_for_this_one() -> None:
    """The one in force may be newer than what was counted."""
    found = _view(proved=msgspec.structs.replace(PROVED, certificate="m/7/2"))
    assert (found.certificate, found.tau, found.coverage) == ("m/7/2", 0.625, None)


def test_a_model_without_a_promise_and_one_that_cannot_be_read_are_left_out() -> None:
    """The others are shown all the same."""
    found = _documents()
    found[STANDINGS + "none"] = Document(
        revision=1, body=msgspec.json.encode(msgspec.structs.replace(STANDING, stage=Stage.OFF))
    )
    found[STANDINGS + "odd"] = Document(revision=1, body=b"{")
    assert [view.model for view in views(found, second=150)] == ["m"]


async def test_the_page_asks_for_them(page: Page, config: Config) -> None:
    """As JSON, whoever reviews; not without saying who."""
    documents = Documents.connect(config)
    try:
        await documents.write(STANDINGS + "m", msgspec.json.encode(STANDING), expected_revision=0)
    finally:
        await documents.close()
    status, reply = await page.call("certificates")
    assert status == 200
    [shown] = reply["certificates"]
    assert (shown["model"], shown["stage"]) == ("m", "proving")
    assert (shown["thresholds"][2]["threshold"], shown["thresholds"][2]["coverage"]) == (0.5, None)
    status, error = await page.call("certificates", headers={"X-Demur-Identity": None})
    assert (status, error["code"]) == (401, "UNAUTHENTICATED")


async def test_only_operators_are_told_who_asked_what(config: Config) -> None:
    """What audits found wrong names clients: who only reviews sees none of it. What cannot be read is left out."""
    amendment: dict[str, Any] = {
        "deferral": "queues/m/deferrals/1",
        "version": "3",
        "client": "shop",
        "predicted": "cat",
    }
    amendment |= {"answer": {"type": "label", "label": "dog"}, "confidence": 0.9, "time": 7.0}
    documents, queue = Documents.connect(config), Queue.connect(config)
    try:
        await documents.write(AMENDMENTS + "m", msgspec.json.encode({"amendments": [amendment]}), expected_revision=0)
        await documents.write(AMENDMENTS + "odd", b"{", expected_revision=0)
    finally:
        await documents.close()
    roles = {"ann": frozenset({"reviewer"}), "olga": frozenset({"reviewer", "operator"})}
    known = [(sha256(name.encode()).digest(), Identity(name=name, roles=roles[name])) for name in roles]
    async with (
        served(build(queue, Credentials(known), config)) as url,
        aiohttp.ClientSession() as session,
    ):
        page = Page(session, url, queue)
        shown = {}
        for name in roles:
            _, reply = await page.call("certificates", headers={"Authorization": f"Bearer {name}"})
            shown[name] = [(one["model"], one["client"], one["nearest"]) for one in reply["amendments"]]
    await queue.close()
    assert shown == {"ann": [], "olga": [("m", "shop", [])]}
