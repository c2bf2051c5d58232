"""Retrains one model: reads the live version and the ledger, makes a candidate, and publishes it if the gate agrees.

A rejected candidate is not published; every attempt leaves a report. Something that is away (the gateway, Redis, the
disk) leaves none: the caller tries again. Publishing and promoting are two steps. An attempt that died between them
left a version that waits; the same dataset makes the same file again, and the next attempt promotes that version.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Final

import msgspec
import structlog

from demur.v1 import model_pb2 as pb
from fallback import channel, presence
from fallback.config import Config
from fallback.errors import DemurError, NotFoundError, OverdueError, StateError, UnavailableError
from gateway import manifest as manifests
from gateway.config import GatewaySettings
from gateway.manifest import HELD_OUT, LEDGER_ROW, PARENT, Manifest
from gateway.model_client import ModelClient
from gateway.model_wire import policy_from_wire
from gateway.policy import Policy
from gateway.registry import ModelVersion, Registry, parse_name
from trainer import candidate as candidates
from trainer import contents, dataset, imports, ledger, reports
from trainer.candidate import Candidate
from trainer.config import TrainerSettings
from trainer.dataset import Dataset
from trainer.errors import StoppedError, disk
from trainer.reports import Report, Result

MODELS: Final = "models"
FOLDER: Final = "trainer"
IDENTITY: Final = "trainer"
TRAINED_ON: Final = "dataset"

_ROW: Final = re.compile("[0-9]{1,18}", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What a trainer reads and writes, all under one data folder."""

    data: Path
    settings: TrainerSettings
    registry: Registry
    ledger: ledger.Ledger
    contents: contents.Contents
    imports: imports.Imports
    reports: reports.Reports

    @classmethod
    def open(cls, config: Config) -> Rooms:
        """Name the folders; nothing is made before it is needed."""
        data = config.data_folder
        kept = contents.Contents(data / contents.FOLDER)
        return cls(
            data=data,
            settings=config.table("trainer", TrainerSettings),
            registry=Registry(data / MODELS),
            ledger=ledger.Ledger(data / ledger.FOLDER),
            contents=kept,
            imports=imports.Imports(data / FOLDER / imports.FOLDER, kept),
            reports=reports.Reports(data / FOLDER / reports.FOLDER),
        )

    def lock(self, model: str) -> Path:
        """Return the file that whoever trains `model` holds a lock on."""
        return self.data / FOLDER / f"{model}.lock"


def client(config: Config) -> ModelClient:
    """Return a client of the gateway: the one configured, else the running stack's, else [gateway]'s own address.

    What it shows of itself, and whether it speaks TLS, is the environment's to say: DEMUR_TOKEN, DEMUR_CA.
    """
    address = config.table("trainer", TrainerSettings).gateway
    running = presence.announced(config.data_folder, "serve")
    if not address and running is not None:
        address = running.addresses.get("grpc", "")
    address = address or config.table("gateway", GatewaySettings).grpc_listen
    return ModelClient(address, **channel.shown(IDENTITY))


async def retrain(rooms: Rooms, model: str, gateway: ModelClient, *, why: str) -> Report:
    """Retrain `model` now; returns the report, which is written too.

    Raises NotFoundError where no version is live, UnavailableError where the gateway is away, StateError while another
    process trains this model.
    """
    manifests.check_name("model", model)
    with ledger.locked(rooms.lock(model)):
        started, clock = datetime.now(UTC), time.monotonic()
        parent = rooms.registry.get(model, await live_version(gateway, model))
        policy = policy_from_wire(await gateway.get_policy(model))
        stopped = threading.Event()
        try:
            attempt = await _attempt(rooms, parent, policy, gateway, why=why, go_on=lambda: _check_stop(stopped))
        finally:
            # A thread cannot be cancelled; it asks.
            stopped.set()
        report = msgspec.structs.replace(
            attempt, create_time=started, duration_seconds=round(time.monotonic() - clock, 3)
        )
        report = await asyncio.to_thread(rooms.reports.write, report)
    log.info("retrained", model=model, result=report.result.value, version=report.version, reasons=report.reasons)
    return report


