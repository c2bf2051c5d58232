"""A Hypothesis machine runs the queue on a real server against a model made of dictionaries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fallback import keys
from fallback.answer import Identity, Label, LabelOption, Task
from fallback.config import Config, QueueSettings
from fallback.deferral import Lease, Parking, State
from fallback.errors import ConflictError, StateError
from fallback.queue import Parked, Queue
from fallback.token import read as read_token

T = TypeVar("T")
QUEUE = "machine"
LABELS = ("a", "b", "c")
SKIPS_MAX = 2
FLAGS_MAX = 20
REVIEWERS = ("ann", "bob", "cid", "dan")
TASK = Task(question="Which?", labels=tuple(LabelOption(label=label) for label in LABELS))
reviewers = st.sampled_from(REVIEWERS)
labels = st.sampled_from(LABELS)
# Whose call it is: mostly, as the empty name says, that of whoever the token or the review belongs to.
callers = st.sampled_from(("", "", "", "", *REVIEWERS))


@dataclass
class Slot:
    """A place for a review: FREE, held by `holder` under `token`, or FILLED with `answer`."""

    holder: str = ""
    token: str = ""
    answer: str = ""
    overdue: bool = False


@dataclass
class Item:
    """What the model knows of a deferral."""

    name: str
    number: int
    priority: int
    state: State = State.OPEN
    overdue: bool = False
    slots: list[Slot] = field(default_factory=list)
    # In the undo window, which shows nowhere; and whether its time is over.
    settling: bool = False
    due: bool = False
    # What people did with it before: "undone" may be asked again, "answered" and "skipped" not.
    past: dict[str, str] = field(default_factory=dict)
    drafts: dict[tuple[int, str], str] = field(default_factory=dict)
    flags: int = 0

    def known(self, reviewer: str) -> bool:
        """Whether they hold or answered it."""
        return any(slot.holder == reviewer and (slot.token or slot.answer) for slot in self.slots)

    def skips(self) -> list[str]:
        return sorted(who for who, did in self.past.items() if did == "skipped")

    def forget(self, reviewer: str, number: int = -1) -> None:
        """Drop the drafts of a person, and of a slot."""
        self.drafts = {key: text for key, text in self.drafts.items() if number != key[0] and reviewer != key[1]}

    def draft(self, reviewer: str) -> str:
        return next((text for (_, by), text in self.drafts.items() if by == reviewer), "")

    def free(self) -> Slot | None:
        return next((slot for slot in self.slots if not slot.holder), None)

    def end(self, state: State) -> None:
        self.state, self.settling, self.due = state, False, False
        self.drafts = {}
        for slot in self.slots:
            slot.token = ""


class Machine(RuleBasedStateMachine):
    """Parks, leases, reviews, thinks again, cancels, lets time pass and reaps; compares after every step."""

    wanted = 2
    limit = 3
    undo_seconds = 0.0
    config: Config

    tokens: Bundle[tuple[str, str]] = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.items: dict[str, Item] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.ended: list[str] = []
        self.requests = 0
        rules = QueueSettings(
            reviews_wanted=self.wanted,
            reviews_max=self.limit,
            lease_seconds=3600,
            undo_seconds=self.undo_seconds,
            skips_max=SKIPS_MAX,
        )
        self.queue = self.run(self.open(Config(data_folder=self.config.data_folder, queues={"default": rules})))
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

    # What the model does by itself.

    def lapse(self) -> int:
        count = 0
        for item in self.items.values():
            for slot in item.slots:
                if slot.token and slot.overdue:
                    slot.holder, slot.token, slot.overdue = "", "", False
                    count += 1
        return count

    def conclude(self, item: Item) -> None:
        answers = [slot.answer for slot in item.slots]
        if not all(answers):
            return
        ((_, most),) = Counter(answers).most_common(1)
        if 2 * most > len(answers) or len(answers) >= self.limit:
            if self.undo_seconds:
                item.settling = True
            else:
                self.end(item, State.RESOLVED)
        else:
            item.slots.append(Slot())

    def end(self, item: Item, state: State) -> None:
        item.end(state)
        self.ended.append(item.name)

    def holder(self, token: str) -> tuple[Item, Slot] | None:
        for item in self.items.values():
            for slot in item.slots:
                if slot.token == token:
                    return item, slot
        return None

    # What happens to both.

    @initialize()
    def start(self) -> None:
        """Begin with something to do."""
        self.park(key="0", digest="x", priority=0)

    @rule(key=st.sampled_from(["", "", "0", "1"]), digest=st.sampled_from("xxxy"), priority=st.integers(0, 2))
    def park(self, key: str, digest: str, priority: int) -> None:
        """A new request, a retry, or a key used for something else."""
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
        slots = [Slot() for _ in range(self.wanted)]
        self.items[verdict.name] = Item(name=verdict.name, number=len(self.items), priority=priority, slots=slots)
        if key:
            self.keys[key] = (verdict.name, digest)

    @rule(target=tokens, reviewer=reviewers, limit=st.integers(1, 3))
    def lease(self, reviewer: str, limit: int) -> Any:
        """The most urgent items that this reviewer may take, and no others."""
        got = self.run(self.queue.lease(QUEUE, reviewer=Identity(name=reviewer), limit=limit))
        self.lapse()
        may = [
            item
            for item in sorted(self.items.values(), key=lambda item: (-item.priority, item.number))
            if item.state is State.OPEN
            and not item.overdue
            and item.free()
            and reviewer not in {slot.holder for slot in item.slots}
            and item.past.get(reviewer, "undone") == "undone"
        ]
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
            reviewer, slot.holder, slot.token = slot.holder, "", ""
            # Who took an answer back and lets the place go has had their say.
            item.past.update(dict.fromkeys(item.past.keys() & {reviewer}, "answered"))

    @rule(token=tokens, caller=callers)
    def skip(self, token: tuple[str, str], caller: str) -> None:
        """The slot is free again, and this reviewer never gets the item back."""
        request = self.request()

        async def call(text: str, who: Identity) -> None:
            await self.queue.skip(text, reviewer=who, reason="dark", request_id=request)
            await self.queue.skip(text, reviewer=who, reason="dark", request_id=request)

        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            reviewer, slot.holder, slot.token = slot.holder, "", ""
            item.past[reviewer] = "skipped"
            item.forget(reviewer)

    @rule(token=tokens, caller=callers, draft=st.sampled_from(["1", "2"]))
    def save_draft(self, token: tuple[str, str], caller: str, draft: str) -> None:
        """Kept in place of the one before; only the holder may."""

        async def call(text: str, who: Identity) -> None:
            await self.queue.save_draft(text, reviewer=who, draft=draft, request_id="")

        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            item.forget(slot.holder)
            item.drafts[item.slots.index(slot), slot.holder] = draft

    @precondition(lambda self: self.items)
    @rule(data=st.data(), reviewer=reviewers)
    def flag(self, data: st.DataObject, reviewer: str) -> None:
        """Whoever holds or answered it, in whatever state it is; once, however often it is sent."""
        item = data.draw(st.sampled_from(list(self.items.values())))
        who, request = Identity(name=reviewer), self.request()
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
        slot = next((slot for slot in item.slots if slot.answer and slot.holder == reviewer), None)
        who, request = Identity(name=reviewer), self.request()
        if slot is None or item.state is not State.OPEN or item.due or item.overdue:
            with pytest.raises(StateError):
                self.run(self.queue.undo(item.name, reviewer=who, request_id=request))
            if slot is not None and item.due:
                self.end(item, State.RESOLVED)
            return multiple()
        return self._undone(item, reviewer), reviewer

    def _undone(self, item: Item, reviewer: str) -> str:
        """Take back a review that may be; returns the token of the new lease."""
        (slot,) = [slot for slot in item.slots if slot.answer and slot.holder == reviewer]
        who, request = Identity(name=reviewer), self.request()
        lease = self.run(self.queue.undo(item.name, reviewer=who, request_id=request))
        assert self.run(self.queue.undo(item.name, reviewer=who, request_id=request)) == lease
        slot.token, slot.answer, slot.overdue = lease.token, "", False
        item.settling, item.past[reviewer] = False, "undone"
        return lease.token

    @precondition(lambda self: any(item.settling and not item.due for item in self.items.values()))
    @rule(data=st.data())
    def an_undo_window_is_over(self, data: st.DataObject) -> None:
        """Its end is moved into the past."""
        item = data.draw(st.sampled_from([item for item in self.items.values() if item.settling and not item.due]))
        self.run(self.redis.zadd(keys.index(QUEUE, "settling"), {item.name.rpartition("/")[2]: 1}, xx=True))
        item.due = True

    @precondition(lambda self: any(item.due for item in self.items.values()))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Whoever finds that a window is over closes it."""
        item = data.draw(st.sampled_from([item for item in self.items.values() if item.due]))
        assert self.run(self.queue.get(item.name)).state is State.RESOLVED
        self.end(item, State.RESOLVED)

    @rule(token=tokens, caller=callers, label=labels)
    def submit(self, token: tuple[str, str], caller: str, label: str) -> None:
        """The review is in, once, however often it is sent; the deferral settles or grows as the model says."""
        request = self.request()

        async def call(text: str, who: Identity) -> None:
            first = await self.queue.submit(text, reviewer=who, answer=Label(label), request_id=request)
            again = await self.queue.submit(text, reviewer=who, answer=Label(label), request_id=request)
            assert again == first

        held = self._held(token, caller, call)
        if held is not None:
            item, slot = held
            slot.answer, slot.token = label, ""
            item.forget(slot.holder, item.slots.index(slot))
            self.conclude(item)

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
        held = self.holder(text)
        assert held is not None
        self.submit((text, reviewer), "", label)
        if not again or held[0].state is not State.OPEN or held[0].overdue:
            return multiple()
        token = self._undone(held[0], reviewer)
        if again == "release":
            self.release((token, reviewer), "")
        elif again == "skip":
            self.save_draft((token, reviewer), "", "1")
            self.skip((token, reviewer), "")
        elif again == "draft":
            self.save_draft((token, reviewer), "", "1")
        return token, reviewer

    def _held(
        self, token: tuple[str, str], caller: str, call: Callable[[str, Identity], Coroutine[Any, Any, Any]]
    ) -> tuple[Item, Slot] | None:
        """Make a holder's call; returns what the model says they hold, None where the call must be refused."""
        text, owner = token
        reviewer = caller or owner
        held = self.holder(text)
        if held is None or reviewer != owner or held[1].overdue:
            with pytest.raises(StateError):
                self.run(call(text, Identity(name=reviewer)))
            return None
        self.run(call(text, Identity(name=reviewer)))
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
            self.end(item, State.CANCELLED)
        else:
            with pytest.raises(StateError):
                self.run(self.queue.cancel(item.name, request_id=request))

    @rule(token=tokens)
    def a_lease_becomes_overdue(self, token: tuple[str, str]) -> None:
        """Its time is moved into the past, in record and index alike."""
        held = self.holder(token[0])
        if held is not None:
            self.age(held[1])

    def age(self, slot: Slot) -> None:
        hold = read_token(slot.token)
        self.run(self.redis.hset(keys.record(QUEUE, hold.id), f"s{hold.slot}.until", "1"))
        self.run(self.redis.zadd(keys.index(QUEUE, "leases"), {f"{hold.id}:{hold.slot}": 1}))
        slot.overdue = True

    @precondition(lambda self: any(item.state is State.OPEN and not item.settling for item in self.items.values()))
    @rule(data=st.data())
    def a_deferral_becomes_overdue(self, data: st.DataObject) -> None:
        """The same for the deferral's own end, which no lease outlives."""
        opened = [item for item in self.items.values() if item.state is State.OPEN and not item.settling]
        item = data.draw(st.sampled_from(opened))
        one = item.name.rpartition("/")[2]
        self.run(self.redis.hset(keys.record(QUEUE, one), "expire_ms", "1"))
        self.run(self.redis.zadd(keys.index(QUEUE, "expiry"), {one: 1}))
        item.overdue = True
        for slot in item.slots:
            if slot.token:
                self.age(slot)

    @rule()
    def reap(self) -> None:
        """Overdue leases lapse, undo windows that are over close, overdue deferrals expire, each once."""
        done = self.run(self.queue.reap())
        assert done.lapsed == self.lapse()
        closed = [item for item in self.items.values() if item.due]
        assert done.closed == len(closed)
        for item in closed:
            self.end(item, State.RESOLVED)
        expired = [item for item in self.items.values() if item.state is State.OPEN and item.overdue]
        assert done.expired == len(expired)
        for item in expired:
            self.end(item, State.EXPIRED)

    @invariant()
    def the_server_agrees_with_itself(self) -> None:
        """Everything open stands in exactly one index."""
        assert self.run(self.queue.reconcile()) == []

    @invariant()
    def the_server_agrees_with_the_model(self) -> None:
        """States, reviews and counts; one outcome for each that ended."""
        for item in self.items.values():
            # Not by `get`, which closes a window that is over.
            found = self.run(self.queue._store.get(item.name)).deferral
            answers = sorted(slot.answer for slot in item.slots if slot.answer)
            assert (found.state, found.reviews_wanted) == (item.state, len(item.slots))
            assert (
                sorted(review.answer.label for review in found.reviews if isinstance(review.answer, Label)) == answers
            )
            assert (found.outcome is not None) == (item.state is not State.OPEN)
            assert len({review.reviewer for review in found.reviews}) == len(found.reviews)
            assert (len(found.flags), sorted(skip.reviewer for skip in found.skips)) == (item.flags, item.skips())
        flagged, _ = self.run(self.queue.list_deferrals(QUEUE, flagged=True, page_size=1_000))
        assert {deferral.name for deferral in flagged} == {
            item.name for item in self.items.values() if item.flags or len(item.skips()) >= SKIPS_MAX
        }
        events = self.run(self.queue.outcomes(QUEUE, "0"))
        assert sorted(event.deferral.name for event in events) == sorted(self.ended)
        for state in self.run(self.queue.states()):
            opened = [item for item in self.items.values() if item.state is State.OPEN]
            assert (state.open, state.waiting) == (len(opened), sum(item.free() is not None for item in opened))
            assert state.held == sum(any(slot.token for slot in item.slots) for item in opened)
            assert state.reviewers == len({slot.holder for item in opened for slot in item.slots if slot.token})


@pytest.mark.parametrize("undo_seconds", [0.0, 3600.0])
@pytest.mark.parametrize(("wanted", "limit"), [(1, 1), (2, 3)])
def test_the_queue_does_what_the_model_does(config: Config, wanted: int, limit: int, undo_seconds: float) -> None:
    """Whatever callers do in whatever order, server and model agree after every step."""
    machine = type(
        "Machine", (Machine,), {"wanted": wanted, "limit": limit, "undo_seconds": undo_seconds, "config": config}
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            database=None,
            # Explaining a failure traces every line: minutes with a server behind it.
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
