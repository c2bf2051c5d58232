"""What the page is told and what it is not."""

from __future__ import annotations

from base64 import b64decode

import msgspec
import pytest

from fallback.answer import Answer, Box, Boxes, CantTell, Json, Label, LabelOption, Labels, Number, Task
from fallback.deferral import Content, Deferral, Lease, OnExpiry, Prediction, Review, State
from fallback.errors import Code, DemurError, InvalidError, StateError, TakenOverError, UnavailableError
from fallback.workbench import wire

PNG = b"\x89PNG\r\n\x1a\n..."
GUESS = Prediction(model="digits", version="7", answer=Label(label="3"), confidence=0.41, shown=0.35)


def deferral(**changes: object) -> Deferral:
    """An open deferral that a second person looks at."""
    first = Review(reviewer="Bob", answer=Label(label="8"), create_time=1.0, blind=True, duration_seconds=2.0)
    plain = Deferral(
        id="d1",
        queue="digits",
        state=State.OPEN,
        version=3,
        task=Task(question="Which?", labels=(LabelOption(label="3", key="3"),)),
        prediction=GUESS,
        draw=None,
        outcome=None,
        reviews=(first,),
        reviews_wanted=2,
        create_time=1.0,
        expire_time=9.0,
        client="billing-service",
        priority=0,
        attributes={"site": "north"},
        media_type="Image/PNG; foo=bar",
        reasons=("threshold",),
        audit=True,
        callback=None,
        on_expiry=OnExpiry.ABSTAIN,
        subject_digest="",
        inputs_digest="",
    )
    return msgspec.structs.replace(plain, **changes)


def review(answer: Answer, *, blind: bool = True) -> Review:
    """Ada's review."""
    return Review(reviewer="Ada", answer=answer, create_time=1.0, blind=blind, duration_seconds=2.0)


def lease(*, blind: bool) -> Lease:
    """A lease on it."""
    return Lease(token="t", deferral=deferral(), subject=PNG, expire_time=5.0, blind=blind)


def test_a_blind_lease_says_nothing_that_could_sway() -> None:
    """Neither the guess nor why it was parked, who sent it, or what others answered leaves the server."""
    text = msgspec.json.encode(wire.lease_view(lease(blind=True), lease_seconds=120.0)).decode()
    for secret in ("0.41", "threshold", "billing-service", "Bob", "audit", '"8"'):
        assert secret not in text
    assert wire.lease_view(lease(blind=True), lease_seconds=120.0).prediction is None


def test_an_assisted_lease_shows_the_guess() -> None:
    """It is the queue's setting, which the lease carries."""
    view = wire.lease_view(lease(blind=False), lease_seconds=120.0)
    assert view.prediction == GUESS
    assert (view.subject.view, view.subject.media_type, b64decode(view.subject.content)) == ("image", "image/png", PNG)


@pytest.mark.parametrize(
    ("media_type", "content", "view"),
    [
        ("image/png", PNG, "image"),
        ("image/jpeg", b"\xff\xd8\xff\xe0", "image"),
        ("image/png", b"<svg onload='x'/>", "file"),
        ("image/jpeg", PNG, "file"),
        ("image/svg+xml", b"<svg/>", "file"),
        ("text/html", b"<p>", "file"),
        ("application/pdf", b"%PDF", "file"),
        ("", b"", "file"),
        ("text/plain; charset=utf-8", b"<p>", "text"),
        ("application/json", b"{}", "json"),
    ],
)
def test_only_what_is_safe_has_a_view(media_type: str, content: bytes, view: str) -> None:
    """An image must also begin like one; everything else is a file to download."""
    assert wire.view_of(media_type, content) == view


@pytest.mark.parametrize(
    ("guess", "answer", "agreed"),
    [
        (Label(label="3"), Label(label="3"), True),
        (Label(label="3"), Label(label="8"), False),
        (Labels(labels=("b", "a")), Labels(labels=("a", "b")), True),
        (Json(json='{"a": 1, "b": 2}'), Json(json='{"b":2,"a":1}'), True),
        (Json(json="1"), Json(json="2"), False),
        (Number(number=2.0), Number(number=2.0), True),
        (Label(label="3"), CantTell(), None),
    ],
)
def test_agreement_is_about_what_was_meant(guess: Answer, answer: Answer, agreed: bool | None) -> None:
    """Order in a set and spaces in JSON do not count, and "can't tell" is neither yes nor no."""
    prediction = msgspec.structs.replace(GUESS, answer=guess)
    settled = deferral(prediction=prediction, state=State.RESOLVED)
    assert wire.submitted(settled, review(answer), undo_seconds=0.0).model_agreed is agreed


def test_without_a_model_there_is_nothing_to_agree_with() -> None:
    """A question that no model was asked has no guess to show."""
    told = wire.submitted(deferral(prediction=None, state=State.RESOLVED), review(Label(label="3")), undo_seconds=0.0)
    assert (told.model_agreed, told.prediction, told.open) == (None, None, False)


