"""What people do to the queue, done to a real server and to the model of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, precondition, rule

from fallback.answer import Identity, Label, LabelOption, Task
from fallback.config import Config, QueueSettings
from fallback.deferral import Lease, OnExpiry, Parking, SecondOpinion, State
from fallback.errors import ConflictError, ForbiddenError, StateError
from fallback.queue import Parked, Queue
from tests.stateful.queue_model import FLAGS_MAX, REVIEWERS, SKILLS, SKIPS_MAX, TIERS, Item, Model, Slot, identity

T = TypeVar("T")
QUEUE = "machine"
LABELS = ("a", "b", "c")
TASK = Task(question="Which?", labels=tuple(LabelOption(label=label) for label in LABELS))
reviewers = st.sampled_from(REVIEWERS)
labels = st.sampled_from(LABELS)
skills = st.sampled_from(("", "", "", *TIERS))
# Whose call it is: mostly, as the empty name says, that of whoever the token or the review belongs to.
callers = st.sampled_from(("", "", "", "", *REVIEWERS))


class People(RuleBasedStateMachine):
    """Parks, leases, goes on elsewhere, reviews, thinks again, sends up and cancels."""

    wanted = 2
    limit = 3
    undo_seconds = 0.0
    tiers: tuple[str, ...] = ()
    config: Config

    tokens: Bundle[tuple[str, str]] = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model(wanted=self.wanted, limit=self.limit, tiers=self.tiers, undo=self.undo_seconds > 0)
        self.keys: dict[str, tuple[str, str]] = {}
        self.requests = 0
        rules = QueueSettings(
            reviews_wanted=self.wanted,
            reviews_max=self.limit,
            lease_seconds=3600,
            undo_seconds=self.undo_seconds,
            skips_max=SKIPS_MAX,
            tiers=self.tiers,
        )
        self.own = Config(data_folder=self.config.data_folder, queues={"default": rules})
        self.queue = self.run(self.open(self.own))
        self.redis = self.queue._store.connection.redis
        self.run(self.redis.flushall())

    async def open(self, config: Config) -> Queue:
        return Queue.connect(config)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.queue.close())
        self.runner.close()

    def request(self) -> str:
        self.requests += 1
        return str(self.requests)

    @property
    def items(self) -> dict[str, Item]:
        return self.model.items

    @initialize()
    def start(self) -> None:
        """Begin with something to do."""
        self.park(key="0", digest="x", priority=0, tier="", excluded=(), escalates=False, opinion=None)

    @rule(
        key=st.sampled_from(["", "", "0", "1"]),
        digest=st.sampled_from("xxxy"),
        priority=st.integers(0, 2),
        tier=st.sampled_from(("", "", *TIERS)),
        excluded=st.sampled_from(((), (), ("ann",), ("bob", "dan"))),
        escalates=st.booleans(),
        opinion=st.sampled_from((None, None, ("a", False), ("a", True))),
    )
    def park(
        self,
        key: str,
        digest: str,
        priority: int,
        tier: str,
        excluded: tuple[str, ...],
        *,
        escalates: bool,
        opinion: tuple[str, bool] | None,
    ) -> None:
        """A new request, a retry, or a key used for something else."""
        tier = tier if self.tiers else ""
        # Two deadlines of one millisecond are told apart by age alone.
        time.sleep(0.002)
        parking = Parking(
            queue=QUEUE,
            client="c",
            idempotency_key=key,
            input_digest=digest,
            task=TASK,
            subject=b"s",
            media_type="text/plain",
            attributes={},
            priority=priority,
            tier=tier,
            excluded_reviewers=excluded,
            on_expiry=OnExpiry.ESCALATE if escalates else None,
            second_opinion=opinion and SecondOpinion(predictions=(Label(opinion[0]),), always=opinion[1]),
        )
        (verdict,) = self.run(self.queue.park([parking]))
        known = self.keys.get(key)
        if known is not None and known[1] != digest:
            assert isinstance(verdict, ConflictError)
            return
        assert isinstance(verdict, Parked)
        assert verdict.created == (known is None)
        if known is not None:
            assert verdict.name == known[0]
            return
        number = self.tiers.index(tier) if tier else 0
        self.model.park(
            verdict.name, priority=priority, tier=number, excluded=excluded, escalates=escalates, opinion=opinion
        )
        if key:
            self.keys[key] = (verdict.name, digest)

    @rule(target=tokens, reviewer=reviewers, limit=st.integers(1, 3), skill=skills)
    def lease(self, reviewer: str, limit: int, skill: str = "") -> Any:
        """The most urgent items that this reviewer may take, and no others."""
        skills = {skill} if skill and self.tiers else set()
        call = self.queue.lease(QUEUE, reviewer=identity(reviewer), limit=limit, skills=sorted(skills))
        if skills and not skills & SKILLS[reviewer]:
            with pytest.raises(ForbiddenError):
                self.run(call)
            return multiple()
        return self._leased(self.run(call), reviewer, limit, skills or SKILLS[reviewer])

    @rule(target=tokens, reviewer=reviewers, limit=st.integers(1, 3))
    def resume(self, reviewer: str, limit: int) -> Any:
        """What they hold already comes first, under new tokens; those they had are no good any more."""
        held = {slot.token: (item, slot) for item, slot in self.model.holds(reviewer)}
        before = {item.id: slot for item, slot in held.values()}
        got = self.run(self.queue.lease(QUEUE, reviewer=identity(reviewer), limit=limit, resume=True))
        again = [lease for lease in got if lease.resumed]
        assert len(again) == min(limit, len(held))
        for lease in again:
            slot = before.pop(lease.deferral.id)
            assert lease.token != slot.token
            assert lease.draft == self.items[lease.deferral.name].draft(reviewer)
            slot.token = lease.token
        new = [lease for lease in got if not lease.resumed]
        left = limit - len(again)
        more = self._leased(new, reviewer, left, SKILLS[reviewer]).values if left else ()
        return multiple(*((lease.token, reviewer) for lease in again), *more)

    def _leased(self, got: list[Lease], reviewer: str, limit: int, skills: set[str]) -> Any:
        """Compare leases with what the model would give, and give it."""
        self.model.lapse()
        may = self.model.may(reviewer, skills)
        assert [lease.deferral.name for lease in got] == [item.name for item in may[:limit]]
        for item, lease in zip(may, got, strict=False):
            slot = item.free()
            assert slot is not None
            slot.holder, slot.token = reviewer, lease.token
            assert lease.draft == item.draft(reviewer)
        return multiple(*((lease.token, reviewer) for lease in got))

    @rule(token=tokens, caller=callers)
    def extend(self, token: tuple[str, str], caller: str) -> None:
        """Only the holder, only while they hold; an extended lease is not overdue."""

        async def call(text: str, who: Identity) -> Lease:
            return await self.queue.extend(text, reviewer=who, request_id="")

        self._held(token, caller, call)

    @rule(token=consumes(tokens), caller=callers)
    def release(self, token: tuple[str, str], caller: str) -> None:
        """The slot is free again; a repeat is answered as the first time."""
        request = self.request()

        async def call(text: str, who: Identity) -> None:
            await self.queue.release(text, reviewer=who, request_id=request)
            await self.queue.release(text, reviewer=who, request_id=request)

        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            reviewer = slot.holder
            slot.free()
            # Who took an answer back and lets the place go has had their say.
            item.past.update(dict.fromkeys(item.past.keys() & {reviewer}, "answered"))

    @rule(token=tokens, caller=callers, higher=st.booleans())
    def skip(self, token: tuple[str, str], caller: str, *, higher: bool) -> None:
        """This reviewer never gets the item back; it waits for others, or for the next tier where there is one."""
        request = self.request()

        async def call(text: str, who: Identity) -> None:
            for _ in range(2):
                await self.queue.skip(text, reviewer=who, reason="dark", request_id=request, escalate=higher)

        held = self.model.holder(token[0])
        if higher and held is not None and not self.model.has_higher(held[0]):
            with pytest.raises(StateError):
                self.run(call(token[0], identity(caller or token[1])))
            return
        time.sleep(0.002)
        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            item.past[slot.holder] = "escalated" if higher else "skipped"
            item.drafts.pop(slot.holder, None)
            slot.free()
            if higher:
                self.model.escalate(item)

    @precondition(lambda self: bool(self.tiers))
    @rule(target=tokens, reviewer=reviewers, other=reviewers)
    def send_up(self, reviewer: str, other: str) -> Any:
        """Two look, mostly at the same item, and one finds it above them: the other's look is over."""
        first: Any = self.lease(other, 1)
        second: Any = self.lease(reviewer, 1)
        taken = [*first.values, *second.values]
        for token in taken[1:]:
            self.skip(token, "", higher=True)
        return multiple(*taken)

    @rule(token=tokens, caller=callers, draft=st.sampled_from(["1", "2"]))
    def save_draft(self, token: tuple[str, str], caller: str, draft: str) -> None:
        """Kept in place of the one before; only the holder may."""

        async def call(text: str, who: Identity) -> None:
            await self.queue.save_draft(text, reviewer=who, draft=draft, request_id="")

        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            item.drafts[slot.holder] = draft

    @precondition(lambda self: self.items)
    @rule(data=st.data(), reviewer=reviewers)
    def flag(self, data: st.DataObject, reviewer: str) -> None:
        """Whoever holds or answered it, in whatever state it is; once, however often it is sent."""
        item = data.draw(st.sampled_from(list(self.items.values())))
        who, request = identity(reviewer), self.request()
        call = self.queue.flag
        if item.known(reviewer) and item.flags < FLAGS_MAX:
            self.run(call(item.name, reviewer=who, comment="look", request_id=request))
            self.run(call(item.name, reviewer=who, comment="look", request_id=request))
            item.flags += 1
        else:
            with pytest.raises(StateError):
                self.run(call(item.name, reviewer=who, comment="look", request_id=request))

    @precondition(lambda self: any(slot.answer for item in self.items.values() for slot in item.slots))
    @rule(target=tokens, data=st.data(), caller=callers, hopeful=st.booleans())
    def undo(self, data: st.DataObject, caller: str, *, hopeful: bool) -> Any:
        """Their own review, while the outcome is not final: the slot is theirs again, whoever settled meanwhile."""
        answered = [(item, slot.holder) for item in self.items.values() for slot in item.slots if slot.answer]
        open_ = [one for one in answered if one[0].state is State.OPEN]
        item, owner = data.draw(st.sampled_from(open_ if open_ and hopeful else answered))
        reviewer = caller or owner
        slot = item.answered_by(reviewer)
        who, request = identity(reviewer), self.request()
        if slot is None or slot.tier is not None or item.state is not State.OPEN or item.due or item.overdue:
            with pytest.raises(StateError):
                self.run(self.queue.undo(item.name, reviewer=who, request_id=request))
            if slot is not None and slot.tier is None and item.due:
                self.model.end(item, State.RESOLVED)
            return multiple()
        return self._undone(item, reviewer), reviewer

    def _undone(self, item: Item, reviewer: str) -> str:
        """Take back a review that may be; returns the token of the new lease."""
        slot = item.answered_by(reviewer)
        assert slot is not None
        who, request = identity(reviewer), self.request()
        lease = self.run(self.queue.undo(item.name, reviewer=who, request_id=request))
        assert self.run(self.queue.undo(item.name, reviewer=who, request_id=request)) == lease
        slot.token, slot.answer, slot.overdue = lease.token, "", False
        item.settling, item.past[reviewer] = False, "undone"
        return lease.token

    @rule(token=tokens, caller=callers, label=labels)
    def submit(self, token: tuple[str, str], caller: str, label: str) -> None:
        """The review is in, once, however often it is sent; the deferral settles or grows as the model says."""
        request = self.request()

        async def call(text: str, who: Identity) -> None:
            first = await self.queue.submit(text, reviewer=who, answer=Label(label), request_id=request)
            again = await self.queue.submit(text, reviewer=who, answer=Label(label), request_id=request)
            assert again == first

        # It may be the one that escalates.
        time.sleep(0.002)
        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            slot.answer, slot.token = label, ""
            item.drafts.pop(slot.holder, None)
            self.model.conclude(item)

    @rule(
        target=tokens, reviewer=reviewers, label=labels, again=st.sampled_from(["", "keep", "release", "skip", "draft"])
    )
    def review(self, reviewer: str, label: str, again: str) -> Any:
        """What is mostly done, in one step: take an item, answer it, and perhaps think again."""
        leased: Any = self.lease(reviewer, 1)
        taken = leased.values
        if not taken:
            return multiple()
        ((text, _),) = taken
        held = self.model.holder(text)
        assert held is not None
        self.submit((text, reviewer), "", label)
        if not again or held[0].state is not State.OPEN or held[0].overdue or held[1].tier is not None:
            return multiple()
        token = self._undone(held[0], reviewer)
        if again == "release":
            self.release((token, reviewer), "")
        elif again == "skip":
            self.save_draft((token, reviewer), "", "1")
            self.skip((token, reviewer), "", higher=False)
        elif again == "draft":
            self.save_draft((token, reviewer), "", "1")
        return token, reviewer

    def _held(
        self, token: tuple[str, str], caller: str, call: Callable[[str, Identity], Coroutine[Any, Any, Any]]
    ) -> tuple[Item, Slot] | None:
        """Make a holder's call; returns what the model says they hold, None where the call must be refused."""
        text, owner = token
        reviewer = caller or owner
        held = self.model.holder(text)
        if held is None or reviewer != owner or held[1].overdue:
            with pytest.raises(StateError):
                self.run(call(text, identity(reviewer)))
            return None
        self.run(call(text, identity(reviewer)))
        return held

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """An open one is cancelled, once, however often it is asked for; an ended one is not."""
        item = data.draw(st.sampled_from(list(self.items.values())))
        request = self.request()
        if item.state is State.OPEN:
            first = self.run(self.queue.cancel(item.name, request_id=request))
            assert self.run(self.queue.cancel(item.name, request_id=request)) == first
            self.model.end(item, State.CANCELLED)
        else:
            with pytest.raises(StateError):
                self.run(self.queue.cancel(item.name, request_id=request))
