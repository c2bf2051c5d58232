"""Hot swaps of a model on the GPU under load: nothing fails, and the device's memory stays as it was."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Check
from benchmarks.gpu import cards
from benchmarks.serve import ground, measures, swapping, windows
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from benchmarks.serve.sender import Load
from benchmarks.serve.sending import START_SECONDS, Sending, sending, shoot, workers
from benchmarks.serve.swapping import Swaps, Versions
from benchmarks.serve.windows import Swapped
from gateway.model import Device

DEVICE_GROWTH_MAX: Final = 0.05
_GAP_SECONDS: Final = 0.2
_LOAD_SHARE: Final = 0.5
_CALLERS: Final = 32
_SECONDS_MAX: Final = 180.0


class Swapping(msgspec.Struct, frozen=True, kw_only=True):
    """What swaps of one model took and left. Memory of all GPUs, MiB; None where nothing tells."""

    transport: str
    rate: float
    swaps: int
    requests: Swapped
    # Before a model was published, after the settling swaps, after all of them.
    device_mib_empty: float | None
    device_mib_settled: float | None
    device_mib_end: float | None

    @property
    def device_growth(self) -> float | None:
        """The share by which the memory in use grew."""
        if not self.device_mib_settled or self.device_mib_end is None:
            return None
        return self.device_mib_end / self.device_mib_settled - 1


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: swaps until the arenas have what they keep, swaps then (both even: back to the first version).

    `rate_max` bounds the load, requests a second.
    """

    settling: int
    swaps: int
    rate_max: float
    capacity_seconds: float
    rest_seconds: float


FULL: Final = Size(settling=6, swaps=20, rate_max=20_000, capacity_seconds=1.5, rest_seconds=1.0)
TRIAL: Final = Size(settling=2, swaps=2, rate_max=300, capacity_seconds=0.3, rest_seconds=0.1)


def measure(folder: Path, name: Name, device: Device, size: Size) -> Swapping:
    """Swap to and fro at half of what 32 callers reach."""
    settings = (f'device = "{device}"',)
    with ground.gateway(folder, transport="auto", settings=settings) as served:
        empty = cards.used_mib()
        versions, payload = swapping.publish(served, name), measures.asked(name)
        rate = min(size.rate_max, _LOAD_SHARE * _capacity(served, payload, size.capacity_seconds))
        given = swapping.load(served, name, seconds_max=_SECONDS_MAX)
        with sending(msgspec.structs.replace(given, rate=rate)) as load:
            time.sleep(max(0.0, load.start + size.rest_seconds - time.monotonic()))
            first, settled = _swap(served, name, versions, load, size.settling), _rest(size)
            then, end = _swap(served, name, versions, load, size.swaps), _rest(size)
            shots = load.end()
    found = windows.judged(
        shots, [*first.windows, *then.windows], versions.good, [*first.rss, *then.rss], settled=size.settling
    )
    return Swapping(
        transport="auto",
        rate=round(rate, 1),
        swaps=size.swaps,
        requests=found,
        device_mib_empty=empty,
        device_mib_settled=settled,
        device_mib_end=end,
    )


def judge(name: Name, found: Swapping) -> list[Check]:
    """Return the promises of swaps that hold on any machine; how soon they are is told, not promised here."""
    wrong = {
        "failed requests": found.requests.failed_requests,
        "batches that mixed versions": found.requests.mixed_batches,
        "replies that name another version than ran": found.requests.wrong_version,
    }
    checks = [
        Check(name=f"{name}, swaps: {what}", value=value, goal="= 0", ok=not value) for what, value in wrong.items()
    ]
    if (growth := found.device_growth) is not None:
        checks.append(
            Check(
                name=f"{name}, swaps: growth of the device's memory in use",
                value=round(growth, 4),
                goal=f"<= {DEVICE_GROWTH_MAX:g}",
                ok=growth <= DEVICE_GROWTH_MAX,
            )
        )
    return checks


def _capacity(served: Served, payload: bytes, seconds: float) -> float:
    """Return how many calls a second our own callers reach."""
    given = Load(address=served.address, payload=payload, callers=_CALLERS, seconds_max=seconds)
    with workers(1) as crew:
        shots = shoot(crew, given, wait_seconds=START_SECONDS)
    return max(1.0, int((shots.code == 0).sum()) / seconds)


def _swap(served: Served, name: Name, versions: Versions, load: Sending, count: int) -> Swaps:
    return asyncio.run(swapping.swap(served, name, versions, start=load.start, swaps=count, gap_seconds=_GAP_SECONDS))


def _rest(size: Size) -> float | None:
    """Return the memory in use once what was freed has gone."""
    time.sleep(size.rest_seconds)
    return cards.used_mib()
