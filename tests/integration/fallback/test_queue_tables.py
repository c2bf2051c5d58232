"""Walks the whole product State x Event of both tables of `fallback.deferral` against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any

import pytest
from redis.asyncio import Redis

from fallback import keys, token
from fallback.answer import Identity, Label
from fallback.config import Config, QueueSettings
from fallback.deferral import (
    DEFERRAL_TABLE,
    SLOT_TABLE,
    Event,
    Lease,
    Parking,
    SlotEvent,
    SlotState,
    Source,
    State,
)
from fallback.intake import park
from fallback.leases import lease, resume
from fallback.records import Verdict, encode_verdict
from fallback.store import Store

ANN, BOB = Identity(name="ann"), Identity(name="bob")
OUTCOME = encode_verdict(Verdict(source=Source.PERSON, answer=Label("7"), reviewed=True))
DAY_MS = 86_400_000
NO_WINDOW, WINDOW_MS = 0, 30_000


class Bench:
    """One deferral in one slot on a real server, and the means to bring both into any state."""

    def __init__(self, config: Config, parking: Parking) -> None:
        settings = QueueSettings(
            reviews_wanted=1, reviews_max=2, lease_seconds=60, review_seconds=60, tiers=("reader", "doctor")
        )
        self.store = Store(Config(data_folder=config.data_folder, queues={"default": settings}))
        self.redis: Redis = self.store.connection.redis
        self.parking = parking
        self.id = ""
        self.lease: Lease | None = None

    async def park(self) -> None:
        (parked,) = await park(self.store, [self.parking])
        self.id = parked.name.rpartition("/")[2]  # type: ignore[union-attr]  # an error here fails the test as well

    async def record(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = await self.redis.hgetall(keys.record("digits", self.id))  # type: ignore[assignment]
        return found

    async def everything(self) -> dict[bytes, bytes | None]:
        """All that the server holds, but the replies kept for request ids."""
        names = [key async for key in self.redis.scan_iter() if b"}:r:" not in key]
        return {name: await self.redis.dump(name) for name in sorted(names)}

    async def run(self, event: str, *arguments: Any) -> list[Any]:
        return await self.store.run(event, "digits", *arguments)

    async def close(self) -> list[Any]:
        """End its undo window; the script takes many and says how each went."""
        (reply,) = (await self.run("close", DAY_MS, self.id))[1:]
        return list(reply)

    async def hold(self) -> None:
        (self.lease,) = await lease(self.store, "digits", ANN, 1)

    def held(self) -> tuple[Any, ...]:
        """What a holder's scripts take; for a slot that was never held what somebody may have made up."""
        hold = token.read(self.lease.token) if self.lease else token.Hold("digits", self.id, 0, 1, "made up")
        return hold.id, hold.slot, hold.generation, hold.nonce, ANN.name

    async def time_passes(self, *, deferral: bool = False, lease: bool = False, window: bool = False) -> None:
        """Move what is to happen into the past, in record and index alike."""
        if deferral:
            await self.redis.hset(keys.record("digits", self.id), "expire_ms", "1")
            await self.redis.zadd(keys.index("digits", "expiry"), {self.id: 1}, xx=True)
        if window:
            await self.redis.zadd(keys.index("digits", "settling"), {self.id: 1}, xx=True)
        if lease:
            await self.redis.hset(keys.record("digits", self.id), "s0.until", "1")
            await self.redis.zadd(keys.index("digits", "leases"), {f"{self.id}:0": 1}, xx=True)

    async def fill(self) -> None:
        await self.hold()
        await self.run("submit", *self.held(), '{"type":"label","label":"7"}', "")

    async def bring(self, state: State) -> None:
        await self.park()
        match state:
            case State.OPEN:
                pass
            case State.SETTLING:
                await self.fill()
                await self.settle(WINDOW_MS)
            case State.RESOLVED:
                await self.fill()
                await self.happen(Event.SETTLE)
            case State.EXPIRED:
                await self.time_passes(deferral=True)
                await self.happen(Event.EXPIRE)
            case State.CANCELLED:
                await self.happen(Event.CANCEL)

    async def settle(self, window_ms: int) -> list[Any]:
        version = int((await self.record())[b"version"])
        return await self.run("settle", self.id, version, OUTCOME, "", DAY_MS, window_ms)

    async def undo(self, who: Identity = ANN) -> list[Any]:
        return await self.run("undo", self.id, who.name, 60_000, "a nonce")

    async def happen(self, event: Event) -> list[Any]:
        ending = (OUTCOME, "", DAY_MS)
        match event:
            case Event.SETTLE:
                return await self.settle(NO_WINDOW)
            case Event.CLOSE:
                return await self.close()
            case Event.UNDO:
                return await self.undo()
            case Event.EXPIRE:
                return await self.run("expire", self.id, *ending)
            case Event.CANCEL:
                return await self.run("cancel", self.id, *ending)
            case Event.ESCALATE:
                return await self.escalate("overdue")

    async def escalate(self, why: str, tiers: int = 2) -> list[Any]:
        version = int((await self.record())[b"version"])
        return await self.run("escalate", self.id, version, why, tiers, 1, 2, 60_000, 0)

    async def bring_slot(self, state: SlotState, *, was_held: bool) -> None:
        await self.park()
        if state is SlotState.FILLED:
            await self.fill()
        elif state is SlotState.HELD:
            await self.hold()
        elif was_held:
            await self.hold()
            await self.run("release", *self.held())

    async def happen_slot(self, event: SlotEvent) -> bool:
        """Try a slot's event; return whether it happened."""
        match event:
            case SlotEvent.LEASE:
                return bool(await lease(self.store, "digits", BOB, 1))
            case SlotEvent.RESUME:
                return bool(await resume(self.store, "digits", ANN, 1))
            case SlotEvent.LAPSE:
                return bool((await self.run("lapse", 100))[1] == 1)
            case SlotEvent.UNDO:
                return bool((await self.undo())[0] == "ok")
            case _:
                said = {
                    SlotEvent.EXTEND: (90_000,),
                    SlotEvent.SKIP: ("too dark", 5),
                    SlotEvent.SUBMIT: ('{"type":"label","label":"7"}', ""),
                }
                return bool((await self.run(event.value, *self.held(), *said.get(event, ())))[0] == "ok")


