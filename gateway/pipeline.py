"""The hot path of one model: a request is prepared, waits, is run in a batch, judged, and answered or declined.

Everything between the service that read the request and the reply happens here, on two kinds of threads: few that read
images, and the batcher's own, which runs the model. The live version and its policy are read once a batch.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import structlog
from numpy.typing import NDArray

from fallback.errors import DemurError, InvalidError, NotFoundError, StateError
from gateway.batcher import Batcher
from gateway.champion import Champion, Hold, Live
from gateway.confidence import Scorer, confidence, score
from gateway.deferring import Declined, Deferring
from gateway.intake import Prepared, join, prepare
from gateway.internal import told
from gateway.metrics import Metrics
from gateway.parking import Sampling, digest
from gateway.policy import STRENGTH, Decisions, Wish
from gateway.reader import Reader
from gateway.recorder import Recorder
from gateway.remembered import Remembered
from gateway.request import Request, Result, Waiter, row_key
from gateway.samples import epoch_secret
from gateway.sampling import Epoch, Sampled, record
from gateway.tensor import Array

log = structlog.get_logger(__name__)


class Job:
    """A request under way: what was asked, its rows, who waits, and since when. Ends in one `answer` or `fail`."""

    __slots__ = ("_metrics", "_remembered", "_waiter", "digest", "earlier", "pinned", "prepared", "request", "since")

    def __init__(self, request: Request, waiter: Waiter, metrics: Metrics, remembered: Remembered) -> None:
        self.request = request
        self.prepared: Prepared
        self.pinned: Hold | None = None
        self.since = time.monotonic()
        self.digest = ""
        self.earlier: frozenset[int] = frozenset()
        self._waiter = waiter
        self._metrics = metrics
        self._remembered = remembered

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch."""
        return self.prepared.rows

    @property
    def group(self) -> Hashable:
        """What it may be run together with."""
        return self.request.version, self.prepared.shape

    @property
    def deadline(self) -> float | None:
        """When its caller stops waiting, by time.monotonic()."""
        return self.request.deadline

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._waiter.cancelled

    def answer(self, result: Result) -> None:
        """Reply, and remember what the idempotency key was used for."""
        self._release()
        request = self.request
        if request.idempotency_key:
            self._remembered.keep(request.request_key, self.digest, frozenset(result.deferrals))
        worth = max((result.decision(row) for row in range(result.rows)), key=STRENGTH.__getitem__)
        self._metrics.requests.labels(request.model, worth.value, "OK").inc()
        try:
            self._waiter.answer(result)
        except Exception as error:  # noqa: BLE001 - one caller's trouble is its own: the others' replies go on
            self._waiter.fail(told(error, model=request.model))

    def fail(self, error: DemurError) -> None:
        """Refuse."""
        self._release()
        self._metrics.requests.labels(self.request.model, "", error.code.name).inc()
        self._waiter.fail(error)

    def _release(self) -> None:
        if self.pinned is not None:
            self.pinned.release()


