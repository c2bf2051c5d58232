from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.answer import Answer, CantTell, Label, Number
from fallback.deferral import Source
from gateway.manifest import Manifest, TensorSpec
from trainer.contents import Contents
from trainer.dataset import Dataset, Limits, Skip, build, in_holdout, label_of, labelled
from trainer.examples import Origin, encode_inputs, fingerprint
from trainer.imports import Imported, Split
from trainer.ledger import Row

MANIFEST = Manifest(
    model="m", labels=("a", "b"), inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1)),), batched=True
)
A = Label("a")
LIMITS = Limits(holdout_share=0.2, replay_examples_max=1000)


def content(value: float) -> bytes:
    return encode_inputs({"x": np.array([[value]], np.float32)})


def mark(value: float) -> str:
    return fingerprint({"x": np.array([[value]], np.float32)})


def row(
    number: int,
    digest: str,
    *,
    answer: Answer | None = A,
    reviewed: bool = True,
    source: Source = Source.PERSON,
) -> Row:
    return Row(
        row=number,
        model="m",
        source=source,
        answer=answer,
        prediction=Label("b"),
        reviewed=reviewed,
        audit=False,
        q=1.0,
        inputs_digest=digest,
    )


def assemble(
    contents: Contents,
    rows: list[Row],
    imported: list[Imported] | None = None,
    *,
    trained_row: int = 0,
    limits: Limits = LIMITS,
) -> Dataset:
    return build(MANIFEST, rows, imported or [], contents, trained_row=trained_row, limits=limits)


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "contents")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (row(1, "d", answer=None), Skip.NO_ANSWER),
        (row(1, "d", answer=None, reviewed=False, source=Source.CANCELLATION), Skip.NO_ANSWER),
        (row(1, "d", reviewed=False, source=Source.EXPIRY), Skip.UNREVIEWED),
        (row(1, "d", answer=CantTell()), Skip.CANT_TELL),
        (row(1, "d", answer=Number(1.0)), Skip.OTHER_KIND),
        (row(1, "d", answer=Label("c")), Skip.UNKNOWN_LABEL),
        (row(1, ""), Skip.NO_INPUTS),
        (row(1, "d", answer=Label("b")), 1),
    ],
)
def test_what_is_learned_from(changed: Row, why: Skip | int) -> None:
    """Only a label that a person gave and the model knows; everything else has its own name."""
    assert label_of(changed, {"a": 0, "b": 1}) == why
    assert labelled([changed], ("a", "b")) == (not isinstance(why, Skip))


def test_what_is_left_out_is_counted(contents: Contents) -> None:
    """Rows, reasons and examples add up."""
    digests = [contents.put(content(value)) for value in range(20)]
    contents.erase(digests[0])
    broken = contents.put(b"\xff")
    rows = [row(number, digest) for number, digest in enumerate(digests, start=1)]
    rows += [row(21, digests[1]), row(22, broken), row(23, digests[2], answer=CantTell())]
    made = assemble(contents, rows)
    assert made.counts.skipped == {"cant_tell": 1, "duplicate": 1, "erased": 1, "unreadable": 1}
    assert made.counts.rows == 23
    assert made.counts.train + made.counts.holdout == 19


@pytest.mark.parametrize("forbidden", [True, False])
def test_nan_is_learned_from_only_where_the_model_takes_it(contents: Contents, forbidden: bool) -> None:
    """Earlier releases imported it all the same."""
    kept = Imported(split=Split.TRAIN, examples=((contents.put(content(np.nan)), "a"), (contents.put(content(1)), "b")))
    manifest = msgspec.structs.replace(MANIFEST, forbid_nan=forbidden)
    made = build(manifest, [], [kept], contents, trained_row=0, limits=LIMITS)
    assert made.counts.skipped == ({"not_a_number": 1} if forbidden else {})
    assert made.counts.train == (1 if forbidden else 2)


def test_erasing_a_content_takes_only_that_example_away(contents: Contents) -> None:
    """Nothing breaks, and nothing else moves."""
    digests = [contents.put(content(value)) for value in range(30)]
    rows = [row(number, digest) for number, digest in enumerate(digests, start=1)]
    before = assemble(contents, rows)
    gone = before.train[0]
    contents.erase(gone.digest)
    after = assemble(contents, rows)
    assert set(after.train) == set(before.train) - {gone}
    assert after.holdout == before.holdout


def test_the_latest_label_of_an_input_counts(contents: Contents) -> None:
    """A second look corrects the first."""
    digest = contents.put(content(next(value for value in range(99) if not in_holdout(mark(value), 0.2))))
    made = assemble(contents, [row(1, digest, answer=Label("a")), row(2, digest, answer=Label("b"))])
    assert [example.label for example in made.train] == [1]