@pytest.fixture
async def bench(config: Config, parking: Callable[..., Parking]) -> AsyncIterator[Bench]:
    """One deferral's bench."""
    made = Bench(config, parking())
    yield made
    await made.store.connection.close()


@pytest.mark.parametrize("event", list(Event))
@pytest.mark.parametrize("state", list(State))
async def test_a_deferral_takes_the_events_of_its_table_and_no_others(bench: Bench, state: State, event: Event) -> None:
    """An event of the table leads to one of its states and a higher version; any other is refused without a trace."""
    await bench.bring(state)
    if event in {Event.EXPIRE, Event.ESCALATE}:
        await bench.time_passes(deferral=True)
    if event is Event.CLOSE:
        await bench.time_passes(window=True)
    before, record = await bench.everything(), await bench.record()
    assert record[b"state"].decode() == state.value
    reply = await bench.happen(event)
    after = await bench.record()
    if (state, event) in DEFERRAL_TABLE:
        assert reply[0] == "ok"
        assert State(after[b"state"].decode()) in DEFERRAL_TABLE[state, event]
        assert int(after[b"version"]) == int(record[b"version"]) + 1
        assert (await bench.run("inspect", bench.id))[1:] == []
    else:
        # To undo, its own words: when a window closed, and that there is nothing of theirs.
        own = {State.RESOLVED: "closed", State.OPEN: "nothing"} if event is Event.UNDO else {}
        assert reply[:2] == ["refused", own.get(state, "ended")]
        assert await bench.everything() == before


@pytest.mark.parametrize("event", list(SlotEvent))
@pytest.mark.parametrize(("state", "was_held"), [(state, False) for state in SlotState] + [(SlotState.FREE, True)])
async def test_a_slot_takes_the_events_of_its_table_and_no_others(
    bench: Bench, state: SlotState, event: SlotEvent, was_held: bool
) -> None:
    """An event of the table leads to its state and keeps the indexes right; any other leaves no trace."""
    await bench.bring_slot(state, was_held=was_held)
    if event is SlotEvent.LAPSE and state is SlotState.HELD:
        await bench.time_passes(lease=True)
    before, record = await bench.everything(), await bench.record()
    assert record.get(b"s0.state", b"free").decode() == state.value
    happened = await bench.happen_slot(event)
    assert happened == ((state, event) in SLOT_TABLE)
    if happened:
        assert (await bench.record())[b"s0.state"].decode() == SLOT_TABLE[state, event].value
        assert (await bench.run("inspect", bench.id))[1:] == []
    else:
        assert await bench.everything() == before


HOLDERS = [SlotEvent.EXTEND, SlotEvent.RELEASE, SlotEvent.SKIP, SlotEvent.SUBMIT]


