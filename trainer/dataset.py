"""The examples that a model learns from and is judged by: imported ones, and what people said of live requests.

An input belongs to training or to the hold-out for good: imported examples as the first file says that has them, live
ones by a hash of their numbers, so that neither time, order nor a second label moves one across. An input that is in
the hold-out is never trained on, in whatever form it comes again; one that may have been trained on before it was
imported to judge by does neither from then on. Of several labels for one live input the latest counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from fallback.answer import CantTell, Label
from fallback.errors import InvalidError
from gateway.manifest import Manifest
from trainer.contents import Contents
from trainer.examples import Example, Origin, decode_inputs, fingerprint, nan_row
from trainer.imports import Imported, Split
from trainer.ledger import Row

_HASH_DIGITS: Final = 13


class Skip(StrEnum):
    """Why an outcome is not learned from."""

    NO_ANSWER = "no_answer"
    UNREVIEWED = "unreviewed"
    CANT_TELL = "cant_tell"
    OTHER_KIND = "other_kind"
    UNKNOWN_LABEL = "unknown_label"
    NO_INPUTS = "no_inputs"
    ERASED = "erased"
    UNREADABLE = "unreadable"
    NOT_A_NUMBER = "not_a_number"
    DUPLICATE = "duplicate"
    TRAINED_ON = "trained_on"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What a dataset was made of; `skipped` by reason, rows and imported examples together."""

    rows: int
    imported: int
    train: int
    holdout: int
    fresh: int
    replayed: int
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Examples to train on and examples to judge by; no fingerprint is in both. `digest` (sha256, hex) names it all."""

    train: tuple[Example, ...]
    holdout: tuple[Example, ...]
    counts: Counts
    digest: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`holdout_share` in (0, 1); `replay_examples_max` bounds the examples that the live version knew already."""

    holdout_share: float
    replay_examples_max: int


def label_of(row: Row, labels: Mapping[str, int]) -> int | Skip:
    """Return the index of the label that a person gave, or why the row is not learned from."""
    if row.answer is None:
        return Skip.NO_ANSWER
    if not row.reviewed:
        return Skip.UNREVIEWED
    if isinstance(row.answer, CantTell):
        return Skip.CANT_TELL
    if not isinstance(row.answer, Label):
        return Skip.OTHER_KIND
    if row.answer.label not in labels:
        return Skip.UNKNOWN_LABEL
    return labels[row.answer.label] if row.inputs_digest else Skip.NO_INPUTS


def labelled(rows: Iterable[Row], labels: Sequence[str]) -> int:
    """Count the rows that can be learned from, as far as the ledger knows."""
    known = {label: index for index, label in enumerate(labels)}
    return sum(not isinstance(label_of(row, known), Skip) for row in rows)


def build(
    manifest: Manifest,
    rows: Sequence[Row],
    imported: Sequence[Imported],
    contents: Contents,
    *,
    trained_row: int,
    limits: Limits,
    go_on: Callable[[], None] = lambda: None,
) -> Dataset:
    """Put the examples together; `rows` and `imported` oldest first, rows after `trained_row` are fresh.

    Every content is read and checked once here; none is kept in memory. `go_on` is called before each row; what it
    raises ends the work.
    """
    gathering = _Gathering(manifest, contents)
    for file in imported:
        for digest, label in file.examples:
            gathering.add_imported(digest, label, file)
    for row in rows:
        go_on()
        gathering.add_row(row, fresh=row.row > trained_row)
    return gathering.dataset(len(rows), sum(len(file.examples) for file in imported), limits)


def in_holdout(mark: str, share: float) -> bool:
    """Say whether the live input with fingerprint `mark` (sha256, hex) is held out; the same for ever."""
    return int(mark[:_HASH_DIGITS], 16) < share * 16**_HASH_DIGITS


