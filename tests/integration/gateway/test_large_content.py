"""Subjects of 20 MB from RequestReview to a lease, through one process whose memory is watched."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import pytest

from fallback.answer import Label, LabelOption, Task
from fallback.client import ReviewClient
from fallback.config import Config
from fallback.deferral import Content, State
from fallback.errors import FullError
from gateway.client import Client

MIB = 1024 * 1024
SUBJECT_BYTES = 20 * MIB
SUBJECTS = 10
AT_ONCE = 2
# What is under way is in memory a few times: as gRPC got it, as a message, as content, on its way to the server. A copy
# of each of the ten kept for good would be more.
COPIES = 10
# A gateway and a review service in one process, as small as they come.
CHILD = """
import asyncio, sys
from pathlib import Path
from fallback import logs
from fallback.config import Config, FallbackSettings, QueueSettings
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.service import Server
from gateway.config import GatewaySettings
from gateway.server import Gateway

root, place = sys.argv[1:]
logs.configure("test")
MIB = 1024 * 1024
gateway = GatewaySettings(
    grpc_listen="127.0.0.1:0", metrics_listen="", device="cpu", threads=1, drain_seconds=1.0,
    message_bytes_max=32 * MIB, requests_bytes_max=64 * MIB,
)
tables = {"gateway": gateway, "fallback": FallbackSettings(blobs=place, message_bytes_max=32 * MIB)}
queues = {"default": QueueSettings(subject_bytes_max=32 * MIB)}
config = Config(data_folder=Path(root), tables=tables, queues=queues)

async def main():
    running = Gateway(config)
    running.start()
    queue = Queue.connect(config)
    server = Server(queue, Credentials(), config)
    port = await server.start("127.0.0.1:0")
    print(running.address, f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)
    running.drain()

asyncio.run(main())
"""
TASK = Task(question="Fine?", labels=(LabelOption(label="yes"), LabelOption(label="no")))


def subject(number: int) -> bytes:
    """Twenty megabytes that are like no others."""
    return number.to_bytes(8, "little") * (SUBJECT_BYTES // 8)


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


async def ask(client: Client, number: int) -> str:
    """Ask about one subject, again while the gateway says that it has enough for now."""
    while True:
        try:
            asked = await client.request_review(
                "films",
                TASK,
                subject=(subject(number), "video/mp4"),
                idempotency_key=f"film {number}",
                timeout_seconds=90,
            )
        except FullError:
            await asyncio.sleep(0.1)
        else:
            return asked.name


@pytest.mark.parametrize("place", ["redis", "folder"])
async def test_subjects_of_20_mb_come_through_with_bounded_memory(config: Config, place: str) -> None:
    """Ten, two at a time: each is leased as it was sent; no memory grows with how many there were."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(config.data_folder), place),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    gateway, review = (await child.stdout.readline()).decode().split()
    before = peak_bytes(child.pid)
    async with Client(gateway, identity="shop") as client, ReviewClient(review, identity="ann", call_seconds=90) as ann:
        names: list[str] = []
        for first in range(0, SUBJECTS, AT_ONCE):
            names += await asyncio.gather(*(ask(client, number) for number in range(first, first + AT_ONCE)))
        seen = {}
        while leases := await ann.lease("films", limit=5):
            (lease,) = leases
            seen[lease.deferral.name] = hashlib.sha256(lease.subject).hexdigest()
            assert lease.deferral.content is Content.PRESENT
            done = await ann.submit(lease.token, Label("yes"))
            assert done.deferral.state is State.RESOLVED
        leased = peak_bytes(child.pid)
    child.stdin.close()
    await child.wait()
    assert seen == {name: hashlib.sha256(subject(number)).hexdigest() for number, name in enumerate(names)}
    assert leased - before < AT_ONCE * COPIES * SUBJECT_BYTES
