from __future__ import annotations

import msgspec
import pytest

from fallback.answer import CantTell, Label
from fallback.deferral import Review, Source
from gateway.samples import SampledRecord, Scored
from tests.unit.trainer.world import FALSE, TRUE, told
from trainer.labels import Told, label, overturned, place


def _record(**predictions: str) -> SampledRecord:
    scored = tuple(
        Scored(version=version.removeprefix("v"), scorer="margin", confidence=0.9, prediction=said, eligible=True)
        for version, said in predictions.items()
    )
    return SampledRecord(
        second=5,
        gateway="g",
        counter=2,
        model="m",
        epoch="1",
        segment="",
        request_key="k",
        q=1.0,
        floor=1.0,
        draw=0.5,
        scored=scored,
    )


RECORD = _record(v1=TRUE, v2=FALSE)


def _wrong(said: Told) -> tuple[str | None, tuple[str, ...]]:
    found = label(said, RECORD)
    return found.truth, found.wrong


def test_one_blind_review_is_the_truth() -> None:
    """Each version is wrong that said another thing."""
    assert _wrong(told(RECORD, TRUE)) == (TRUE, ("2",))
    assert label(told(RECORD, TRUE), RECORD).place == RECORD.place == place(told(RECORD, TRUE))


@pytest.mark.parametrize(
    ("answers", "truth"),
    [
        ((TRUE, FALSE, FALSE), FALSE),
        ((TRUE, FALSE), None),
        ((FALSE, FALSE), FALSE),
        ((TRUE, FALSE, FALSE, TRUE), None),
        ((TRUE, FALSE, FALSE, FALSE), FALSE),
        ((), None),
    ],
)
def test_of_several_reviews_a_majority_decides(answers: tuple[str, ...], truth: str | None) -> None:
    """Of three, or of more where the queue wants more; without one nobody knows, which counts against all."""
    wrong = {TRUE: ("2",), FALSE: ("1",), None: ("1", "2")}[truth]
    assert _wrong(told(RECORD, *answers)) == (truth, wrong)


def test_who_saw_the_guess_does_not_count() -> None:
    """Nor who was asked at a tier before the last."""
    said = told(RECORD, TRUE, FALSE, FALSE)
    first, second, third = said.reviews
    seeing = msgspec.structs.replace(
        said, reviews=(first, *(msgspec.structs.replace(each, blind=False) for each in (second, third)))
    )
    assert _wrong(seeing) == (TRUE, ("2",))
    above = msgspec.structs.replace(said, reviews=(first, second, msgspec.structs.replace(third, tier="experts")))
    assert _wrong(above) == (FALSE, ("1",))


def test_what_expired_has_no_truth() -> None:
    """And whether anybody looked is kept: who was not there says nothing of the model."""
    expired = told(RECORD, source=Source.EXPIRY)
    assert _wrong(expired) == (None, ("1", "2"))
    assert not label(expired, RECORD).reviewed
    unsure = Review(reviewer="r", answer=CantTell(), create_time=1.0, blind=True, duration_seconds=1.0)
    found = label(msgspec.structs.replace(told(RECORD), reviews=(unsure,)), RECORD)
    assert (found.truth, found.reviewed) == (None, True)


def test_three_who_looked_although_all_agreed_show_what_one_lets_pass() -> None:
    """Only where the first one agreed with every version did the hash choose them."""
    agreed = _record(v1=TRUE)
    assert overturned(told(agreed, TRUE, FALSE, FALSE), agreed) is True
    assert overturned(told(agreed, TRUE, TRUE, FALSE), agreed) is False
    assert overturned(told(agreed, FALSE, TRUE, TRUE), agreed) is None
    assert overturned(told(agreed, TRUE), agreed) is None


def test_what_is_no_place_is_of_no_record() -> None:
    """Whatever a client may have put there."""
    said = Told(row=1, place="elsewhere", epoch="1", source=Source.PERSON, reviews=())
    assert place(said) is None
    assert Label("true") == msgspec.json.decode(TRUE, type=Label)
