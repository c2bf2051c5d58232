"""The hot path of one model: a request is prepared, waits, is run in a batch, judged, and answered or declined.

Everything between the service that read the request and the reply happens here, on few threads: those that read images,
the batcher's own, and the transport's where a run is so short that a hand-over would take longer. The live version and
its policy are read once a batch. There are two ways, and they end in the same: any request may be a `Job`; a plain one
is a `QuickJob` (`gateway.quick`), of which a batch costs little more than one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallback.errors import DemurError, InvalidError, NotFoundError, StateError
from gateway.batcher import Batcher
from gateway.champion import Champion, Live
from gateway.declined import Declined, Plain, decline
from gateway.deferring import Deferring
from gateway.intake import Intake, join, prepare
from gateway.internal import told
from gateway.job import Job
from gateway.judging import Judge
from gateway.kept import Kept
from gateway.metrics import Metrics
from gateway.model import CPU
from gateway.padding import cut, free
from gateway.parking import Sampling
from gateway.question import Question
from gateway.quick import Answered, Fit, QuickJob, Wording, fit, joined, with_nan
from gateway.reader import Reader
from gateway.recorder import Recorder
from gateway.remembered import Remembered
from gateway.request import Request, Result, Waiter
from gateway.rules import Decisions, Wish
from gateway.sampling import Sampled
from gateway.slip import digest
from gateway.tensor import Array
from gateway.timer import Timer
from gateway.transport import Call
from gateway.turns import Shares

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
        self._rows_seen = metrics.batch_rows.labels(model)
        self._computing = metrics.stage_seconds.labels(model, "compute")
        self._queued = metrics.stage_seconds.labels(model, "queue")
        self.batcher: Batcher[Job | QuickJob] = Batcher(
            model, self._execute, timer=timer, shares=shares, queue_rows_max=queue_rows_max
        )
        metrics.queue_rows.labels(model).set_function(lambda: self.batcher.rows)

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
        try:
            self.batcher.submit(job, driven=driven)
        except DemurError as error:
            job.fail(error)
        return True

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
        general = [job for job in jobs if isinstance(job, Job)] if len(quick) < len(jobs) else []
        pinned = general[0].pinned if general else None
        if pinned is not None:
            self._run(general, self.champion.renewed(pinned.live))
            return
        with self.champion.acquire() as live:
            if live is None:
                raise NotFoundError(f"model {self.model!r} has no live version any more; promote one")
            if quick:
                self._execute_quick(quick, live)
            else:
                self._execute_general(general, live)

    def _execute_general(self, jobs: Sequence[Job], live: Live) -> None:
        fresh = [job for job in jobs if _fits(job.prepared.intake, live)]
        if fresh:
            self._run(fresh, live)
        if len(fresh) < len(jobs):
            done = set(map(id, fresh))
            for job in jobs:
                if id(job) not in done:
                    # Prepared for a version that took other input; it waits once more, in the group it fits now.
                    self._admit(job, live)

    def _execute_quick(self, jobs: Sequence[QuickJob], live: Live) -> None:
        if live.judged and _fits(jobs[0].fit.intake, live):
            self._run_quick(jobs, live)
            return
        # Another version takes other input: each waits once more, and is looked at as that one asks for.
        for job in jobs:
            self.submit(job.request, job.waiter)

    def _run(self, jobs: Sequence[Job], live: Live) -> None:
        rows = sum(job.rows for job in jobs)
        _check_size(len(jobs), rows, live)
        if live.rules.apart:
            jobs = sorted(jobs, key=lambda job: live.rules.segment_of(job.request.said))
        start = time.monotonic()
        outputs, compute = self._computed(live, join([job.prepared for job in jobs]))
        _check_rows(outputs, rows, live)
        self._count(jobs, rows, start, compute)
        self.batcher.in_order()
        # What an alarm took back while the model ran is not answered by any more.
        live = self.champion.renewed(live)
        parts = _by_segment(jobs, live, outputs)
        # All are judged before anybody is replied to: a batch that fails is tried again.
        judged = [self._judge.judge(part, own, found, sum(job.rows for job in part)) for part, own, found in parts]
        declined: list[Declined] = []
        for (part, own, found), (decisions, sampled) in zip(parts, judged, strict=True):
            if decisions is not None:
                unseen = ~(decisions.deferred | decisions.audited | decisions.unreviewed)
                self._keep(part, decisions, sampled, own, unseen)
            common = self._common(own, decisions, compute)
            first = 0
            for job in part:
                result = _part(common, found, job, first, start, own)
                self._settle(job, result, declined, sampled)
                first += job.rows
        if declined:
            self._deferring.take(declined, live)

    def _run_quick(self, jobs: Sequence[QuickJob], live: Live) -> None:
        """Run plain requests; those of which all rows are answered, and no more, have their reply from a template."""
        start = time.monotonic()
        feeds = joined(jobs)
        if bad := with_nan(next(iter(feeds.values())), jobs):
            self._execute_apart(jobs, bad, live)
            return
        rows = sum(job.rows for job in jobs)
        _check_size(len(jobs), rows, live)
        outputs, compute = self._computed(live, feeds)
        _check_rows(outputs, rows, live)
        self.batcher.in_order()
        live = self.champion.renewed(live)
        decisions, sampled = self._judge.judge(jobs, live, outputs, rows)
        assert decisions is not None, "only what is judged is taken"
        self._count(jobs, rows, start, compute)
        chosen = decisions.deferred | decisions.audited
        slow = bool(chosen.any())
        self._keep(jobs, decisions, sampled, live, ~chosen if slow else None)
        texts = any(array.dtype.kind in "OUS" for array in outputs.values())
        if texts:
            chosen[:] = slow = True
        batch = Answered(live, decisions, jobs, outputs, start=start, compute_seconds=compute)
        declined, asked = list[Declined](), chosen.tolist()
        first = answered = 0
        for number, job in enumerate(jobs):
            left = slow and any(asked[first : first + job.rows])
            if left and sampled is None and not texts:
                answered += decline(Plain(batch=batch, job=job, number=number, first=first), declined)
            elif left:
                result = _part(self._common(live, decisions, compute), outputs, job, first, start, live)
                self._settle(job, result, declined, sampled)
            else:
                job.answer_from(batch, number, first)
                answered += 1
            first += job.rows
        self._metrics.requests.labels(self.model, batch.worth.value, "OK").inc(answered)
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

    def _computed(self, live: Live, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
        """Run the model; returns its outputs and how long it took, seconds."""
        start, own = time.monotonic(), time.thread_time()
        outputs = live.model.run(feeds)
        compute = time.monotonic() - start
        # On the CPU the thread's own time, without what it was in others' way.
        self.batcher.ran(time.thread_time() - own if live.model.provider == CPU else compute)
        return outputs, compute

    def _count(self, jobs: Sequence[Job | QuickJob], rows: int, start: float, compute: float) -> None:
        self._rows_seen.observe(rows)
        self._computing.observe(compute)
        self._queued.observe_all([start - job.since for job in jobs])

    def _common(self, live: Live, decisions: Decisions | None, compute: float) -> Result:
        """Return what the results of a batch have in common."""
        return Result(
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


def _fits(intake: Intake, live: Live) -> bool:
    """Whether what was prepared for one version is right for another."""
    return intake is live.intake or intake == live.intake


def _by_segment(
    jobs: Sequence[Job], live: Live, outputs: dict[str, Array]
) -> list[tuple[Sequence[Job], Live, dict[str, Array]]]:
    """Return the jobs of a batch by segment, each with its segment's rules and its own rows of the outputs."""
    if not live.rules.apart:
        return [(jobs, live, outputs)]
    parts: list[tuple[Sequence[Job], Live, dict[str, Array]]] = []
    first = 0
    for segment, found in groupby(jobs, key=lambda job: live.rules.segment_of(job.request.said)):
        part = list(found)
        rows = slice(first, first + sum(job.rows for job in part))
        own = {name: array[rows] for name, array in outputs.items()} if live.intake.batched else outputs
        parts.append((part, replace(live, rules=live.rules.of(segment)), own))
        first = rows.stop
    return parts


def _part(
    common: Result, outputs: dict[str, Array], job: Job | QuickJob, first: int, start: float, live: Live
) -> Result:
    """Return one job's result: its rows of a batch's."""
    own = {name: array[first : first + job.rows] for name, array in outputs.items()} if live.intake.batched else outputs
    if live.intake.padding is not None and (size := job.prepared.size) is not None:
        padding = live.intake.padding
        own = cut(own, free(live.model.signature.outputs, padding), padding.axis, size)
    return replace(common, outputs=own, rows=job.rows, first=first, queue_seconds=start - job.since)


def _check_size(jobs: int, rows: int, live: Live) -> None:
    """Raise StateError where a batch was formed by the bound of the version before.

    The batcher halves what fails until it fits.
    """
    if jobs > 1 and rows > live.intake.rows_max:
        raise StateError(f"version {live.version.version} takes {live.intake.rows_max} rows at a time, not {rows}")


def _check_rows(outputs: dict[str, Array], rows: int, live: Live) -> None:
    """Raise InvalidError where a row of an output could be taken for another caller's."""
    if not live.intake.batched:
        return
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise InvalidError(
                f"inputs: for these the model gives output {name!r} the shape {list(array.shape)}; expected {rows} rows"
            )