@pytest.mark.parametrize("event", [*HOLDERS, SlotEvent.RESUME, SlotEvent.UNDO])
@pytest.mark.parametrize("state", [State.RESOLVED, State.EXPIRED, State.CANCELLED])
async def test_a_slot_takes_nothing_once_its_deferral_ended(bench: Bench, state: State, event: SlotEvent) -> None:
    """Whoever held a slot when the deferral ended loses it, and every call of theirs is refused without a trace."""
    await bench.park()
    await bench.hold()
    await bench.time_passes(deferral=state is State.EXPIRED)
    await bench.happen(
        {State.RESOLVED: Event.SETTLE, State.EXPIRED: Event.EXPIRE, State.CANCELLED: Event.CANCEL}[state]
    )
    before = await bench.everything()
    assert not await bench.happen_slot(event)
    assert await bench.everything() == before
    assert (await bench.run("inspect", bench.id))[1:] == []
    assert await bench.redis.exists(keys.index("digits", "leases"), keys.index("digits", "holds")) == 0


@pytest.mark.parametrize("event", sorted({*Event, *SlotEvent}))
def test_every_event_of_the_tables_has_its_script(event: Event | SlotEvent) -> None:
    """Of its name; nothing of the tables is left for later."""
    assert (resources.files("fallback") / "scripts" / f"{event.value}.lua").is_file()


async def test_a_deferral_escalates_for_a_reason_and_only_to_a_tier_that_is_there(bench: Bench) -> None:
    """Before its time, while reviews are to come, once they are in, from the last tier: refused without a trace."""
    await bench.park()
    before = await bench.everything()
    assert (await bench.escalate("overdue"))[:2] == ["refused", "early"]
    assert await bench.escalate("split") == ["refused", "open", 1]
    assert await bench.escalate("split", tiers=1) == ["refused", "highest"]
    assert (await bench.run("escalate", bench.id, 7, "split", 2, 1, 2, 60_000, 0))[:2] == ["refused", "changed"]
    assert await bench.everything() == before
    await bench.fill()
    await bench.time_passes(deferral=True)
    before = await bench.everything()
    assert await bench.escalate("overdue") == ["refused", "full"]
    assert await bench.everything() == before
    assert await bench.escalate("split") == ["ok", 3]
    assert (await bench.run("inspect", bench.id))[1:] == []
    record = await bench.record()
    assert (record[b"tier"], record[b"slots"], record[b"limit"], record[b"s0.tier"]) == (b"1", b"2", b"3", b"0")
    assert int(record[b"expire_ms"]) > 1
    await bench.time_passes(deferral=True)
    assert await bench.escalate("overdue") == ["refused", "highest"]


async def test_a_review_is_not_taken_back_once_the_next_tier_is_asked(bench: Bench) -> None:
    """It is asked because of that review; also in the undo window of its own word."""
    await bench.park()
    await bench.fill()
    await bench.escalate("split")
    before = await bench.everything()
    assert await bench.undo() == ["refused", "escalated"]
    assert await bench.everything() == before
    (second,) = await lease(bench.store, "digits", BOB, 1, ((1,),))
    bench.lease = second
    hold = token.read(second.token)
    held = (hold.id, hold.slot, hold.generation, hold.nonce, BOB.name)
    await bench.run("submit", *held, '{"type":"label","label":"1"}', "")
    await bench.settle(WINDOW_MS)
    assert await bench.undo() == ["refused", "escalated"]
    assert (await bench.undo(BOB))[0] == "ok"
    assert (await bench.run("inspect", bench.id))[1:] == []


async def test_only_a_deferral_with_all_its_reviews_grows_and_only_to_its_limit(bench: Bench) -> None:
    """One slot at a time, when none is FREE or HELD, up to M."""
    await bench.park()
    assert (await bench.run("grow", bench.id, 1, 2))[:2] == ["refused", "limit"]
    await bench.fill()
    assert (await bench.run("grow", bench.id, 1, 2))[:2] == ["refused", "changed"]
    assert (await bench.run("grow", bench.id, 2, 2)) == ["ok", 3]
    assert (await bench.run("inspect", bench.id))[1:] == []
    assert (await bench.run("grow", bench.id, 3, 2))[:2] == ["refused", "limit"]
    (second,) = await lease(bench.store, "digits", BOB, 1)
    bench.lease = second
    hold = token.read(second.token)
    held = (hold.id, hold.slot, hold.generation, hold.nonce, BOB.name)
    await bench.run("submit", *held, '{"type":"label","label":"1"}', "")
    assert (await bench.run("grow", bench.id, 4, 2)) == ["refused", "limit", 2]