class _Gathering:
    def __init__(self, manifest: Manifest, contents: Contents) -> None:
        self._manifest = manifest
        self._contents = contents
        self._labels = {label: index for index, label in enumerate(manifest.labels)}
        self._pinned: dict[str, Imported] = {}
        self._known_before: set[str] = set()
        self._examples: dict[str, Example] = {}
        self._marks: dict[str, str | Skip] = {}
        self._skipped: dict[str, int] = {}

    def add_imported(self, digest: str, label: str, file: Imported) -> None:
        index, mark = self._labels.get(label), self._mark(digest)
        if index is None or isinstance(mark, Skip):
            self._skip(Skip.UNKNOWN_LABEL if index is None else Skip(mark))
            return
        if mark in self._examples:
            self._skip(Skip.DUPLICATE)
        if self._pinned.setdefault(mark, file).split is not file.split:
            return
        self._examples[mark] = Example(
            digest=digest, fingerprint=mark, label=index, origin=Origin.IMPORTED, fresh=False
        )

    def add_row(self, row: Row, *, fresh: bool) -> None:
        label = label_of(row, self._labels)
        mark = label if isinstance(label, Skip) else self._mark(row.inputs_digest)
        if isinstance(label, Skip) or isinstance(mark, Skip):
            self._skip(Skip(mark))
            return
        if mark in self._examples:
            self._skip(Skip.DUPLICATE)
        pinned = self._pinned.get(mark)
        if pinned is not None and row.row <= pinned.after_row:
            self._known_before.add(mark)
        # What was imported to judge by is the reference: a reviewer's slip does not change it.
        if pinned is None or pinned.split is not Split.HOLDOUT:
            self._examples[mark] = Example(
                digest=row.inputs_digest, fingerprint=mark, label=label, origin=Origin.LIVE, fresh=fresh
            )

    def dataset(self, rows: int, imported: int, limits: Limits) -> Dataset:
        train: list[Example] = []
        holdout: list[Example] = []
        for mark, example in sorted(self._examples.items()):
            pinned, by_hash = self._pinned.get(mark), in_holdout(mark, limits.holdout_share)
            held = by_hash if pinned is None else pinned.split is Split.HOLDOUT
            if pinned is not None and held and mark in self._known_before and not by_hash:
                self._skip(Skip.TRAINED_ON)
            else:
                (holdout if held else train).append(example)
        fresh = [example for example in train if example.fresh]
        # Fingerprints are as good as random and never change: the first of them are a stable sample.
        replayed = [example for example in train if not example.fresh][: limits.replay_examples_max]
        chosen = sorted([*fresh, *replayed], key=lambda example: example.fingerprint)
        counts = Counts(
            rows=rows,
            imported=imported,
            train=len(chosen),
            holdout=len(holdout),
            fresh=len(fresh),
            replayed=len(replayed),
            skipped=dict(sorted(self._skipped.items())),
        )
        return Dataset(train=tuple(chosen), holdout=tuple(holdout), counts=counts, digest=_digest(chosen, holdout))

    def _mark(self, digest: str) -> str | Skip:
        """Return the fingerprint of a content; each is read once."""
        if digest not in self._marks:
            self._marks[digest] = self._read(digest)
        return self._marks[digest]

    def _read(self, digest: str) -> str | Skip:
        content = self._contents.get(digest)
        if content is None:
            return Skip.ERASED
        try:
            inputs = decode_inputs(content, self._manifest.inputs, batched=self._manifest.batched)
        except InvalidError:
            return Skip.UNREADABLE
        # Examples that an earlier release imported were not looked at.
        if self._manifest.forbid_nan and any(nan_row(values) is not None for values in inputs.values()):
            return Skip.NOT_A_NUMBER
        return fingerprint(inputs)

    def _skip(self, why: Skip) -> None:
        self._skipped[why.value] = self._skipped.get(why.value, 0) + 1


def _digest(train: Sequence[Example], holdout: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for part, examples in (("train", train), ("holdout", holdout)):
        for example in examples:
            digest.update(f"{part} {example.fingerprint} {example.label}\n".encode())
    return digest.hexdigest()
