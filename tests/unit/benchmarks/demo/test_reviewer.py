"""What the demo's reviewers answer."""

from __future__ import annotations

from benchmarks.demo.reviewer import answer

LABELS = tuple("0123456789")


def test_a_reviewer_errs_in_the_share_it_is_given() -> None:
    """About two in a hundred, drawn from the image's content."""
    images = [b"image %d" % number for number in range(10_000)]
    wrong = sum(answer(image, "3", LABELS, seed=7, error_share=0.02) != "3" for image in images)
    assert 150 < wrong < 250


def test_an_error_is_another_of_the_tasks_labels_and_the_same_one_each_time() -> None:
    """Whoever leases the item, the answer is the same for the same seed."""
    given = {answer(b"image", "3", LABELS, seed=seed, error_share=1.0) for seed in range(200)}
    assert given == set(LABELS) - {"3"}
    assert len({answer(b"image", "3", LABELS, seed=1, error_share=1.0) for _ in range(5)}) == 1


def test_a_share_of_zero_never_errs() -> None:
    """A perfect reviewer is one setting away."""
    assert all(answer(b"%d" % n, "3", LABELS, seed=0, error_share=0.0) == "3" for n in range(500))
