from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from fallback.errors import InvalidError
from gateway.certification import Stage, Standing
from gateway.policy import Policy
from gateway.promise import HEAD_COVERAGES, WALK_COVERAGE, Promise, delta_of_coverage
from gateway.quote import Plan, Said, Work, audits_needed, boundary, check_plan, known_work, quote, sentences
from tests.statistics.simulation import report
from trainer.certificate import Evidence, advance, begin, certified

ONE_PER_CENT = Promise(alpha=0.01)
WORK = Work(requests_per_hour=100, coverage=0.7, true_error=0.003, model_error=0.07)


@pytest.mark.parametrize(("error", "audits"), [(0.0, 438), (0.003, 869), (0.005, 1_895)])
def test_what_one_per_cent_costs(error: float, audits: int) -> None:
    """The median number of audits, exactly; nothing is drawn by lot."""
    found = audits_needed(ONE_PER_CENT, error)[0]
    report(f"alpha 1 %, true error {error}: a median of {found} audits")
    assert found is not None
    assert abs(found - audits) <= 0.15 * audits


def test_the_exact_walk_agrees_with_drawing_lots() -> None:
    """2,000 runs of the certificate itself need as many audits, half of them and nine of ten."""
    rng = np.random.default_rng(71)
    runs, promise = 2_000, Promise(alpha=0.05)
    state, first = begin(1, (runs,)), np.full(runs, 1_001)
    for audit in range(1, 1_001):
        error = (rng.random((runs, 1)) < 0.015).astype(np.float64)
        evidence = Evidence(confidence=np.ones(error.shape), weight=np.ones(error.shape), error=error)
        state = advance(state, evidence, np.array([0.5]), promise.alpha)
        first = np.where((first > audit) & (certified(state, promise.delta) == 1), audit, first)
    median, high = audits_needed(promise, 0.015, shares=(0.5, 0.9))
    assert median is not None
    assert high is not None
    assert np.median(first) == pytest.approx(median, rel=0.1)
    assert np.quantile(first, 0.9) == pytest.approx(high, rel=0.15)


def test_the_boundary_is_the_first_number_that_certifies() -> None:
    """With so many audits, e of them wrong, the certificate is there; with one fewer it is not."""
    numbers = boundary(ONE_PER_CENT, errors=4)
    for errors, number in enumerate(numbers.tolist()):
        for count, expected in ((number, 1), (number - 1, 0)):
            error = np.zeros(count)
            error[:errors] = 1
            evidence = Evidence(confidence=np.ones(count), weight=np.ones(count), error=error)
            assert certified(advance(begin(1), evidence, np.array([0.5]), 0.01), 0.05) == expected


def test_what_is_still_needed_goes_on_from_where_it_stands() -> None:
    """After 300 right audits, 138 more are needed if nothing is wrong; after 438 none."""
    for done, left in ((300, 138), (438, 0)):
        right = Evidence(confidence=np.ones(done), weight=np.ones(done), error=np.zeros(done))
        logs = advance(begin(1), right, np.array([0.5]), 0.01).logs[:, 0]
        assert audits_needed(ONE_PER_CENT, 0.0, logs=logs) == (left,)


def test_a_quote_counts_requests_days_and_hours() -> None:
    """While everything goes to people, each request above the threshold is an audit, and all of them are work."""
    offer = quote(ONE_PER_CENT, WORK)
    assert offer.audits is not None
    assert offer.requests == round(offer.audits / 0.7)
    assert offer.days == pytest.approx(offer.audits / 0.7 / 100 / 24)
    # 7 % of the reviews, and a tenth of the others, take two more people.
    assert offer.person_hours == pytest.approx(offer.audits / 0.7 * (1 + 2 * (0.07 + 0.093)) * 10 / 3600)
    assert offer.audits_high is not None
    assert offer.audits_high > offer.audits


POLICY = Policy(alpha=0.01, audit_share=0.2, reviews_per_hour_max=200.0)


def _plan(work: Work = WORK, **changes: Any) -> Plan:
    return check_plan(replace(POLICY, **changes), 0.01, work)


def test_a_plan_that_fits_has_no_problems() -> None:
    """And says what it costs an hour, before and after."""
    plan = _plan()
    assert plan.problems == ()
    assert plan.reviews_per_hour_before == pytest.approx(100 * 1.326)
    assert plan.reviews_per_hour_after == pytest.approx((30 + 14) * 1.326)


def test_what_does_not_fit_is_said() -> None:
    """Too few people, too short a life, an error rate that cannot be proved, reviewers who err too often."""
    assert "have more reviewers" in " ".join(_plan(reviews_per_hour_max=50).problems)
    assert "let it live longer, or audit more" in " ".join(_plan(audit_share=0.01).problems)
    hopeless = Work(requests_per_hour=100, coverage=0.9, true_error=0.02, model_error=0.07)
    assert "ask for less coverage" in " ".join(_plan(hopeless).problems)
    careless = Work(requests_per_hour=100, coverage=0.7, true_error=0.003, model_error=0.07, reviewer_error=0.08)
    plan = _plan(careless)
    assert plan.quote.audits is None
    assert "train reviewers" in " ".join(plan.problems)


def test_more_than_people_manage_before_a_proof_has_a_way_out() -> None:
    """Where everything would go to them, the own threshold may answer meanwhile; where it does, there is no other."""
    (asked,) = _plan(reviews_per_hour_max=100.0).problems
    assert "until there is a certificate about 133 reviews an hour come" in asked
    assert "--until-proved answer" in asked
    assert _plan(until_proved="answer", reviews_per_hour_max=100.0).problems == ()
    short = " ".join(_plan(until_proved="answer", reviews_per_hour_max=50.0).problems)
    assert "--until-proved" not in short
    assert "under the certificate" in short