@pytest.mark.parametrize("undo_seconds", [0.0, 5.0])
def test_a_blind_review_is_told_of_the_guess_only_when_it_is_final(undo_seconds: float) -> None:
    """Not even whether it was right; an assisted one has seen the guess before."""
    told = wire.submitted(deferral(), review(Label(label="3")), undo_seconds=undo_seconds)
    assert (told.open, told.prediction, told.model_agreed, told.undo_seconds) == (True, None, None, undo_seconds)
    seen = wire.submitted(deferral(), review(Label(label="3"), blind=False), undo_seconds=undo_seconds)
    assert (seen.prediction, seen.model_agreed) == (GUESS, True)
    final = wire.submitted(deferral(state=State.RESOLVED), review(Label(label="3")), undo_seconds=undo_seconds)
    assert (final.open, final.prediction, final.model_agreed, final.undo_seconds) == (False, GUESS, True, 0.0)


def test_a_review_is_its_givers() -> None:
    """Who has none, or took it back, is told so instead of another's."""
    assert wire.own_review(deferral(), "Bob").answer == Label(label="8")
    with pytest.raises(StateError, match="no answer of yours"):
        wire.own_review(deferral(), "Ada")


def test_every_kind_of_answer_is_read() -> None:
    """The page's JSON and the domain's values are the same shapes."""
    answers: list[Answer] = [
        Label(label="3"),
        Labels(labels=("a",)),
        Boxes(boxes=(Box(label="a", x=1, y=2, width=3, height=4),)),
        Number(number=1.5),
        Json(json="{}"),
        CantTell(),
    ]
    for answer in answers:
        body = msgspec.json.encode({"token": "t", "answer": answer, "request_id": "r" * 32})
        assert wire.decode(body, wire.SubmitRequest).answer == answer


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "truncated"),
        (b'{"queue": "q", "limit": 6}', r"\$\.limit"),
        (b'{"queue": "q", "limit": 0}', r"\$\.limit"),
        (b'{"queue": "q", "wait_seconds": 99}', r"\$\.wait_seconds"),
        (b'{"queue": ""}', r"\$\.queue"),
        (b'{"queue": "q", "reviewer": "Bob"}', "reviewer"),
        (b"\xff", "body"),
        (b"[" * 100_000, "body"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_name(body: bytes, named: str) -> None:
    """Unknown fields, wrong ranges and broken JSON are the caller's, and the sentence says where."""
    with pytest.raises(InvalidError, match=named):
        wire.decode(body, wire.LeaseRequest)


def test_json_too_deep_to_read_is_refused() -> None:
    """What no parser could read again is not an answer."""
    with pytest.raises(InvalidError, match=r"answer\.json"):
        wire.normal(Json(json="[" * 60_000))


def test_every_code_has_an_http_status() -> None:
    """No error of the family falls through."""
    for code in Code:
        error = type("Some", (DemurError,), {"code": code})("sentence")
        assert wire.error_response(error).status_code >= 400


def test_that_somebody_went_on_elsewhere_is_told_from_other_refusals() -> None:
    """The page stops then, instead of taking the next item; the status is that of a stale lease."""
    response = wire.error_response(TakenOverError("sentence"))
    told = {"code": "FAILED_PRECONDITION", "message": "sentence", "reason": "taken_over"}
    assert (response.status_code, msgspec.json.decode(response.body)) == (409, told)
    assert b"reason" not in wire.error_response(StateError("sentence")).body


@pytest.mark.parametrize(
    ("tier", "tiers", "above"),
    [
        ("", (), ""),
        ("one", ("one", "two", "three"), "two"),
        ("two", ("one", "two", "three"), "three"),
        ("three", ("one", "two", "three"), ""),
        ("tier 4", ("one", "two", "three"), ""),
    ],
)
def test_a_lease_names_its_tier_and_the_one_above(tier: str, tiers: tuple[str, ...], above: str) -> None:
    """Nothing where there is none; one that the setting no longer names is the last."""
    held = msgspec.structs.replace(lease(blind=True), deferral=deferral(tier=tier))
    view = wire.lease_view(held, lease_seconds=1, tiers=tiers)
    assert (view.tier, view.next_tier) == (tier, above)


def test_an_error_says_when_to_come_back() -> None:
    """Whole seconds, rounded up, as HTTP wants them."""
    response = wire.error_response(UnavailableError("the queue is away", retry_after_seconds=1.2))
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert msgspec.json.decode(response.body) == {"code": "UNAVAILABLE", "message": "the queue is away"}


@pytest.mark.parametrize("state", [Content.PRESENT, Content.ERASED, Content.LOST])
def test_a_lease_says_what_became_of_its_content(state: Content) -> None:
    """So that the page has a sentence where there is nothing to look at."""
    held = msgspec.structs.replace(lease(blind=True), deferral=deferral(content=state), subject=b"")
    assert wire.lease_view(held, lease_seconds=1).subject.state is state