def test_the_imported_holdout_is_never_trained_on(contents: Contents) -> None:
    """Not when it comes as a request, not when it is imported to train, not when it is stored in another form."""
    value = next(value for value in range(99) if not in_holdout(mark(value), 0.2))
    digest = contents.put(content(value))
    other_form = contents.put(content(value) + b"\x0a\x00")
    pinned = Imported(split=Split.HOLDOUT, examples=((digest, "a"),))
    again = Imported(split=Split.TRAIN, examples=((digest, "b"),))
    made = assemble(contents, [row(1, digest, answer=Label("b")), row(2, other_form)], [pinned, again])
    assert made.train == ()
    assert [(example.label, example.origin) for example in made.holdout] == [(0, Origin.IMPORTED)]


def test_what_was_imported_to_train_stays_there(contents: Contents) -> None:
    """The file's word stands above the hash; a person's later label is taken."""
    value = next(value for value in range(99) if in_holdout(mark(value), 0.2))
    digest = contents.put(content(value))
    pinned = Imported(split=Split.TRAIN, examples=((digest, "a"),))
    made = assemble(contents, [row(1, digest, answer=Label("b"))], [pinned])
    assert made.holdout == ()
    assert [(example.label, example.fresh) for example in made.train] == [(1, True)]


def test_fresh_labels_and_a_bounded_sample_of_old_ones(contents: Contents) -> None:
    """Everything new is trained on; what the live version knew is replayed up to the limit, the same sample again."""
    digests = [contents.put(content(value)) for value in range(100)]
    rows = [row(number, digest) for number, digest in enumerate(digests, start=1)]
    limits = Limits(holdout_share=0.2, replay_examples_max=10)
    made = assemble(contents, rows, trained_row=50, limits=limits)
    assert made.counts.replayed == 10
    assert made.counts.fresh == sum(example.fresh for example in made.train) > 30
    more = assemble(contents, rows, trained_row=60, limits=limits)
    old = {example.fingerprint for example in made.train if not example.fresh}
    still = {example.fingerprint for example in more.train if not example.fresh}
    assert len(old & still) > 5, "the sample is stable while rows come in"


@settings(max_examples=50)
@given(values=st.lists(st.integers(0, 40), max_size=60), share=st.floats(0.05, 0.6), random=st.randoms())
def test_no_input_is_ever_on_both_sides(
    values: list[int], share: float, random: Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In any order, with repeats, however often more comes: an input stays on its side, and never on two."""
    contents = Contents(tmp_path_factory.mktemp("contents"))
    digests = [contents.put(content(value)) for value in values]
    rows = [row(number, digest) for number, digest in enumerate(digests, start=1)]
    limits = Limits(holdout_share=share, replay_examples_max=1000)
    whole = assemble(contents, rows, limits=limits)
    train = {example.fingerprint for example in whole.train}
    holdout = {example.fingerprint for example in whole.holdout}
    assert not train & holdout
    assert train | holdout == {mark(value) for value in values}
    part = assemble(contents, rows[: len(rows) // 2], limits=limits)
    assert {example.fingerprint for example in part.train} <= train
    assert {example.fingerprint for example in part.holdout} <= holdout
    random.shuffle(rows)
    assert assemble(contents, rows, limits=limits).digest == whole.digest


def test_the_share_held_out_is_the_share_asked_for() -> None:
    """By the hash of the numbers: near a fifth of many."""
    held = sum(in_holdout(mark(float(value)), 0.2) for value in range(4000))
    assert 0.17 < held / 4000 < 0.23


def test_the_first_file_that_has_an_input_says_what_it_is_for(contents: Contents) -> None:
    """Imported to train, then to judge by: it may have been trained on, so it does not judge."""
    digest = contents.put(content(1.0))
    train, holdout = (Imported(split=split, examples=((digest, "a"),)) for split in (Split.TRAIN, Split.HOLDOUT))
    made = assemble(contents, [], [train, holdout])
    assert (len(made.train), made.holdout) == (1, ())


def test_what_people_labelled_before_it_was_imported_to_judge_by_does_not_judge(contents: Contents) -> None:
    """It may have been trained on; what the hash held out, or what was labelled later, was not."""
    free, held = (next(v for v in range(99) if in_holdout(mark(v), 0.2) is side) for side in (False, True))
    digests = [contents.put(content(value)) for value in (free, held, free + 0.5)]
    imported = Imported(split=Split.HOLDOUT, examples=tuple((digest, "a") for digest in digests), after_row=2)
    rows = [row(number, digest) for number, digest in enumerate(digests, start=1)]
    made = assemble(contents, rows, [imported])
    assert made.train == ()
    assert {example.digest for example in made.holdout} == set(digests[1:])
    assert made.counts.skipped["trained_on"] == 1
