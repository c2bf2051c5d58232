"""What a batch's outputs are worth: the policy's decisions, with the draws that audits and evidence are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Final, Protocol

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway.champion import Live
from gateway.confidence import Scorer, confidence, score, tempered
from gateway.hold_off import HoldOff
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from gateway.request import row_key
from gateway.rules import Decisions, Wish
from gateway.samples import epoch_secret
from gateway.sampling import Epoch, Sampled, record
from gateway.shadow import Asked, Opinion, runs
from gateway.tensor import Array

# How many draws are made at a time: one by one, each would cost a call.
_DRAWN: Final = 512

log = structlog.get_logger(__name__)


class Judged(Asked, Protocol):
    """A request under way, as far as it is judged."""

    @property
    def key(self) -> str:
        """What names it for the draws."""

    @property
    def wish(self) -> Wish:
        """What the client asked for."""

    @property
    def repeats(self) -> bool:
        """Whether its client gave it a key, under which it may be asked again."""

    @property
    def earlier(self) -> frozenset[int]:
        """Which of its rows were deferred before."""


class Judge:
    """One model's. `judge` from any thread; batches take turns."""

    def __init__(
        self, model: str, *, recorder: Recorder, hold_off: HoldOff, metrics: Metrics, secret: bytes, pixels_max: int
    ) -> None:
        self._model = model
        self._recorder = recorder
        self._hold_off = hold_off
        self._metrics = metrics
        self._secret = secret
        self._pixels_max = pixels_max
        # Challengers that said nothing of a row, once at least.
        self._silent: set[str] = set()
        self._epoch: Epoch | None = None
        self._refusing = False
        self._lock = Lock()
        # Draws of requests that nobody can ask again, for audits that prove nothing; a part is used, from the front.
        self._chance = np.random.default_rng()
        self._drawn = self._chance.random(_DRAWN)
        self._used = 0

    def judge(
        self, jobs: Sequence[Judged], live: Live, outputs: dict[str, Array], rows: int, *, plain: bool = False
    ) -> tuple[Decisions | None, Sampled | None]:
        """Return what each row is worth, None where nothing judges the model; and what was recorded as evidence.

        `plain`: no request wishes anything or has a key of its client's.
        """
        if not live.manifest.labels:
            return None, None
        with self._lock:
            if live.judged and live.rules.sampled:
                return self._sample(jobs, live, outputs, rows)
            return self._decide(() if plain else jobs, live, outputs, rows, None, int(time.time())), None

    def _sample(
        self, jobs: Sequence[Judged], live: Live, outputs: dict[str, Array], rows: int
    ) -> tuple[Decisions, Sampled]:
        """Judge a batch of a model under certification, and record what is sampled before anybody is answered."""
        epoch = self._certified_epoch(live)
        with self._recorder.turn(_lost(live)) as turn:
            decisions = self._decide(jobs, live, outputs, rows, epoch, turn.second)
            held_off = self._hold_off.why(live.manifest.review_queue) if decisions.all_asked else None
            asked = bool(live.challengers) and held_off is None and turn.trouble is None
            opinions = self._opinions(jobs, live, decisions, turn.second) if asked else {}
            sampled = record(turn, jobs, live, decisions, epoch, held_off, opinions)
        self._tell(sampled)
        return decisions, sampled

    def _opinions(
        self, jobs: Sequence[Judged], live: Live, decisions: Decisions, second: int
    ) -> dict[int, list[Opinion]]:
        """Return what challengers say of the rows that are sampled, by row of the batch."""
        chosen = decisions.deferred | decisions.audited
        firsts = {id(job): first for job, first in _placed(jobs) if chosen[first : first + job.rows].any()}
        asked = [job for job in jobs if id(job) in firsts]
        found: dict[int, list[Opinion]] = {}
        for challenger in live.challengers:
            with challenger.acquire() as other:
                if other is None or other.version.version == live.version.version:
                    continue
                said = 0
                for part, outputs in runs(other, asked, pixels_max=self._pixels_max):
                    for job, place, judged in self._shadowed(part, other, outputs, second):
                        for row in np.flatnonzero(chosen[firsts[id(job)] : firsts[id(job)] + job.rows]).tolist():
                            opinion = Opinion(live=other, decisions=judged, row=place + row)
                            found.setdefault(firsts[id(job)] + row, []).append(opinion)
                            said += 1
                self._tell_silent(other.version.version, int(chosen.sum()) - said)
        return found

    def _tell_silent(self, version: str, rows: int) -> None:
        """Count rows of which a challenger said nothing, which are errors of it."""
        if not rows:
            return
        self._metrics.shadow_silent.labels(self._model, version).inc(rows)
        if version not in self._silent:
            self._silent.add(version)
            log.warning("a challenger does not take what is asked, or fails", model=self._model, version=version)

    def _shadowed(
        self, jobs: Sequence[Judged], live: Live, outputs: dict[str, Array], second: int
    ) -> Iterator[tuple[Judged, int, Decisions]]:
        """Yield each job with the place of its rows in a challenger's decisions; nothing where these go wrong."""
        try:
            judged = self._decide(jobs, live, outputs, sum(job.rows for job in jobs), None, second)
        except InvalidError:
            return
        for job, place in _placed(jobs):
            yield job, place, judged

    def _tell(self, sampled: Sampled) -> None:
        refusing = sampled.refusal is not None and sampled.due > 0
        if sampled.refusal is not None and refusing:
            self._metrics.unsampled.labels(self._model).inc(sampled.due)
            if not self._refusing:
                log.error("what would be sampled is not", model=self._model, error=sampled.refusal.message)
        elif sampled.records:
            self._metrics.sampled.labels(self._model).inc(sampled.records)
        if sampled.due:
            self._refusing = refusing

    def _decide(
        self,
        jobs: Sequence[Judged],
        live: Live,
        outputs: dict[str, Array],
        rows: int,
        epoch: Epoch | None,
        second: int,
    ) -> Decisions:
        scores = _scores(outputs, rows, live)
        activation, scorer = live.manifest.output.activation, live.rules.scorer
        sure, predicted = confidence(scores, activation)
        ranked = sure
        if scorer is not Scorer.MAX_SOFTMAX:
            ranked = score(scores, activation, scorer, live.manifest.correctness)[0]
        decisions = live.rules.decide(
            confidence=sure,
            predicted=predicted,
            scores=ranked,
            second=second,
            wishes=_wishes(jobs, rows) if jobs else None,
            draws=self._draws(jobs, rows, live, epoch),
            earlier=_earlier(jobs, rows) if jobs else None,
        )
        heat = live.manifest.temperature
        if heat == 1:
            return decisions
        return msgspec.structs.replace(decisions, shown=tempered(scores, activation, heat))

    def _draws(self, jobs: Sequence[Judged], rows: int, live: Live, epoch: Epoch | None) -> NDArray[np.float64] | None:
        """Return each row's draw; None where nobody is asked."""
        if not live.judged:
            return None
        if epoch is None and not jobs:
            return self._chances(rows)
        # A version's own epoch, for its audits say nothing of another's.
        used = epoch or Epoch(model=self._model, name=live.version.version, secret=self._secret)
        if epoch is None:
            draws = self._chances(rows).copy()
            jobs_drawn = [(job, place) for job, place in _placed(jobs) if job.repeats]
        else:
            draws = np.empty(rows)
            jobs_drawn = _placed(jobs)
        for job, place in jobs_drawn:
            for row in range(job.rows):
                draws[place + row] = used.draw(row_key(job.key, row, job.rows))
        return draws

    def _chances(self, rows: int) -> NDArray[np.float64]:
        """Return so many draws, to look at."""
        first, self._used = self._used, self._used + rows
        if self._used > len(self._drawn):
            self._drawn = self._chance.random(max(_DRAWN, rows))
            first, self._used = 0, rows
        return self._drawn[first : self._used]

    def _certified_epoch(self, live: Live) -> Epoch:
        """Return the epoch that the certifier named; its secret is made once."""
        proved = live.rules.certification
        assert proved is not None, "what is sampled has a certification"
        if self._epoch is None or self._epoch.name != proved.epoch:
            secret = epoch_secret(self._secret, model=self._model, epoch=proved.epoch)
            self._epoch = Epoch(model=self._model, name=proved.epoch, secret=secret)
        return self._epoch


