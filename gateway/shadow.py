"""What challengers in shadow say of sampled requests: judged by what people say of these, and never answered by.

A challenger is asked about what is recorded as evidence and about nothing else, in the batch of the version that
serves, before anybody is answered: its word stands in the record before anybody can know the label. What it does not
say (it takes other inputs, its run fails) is left out, which counts as an error of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import msgspec

from fallback.answer import Label
from fallback.errors import DemurError
from gateway.champion import Live
from gateway.intake import Prepared, join, prepare
from gateway.internal import told
from gateway.request import Request
from gateway.rules import Decisions
from gateway.samples import Scored
from gateway.tensor import Array

_ANSWERS: Final = msgspec.json.Encoder(order="sorted")


class Asked(Protocol):
    """A request under way."""

    @property
    def request(self) -> Request:
        """What was asked."""

    @property
    def prepared(self) -> Prepared:
        """Its rows."""

    @property
    def rows(self) -> int:
        """How many."""


S = TypeVar("S", bound=Asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a version says of one row: number `row` of its `decisions`."""

    live: Live
    decisions: Decisions
    row: int

    @property
    def answer(self) -> Label:
        """Its answer."""
        return Label(self.live.manifest.labels[self.decisions.predicted[self.row]])

    def scored(self, *, evidence: bool) -> Scored:
        """Return it as a record has it; `evidence`: of its request's rows it is the one that counts."""
        return Scored(
            version=self.live.version.version,
            scorer=self.live.rules.scorer.value,
            confidence=float(self.decisions.scores[self.row]),
            prediction=_ANSWERS.encode(self.answer).decode(),
            eligible=evidence and bool(self.decisions.eligible[self.row]),
            eligibility=self.live.rules.policy.eligibility,
        )


def runs(live: Live, jobs: Sequence[S], *, pixels_max: int) -> Iterator[tuple[list[S], dict[str, Array]]]:
    """Run a challenger over requests, as many at a time as it takes, and yield these with its outputs.

    `pixels_max` bounds an image that it reads in its own way. Those that it does not take are left out.
    """
    for part, prepared in _parts(live, jobs, pixels_max):
        try:
            yield part, live.model.run(join(prepared))
        except Exception as error:  # noqa: BLE001 - a challenger's trouble is its own: who is served goes on
            told(error, where="shadow", model=live.version.model, version=live.version.version)


def _parts(live: Live, jobs: Sequence[S], pixels_max: int) -> Iterator[tuple[list[S], list[Prepared]]]:
    """Put requests together that fit into one run."""
    shapes: dict[Hashable, list[tuple[S, Prepared]]] = {}
    for job in jobs:
        prepared = job.prepared
        if prepared.intake is not live.intake and prepared.intake != live.intake:
            try:
                prepared = prepare(job.request, live.intake, pixels_max=pixels_max)
            except DemurError:
                continue
        shapes.setdefault(prepared.shape, []).append((job, prepared))
    for alike in shapes.values():
        part: list[tuple[S, Prepared]] = []
        for each in alike:
            if part and sum(prepared.rows for _, prepared in part) + each[1].rows > live.intake.rows_max:
                yield [job for job, _ in part], [prepared for _, prepared in part]
                part = []
            part.append(each)
        yield [job for job, _ in part], [prepared for _, prepared in part]
