"""The digits demo's last act: what is streamed, and what is said of it."""

from __future__ import annotations

import msgspec

from benchmarks.demo import certify
from benchmarks.demo.certify import Certified
from gateway.manifest import check
from trainer import digits

FOUND = Certified(
    model="digits",
    version="3",
    alpha=0.05,
    delta=0.05,
    stage="certified",
    requests=1000,
    failed=0,
    reviews=900,
    audits=300,
    audits_needed=130,
    tau=0.4,
    coverage=0.9,
    risk=0.011,
    coverage_stream=0.5,
    realised_error=0.01,
    violations=0,
    advice="",
)


def test_the_copy_declares_what_the_version_does_and_is_never_trained() -> None:
    """Under a name and in a queue of its own."""
    manifest = msgspec.structs.replace(digits.manifest("digits"), version="3", files={"model.onnx": "0"}, queue="q")
    copied = certify.copy(manifest)
    check(copied)
    assert (copied.model, copied.review_queue, copied.version) == ("digits-certified", "digits-certified", "")
    assert not copied.training.enabled
    assert copied.provenance == {"copy_of": "models/digits/versions/3"}
    assert (copied.labels, copied.task, copied.output) == (manifest.labels, manifest.task, manifest.output)


def test_what_came_of_it_is_said_in_a_sentence() -> None:
    """A certificate with what it is worth, or how many audits are missing."""
    assert certify.sentence(FOUND) == (
        "version 3 is certified (at most 5% wrong, with 95% confidence) after 300 audits: from now on it answers 90% "
        "of the requests by itself, 1.1% of them wrong in truth; while this was proved it answered 50% of 1000, 1.0% "
        "of them wrong"
    )
    missing = msgspec.structs.replace(FOUND, tau=None, advice="more of it")
    assert "version 3 is not certified" in certify.sentence(missing)
    assert "about 130 more audits are missing; more of it" in certify.sentence(missing)
    unknown = msgspec.structs.replace(missing, audits_needed=None)
    assert "nobody can tell how many more audits are missing" in certify.sentence(unknown)


def test_it_is_promised_that_one_of_the_two_is_said() -> None:
    """And that no request failed."""
    assert [check.ok for check in certify.judge(FOUND)] == [True, True]
    assert [check.ok for check in certify.judge(msgspec.structs.replace(FOUND, tau=None))] == [True, True]
    broken = msgspec.structs.replace(FOUND, tau=None, audits_needed=None, failed=1)
    assert [check.ok for check in certify.judge(broken)] == [False, False]