def _lost(live: Live) -> Mapping[str, str]:
    proved = live.rules.certification
    return {} if proved is None else proved.lost


def _placed(jobs: Sequence[Judged]) -> list[tuple[Judged, int]]:
    """Return the jobs, each with the row of the batch that its rows begin at."""
    found, place = [], 0
    for job in jobs:
        found.append((job, place))
        place += job.rows
    return found


def _scores(outputs: dict[str, Array], rows: int, live: Live) -> Array:
    """Return the scores that the answer is read from, one a label; shape (rows, labels)."""
    scores, labels = outputs[live.manifest.output.tensor], len(live.manifest.labels)
    if scores.size != rows * labels:
        raise InvalidError(
            f"inputs: for these the model gives scores of shape {list(scores.shape)}; expected {labels} a row, one a "
            f"label"
        )
    return scores.reshape(rows, labels)


def _wishes(jobs: Sequence[Judged], rows: int) -> NDArray[np.int8] | None:
    wishes = [job.wish for job in jobs]
    if not any(wishes):
        return None
    found = np.array(wishes, np.int8)
    return found if rows == len(jobs) else np.repeat(found, [job.rows for job in jobs])


def _earlier(jobs: Sequence[Judged], rows: int) -> NDArray[np.bool_] | None:
    if not any(job.earlier for job in jobs):
        return None
    found = np.zeros(rows, np.bool_)
    for job, first in _placed(jobs):
        found[[first + row for row in job.earlier]] = True
    return found