class Pipeline:
    """One model's. `submit` and `champion.set_policy` from any thread; `swapped` after each swap."""

    def __init__(
        self,
        model: str,
        champion: Champion,
        *,
        deferring: Deferring,
        reader: Reader,
        remembered: Remembered,
        recorder: Recorder,
        metrics: Metrics,
        secret: bytes,
        queue_rows_max: int,
        linger_us: int,
        pixels_max: int,
    ) -> None:
        self.model = model
        self.champion = champion
        self._deferring = deferring
        self._reader = reader
        self._remembered = remembered
        self._recorder = recorder
        self._metrics = metrics
        self._secret = secret
        self._epoch: Epoch | None = None
        self._refusing = False
        self._pixels_max = pixels_max
        self._batcher: Batcher[Job] = Batcher(
            model, self._execute, rows_max=1, queue_rows_max=queue_rows_max, linger_us=linger_us
        )
        metrics.queue_rows.labels(model).set_function(lambda: self._batcher.rows)
        self._batcher.start()

    def swapped(self, live: Live) -> None:
        """Take over what the live version says of batches."""
        self._batcher.rows_max = live.intake.rows_max

    def close(self, grace_seconds: float) -> None:
        """Run what waits for up to `grace_seconds`, then free the model."""
        self._batcher.close(grace_seconds=grace_seconds)
        self.champion.close()

    def submit(self, request: Request, waiter: Waiter) -> None:
        """Take one request; its waiter is told everything, refusals included. Does not block."""
        job = Job(request, waiter, self._metrics, self._remembered)
        try:
            live = self._live(request)
            if request.version:
                job.pinned = self._pin(request.version)
            if request.subject is not None and not request.tensors:
                self._reader.submit(lambda: self._admit(job, live))
                return
        except DemurError as error:
            job.fail(error)
            return
        self._admit(job, live)

    def _live(self, request: Request) -> Live:
        live = self.champion.live
        if live is None:
            raise NotFoundError(f"model {self.model!r} has no live version; promote one")
        if request.version and request.version != live.version.version:
            raise self._no_version(request.version, live)
        if request.wish is Wish.PERSON and not live.judged:
            raise StateError(f"model {self.model!r} was published without labels and a task to ask a person about")
        return live

    def _no_version(self, version: str, live: Live) -> NotFoundError:
        return NotFoundError(
            f"model {self.model!r} has no version {version[:20]!r} loaded; loaded is {live.version.version}",
        )

    def _pin(self, version: str) -> Hold:
        """Hold the version that was asked for, so that a swap does not take it away before its turn."""
        hold = self.champion.hold()
        if hold is None or hold.live.version.version != version:
            if hold is not None:
                hold.release()
            raise NotFoundError(f"model {self.model!r} has no version {version[:20]!r} loaded any more")
        return hold

    def _admit(self, job: Job, live: Live) -> None:
        """Prepare the rows and let them wait for a run."""
        try:
            request = job.request
            job.prepared = prepare(request, live.intake, pixels_max=self._pixels_max)
            if request.idempotency_key:
                job.digest = digest(request.model, request.tensors, request.subject)
                job.earlier = self._remembered.check(request.request_key, job.digest)
            self._batcher.submit(job)
        except Exception as error:  # noqa: BLE001 - the root of a reader's work: the caller is told
            job.fail(told(error, model=self.model))

    def _execute(self, jobs: Sequence[Job]) -> None:
        """Run one batch of jobs that fit together, and reply to each."""
        pinned = jobs[0].pinned
        if pinned is not None:
            self._run(jobs, self.champion.renewed(pinned.live))
            return
        with self.champion.acquire() as live:
            if live is None:
                raise NotFoundError(f"model {self.model!r} has no live version any more; promote one")
            fresh = [job for job in jobs if job.prepared.intake is live.intake or job.prepared.intake == live.intake]
            if fresh:
                self._run(fresh, live)
            if len(fresh) < len(jobs):
                done = set(map(id, fresh))
                for job in jobs:
                    if id(job) not in done:
                        # Prepared for a version that took other input; it waits once more, in the group it fits now.
                        self._admit(job, live)

    def _run(self, jobs: Sequence[Job], live: Live) -> None:
        rows = sum(job.rows for job in jobs)
        if len(jobs) > 1 and rows > live.intake.rows_max:
            # Formed by the bound of the version before; the batcher halves what fails until it fits.
            raise StateError(f"version {live.version.version} takes {live.intake.rows_max} rows at a time, not {rows}")
        start = time.monotonic()
        outputs = live.model.run(join([job.prepared for job in jobs]))
        compute = time.monotonic() - start
        _check_rows(outputs, rows, live)
        # What an alarm took back while the model ran is not answered by any more.
        live = self.champion.renewed(live)
        decisions: Decisions | None
        sampled: Sampled | None = None
        if live.judged and live.rules.sampled:
            decisions, sampled = self._sample(jobs, live, outputs, rows)
        else:
            decisions = self._judge(jobs, live, outputs, rows, self._version_epoch(live))
        self._metrics.batch_rows.labels(self.model).observe(rows)
        self._metrics.stage_seconds.labels(self.model, "compute").observe(compute)
        queued = self._metrics.stage_seconds.labels(self.model, "queue")
        common = Result(
            model=self.model,
            version=live.version.version,
            labels=live.manifest.labels,
            outputs={},
            rows=0,
            decisions=decisions,
            judged=live.judged,
            answer_output=live.manifest.output.tensor,
            on_deferral=live.manifest.on_deferral or "",
            compute_seconds=compute,
        )
        declined: list[Declined] = []
        first = 0
        for job in jobs:
            queued.observe(start - job.since)
            result = replace(
                common,
                outputs=_rows(outputs, first, job.rows, batched=live.intake.batched),
                rows=job.rows,
                first=first,
                queue_seconds=start - job.since,
            )
            self._settle(job, result, declined, sampled)
            first += job.rows
        if declined:
            self._deferring.take(declined, live)

    def _settle(self, job: Job, result: Result, declined: list[Declined], sampled: Sampled | None) -> None:
        """Answer, or add to `declined` what goes to a person; refuse what was to be sampled and could not be."""
        deferred: tuple[int, ...] = ()
        audited: tuple[int, ...] = ()
        samplings: dict[int, Sampling] = {}
        if result.judged and result.decisions is not None:
            part = slice(result.first, result.first + result.rows)
            deferred = tuple(np.flatnonzero(result.decisions.deferred[part]).tolist())
            audited = tuple(np.flatnonzero(result.decisions.audited[part]).tolist())
        if sampled is not None and (deferred or audited):
            if sampled.refusal is not None and not sampled.held:
                job.fail(sampled.refusal)
                return
            if sampled.refusal is not None and not job.earlier:
                held = Declined(asker=job, result=result, deferred=deferred, audited=())
                self._deferring.hold(held, sampled.refusal)
                return
            # Its audits are in the spool. Of who is held off and asks again nothing is recorded: the queue knows it.
            known = ((row, sampled.samplings.get(result.first + row)) for row in deferred)
            audited, samplings = (), {row: sampling for row, sampling in known if sampling is not None}
        if not deferred:
            job.answer(result)
        if deferred or audited:
            declined.append(Declined(asker=job, result=result, deferred=deferred, audited=audited, samplings=samplings))

    def _sample(
        self, jobs: Sequence[Job], live: Live, outputs: dict[str, Array], rows: int
    ) -> tuple[Decisions, Sampled]:
        """Judge a batch of a model under certification, and record what is sampled before anybody is answered."""
        epoch = self._certified_epoch(live)
        with self._recorder.turn() as turn:
            decisions = self._judge(jobs, live, outputs, rows, epoch, second=turn.second)
            assert decisions is not None, "only models with labels are under certification"
            held_off = self._deferring.hold_off.why(live.manifest.review_queue) if decisions.all_asked else None
            sampled = record(turn, jobs, live, decisions, epoch, held_off)
        refusing = sampled.refusal is not None and sampled.due > 0
        if sampled.refusal is not None and refusing:
            self._metrics.unsampled.labels(self.model).inc(sampled.due)
            if not self._refusing:
                log.error("what would be sampled is not", model=self.model, error=sampled.refusal.message)
        elif sampled.records:
            self._metrics.sampled.labels(self.model).inc(sampled.records)
        if sampled.due:
            self._refusing = refusing
        return decisions, sampled

    def _judge(
        self,
        jobs: Sequence[Job],
        live: Live,
        outputs: dict[str, Array],
        rows: int,
        epoch: Epoch,
        second: int | None = None,
    ) -> Decisions | None:
        if not live.manifest.labels:
            return None
        scores = _scores(outputs, rows, live)
        activation, scorer = live.manifest.output.activation, live.rules.scorer
        sure, predicted = confidence(scores, activation)
        ranked = sure if scorer is Scorer.MAX_SOFTMAX else score(scores, activation, scorer)[0]
        return live.rules.decide(
            confidence=sure,
            predicted=predicted,
            scores=ranked,
            second=int(time.time()) if second is None else second,
            wishes=np.repeat(np.array([job.request.wish for job in jobs], np.int8), [job.rows for job in jobs]),
            draws=_draws(jobs, rows, epoch) if live.judged else np.ones(rows),
            earlier=_earlier(jobs, rows),
        )

    def _version_epoch(self, live: Live) -> Epoch:
        """Return the epoch of draws that prove nothing: a version is one, for its audits say nothing of another's."""
        return Epoch(model=self.model, name=live.version.version, secret=self._secret)

    def _certified_epoch(self, live: Live) -> Epoch:
        """Return the epoch that the certifier named; its secret is made once."""
        proved = live.rules.certification
        assert proved is not None, "what is sampled has a certification"
        if self._epoch is None or self._epoch.name != proved.epoch:
            secret = epoch_secret(self._secret, model=self.model, epoch=proved.epoch)
            self._epoch = Epoch(model=self.model, name=proved.epoch, secret=secret)
        return self._epoch


