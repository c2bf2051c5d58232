"""The certifier in the running system: a real server, a real queue, and what `demur train --watch` runs.

Where it is killed it is a process, forked from one that has everything imported: that takes longer than the test.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import onnx
import pytest

from fallback.answer import Identity, Label
from fallback.arrivals import Arrivals
from fallback.config import Config
from fallback.deferral import Draw, Parking, Prediction
from fallback.documents import Documents
from fallback.gold import GoldItem
from fallback.queue import Parked, Queue
from fallback.secret import secret
from gateway import lifecycle
from gateway.certification import CERTIFICATIONS, STANDINGS, Certification, Stage, Standing
from gateway.policy import Policy, draw
from gateway.samples import ClosingRow, JoinRow, SampledRecord, Scored, epoch_secret, place_text
from gateway.watch import MODELS, POLICIES
from tests.commands import demur_here as demur
from trainer import chain, digits, first, loop, rows
from trainer.chain import Chain
from trainer.retrain import Rooms
from trainer.rows import LabelRow

MODEL = "digits"
SETTINGS = """
[trainer]
survey_requests = 40
poll_seconds = 0.05
backoff_seconds_max = 0.5
"""


@dataclass(slots=True, kw_only=True)
class Gateway:
    """What a gateway does, as its rows and parkings show it; its clock runs fast, which is allowed."""

    config: Config
    queue: Queue
    arrivals: Arrivals
    documents: Documents
    second: int = field(default_factory=lambda: int(time.time()))
    counter: int = 0
    reviewed: int = 0
    people: random.Random = field(default_factory=lambda: random.Random(7))

    async def rule(self) -> Certification | None:
        """The rule in force."""
        found = await self.documents.read(CERTIFICATIONS + MODEL)
        return None if found is None else msgspec.json.decode(found.body, type=Certification)

    async def standing(self) -> Standing | None:
        """What people are told."""
        found = await self.documents.read(STANDINGS + MODEL)
        return None if found is None else msgspec.json.decode(found.body, type=Standing)

    async def join(self) -> None:
        """Say that it is there."""
        await self.tell(JoinRow(second=self.second, gateway="gateway1"))

    async def tell(self, *told: rows.Row) -> None:
        """Send rows."""
        await self.arrivals.add(MODEL, [rows.encode(row) for row in told])

    async def serve(self, requests: int = 12) -> None:
        """Let a second pass: requests, those of them that are sampled, and people who answer these."""
        rule = await self.rule()
        assert rule is not None
        self.second = max(self.second + 1, int(time.time()))
        records = [record for record in (self._decide(rule) for _ in range(requests)) if record is not None]
        parked = await self.queue.park([self._parking(record, rule) for record in records])
        assert all(isinstance(each, Parked) for each in parked), parked
        closing = ClosingRow(
            second=self.second,
            gateway="gateway1",
            eligible=requests,
            answered=0,
            sampled=len(records),
            histogram=(0,) * 20,
        )
        await self.tell(*records, closing)
        await self._review()

    def _decide(self, rule: Certification) -> SampledRecord | None:
        self.counter += 1
        key, confidence = f"client/{self.counter}", self.people.random()
        secret_of = epoch_secret(secret(self.config, "audit").encode(), model=MODEL, epoch=rule.epoch)
        number = draw(secret_of, model=MODEL, epoch=rule.epoch, request_key=key)
        tau = rule.threshold("1", self.second)
        q = 0.5 if tau is not None and confidence >= tau else 1.0
        if number >= q:
            return None
        said = msgspec.json.encode(Label("7"), order="sorted").decode()
        return SampledRecord(
            second=self.second,
            gateway="gateway1",
            counter=self.counter,
            model=MODEL,
            epoch=rule.epoch,
            segment="",
            request_key=key,
            q=q,
            floor=0.5 if tau is not None else 1.0,
            draw=number,
            scored=(
                Scored(
                    version="1",
                    scorer="margin",
                    confidence=confidence,
                    prediction=said,
                    eligible=True,
                    eligibility=Policy().eligibility,
                ),
            ),
        )

    def _parking(self, record: SampledRecord, rule: Certification) -> Parking:
        confidence = record.scored[0].confidence
        return Parking(
            queue=MODEL,
            client="robot",
            idempotency_key=record.request_key,
            input_digest=hashlib.sha256(record.request_key.encode()).hexdigest(),
            task=digits.manifest(MODEL).task or pytest.fail("a task"),
            subject=b"7",
            media_type="text/plain",
            attributes={"sure": f"{confidence:.3f}"},
            prediction=Prediction(model=MODEL, version="1", answer=Label("7"), confidence=confidence),
            draw=Draw(
                request_key=record.request_key,
                q=record.q,
                xi=record.draw,
                place=place_text(record.place),
                epoch=record.epoch,
                certificate=rule.certificate,
            ),
        )

    async def answer_gold(self) -> None:
        """Have a gold item answered right, and no other after it."""
        task, ann = digits.manifest(MODEL).task or pytest.fail("a task"), Identity(name="ann")
        item = GoldItem(task=task, answer=Label("7"), subject=b"gold", media_type="text/plain")
        await self.queue.gold.add(MODEL, item)
        await self.queue.gold._plant(MODEL)
        (lease,) = await self.queue.lease(MODEL, reviewer=ann)
        await self.queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="gold")

    async def _review(self) -> None:
        reviewer = Identity(name="ann")
        while leases := await self.queue.lease(MODEL, reviewer=reviewer, limit=50):
            for lease in leases:
                # Below a half, one in two is wrong; above, none.
                wrong = float(lease.deferral.attributes["sure"]) < 0.5 and self.people.random() < 0.5
                answer = Label("1" if wrong else "7")
                await self.queue.submit(lease.token, reviewer=reviewer, answer=answer, request_id=lease.deferral.id)
                self.reviewed += 1


@pytest.fixture
async def gateway(config: Config, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway of a model that is live and whose policy promises 10 %."""
    path = config.data_folder.parent / "demur.toml"
    path.write_text(SETTINGS)
    monkeypatch.setenv("DEMUR_CONFIG", str(path))
    rooms = Rooms.open(config)
    artefact = config.data_folder.parent / "model.onnx"
    found = digits.load()
    onnx.save_model(first.build(found.tensor(found.seed), found.labels[list(found.seed)], label_count=10), artefact)
    rooms.registry.publish(MODEL, artefact, digits.manifest(MODEL))
    documents, queue, arrivals = Documents.connect(config), Queue.connect(config), Arrivals.connect(config)
    states = lifecycle.promote(
        lifecycle.add(lifecycle.ModelStates(), "1", reason="new", time=0), "1", reason="test", time=0
    )
    policy = Policy(alpha=0.1, audit_share=0.5)
    await documents.write(MODELS + MODEL, lifecycle.encode(states), expected_revision=0)
    await documents.write(POLICIES + MODEL, msgspec.json.encode(policy), expected_revision=0)
    yield Gateway(config=config, queue=queue, arrivals=arrivals, documents=documents)
    for connected in (documents, queue, arrivals):
        await connected.close()


