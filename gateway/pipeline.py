"""The hot path of one model: a request is prepared, waits, is run in a batch, judged, and answered or declined.

Everything between the service that read the request and the reply happens here, on few threads: those that read images,
the batcher's own, and the transport's where a run is so short that a hand-over would take longer. The live version and
its policy are read once a batch. There are two ways, and they end in the same: any request may be a `Job`; a plain one
is a `QuickJob` (`gateway.quick`), of which a batch costs little more than one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallback.errors import DemurError, NotFoundError, StateError
from gateway import portions, uniform
from gateway.batcher import Batcher
from gateway.champion import Champion, Hold, Live
from gateway.declined import Declined, parted
from gateway.deferring import Deferring
from gateway.intake import Intake, join, prepare
from gateway.internal import told
from gateway.job import Job
from gateway.joining import joined, with_nan
from gateway.judging import Judge
from gateway.kept import Kept
from gateway.metrics import Metrics
from gateway.model import CPU
from gateway.parking import Sampling
from gateway.question import Question
from gateway.quick import Answered, Fit, QuickJob, Wording, answer_all, fit
from gateway.reader import Reader
from gateway.recorder import Recorder
from gateway.remembered import Remembered
from gateway.request import Request, Result, Waiter
from gateway.rules import Decisions, Wish
from gateway.sampling import Sampled
from gateway.slabs import Slab
from gateway.slip import digest
from gateway.tensor import Array
from gateway.timer import Timer
from gateway.transport import Call
from gateway.tray import Tray
from gateway.turns import Shares
from gateway.waiting import end

# Questions of which it is known how they fit: at most, then all are looked at anew.
_FITS_MAX: Final = 512


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
        timer: Timer,
        shares: Shares,
        metrics: Metrics,
        secret: bytes,
        queue_rows_max: int,
        pixels_max: int,
        answers_kept: int = 0,
    ) -> None:
        self.model = model
        self.champion = champion
        self.kept = Kept(answers_kept)
        self._deferring = deferring
        self._reader = reader
        self._remembered = remembered
        self._metrics = metrics
        self._judge = Judge(
            model, recorder=recorder, hold_off=deferring.hold_off, metrics=metrics, secret=secret, pixels_max=pixels_max
        )
        self._pixels_max = pixels_max
        self._fits: dict[Question, tuple[Intake, Fit | None]] = {}
        self._runs = metrics.runs(model)
        self._queued = metrics.stage_seconds.labels(model, "queue")
        self.batcher: Batcher[Job | QuickJob] = Batcher(
            model, self._execute, timer=timer, shares=shares, queue_rows_max=queue_rows_max
        )
        metrics.queue_rows.labels(model).set_function(lambda: self.batcher.rows)
        self._queue_rows_max = queue_rows_max
        self._tray = Tray()

    def swapped(self, live: Live) -> None:
        """Take over what the live version says of batches."""
        self.batcher.configure(
            live.manifest.batching,
            rows_max=live.way.rows_max,
            instances=live.way.instances,
            on_cores=live.model.provider == CPU,
        )

    def close(self, grace_seconds: float) -> None:
        """Run what waits for up to `grace_seconds`, then free the model."""
        self.batcher.close(grace_seconds=grace_seconds)
        self.champion.close()

    def submit_quick(
        self, call: Call, question: Question, client: str, wording: Wording, *, driven: bool = False
    ) -> bool:
        """Take a plain request; False where the general path has to look at it. Does not block."""
        live = self.champion.live
        if live is None:
            return False
        known = self._fits.get(question)
        if known is None or known[0] is not live.intake:
            if len(self._fits) >= _FITS_MAX:
                self._fits = {}
            known = self._fits[question] = (live.intake, fit(question, live, one_row=wording.one_row))
        if known[1] is None:
            return False
        job = QuickJob(call, question, known[1], client, wording, self._metrics)
        batcher = self.batcher
        if not (driven and batcher.direct):
            self._let_wait(job, driven=driven)
        elif self._tray.rows and self._tray.rows + known[1].rows > self._queue_rows_max:
            job.fail(batcher.full(self._tray.rows))
        else:
            self._tray.add(job)
        return True

    def _let_wait(self, job: QuickJob, *, driven: bool = False) -> None:
        try:
            self.batcher.submit(job, driven=driven)
        except DemurError as error:
            job.fail(error)

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return self._tray.rows + self.batcher.rows

    @property
    def quick(self) -> bool:
        """Whether there are runs so short that who brings requests does them."""
        return self.batcher.quick

    def run_batch(self) -> bool:
        """Run one batch on this thread, if it is short; returns whether more may be. `drained` follows."""
        if not self._tray.rows:
            return self.batcher.run_batch()
        self._run_tray()
        return self.rows > 0

    def drained(self, until: float = math.inf) -> None:
        """Run what driven calls brought on this thread up to `until`, while runs are short; have the others run."""
        while self._tray.rows:
            self._run_tray()
            if time.monotonic() >= until:
                break
        for job in self._tray.take_all():
            self._let_wait(job)
        if self.batcher.rows:
            self.batcher.drained(until)

    def _run_tray(self) -> None:
        """Run one batch of plain requests that wait nowhere else, or let them wait for another thread."""
        before = self._tray.rows
        jobs = self._tray.take(self.batcher.rows_max)
        rows = before - self._tray.rows
        awaited = [job for job in jobs if not job.call.cancelled]
        if len(awaited) < len(jobs):
            for job in [job for job in jobs if job.cancelled]:
                end(job, time.monotonic())
        if awaited and not self.batcher.on_the_spot(lambda: self._execute_plain(awaited), jobs[0].fit.group, rows):
            for job in awaited:
                self._let_wait(job)

    def submit(self, request: Request, waiter: Waiter, *, driven: bool = False) -> None:
        """Take one request; its waiter is told everything, refusals included. Does not block.

        Where it is `driven`, `drained` follows on this thread.
        """
        job = Job(request, waiter, self._metrics, self._remembered)
        try:
            live = self._live(request)
            if request.version:
                job.pinned = self.champion.hold_version(request.version, model=self.model)
            if request.subject is not None and not request.tensors:
                self._reader.submit(lambda: self._admit(job, live))
                return
        except DemurError as error:
            job.fail(error)
            return
        self._admit(job, live, driven=driven)

    def _live(self, request: Request) -> Live:
        live = self.champion.live
        if live is None:
            raise NotFoundError(f"model {self.model!r} has no live version; promote one")
        if request.version and request.version != live.version.version:
            raise NotFoundError(
                f"model {self.model!r} has no version {request.version[:20]!r} loaded; loaded is {live.version.version}"
            )
        if request.wish is Wish.PERSON and not live.judged:
            raise StateError(f"model {self.model!r} was published without labels and a task to ask a person about")
        return live

    def _admit(self, job: Job, live: Live, *, driven: bool = False) -> None:
        """Prepare the rows and let them wait for a run."""
        try:
            request = job.request
            job.prepared = prepare(request, live.intake, pixels_max=self._pixels_max)
            if request.idempotency_key:
                job.digest = digest(request.model, request.tensors, request.subject)
                job.earlier = self._remembered.check(request.request_key, job.digest)
            self.batcher.submit(job, driven=driven)
        except Exception as error:  # noqa: BLE001 - the root of a reader's work: the caller is told
            job.fail(told(error, model=self.model))

    def _execute(self, jobs: Sequence[Job | QuickJob]) -> None:
        """Run one batch of jobs that fit together, and reply to each."""
        quick = [job for job in jobs if isinstance(job, QuickJob)]
        if quick:
            self._execute_plain(quick)
            return
        general = [job for job in jobs if isinstance(job, Job)]
        pinned = general[0].pinned
        if pinned is not None:
            self._run(general, self.champion.renewed(pinned.live))
            return
        with self._acquired() as live:
            self._execute_general(general, live)

    def _acquired(self) -> Hold:
        """Hold the live version; raises NotFoundError where there is none any more."""
        hold = self.champion.hold()
        if hold is None:
            raise NotFoundError(f"model {self.model!r} has no live version any more; promote one")
        return hold

    def _execute_general(self, jobs: Sequence[Job], live: Live) -> None:
        fresh = [job for job in jobs if portions.fits(job.prepared.intake, live)]
        if fresh:
            self._run(fresh, live)
        if len(fresh) < len(jobs):
            done = set(map(id, fresh))
            for job in jobs:
                if id(job) not in done:
                    # Prepared for a version that took other input; it waits once more, in the group it fits now.
                    self._admit(job, live)

    def _execute_plain(self, jobs: Sequence[QuickJob]) -> None:
        """Run one batch of plain requests that fit together, and reply to each."""
        with self._acquired() as live:
            if live.judged and portions.fits(jobs[0].fit.intake, live):
                self._run_quick(jobs, live)
                return
        # Another version takes other input: each waits once more, and is looked at as that one asks for.
        for job in jobs:
            self.submit(job.request, job.waiter)

    def _run(self, jobs: Sequence[Job], live: Live) -> None:
        rows = sum(job.rows for job in jobs)
        portions.check_size(len(jobs), rows, live)
        if live.rules.apart:
            jobs = sorted(jobs, key=lambda job: live.rules.segment_of(job.request.said))
        start = time.monotonic()
        outputs, compute = self._computed(live, join([job.prepared for job in jobs]), jobs[0].group, rows)
        portions.check_rows(outputs, rows, live)
        self._count(jobs, rows, start, compute)
        self.batcher.in_order()
        # What an alarm took back while the model ran is not answered by any more.
        live = self.champion.renewed(live)
        parts = portions.by_segment(jobs, live, outputs)
        # All are judged before anybody is replied to: a batch that fails is tried again.
        judged = [self._judge.judge(part, own, found, sum(job.rows for job in part)) for part, own, found in parts]
        declined: list[Declined] = []
        for (part, own, found), (decisions, sampled) in zip(parts, judged, strict=True):
            if decisions is not None:
                unseen = ~(decisions.deferred | decisions.audited | decisions.unreviewed)
                self._keep(part, decisions, sampled, own, unseen)
            common = portions.common(own, decisions, compute)
            first = 0
            for job in part:
                result = portions.part(common, found, job, first, start, own)
                self._settle(job, result, declined, sampled)
                first += job.rows
        if declined:
            self._deferring.take(declined, live)

    def _run_quick(self, jobs: Sequence[QuickJob], live: Live) -> None:
        """Run plain requests; those of which all rows are answered, and no more, have their reply from a template."""
        start = time.monotonic()
        slab = live.model.slab(sum([job.fit.rows for job in jobs]))
        feeds = joined(jobs, slab)
        (array,) = feeds.values()
        if bad := with_nan(array, jobs):
            self._execute_apart(jobs, bad, live)
            return
        rows = len(array)
        portions.check_size(len(jobs), rows, live)
        slab = slab if slab is not None and array is slab.input else None
        outputs, compute = self._computed(live, feeds, jobs[0].fit.group, rows, slab)
        portions.check_rows(outputs, rows, live)
        self.batcher.in_order()
        live = self.champion.renewed(live)
        decisions, sampled = self._judge.judge(jobs, live, outputs, rows, plain=True)
        assert decisions is not None, "only what is judged is taken"
        # Before anybody is answered: whoever has a reply finds it counted.
        self._count(jobs, rows, start, compute)
        chosen = uniform.either(decisions.deferred, decisions.audited)
        some = np.count_nonzero(chosen) > 0
        texts = live.model.texts
        batch = Answered(live, decisions, jobs, outputs, start=start, compute_seconds=compute)
        answered: Sequence[int] = range(len(jobs))
        declined: list[Declined] = []
        if sampled is None and not texts:
            if some:
                answered, declined = parted(batch, jobs)
        elif some or texts:
            answered, first, asked = [], 0, [True] * rows if texts else chosen.tolist()
            for number, job in enumerate(jobs):
                if not any(asked[first : first + job.rows]):
                    answered.append(number)
                else:
                    shared = portions.common(live, decisions, compute)
                    self._settle(job, portions.part(shared, outputs, job, first, start, live), declined, sampled)
                first += job.rows
        if answered:
            answer_all(batch, jobs, answered)
        self._metrics.answered(self.model, batch.worth).inc(len(answered))
        self._keep(jobs, decisions, sampled, live, ~chosen if some else None)
        if declined:
            self._deferring.take(declined, live)

    def _execute_apart(self, jobs: Sequence[QuickJob], bad: Sequence[QuickJob], live: Live) -> None:
        """Run all but the bad ones, then let the general path say what is wrong with these.

        In that order: a run that fails is tried again with all of its jobs.
        """
        if good := [job for job in jobs if job not in bad]:
            self._run_quick(good, live)
        for job in bad:
            self.submit(job.request, job.waiter)

    def _keep(
        self,
        jobs: Sequence[Job | QuickJob],
        decisions: Decisions,
        sampled: Sampled | None,
        live: Live,
        which: NDArray[np.bool_] | None,
    ) -> None:
        """Keep rows that are answered, for who finds a wrong answer; of a batch that was in part refused, none."""
        if live.judged and (sampled is None or sampled.refusal is None):
            self.kept.add(jobs, decisions, live.version.version, live.manifest.labels, which)

    def _computed(
        self, live: Live, feeds: Mapping[str, Array], group: Hashable, rows: int, slab: Slab | None = None
    ) -> tuple[dict[str, Array], float]:
        """Run the model; returns its outputs and how long it took, seconds."""
        start, own = time.monotonic(), time.thread_time()
        outputs = live.model.run(feeds, slab)
        compute = time.monotonic() - start
        # On the CPU the thread's own time, without what it was in others' way.
        self.batcher.ran(group, rows, time.thread_time() - own if live.model.provider == CPU else compute)
        return outputs, compute

    def _count(self, jobs: Sequence[Job | QuickJob], rows: int, start: float, compute: float) -> None:
        self._runs.observe(len(jobs), rows, compute)
        self._queued.observe_all([start - job.since for job in jobs])

    def _settle(self, job: Job | QuickJob, result: Result, declined: list[Declined], sampled: Sampled | None) -> None:
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