async def test_settle_is_refused_when_a_review_came_in_between(bench: Bench) -> None:
    """Settling compares the version that the reviews were read at."""
    await bench.park()
    await bench.fill()
    before = await bench.everything()
    assert await bench.run("settle", bench.id, 1, OUTCOME, "", DAY_MS, NO_WINDOW) == ["refused", "changed", "2"]
    assert await bench.everything() == before


async def test_expire_waits_for_its_time_and_leaves_a_full_deferral_to_be_settled(bench: Bench) -> None:
    """Before its time and with all reviews in, nothing expires."""
    await bench.park()
    assert (await bench.run("expire", bench.id, OUTCOME, "", DAY_MS))[:2] == ["refused", "early"]
    await bench.fill()
    await bench.time_passes(deferral=True)
    assert await bench.run("expire", bench.id, OUTCOME, "", DAY_MS) == ["refused", "full"]


async def test_an_unknown_deferral_takes_no_event(bench: Bench) -> None:
    """Every script says that it does not know it, and makes no record of it."""
    bench.id = "0" * 32
    for event in (Event.EXPIRE, Event.CANCEL):
        assert await bench.run(event.value, bench.id, OUTCOME, "", DAY_MS) == ["refused", "unknown"]
    assert await bench.run("settle", bench.id, 1, OUTCOME, "", DAY_MS, NO_WINDOW) == ["refused", "unknown"]
    assert await bench.close() == ["refused", "unknown"]
    assert await bench.run("grow", bench.id, 1, 2) == ["refused", "unknown"]
    assert await bench.run("escalate", bench.id, 1, "overdue", 2, 1, 2, 60_000, 0) == ["refused", "unknown"]
    for slot_event in (*HOLDERS, SlotEvent.RESUME, SlotEvent.UNDO):
        assert not await bench.happen_slot(slot_event)
    assert await bench.everything() == {}


async def test_two_who_settle_at_once_write_one_outcome(bench: Bench) -> None:
    """Of any number of settlers one wins; the stream has one entry."""
    await bench.park()
    await bench.fill()
    replies = await asyncio.gather(*(bench.settle(NO_WINDOW) for _ in range(8)))
    assert sorted(reply[0] for reply in replies) == ["ok", *["refused"] * 7]
    assert await bench.redis.xlen(keys.index("digits", "outcomes")) == 1


@pytest.mark.parametrize("event", [*HOLDERS, SlotEvent.RESUME])
async def test_nobody_holds_anything_while_a_deferral_is_settling(bench: Bench, event: SlotEvent) -> None:
    """What a holder tries in the undo window is refused without a trace, also by those who were still looking."""
    await bench.park()
    await bench.hold()
    await bench.settle(WINDOW_MS)
    before = await bench.everything()
    assert not await bench.happen_slot(event)
    assert await bench.everything() == before
    assert (await bench.run("inspect", bench.id))[1:] == []


async def test_an_undo_window_closes_when_its_time_is_over_and_not_before(bench: Bench) -> None:
    """Until then there is no outcome in the stream and none to tell; then both come in one step."""
    await bench.bring(State.SETTLING)
    due = await bench.redis.zscore(keys.index("digits", "settling"), bench.id)
    assert await bench.close() == ["refused", "early", f"{due:.0f}"]
    assert await bench.redis.exists(keys.index("digits", "outcomes"), keys.index("digits", "outbox")) == 0
    await bench.time_passes(window=True)
    assert (await bench.undo())[:2] == ["refused", "closed"]
    assert (await bench.close())[0] == "ok"
    assert await bench.redis.xlen(keys.index("digits", "outcomes")) == 1


async def test_an_undo_window_never_outlasts_the_deferral_itself(bench: Bench) -> None:
    """One that is overdue when its reviews are in is final at once."""
    await bench.park()
    await bench.fill()
    await bench.settle(DAY_MS)
    record = await bench.record()
    assert await bench.redis.zscore(keys.index("digits", "settling"), bench.id) == int(record[b"expire_ms"])
    await bench.undo()
    await bench.time_passes(deferral=True)
    await bench.settle(DAY_MS)
    assert (await bench.record())[b"state"] == b"resolved"


async def test_an_overdue_deferral_gives_no_review_back(bench: Bench) -> None:
    """There would be no time left to give another one."""
    await bench.park()
    await bench.fill()
    await bench.time_passes(deferral=True)
    before = await bench.everything()
    assert await bench.undo() == ["refused", "overdue", "1"]
    assert await bench.everything() == before