def _draws(jobs: Sequence[Job], rows: int, epoch: Epoch) -> NDArray[np.float64]:
    """Return each row's draw."""
    draws = np.empty(rows)
    place = 0
    for job in jobs:
        for row in range(job.rows):
            draws[place] = epoch.draw(row_key(job.request.request_key, row, job.rows))
            place += 1
    return draws


def _check_rows(outputs: dict[str, Array], rows: int, live: Live) -> None:
    """Raise InvalidError where a row of an output could be taken for another caller's."""
    if not live.intake.batched:
        return
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise InvalidError(
                f"inputs: for these the model gives output {name!r} the shape {list(array.shape)}; expected {rows} rows"
            )


def _scores(outputs: dict[str, Array], rows: int, live: Live) -> Array:
    """Return the scores that the answer is read from, one a label; shape (rows, labels)."""
    scores, labels = outputs[live.manifest.output.tensor], len(live.manifest.labels)
    if scores.size != rows * labels:
        raise InvalidError(
            f"inputs: for these the model gives scores of shape {list(scores.shape)}; expected {labels} a row, one a "
            f"label"
        )
    return scores.reshape(rows, labels)


def _rows(outputs: dict[str, Array], first: int, rows: int, *, batched: bool) -> dict[str, Array]:
    return {name: array[first : first + rows] for name, array in outputs.items()} if batched else outputs


def _earlier(jobs: Sequence[Job], rows: int) -> NDArray[np.bool_] | None:
    if not any(job.earlier for job in jobs):
        return None
    found = np.zeros(rows, np.bool_)
    first = 0
    for job in jobs:
        found[[first + row for row in job.earlier]] = True
        first += job.rows
    return found