def test_nothing_is_proved_without_audits() -> None:
    """A share of 0 and other impossible numbers are refused."""
    with pytest.raises(InvalidError, match="audit_share"):
        _plan(audit_share=0.0)
    with pytest.raises(
        InvalidError, match=r"^reviews_per_hour_max: expected a number above 0 and at most 1000000, got 0$"
    ):
        _plan(reviews_per_hour_max=0.0)
    with pytest.raises(InvalidError, match=r"^expire_days: expected a number above 0 and at most 3650, got -1$"):
        _plan(expire_days=-1.0)
    with pytest.raises(InvalidError, match="coverage"):
        Work(requests_per_hour=1, coverage=0, true_error=0, model_error=0)
    with pytest.raises(InvalidError, match="true_error"):
        Work(requests_per_hour=1, coverage=1, true_error=2, model_error=0)
    with pytest.raises(InvalidError, match="requests_per_hour"):
        Work(requests_per_hour=0, coverage=1, true_error=0, model_error=0)


def test_nobody_looks_further_ahead_than_asked() -> None:
    """Close to alpha the walk is long; who tells it while evidence comes in stops earlier."""
    promise = Promise(alpha=0.05)
    assert audits_needed(promise, 0.03, audits_max=20_000) == audits_needed(promise, 0.03)
    assert audits_needed(promise, 0.03, audits_max=50) == (None,)


def test_delta_shared_out_over_a_lifetime_costs_more_each_time() -> None:
    """The fifth process has far less of it than the first."""
    once, first, fifth = (
        check_plan(replace(POLICY, lifetime=lifetime), 0.01, WORK, number=number).quote.audits
        for lifetime, number in ((False, 5), (True, 1), (True, 5))
    )
    assert once is not None
    assert first is not None
    assert fifth is not None
    assert once < first < fifth


def test_the_evidence_says_what_there_is_to_decide() -> None:
    """The loosest threshold thought to have at most half of alpha wrong; another alpha, another one."""
    told = Standing(
        stage=Stage.PROVING,
        alpha=0.05,
        delta=0.05,
        requests_per_hour=100,
        risks=((0.4, 0.001), (0.7, 0.004), (1.0, 0.06)),
    )
    assert known_work(told, 0.01) == Work(requests_per_hour=100, coverage=0.7, true_error=0.004, model_error=0.06)
    wide, narrow = known_work(told, 0.12), known_work(told, 0.0001)
    assert wide is not None
    assert narrow is not None
    assert (wide.coverage, narrow.coverage) == (1.0, 0.4)
    assert known_work(replace(told, requests_per_hour=0.0), 0.01) is None
    assert known_work(replace(told, risks=()), 0.01) is None


def test_what_somebody_says_of_the_work_counts_before_the_evidence() -> None:
    """What is missing is taken from it; without it all must be said."""
    assert Said(coverage=0.5, review_seconds=4.0).over(WORK) == Work(
        requests_per_hour=100, coverage=0.5, true_error=0.003, model_error=0.07, review_seconds=4.0
    )
    part = Said(requests_per_hour=100, true_error=0.003)
    assert part.over(None) is None
    assert part.missing == ("coverage", "model_error")
    assert Said(requests_per_hour=100, coverage=0.7, true_error=0.003, model_error=0.07).over(None) == WORK


def test_a_plan_counts_with_what_a_threshold_has_of_delta() -> None:
    """Nearly all where the walk begins, little at stricter ones; that nothing is proved of fewer is said."""
    assert sum(delta_of_coverage(0.05, each) for each in (*HEAD_COVERAGES, WALK_COVERAGE)) == pytest.approx(0.05)
    quotes = [
        quote(ONE_PER_CENT, Work(requests_per_hour=100, coverage=coverage, true_error=0, model_error=0.07)).audits
        for coverage in (0.4, 0.35, 0.05, 0.039)
    ]
    assert quotes == [444, 1_018, 1_018, None]
    little = Work(requests_per_hour=100, coverage=0.03, true_error=0, model_error=0.07)
    (problem,) = _plan(little).problems
    assert problem.startswith("coverage 0.03: the strictest threshold that is tried lets 5% of the requests through")


def test_no_more_can_be_wrong_among_the_answered_than_among_all() -> None:
    """Whoever says so means something else; what the evidence alone says is estimated, and goes."""
    said = Said(requests_per_hour=100, coverage=0.8, true_error=0.09, model_error=0.05)
    sentence = "^true_error: 0.09 of the answered 0.8 are 0.072 of all requests, but model_error says that 0.05 of all"
    with pytest.raises(InvalidError, match=sentence):
        said.over(None)
    with pytest.raises(InvalidError, match=r"0.3 of the answered 0.7 are 0.21 of all requests"):
        Said(true_error=0.3).over(WORK)
    assert Said(requests_per_hour=1, coverage=0.7, true_error=0.1, model_error=0.07).over(None) is not None
    odd = Work(requests_per_hour=100, coverage=0.8, true_error=0.09, model_error=0.05)
    assert Said(review_seconds=5.0).over(odd) is not None


def test_a_plan_is_told_in_words() -> None:
    """What it goes by, what it costs, how many reviews an hour."""
    first, second, third = sentences(_plan())
    assert first == "planned by 100 requests an hour, of which 70% would be answered, 0.30% of these wrong"
    assert second.startswith("about 876 audits, nine times of ten at most ")
    assert third == "reviews an hour: 133 until it is proved, 58 after"
