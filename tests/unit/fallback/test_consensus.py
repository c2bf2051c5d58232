"""What reviews add up to. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fallback.answer import Answer, CantTell, Json, Label, Labels
from fallback.consensus import Escalate, NeedMore, Settled, consensus
from fallback.deferral import Review, SecondOpinion, Source


def _reviews(*answers: Answer, tier: str = "") -> tuple[Review, ...]:
    return tuple(
        Review(reviewer=f"r{number}", answer=answer, create_time=number, blind=True, duration_seconds=1, tier=tier)
        for number, answer in enumerate(answers)
    )


def test_one_review_is_one_persons_word() -> None:
    """N = 1."""
    assert consensus((), wanted=1, limit=3) == NeedMore()
    assert consensus(_reviews(Label("7")), wanted=1, limit=3) == Settled(source=Source.PERSON, answer=Label("7"))
    assert consensus(_reviews(CantTell()), wanted=1, limit=1) == Settled(source=Source.PERSON, answer=CantTell())


def test_more_than_half_decides_and_half_does_not() -> None:
    """N = 2: two that differ need a third; three that differ at the limit have no answer."""
    assert consensus(_reviews(Label("7")), wanted=2, limit=3) == NeedMore()
    agreed = Settled(source=Source.CONSENSUS, answer=Label("7"))
    assert consensus(_reviews(Label("7"), Label("7")), wanted=2, limit=3) == agreed
    assert consensus(_reviews(Label("7"), Label("1")), wanted=2, limit=3) == NeedMore()
    assert consensus(_reviews(Label("7"), Label("1"), Label("7")), wanted=2, limit=3) == agreed
    nobody = Settled(source=Source.CONSENSUS, answer=None)
    assert consensus(_reviews(Label("7"), Label("1"), Label("2")), wanted=2, limit=3) == nobody
    assert consensus(_reviews(Label("7"), Label("1")), wanted=2, limit=2) == nobody


def test_what_is_spelt_otherwise_is_the_same_answer() -> None:
    """JSON by its values; what comes of it is spelt as it first was, and a model that spells otherwise was right."""
    one, two, other = Json('{"a":1,"b":2}'), Json('{ "b": 2.0, "a": 1 }'), Json('{"a":1,"b":3}')
    agreed = Settled(source=Source.CONSENSUS, answer=one)
    assert consensus(_reviews(one, two), wanted=2, limit=3) == agreed
    assert consensus(_reviews(other, one, two), wanted=2, limit=3) == agreed
    opinion = SecondOpinion(predictions=(one, two))
    assert consensus(_reviews(two), wanted=1, limit=1, opinion=opinion) == Settled(source=Source.PERSON, answer=two)
    assert isinstance(consensus(_reviews(other), wanted=1, limit=1, opinion=opinion), NeedMore)


def test_what_places_that_are_still_open_could_change_is_not_decided() -> None:
    """More than half of all places that were asked for; more people than N may have been, who then thought again."""
    agreed = Settled(source=Source.CONSENSUS, answer=Label("7"))
    two = _reviews(Label("7"), Label("7"))
    assert consensus(two, wanted=2, limit=5, places=3) == agreed
    assert consensus(two, wanted=2, limit=5, places=4) == NeedMore()
    assert consensus(two, wanted=3, limit=3, places=3) == NeedMore()
    assert consensus(_reviews(Label("7")), wanted=1, limit=3, places=2) == NeedMore()
    assert consensus(_reviews(Label("7"), Label("1")), wanted=2, limit=3, places=3, higher=True) == NeedMore()


def test_where_a_tier_stands_above_no_majority_asks_it_instead_of_giving_up() -> None:
    """Only at the limit, and only while nobody prevails."""
    split = _reviews(Label("7"), Label("1"))
    assert consensus(split, wanted=2, limit=2, higher=True) == Escalate()
    assert consensus(split, wanted=2, limit=3, higher=True) == NeedMore()
    agreed = Settled(source=Source.CONSENSUS, answer=Label("7"))
    assert consensus(_reviews(Label("7"), Label("7")), wanted=2, limit=2, higher=True) == agreed
    assert consensus((), wanted=1, limit=1, higher=True) == NeedMore()


def test_the_word_of_the_tier_that_is_asked_last_is_final() -> None:
    """However many said otherwise below it."""
    below, doctor = _reviews(*[Label("7")] * 3, tier="reader"), _reviews(Label("1"), tier="doctor")
    assert consensus(below, wanted=1, limit=3, tier="doctor") == NeedMore()
    found = consensus((*below, *doctor), wanted=1, limit=3, tier="doctor")
    assert found == Settled(source=Source.PERSON, answer=Label("1"))


def test_one_review_settles_a_second_opinion_only_where_it_agrees() -> None:
    """A first reviewer who says another thing, or a hash that chose the item, brings in two more."""
    opinion = SecondOpinion(predictions=(Label("7"), Label("7")))
    alone = Settled(source=Source.PERSON, answer=Label("7"))
    assert consensus((), wanted=1, limit=1, places=1, opinion=opinion) == NeedMore()
    assert consensus(_reviews(Label("7")), wanted=1, limit=1, places=1, opinion=opinion) == alone
    assert consensus(_reviews(Label("1")), wanted=1, limit=1, places=1, opinion=opinion) == NeedMore(places=3)
    assert consensus(_reviews(CantTell()), wanted=1, limit=1, places=1, opinion=opinion) == NeedMore(places=3)
    two = SecondOpinion(predictions=(Label("7"), Label("1")))
    assert consensus(_reviews(Label("7")), wanted=1, limit=1, places=1, opinion=two) == NeedMore(places=3)
    chosen = SecondOpinion(predictions=(Label("7"),), always=True)
    assert consensus(_reviews(Label("7")), wanted=1, limit=1, places=1, opinion=chosen) == NeedMore(places=3)


def test_a_panel_is_three_and_all_of_them() -> None:
    """Whatever the queue's numbers: two that agree wait for the third, and three that do not end without an answer."""
    opinion = SecondOpinion(predictions=(Label("7"),))
    agreed = Settled(source=Source.CONSENSUS, answer=Label("1"))
    nobody = Settled(source=Source.CONSENSUS, answer=None)
    for wanted, limit in ((1, 1), (2, 2), (2, 9), (3, 5)):
        two = _reviews(Label("1"), Label("1"))
        assert consensus(two, wanted=wanted, limit=limit, places=3, opinion=opinion) == NeedMore(places=3)
        three = _reviews(Label("1"), Label("7"), Label("1"))
        assert consensus(three, wanted=wanted, limit=limit, places=3, opinion=opinion) == agreed
        split = _reviews(Label("1"), Label("7"), Label("2"))
        assert consensus(split, wanted=wanted, limit=limit, places=3, opinion=opinion) == nobody
        assert consensus(split, wanted=wanted, limit=limit, places=3, opinion=opinion, higher=True) == Escalate()
    # Where the first one was taken back after the panel was asked, it is asked to the end.
    assert consensus(_reviews(Label("7")), wanted=1, limit=1, places=3, opinion=opinion) == NeedMore(places=3)
    five = _reviews(*(Label("1"),) * 4)
    assert consensus(five, wanted=5, limit=5, places=5, opinion=opinion) == NeedMore(places=5)


