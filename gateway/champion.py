"""The live version of one model, and how another takes its place.

Theory of operation. What a batch needs of a version (session, manifest, rules, intake) is one immutable value, `Live`.
A batch takes a hold on the Live that is current when it starts and keeps it to its end, so no batch mixes versions. A
swap loads and warms the new version beside the old one, then replaces the current Live by one assignment; from then on
new batches hold the new one. The old one is freed by whoever lets go of it last: the count of holds, the flag that it
was replaced, and the decision to free are under one lock, so it is freed once and never while it runs. Whoever swaps
waits a moment for the last batch, so that it is mostly they, and not a thread that answers. A version that does not
load or warm never becomes current; the champion stays as it was.

A swap is some milliseconds of work that needs the interpreter, for which those who answer wait. So it pauses before the
new version takes over, and before the old one is freed: what waited meanwhile is answered, and the new version's first
request is not the one that waited longest. What is resident stays level, for each thing that would grow has its full
size early: the ring of kept answers is written when it is made, and pages that a version or a backlog of requests left
between small blocks go back when the old version is freed. Nothing that outlives a batch keeps an output of its run,
which is the session's memory.

Swaps of one model come one at a time: the caller sees to that (`gateway.watch` holds the model's lock).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Condition, Lock
from typing import Final

import structlog

from fallback.errors import NotFoundError
from gateway.certification import Certification
from gateway.humble import humbly
from gateway.intake import Intake
from gateway.manifest import Manifest, check_scorer
from gateway.memory import give_back_small
from gateway.model import CPU, Device, Model
from gateway.padding import free
from gateway.policy import Policy
from gateway.preprocess import known_shapes
from gateway.registry import ModelVersion
from gateway.rules import Rules
from gateway.way import Way, load, rows_max

# Before a version takes over, and before the old one is freed: who waited for the interpreter meanwhile is answered.
_CALM_SECONDS: Final = 0.005
# How long whoever swaps waits for the last batch of the old version, so that freeing it is not that batch's affair.
_LET_GO_SECONDS: Final = 0.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One loaded version, as a batch needs it; `challengers` in shadow are asked about what is sampled.

    `manifest`: what the version says of itself. `judged`: whether its answers are, for it has labels to be sure of and
    a task to ask a person.
    """

    version: ModelVersion
    model: Model
    rules: Rules
    intake: Intake
    way: Way
    challengers: tuple[Champion, ...] = ()
    # Asked for several times a batch, so worked out once.
    manifest: Manifest = field(init=False)
    judged: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out what follows from the version."""
        manifest = self.version.manifest
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "judged", bool(manifest.labels) and manifest.task is not None)


class _Users:
    """Counts who uses a version, and frees it when it was replaced and nobody does any more."""

    def __init__(self, version: ModelVersion, model: Model) -> None:
        self._version = version
        self._model = model
        self._lock = Lock()
        self._unused = Condition(self._lock)
        self._count = 0
        self._replaced = False

    def add(self) -> bool:
        """Count one more; False once it was replaced."""
        with self._lock:
            if self._replaced:
                return False
            self._count += 1
            return True

    def drop(self) -> None:
        with self._lock:
            self._count -= 1
            last = self._replaced and self._count == 0
            if not self._count:
                self._unused.notify()
        if last:
            self._free()

    def replace(self, wait_seconds: float = 0.0) -> None:
        """Have it freed: here, if nobody uses it within `wait_seconds`, else by whoever is the last."""
        with self._lock:
            self._unused.wait_for(lambda: not self._count, wait_seconds)
            self._replaced = True
            unused = self._count == 0
        if unused:
            self._free()

    def _free(self) -> None:
        self._model.close()
        give_back_small()
        log.info("freed", model=self._version.model, version=self._version.version)


class Hold:
    """Somebody's use of one Live, for a block or until `release`; releasing it again does nothing."""

    __slots__ = ("_users", "live")

    def __init__(self, live: Live, users: _Users) -> None:
        self.live = live
        self._users: _Users | None = users

    def __enter__(self) -> Live:
        """Return what is held."""
        return self.live

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self.release()

    def release(self) -> None:
        """Let go."""
        users, self._users = self._users, None
        if users is not None:
            users.drop()