@asynccontextmanager
async def watching(config: Config) -> AsyncIterator[None]:
    """Run what `demur train --watch` does, in this process."""
    stop = asyncio.Event()
    task = asyncio.create_task(loop.watch(config, stop, ready=lambda: None))
    try:
        yield
    finally:
        stop.set()
        await task


FORKS = """
import os, sys
from gateway import cli
import trainer.commands, trainer.loop
for _ in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = ["demur", "train", "--watch"]
        cli.main()
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@dataclass(slots=True, kw_only=True)
class Watchers:
    """Starts the real `demur train --watch`, one at a time."""

    mother: asyncio.subprocess.Process
    process: int = 0

    async def start(self) -> None:
        """Start one."""
        assert self.mother.stdin is not None
        self.mother.stdin.write(b"another\n")
        await self.mother.stdin.drain()
        self.process = await self._number()

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        process, self.process = self.process, 0
        os.kill(process, signal.SIGKILL)
        assert await self._number() == signal.SIGKILL

    async def _number(self) -> int:
        assert self.mother.stdout is not None
        return int(await self.mother.stdout.readline())


@pytest.fixture
async def watchers(gateway: Gateway) -> AsyncIterator[Watchers]:
    """The process that they are forked from."""
    assert gateway.config.data_folder
    mother = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    started = Watchers(mother=mother)
    yield started
    if started.process:
        await started.kill()
    assert mother.stdin is not None
    mother.stdin.close()
    await mother.wait()


async def _ruled(gateway: Gateway) -> None:
    while await gateway.rule() is None:  # noqa: ASYNC110 - the document tells nobody
        await asyncio.sleep(0.05)


async def _settled(gateway: Gateway) -> None:
    """Wait until the watermark stands at the last second served."""
    while True:
        standing = await gateway.standing()
        if standing is not None and standing.watermark >= gateway.second:
            return
        await asyncio.sleep(0.1)


@pytest.mark.timeout(120)
async def test_requests_and_what_people_say_of_them_become_a_certificate(gateway: Gateway) -> None:
    """Everything goes to people, until a threshold is proved; `demur verify` computes the same from the data folder."""
    folder = gateway.config.data_folder / chain.FOLDER
    await gateway.answer_gold()
    async with watching(gateway.config):
        await _ruled(gateway)
        await gateway.join()
        for _ in range(40):
            await gateway.serve(18)
            await asyncio.sleep(0.02)
        await _settled(gateway)
        # Under what is proved by now, however long that took.
        await gateway.serve(18)
        await _settled(gateway)
        rule, standing = await gateway.rule(), await gateway.standing()
    assert rule is not None
    assert standing is not None
    assert rule.tau is not None
    assert standing.stage is Stage.CERTIFIED
    assert 0.2 < rule.tau < 0.75
    code, said = await demur("verify")
    assert code == 0, said
    assert said.startswith("digits: agrees: ")
    assert f"{gateway.reviewed} records" in said
    kept = Rooms.open(gateway.config).ledger.all()
    assert len(kept) == gateway.reviewed
    assert all(row["place"].startswith(str(gateway.second)[:6]) and row["epoch"] == rule.epoch for row in kept)
    assert {row["certificate"] for row in kept} > {None}, "what was decided under a certificate names it"
    code, said = await demur("certificate", "show", "digits", "--picture", str(folder.parent / "digits.png"))
    assert code == 0, said
    assert f"certificate {rule.certificate}" in said
    assert standing.reviewer_error == 0.0
    assert "reviewers got 0 of 1 answers to gold items wrong" in said
    assert "too few answers (1) to be sure that alpha 10.00% is in reach: add gold items" in said
    assert (folder.parent / "digits.png").read_bytes().startswith(b"\x89PNG")
    code, said = await demur("certificate", "plan", "digits", "--alpha", "0.1")
    assert code == 0, said
    assert "hours of people" in said
    await _tampered(gateway, folder)


async def _tampered(gateway: Gateway, folder: Path) -> None:
    """Change one row: verify names it, and the certifier takes everything back."""
    [segment] = (folder / MODEL).glob("*.rows")
    lines = segment.read_bytes().splitlines(keepends=True)
    numbers = [number for number, line in enumerate(lines) if b'"type":"label"' in line and b'"wrong":["1"]' in line]
    place = sum(not line.startswith(b"= ") for line in lines[: numbers[3]])
    lines[numbers[3]] = lines[numbers[3]].replace(b'"wrong":["1"]', b'"wrong":[]')
    segment.write_bytes(b"".join(lines))
    code, said = await demur("verify", "digits")
    assert code == 1
    assert f"digits: row {place} differs" in said
    async with watching(gateway.config):
        while not (rule := await gateway.rule()) or not rule.alarm:  # noqa: ASYNC110 - the document tells nobody
            await asyncio.sleep(0.1)
    assert rule.tau is None
    assert f"row {place}" in rule.alarm


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / MODEL).glob("*.rows"))


@pytest.mark.timeout(120)
async def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(
    gateway: Gateway, watchers: Watchers
) -> None:
    """`kill -9` while rows and outcomes come; each is in the chain once, and verify agrees."""
    folder = gateway.config.data_folder / chain.FOLDER
    for round_ in range(4):
        await watchers.start()
        await _ruled(gateway)
        if not round_:
            await gateway.join()
        before = _size(folder)
        for _ in range(4):
            await gateway.serve()
        while _size(folder) == before:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)
        await asyncio.sleep(gateway.people.random() * 0.1)
        await watchers.kill()
        await gateway.serve()
    async with watching(gateway.config):
        await gateway.serve()
        await _settled(gateway)
    code, said = await demur("verify")
    assert code == 0, said
    found = [rows.decode(link.body) for link in Chain(folder, MODEL).links()]
    records = [row.place for row in found if isinstance(row, SampledRecord)]
    labels = [row.place for row in found if isinstance(row, LabelRow)]
    assert len(records) == len(set(records)) == gateway.reviewed
    assert sorted(labels) == sorted(records)
