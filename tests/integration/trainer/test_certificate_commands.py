from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fallback import presence
from fallback.config import Config
from gateway.server import Gateway
from tests import live_gateway
from tests.commands import demur_here as demur
from trainer.retrain import client

KNOWN = (
    *("--requests-per-hour", "600", "--coverage", "0.7", "--true-error", "0.003"),
    *("--model-error", "0.06", "--review-seconds", "8"),
)


@pytest.fixture
def gateway(config: Config) -> Iterator[Gateway]:
    """A real gateway that says where it answers, as `demur serve` does."""
    with live_gateway.running(live_gateway.settings(config)) as running:
        presence.announce(
            config.data_folder, "serve", presence.Running(pid=os.getpid(), addresses={"grpc": running.address})
        )
        yield running


async def test_a_plan_says_what_a_promise_costs(config: Config) -> None:
    """Audits, days, hours of people; what does not fit, with its way out; and what is missing to say anything."""
    assert config.data_folder
    code, said = await demur("certificate", "plan", "digits", "--alpha", "0.01", *KNOWN)
    assert code == 0, said
    assert "about 876 audits" in said
    assert "hours of people" in said
    assert "problem" not in said
    code, said = await demur("certificate", "plan", "digits", "--alpha", "0.01", "--reviews-per-hour", "60", *KNOWN)
    assert code == 0, said
    assert "problem: reviews_per_hour_max 60" in said
    assert "--until-proved answer" in said
    enough = ("--reviews-per-hour", "400", "--until-proved", "answer", *KNOWN)
    code, said = await demur("certificate", "plan", "digits", "--alpha", "0.01", *enough)
    assert code == 0, said
    assert "problem" not in said
    code, said = await demur("certificate", "plan", "digits", "--alpha", "0.01")
    assert code == 2
    assert "there is no evidence of digits yet, so say --requests-per-hour, --coverage, --true-error" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--expire-days", "-1", *KNOWN), "--expire-days: expected a number above 0 and at most 3650, got -1"),
        (
            ("--reviews-per-hour", "-5", *KNOWN),
            "--reviews-per-hour: expected a number above 0 and at most 1000000, got -5",
        ),
        (("--audit-share", "0", *KNOWN), "--audit-share: expected a share in (0, 1], got 0.0"),
        (("--delta", "2", *KNOWN), "--delta: expected a share above 0 and at most 0.5, got 2.0"),
        (("--requests-per-hour", "-3", *KNOWN[2:]), "--requests-per-hour: expected a number above 0, got -3.0"),
        (("--coverage", "1.5", *KNOWN[:2], *KNOWN[4:]), "--coverage: expected a share in (0, 1], got 1.5"),
        (
            ("--coverage", "0.8", "--true-error", "0.09", "--model-error", "0.05", *KNOWN[:2]),
            "--true-error: 0.09 of the answered 0.8 are 0.072 of all requests, but --model-error says that 0.05",
        ),
    ],
)
async def test_what_is_wrong_is_named_as_it_was_typed(config: Config, options: tuple[str, ...], sentence: str) -> None:
    """One option, what is expected and what came."""
    assert config.data_folder
    code, said = await demur("certificate", "plan", "digits", "--alpha", "0.01", *options)
    assert code == 2
    assert sentence in said


async def test_what_nobody_sampled_cannot_be_verified_or_shown(config: Config) -> None:
    """The sentence says where was looked."""
    for command in (("verify",), ("verify", "digits"), ("certificate", "show")):
        code, said = await demur(*command)
        assert code == 2
        assert f"under {config.data_folder / 'chains'}" in said.replace(" ", " ")


async def test_a_promise_is_checked_before_anything_changes(config: Config, gateway: Gateway) -> None:
    """One that cannot be kept is refused; one that can is in the policy, and nothing else there changed."""
    assert gateway.address
    code, said = await demur("train", "--first", "digits", "--as", "digits")
    assert code == 0, said
    hopeless = ("--true-error", "0.02", *KNOWN[:4], *KNOWN[6:])
    code, said = await demur("certificate", "promise", "digits", "--alpha", "0.01", *hopeless)
    assert code == 1
    assert "cannot be proved" in said
    assert "nothing was changed" in said
    code, said = await demur("certificate", "promise", "digits", "--alpha", "0.01", "--expire-days", "-1")
    assert (code, "--expire-days: expected a number above 0 and at most 3650, got -1" in said) == (2, True), said
    async with client(config) as calls:
        before = await calls.get_policy("digits")
        assert not before.HasField("alpha")
        wishes = ("--audit-share", "0.2", "--until-proved", "answer")
        code, said = await demur("certificate", "promise", "digits", "--alpha", "0.05", *wishes)
        assert code == 0, said
        assert "not planned: nothing is known of the work of digits yet" in said
        after = await calls.get_policy("digits")
        assert (after.alpha, after.delta, after.audit_share) == (0.05, 0.05, 0.2)
        assert (before.until_proved, after.until_proved) == ("ask", "answer")
        assert (after.threshold, after.expire_days) == (before.threshold, 30.0)
        code, said = await demur("certificate", "promise", "digits", "--alpha", "0.04", "--coverage", "0.5")
        assert (code, "so say all of it: --requests-per-hour, --true-error, --model-error" in said) == (2, True), said
        code, said = await demur("certificate", "promise", "digits", "--alpha", "0.01", "--anyway", *hopeless)
        assert code == 0, said
        assert "problem: alpha 0.01 cannot be proved" in said
        assert (await calls.get_policy("digits")).alpha == 0.01