def test_a_panel_is_of_the_tier_that_is_asked() -> None:
    """What readers said does not make a doctor's one review a panel."""
    opinion = SecondOpinion(predictions=(Label("7"),))
    below, doctor = _reviews(Label("1"), Label("2"), Label("7"), tier="reader"), _reviews(Label("7"), tier="doctor")
    found = consensus((*below, *doctor), wanted=1, limit=1, places=1, tier="doctor", opinion=opinion)
    assert found == Settled(source=Source.PERSON, answer=Label("7"))


def test_answers_are_compared_by_value() -> None:
    """Of any kind."""
    same = Labels(("a", "b"))
    assert consensus(_reviews(same, Labels(("a", "b"))), wanted=2, limit=3) == Settled(
        source=Source.CONSENSUS, answer=same
    )


@given(
    answers=st.lists(st.sampled_from("abc").map(Label), max_size=9),
    wanted=st.integers(1, 5),
    extra=st.integers(0, 4),
)
def test_consensus_is_what_most_said(answers: list[Label], wanted: int, extra: int) -> None:
    """Never decided before N, always at M; who prevails has more than half; order does not matter."""
    limit = wanted + extra
    found = consensus(_reviews(*answers[:limit]), wanted=wanted, limit=limit)
    given = answers[:limit]
    if isinstance(found, NeedMore):
        assert len(given) < limit
    else:
        assert isinstance(found, Settled)
        assert len(given) >= wanted
        if found.answer is not None:
            assert 2 * given.count(Label(getattr(found.answer, "label", ""))) > len(given)
        else:
            assert all(2 * given.count(answer) <= len(given) for answer in given)
    assert consensus(_reviews(*reversed(given)), wanted=wanted, limit=limit) == found
