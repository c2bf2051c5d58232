"""Gateways, one after the other on one folder, that record, die and are taken over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import msgspec

from fallback.answer import Task
from fallback.deferral import Parking
from gateway.adoption import adopt
from gateway.recorder import Key, Recorded, Recorder
from gateway.sampler import Clock, Counts
from gateway.samples import Place, SampledRecord, Scored
from gateway.spool import Entry, Kind
from tests.evidence import Evidence

MIB = 1024 * 1024


class Fleet:
    """One gateway after the other on one folder, the stream that they send to and the queue that they park in."""

    def __init__(self, root: Path, *, bytes_max: int = MIB) -> None:
        self.root = root
        self.bytes_max = bytes_max
        self.wall = 1_000_000.0
        self.steady = 0.0
        self.evidence = Evidence()
        self.parked: list[str] = []
        self.acknowledged: dict[Place, bool] = {}
        self.keys = 0
        self.start()

    def start(self) -> None:
        """A gateway starts, and finds what others left. That takes longer than a second."""
        self.go(1.5)
        clock = Clock(lambda: self.wall, lambda: self.steady)
        self.recorder = Recorder("m", root=self.root, bytes_max=self.bytes_max, keys_max=100, clock=clock)
        for found in adopt(self.root, bytes_max=self.bytes_max):
            self.recorder.adopt(found.shipment, found.recorded)

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def entries(self, place: Place, key: str, *, audited: bool) -> list[Entry]:
        record = SampledRecord(
            second=place[0],
            gateway=place[1],
            counter=place[2],
            model="m",
            epoch="e",
            segment="",
            request_key=key,
            q=0.1 if audited else 1.0,
            floor=0.1,
            draw=0.05,
            scored=(Scored(version="1", scorer="margin", confidence=0.5, prediction="{}", eligible=True),),
        )
        audit = [(Kind.AUDIT, msgspec.msgpack.encode(parking(key)))] if audited else []
        return [*audit, (Kind.ROW, msgspec.json.encode(record))]

    def batch(self, sampled: list[bool], *, others: int = 0) -> list[Place]:
        """Requests are recorded, and acknowledged; each of `sampled` says whether it is an audit."""
        with self.recorder.turn() as turn:
            entries: list[Entry] = []
            keys: dict[Key, Recorded] = {}
            places: dict[Place, bool] = {}
            for audited in sampled:
                self.keys += 1
                place, key = turn.place(), f"k{self.keys}"
                places[place] = audited
                entries += self.entries(place, key, audited=audited)
                keys["e", key] = Recorded(place=place, audited=audited)
            count = len(sampled) + others
            turn.write(entries, Counts(eligible=count, answered=others, sampled=len(sampled)), keys)
        self.acknowledged |= places
        return [*places]

    def fill(self) -> NoReturn:
        """Requests are recorded until one cannot be."""
        while True:
            self.batch([True])

    def ship(self, *, crashes: bool = False) -> None:
        """What is there is sent; where it `crashes`, nobody remembers that it was."""
        for shipment in self.recorder.shipments:
            while not shipment.shipped:
                rows, after = shipment.rows()
                self.evidence.take(row for row, _ in rows)
                if crashes:
                    self.crash()
                    return
                self.recorder.sent(shipment, rows, after)
            if shipment.done:
                self.recorder.drop(shipment)

    def park(self) -> None:
        for shipment in self.recorder.shipments:
            while not shipment.parked:
                audits, after = shipment.audits()
                self.parked += [audit.idempotency_key for audit in audits]
                shipment.settled(after)

    def tick(self) -> None:
        self.recorder.tick(rejoin_seconds=600)

    def crash(self, *, torn: int = 0) -> None:
        """The process is killed, perhaps while it writes; another starts."""
        with self.recorder.turn() as turn:
            second = turn.second
        self.tick()
        current = self.recorder.shipments[-1].spool
        number, before = current.end
        segment = current.folder / f"{number:010}.seg"
        current.append(self.entries((second, self.recorder.gateway, 10**6), "torn", audited=True))
        current.close()
        if current.end[0] == number:
            os.truncate(segment, before + torn % (segment.stat().st_size - before))
        else:
            (current.folder / f"{current.end[0]:010}.seg").unlink()
        for shipment in self.recorder.shipments[:-1]:
            shipment.spool.close()
        self.start()

    def stop(self) -> None:
        """The gateway ends in good order."""
        self.recorder.close()
        for shipment in self.recorder.shipments:
            shipment.spool.close()

    def finish(self) -> None:
        """The last gateway ends, and one more sends everything."""
        self.stop()
        self.start()
        self.park()
        self.ship()


def parking(key: str) -> Parking:
    return Parking(
        queue="q",
        client="c",
        idempotency_key=key,
        input_digest="",
        task=Task(question="?"),
        subject=b"",
        media_type="",
        attributes={},
    )