async def live_version(gateway: ModelClient, model: str) -> str:
    """Return the version that is live; raises NotFoundError where there is none."""
    for version in await gateway.list(model):
        if version.state == pb.ModelVersion.CHAMPION:
            return parse_name(version.name)[1]
    raise NotFoundError(
        f"model {model!r} has no live version: publish one with `demur models publish`, then promote it"
    )


def trained_row(rooms: Rooms, version: ModelVersion) -> int | None:
    """Return the last row of the ledger that was looked at for a version; None where it was not trained here.

    A row that is not in the ledger yet is one of another ledger.
    """
    text = version.manifest.provenance.get(LEDGER_ROW, "")
    if not _ROW.fullmatch(text):
        return None
    row = int(text)
    return row if row <= rooms.ledger.last_row() else None


def _check_stop(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise StoppedError("the trainer stops; this retraining is begun again by the next one")


async def _attempt(
    rooms: Rooms, parent: ModelVersion, policy: Policy, gateway: ModelClient, *, why: str, go_on: Callable[[], None]
) -> Report:
    report = Report(
        model=parent.model,
        parent=parent.version,
        result=Result.REFUSED,
        reasons=(),
        why=why,
        ledger_row=await asyncio.to_thread(rooms.ledger.last_row),
        create_time=parent.create_time,
        duration_seconds=0.0,
    )
    data = await asyncio.to_thread(gather, rooms, parent, go_on)
    report = msgspec.structs.replace(report, counts=data.counts, dataset=data.digest)
    try:
        # Before the examples are looked at: a model that cannot learn is not waiting for more of them.
        await asyncio.to_thread(candidates.last_layer, parent)
    except DemurError as error:
        return msgspec.structs.replace(report, reasons=(error.message,))
    if not data.train or (not data.counts.fresh and parent.manifest.provenance.get(TRAINED_ON) == data.digest):
        reason = f"nothing to learn: no new example since version {parent.version} was trained"
        return msgspec.structs.replace(report, result=Result.UNCHANGED, reasons=(reason,))
    with _workplace(rooms.data / FOLDER / "work" / parent.model) as folder:
        try:
            made = await asyncio.to_thread(_make, rooms, parent, data, policy, folder, go_on)
            report = _measured(report, made)
            return await _publish(rooms, gateway, parent, made, report)
        except (UnavailableError, OverdueError):
            raise
        except DemurError as error:
            return msgspec.structs.replace(report, result=Result.REFUSED, reasons=(error.message,))


def gather(rooms: Rooms, parent: ModelVersion, go_on: Callable[[], None] = lambda: None) -> Dataset:
    """Return what the next version of `parent` would be trained on and judged by."""
    settings = rooms.settings
    return dataset.build(
        parent.manifest,
        rooms.ledger.rows(parent.model, limit=settings.examples_max),
        rooms.imports.all(parent.model),
        rooms.contents,
        trained_row=trained_row(rooms, parent) or 0,
        limits=limits(settings, parent.manifest),
        go_on=go_on,
    )


def limits(settings: TrainerSettings, parent: Manifest | None = None) -> dataset.Limits:
    """Return what bounds a dataset.

    A share that was raised holds out no more than `parent` did: the rest of it, `parent` was trained on.
    """
    share = settings.holdout_share
    if parent is not None:
        share = min(share, float(parent.provenance.get(HELD_OUT, share)))
    return dataset.Limits(holdout_share=share, replay_examples_max=settings.replay_examples_max)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Give an empty folder, and take it away; what a trainer that was killed left there goes too."""
    shutil.rmtree(folder, ignore_errors=True)
    with disk(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(
    rooms: Rooms, parent: ModelVersion, data: Dataset, policy: Policy, folder: Path, go_on: Callable[[], None]
) -> Candidate:
    # Nothing that differs from attempt to attempt: the same file again is how an attempt knows the one before.
    metadata = {"parent": parent.name, TRAINED_ON: data.digest}
    return candidates.make(parent, data, policy, rooms.contents, rooms.settings, folder, metadata=metadata, go_on=go_on)


def _measured(report: Report, made: Candidate) -> Report:
    return msgspec.structs.replace(
        report,
        result=Result.REJECTED,
        reasons=made.decision.reasons,
        before=made.before,
        after=made.after,
        iterations=made.fit.iterations,
        converged=made.fit.converged,
        parity=made.parity,
    )


async def _publish(rooms: Rooms, gateway: ModelClient, parent: ModelVersion, made: Candidate, report: Report) -> Report:
    if not made.decision.promote:
        return report
    await _check_live(gateway, parent, "not published")
    version = await _waiting(rooms, gateway, parent, made)
    if not version:
        text = manifests.render(
            msgspec.structs.replace(
                manifest_of(parent.manifest, parent.version, report, limits(rooms.settings, parent.manifest)),
                correctness=made.correctness,
                temperature=1.0 if made.after.sorting is None else made.after.sorting.temperature,
            )
        )
        published = await gateway.publish(parent.model, made.artefact, text, reason=_reason(report))
        version = parse_name(published.name)[1]
        # Admission takes a while.
        await _check_live(gateway, parent, f"version {version} was published, not promoted")
    if promised(await gateway.certificate(parent.model)):
        await gateway.shadow(parent.model, version, reason=_reason(report))
        return msgspec.structs.replace(report, result=Result.SHADOWED, version=version)
    await gateway.promote(parent.model, version, reason=_reason(report))
    return msgspec.structs.replace(report, result=Result.PROMOTED, version=version)


def promised(certificate: pb.Certificate) -> bool:
    """Return whether a version is to be proved in shadow before it answers, by how the model's proof stands.

    After an alarm there is nothing to lose, unless a segment is proved anew already.
    """
    stages = {part.stage for part in (certificate, *certificate.segments)}
    lost = pb.Certificate.ALARMED in stages and pb.Certificate.CERTIFIED not in stages
    return bool(certificate.epoch) and certificate.stage != pb.Certificate.OFF and not lost


async def _check_live(gateway: ModelClient, parent: ModelVersion, consequence: str) -> None:
    live = await live_version(gateway, parent.model)
    if live != parent.version:
        raise StateError(f"version {live} became live while version {parent.version} was retrained; {consequence}")


async def _waiting(rooms: Rooms, gateway: ModelClient, parent: ModelVersion, made: Candidate) -> str:
    """Return the version that an earlier attempt published of the same file and did not get promoted, or ""."""
    digest = await asyncio.to_thread(lambda: hashlib.sha256(made.artefact.read_bytes()).hexdigest())
    for wire in await gateway.list(parent.model):
        if wire.state == pb.ModelVersion.CANDIDATE:
            version = rooms.registry.get(parent.model, parse_name(wire.name)[1])
            if digest in version.manifest.files.values():
                return version.version
    return ""


def manifest_of(parent: Manifest, version: str, report: Report, bounds: dataset.Limits) -> Manifest:
    """Return the manifest of a version retrained from `parent`, with where it comes from."""
    provenance = {
        PARENT: version,
        "made_by": f"demur {installed('demur')} trainer",
        "why": report.why,
        TRAINED_ON: report.dataset,
        LEDGER_ROW: str(report.ledger_row),
        HELD_OUT: str(bounds.holdout_share),
    }
    if report.counts is not None:
        provenance |= {
            "examples_train": str(report.counts.train),
            "examples_fresh": str(report.counts.fresh),
            "examples_holdout": str(report.counts.holdout),
        }
    if report.before is not None and report.after is not None:
        provenance |= {
            "holdout_accuracy_before": f"{report.before.all.accuracy:.4f}",
            "holdout_accuracy": f"{report.after.all.accuracy:.4f}",
            "holdout_deferred_share": f"{report.after.all.deferred_share:.4f}",
            "holdout_auto_error": f"{report.after.all.auto_error:.4f}",
        }
    return msgspec.structs.replace(parent, version="", create_time=None, files={}, provenance=provenance)


def _reason(report: Report) -> str:
    return f"retrained from version {report.parent} ({report.why}): {'; '.join(report.reasons)}"
