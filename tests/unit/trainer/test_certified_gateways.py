"""Gateways that the certifier hears of late, never, or too much: what that costs, and whom."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.samples import ClosingRow, JoinRow, SampledRecord
from tests.unit.trainer.world import START, Gateway, new_world, rows_of, rows_written, verified
from trainer import rows
from trainer.rows import LostRow, Row

pytestmark = pytest.mark.usefixtures("quick")


def test_a_gateway_that_nobody_hears_of_is_given_up(tmp_path: Path) -> None:
    """The watermark waits for it as long as it may be on its way, and then goes on without it."""
    world = new_world(tmp_path)
    world.run(30)
    world.gateways[1].dead = True
    world.run(60)
    assert world.book.passed < START + 40
    world.run(130)
    assert [row.gateway for row in rows_of(LostRow, world)] == ["b"]
    assert world.book.passed > START + 130
    assert verified(world).agrees


def test_a_gateway_that_was_given_up_is_told_and_counts_again_under_another_name(tmp_path: Path) -> None:
    """It hears why its name is lost; what it tells under the next one is evidence, and verify agrees."""
    world = new_world(tmp_path)
    world.run(20)
    world.gateways[1].cut_off = True
    world.run(130)
    assert world.rule is not None
    assert world.rule.lost == {"b": "nothing heard for 121 seconds"}
    world.kill()
    world.run(1)
    assert [*world.rule.lost] == ["b"]
    gateway = world.gateways[1]
    gateway.cut_off, gateway.name, gateway.joined = False, "b2", False
    world.run(120)
    assert {row.gateway for row in rows_of(SampledRecord, world) if isinstance(row, SampledRecord)} == {"a", "b", "b2"}
    assert world.book.passed > START + 190
    assert verified(world).agrees


def test_a_certifier_that_was_away_takes_nobody_for_lost(tmp_path: Path) -> None:
    """An hour without Redis is not the gateways' silence; what they kept meanwhile counts."""
    world = new_world(tmp_path)
    world.run(30)
    for _ in range(200):
        world.tick()
    world.run(30)
    assert rows_of(LostRow, world) == []
    assert verified(world).agrees
    assert verified(world).records == world.sent


def test_rows_that_contradict_each_other_cost_their_gateway_its_say_and_nothing_else(tmp_path: Path) -> None:
    """More records than it counted, seconds out of order, a stranger, an epoch nobody began: verify still agrees."""
    world = new_world(tmp_path)
    world.run(20)
    record = next(row for row in reversed(rows_written(world)) if isinstance(row, SampledRecord) and row.gateway == "a")
    closing = next(row for row in reversed(rows_written(world)) if isinstance(row, ClosingRow) and row.gateway == "a")
    odd: list[Row] = [
        msgspec.structs.replace(record, epoch="elsewhere", counter=10_001),
        msgspec.structs.replace(record, model="other", counter=10_002),
        msgspec.structs.replace(record, gateway="nobody"),
        msgspec.structs.replace(record, floor=1.0, q=0.5, counter=10_003),
        msgspec.structs.replace(record, second=record.second + 1, counter=10_004),
        msgspec.structs.replace(closing, second=closing.second + 1, sampled=0),
        record,
        closing,
        JoinRow(second=record.second, gateway="a"),
    ]
    world.stream += [rows.encode(row) for row in odd]
    world.run(200)
    assert [row.gateway for row in rows_of(LostRow, world)] == ["a"]
    assert verified(world).agrees
    assert world.rule is not None
    assert world.rule.tau is not None, "the other one's evidence is enough"


def test_a_gateway_that_was_cut_off_brings_its_seconds_later(tmp_path: Path) -> None:
    """The watermark waits; its records count, in their place."""
    world = new_world(tmp_path)
    world.run(60)
    world.gateways[0].cut_off = True
    world.run(50)
    assert world.book.passed <= START + 62
    world.gateways[0].cut_off = False
    world.run(70)
    assert rows_of(LostRow, world) == []
    assert world.book.passed > START + 120
    finding = verified(world)
    assert (finding.agrees, finding.records) == (True, world.sent)


def test_a_gateway_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Its last row says so, even where an earlier one closed that second already."""
    world = new_world(tmp_path)
    world.run(20)
    closing = next(row for row in reversed(rows_written(world)) if isinstance(row, ClosingRow) and row.gateway == "a")
    world.gateways[0].dead = True
    world.stream.append(rows.encode(msgspec.structs.replace(closing, final=True)))
    world.gateways.append(Gateway(name="c"))
    world.run(100)
    assert world.book.passed > START + 40
    finding = verified(world)
    assert (finding.agrees, finding.records) == (True, world.sent)


def test_a_clock_that_is_far_ahead_stops_nobody_else(tmp_path: Path) -> None:
    """Its gateway is given up, with a word, before its second is anybody's; one that begins so never joins."""
    world = new_world(tmp_path, label_seconds=0.4)
    world.run(20)
    world.gateways[0].skew = 86_400
    world.gateways.append(Gateway(name="c", skew=86_400))
    said, why = [], "its clock is 86400 seconds ahead, at most 300 are believed"
    for _ in range(20):
        world.run(1)
        said += world.open()[0].notices
    assert [row.gateway for row in rows_of(LostRow, world)] == ["a"]
    assert [notice for notice in said if "ahead" in notice] == [
        "a is given up, and its seconds that it did not close count for nothing: " + why,
        "nothing that c tells counts: " + why,
    ]
    assert "c" not in world.book.gateways
    world.run(200)
    assert START + 230 < world.book.passed <= world.now + 3
    assert world.book.newest <= world.now + 3
    assert world.rule is not None
    assert world.rule.tau is not None, "the other one's evidence is enough"
    assert verified(world).agrees