class Champion:
    """The live version of one model. `acquire` from any thread; what changes it one at a time."""

    def __init__(self, *, device: Device = "auto", threads: int = 0) -> None:
        self._device = device
        self._threads = threads
        self._current: tuple[Live, _Users] | None = None
        self._certification: Certification | None = None
        self._challengers: tuple[Champion, ...] = ()
        self._policy_lock = Lock()

    @property
    def challengers(self) -> tuple[Champion, ...]:
        """What is in shadow."""
        return self._challengers

    @property
    def live(self) -> Live | None:
        """What is live now, to look at; to run it, `acquire` it."""
        current = self._current
        return None if current is None else current[0]

    def swap(self, version: ModelVersion, policy: Policy) -> Live:
        """Load, warm and put in place `version`; blocks. Raises a DemurError and leaves all as it was if it fails."""
        check_scorer(policy, version.manifest)
        now = self.live
        known = None if now is None else (now.version, now.way)
        model, way = load(version, device=self._device, threads=self._threads, before=known)
        try:
            manifest = version.manifest
            # Written before versions recorded their tensors: as the artefact says.
            inputs = manifest.inputs or model.signature.inputs
            intake = Intake(
                inputs=inputs,
                batched=manifest.batched,
                preprocess=manifest.preprocess,
                forbid_nan=manifest.forbid_nan,
                rows_max=rows_max(manifest),
                padding=manifest.batching.padding if manifest.batched else None,
            )
            humbly(lambda: _warm_up(model, intake, way))
            rules = Rules.compile(policy, manifest.labels, version=version.version)
            live = Live(version=version, model=model, rules=rules, intake=intake, way=way)
            time.sleep(_CALM_SECONDS)
        except BaseException:
            model.close()
            raise
        with self._policy_lock:
            # Not what was proved when it began to load: an alarm may have come since.
            live = replace(live, rules=_rules(version, policy, self._certification), challengers=self._challengers)
            before, self._current = self._current, (live, _Users(version, model))
        if before is not None:
            time.sleep(_CALM_SECONDS)
            before[1].replace(_LET_GO_SECONDS)
        return live

    def set_policy(self, policy: Policy) -> None:
        """Judge by `policy` from the next batch on."""
        with self._policy_lock:
            if self._current is not None:
                live, users = self._current
                rules = _rules(live.version, policy, self._certification)
                self._current = replace(live, rules=rules), users
            challengers = self._challengers
        for challenger in challengers:
            challenger.set_policy(policy)

    def set_challengers(self, challengers: Sequence[Champion]) -> None:
        """Have these beside whatever is live, from the next batch on; those that are no more are freed."""
        with self._policy_lock:
            gone = [challenger for challenger in self._challengers if challenger not in challengers]
            self._challengers = tuple(challengers)
            if self._current is not None:
                live, users = self._current
                self._current = replace(live, challengers=self._challengers), users
        for challenger in gone:
            challenger.close()

    def set_certification(self, certification: Certification | None) -> None:
        """Answer by what is proved, from the next batch on; kept for versions that are swapped in later."""
        with self._policy_lock:
            self._certification = certification
            if self._current is not None:
                live, users = self._current
                rules = _rules(live.version, live.rules.policy, certification)
                self._current = replace(live, rules=rules), users

    def renewed(self, live: Live) -> Live:
        """Return `live`, which somebody holds, with the rules that are in force for it by now."""
        current = self.live
        return current if current is not None and current.model is live.model else live

    def hold(self) -> Hold | None:
        """Hold what is live; None where nothing is."""
        while (current := self._current) is not None:
            live, users = current
            if users.add():
                return Hold(live, users)
            # Replaced between the two lines; what replaced it is there by now.
        return None

    def hold_version(self, version: str, *, model: str) -> Hold:
        """Hold the version that was asked for, so that a swap does not take it away before its turn."""
        hold = self.hold()
        if hold is None or hold.live.version.version != version:
            if hold is not None:
                hold.release()
            raise NotFoundError(f"model {model!r} has no version {version[:20]!r} loaded any more")
        return hold

    @contextmanager
    def acquire(self) -> Iterator[Live | None]:
        """Hold what is live for one batch; None where nothing is."""
        hold = self.hold()
        try:
            yield None if hold is None else hold.live
        finally:
            if hold is not None:
                hold.release()

    def close(self) -> None:
        """Free the live version when its last batch is done."""
        with self._policy_lock:
            before, self._current = self._current, None
        if before is not None:
            before[1].replace()
        self.set_challengers(())


def _rules(version: ModelVersion, policy: Policy, certification: Certification | None) -> Rules:
    check_scorer(policy, version.manifest)
    return Rules.compile(policy, version.manifest.labels, certification=certification, version=version.version)


def _warm_up(model: Model, intake: Intake, way: Way) -> None:
    """Run every size once; on the CPU a full batch and one row, since little depends on the size there."""
    shapes = warm_shapes(intake)
    if model.provider != CPU:
        for known in shapes:
            model.warm_up(buckets(intake.rows_max), known)
    else:
        model.warm_up(sorted({way.rows_max, 1}, reverse=True), shapes[-1])


def warm_shapes(intake: Intake) -> list[dict[str, tuple[int, ...]]]:
    """Return the shapes, rows left out, to warm up with: what is known of inputs whose axes are free."""
    padding, known = intake.padding, known_shapes(intake.preprocess)
    if padding is None or not (names := free(intake.inputs, padding)):
        return [known]
    padded = [spec for spec in intake.inputs if spec.name in names]
    if any(sum(size < 0 for size in spec.shape[1:]) > 1 for spec in padded):
        # Another axis is free as well: which sizes it has nobody knows.
        return [known]
    return [
        {**known, **{spec.name: tuple(size if each < 0 else each for each in spec.shape[1:]) for spec in padded}}
        for size in padding.sizes
    ]


def buckets(most: int) -> list[int]:
    """Return the numbers of rows to warm up: powers of two up to `most`, and `most`."""
    powers = [2**power for power in range(most.bit_length())]
    return powers if powers[-1] == most else [*powers, most]
