"""Takes over what dead gateways left on this machine's disk: their rows are sent, their audits parked, their end told.

Theory of operation. Everything that a killed process wrote is there, whole, since the machine's memory outlived it; so
the records of its last second can be counted and that second closed, and nobody need wait for it. After a death of the
machine the end of a spool may be missing. Then its last seconds are not closed: the certifier waits until it declares
the gateway lost, and leaves out whole what was not closed. What was sent before is none the worse for what is missing:
the rows that closed its seconds were sent too, or these seconds are not closed at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import structlog

from fallback.errors import DemurError
from gateway.recorder import Key, Recorded, row_entry
from gateway.sampler import Sampler, Seen
from gateway.samples import ClosingRow, JoinRow, SampledRecord, UnparkedRow
from gateway.shipment import Shipment
from gateway.spool import Kind, Spool, boot, locked

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A dead gateway's shipment, and the requests that it recorded, as far as they are still there."""

    model: str
    shipment: Shipment
    recorded: Mapping[Key, Recorded]


def adopt(root: Path, *, bytes_max: int) -> list[Adopted]:
    """Take over all spools under `root` whose gateway is dead; one that cannot be read is left, and logged."""
    if not root.is_dir():
        return []
    try:
        with locked(root):
            found = [Spool.take(folder, bytes_max=bytes_max) for folder in sorted(root.glob("*/*/"))]
    except OSError as error:
        log.warning("the spools of other gateways cannot be looked at", folder=str(root), error=str(error))
        return []
    adopted = []
    for spool in found:
        if spool is not None:
            try:
                adopted.append(_adopt(spool))
            except (OSError, DemurError, msgspec.DecodeError) as error:
                log.exception("a spool cannot be taken over", folder=str(spool.folder), error=str(error))
                spool.close()
    return adopted


def _adopt(spool: Spool) -> Adopted:
    mark = spool.mark()
    joined, final, closed = mark.joined, mark.final, mark.second
    records: list[SampledRecord] = []
    recorded: dict[Key, Recorded] = {}
    for kind, payload in spool.scan(mark.closed):
        if kind is not Kind.ROW:
            continue
        joined = True
        match msgspec.json.decode(payload, type=SampledRecord | ClosingRow | JoinRow | UnparkedRow):
            case SampledRecord() as record:
                records.append(record)
                audited = record.q < 1
                recorded[record.epoch, record.request_key] = Recorded(place=record.place, audited=audited)
            case ClosingRow(second=second, final=is_final):
                records = [record for record in records if record.second > second]
                closed, final = second, is_final
            case JoinRow(second=second):
                closed = second - 1
            case UnparkedRow():
                pass  # of a record that stands before it
    same_boot = bool(spool.about.boot) and spool.about.boot == boot()
    if joined and not final and same_boot and not spool.damaged:
        rows = _end(spool.about.gateway, closed, records)
        spool.append([row_entry(row) for row in rows], spare=True)
    log.info("took over a dead gateway's spool", model=spool.about.model, gateway=spool.about.gateway, bytes=spool.size)
    return Adopted(model=spool.about.model, shipment=Shipment(spool, ended=True), recorded=recorded)


def _end(gateway: str, closed: int, records: list[SampledRecord]) -> list[ClosingRow]:
    """Return what closes the last second; of requests that were not sampled nothing is known there."""
    sampler = Sampler(gateway, closed + 1)
    for second in sorted({record.second for record in records}):
        sampler.add(second, _seen([record for record in records if record.second == second]))
    return sampler.end()


def _seen(records: list[SampledRecord]) -> Seen:
    scored = [record.scored[0] for record in records]
    return Seen(
        scores=np.array([each.confidence for each in scored]),
        eligible=np.array([each.eligible for each in scored]),
        deferred=np.array([record.q == 1 for record in records]),
        unreviewed=np.zeros(len(records), np.bool_),
        sampled=len(records),
    )
