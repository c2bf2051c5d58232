"""A Hypothesis machine runs the queue on a real server against a model made of dictionaries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from fallback import keys
from fallback.answer import Label
from fallback.config import Config
from fallback.deferral import State
from fallback.recount import recount
from fallback.token import read as read_token
from tests.stateful.queue_model import SKIPS_MAX, TIERS, Item, Slot
from tests.stateful.queue_people import QUEUE, People


class Machine(People):
    """Lets time pass and reaps between what people do; compares after every step."""

    def teardown(self) -> None:
        try:
            assert self.run(recount(self.own)).problems == []
        finally:
            super().teardown()

    @precondition(lambda self: any(item.settling and not item.due for item in self.items.values()))
    @rule(data=st.data())
    def an_undo_window_is_over(self, data: st.DataObject) -> None:
        """Its end is moved into the past."""
        item = data.draw(st.sampled_from([item for item in self.items.values() if item.settling and not item.due]))
        self.run(self.redis.zadd(keys.index(QUEUE, "settling"), {item.id: 1}, xx=True))
        item.due = True

    @precondition(lambda self: any(item.due for item in self.items.values()))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Whoever finds that a window is over closes it."""
        item = data.draw(st.sampled_from([item for item in self.items.values() if item.due]))
        assert self.run(self.queue.get(item.name)).state is State.RESOLVED
        self.model.end(item, State.RESOLVED)

    @rule(token=People.tokens)
    def a_lease_becomes_overdue(self, token: tuple[str, str]) -> None:
        """Its time is moved into the past, in record and index alike."""
        held = self.model.holder(token[0])
        if held is not None:
            self.age(held[1])

    def age(self, slot: Slot) -> None:
        hold = read_token(slot.token)
        self.run(self.redis.hset(keys.record(QUEUE, hold.id), f"s{hold.slot}.until", "1"))
        self.run(self.redis.zadd(keys.index(QUEUE, "leases"), {f"{hold.id}:{hold.slot}": 1}))
        slot.overdue = True

    def may_age(self) -> list[Item]:
        """What may become overdue: of two that escalate in one round nobody knows which comes first."""
        opened = [item for item in self.model.open() if not item.settling]
        waits = any(item.overdue and item.escalates for item in opened)
        return [item for item in opened if not (waits and item.escalates)]

    @precondition(lambda self: self.may_age())
    @rule(data=st.data())
    def a_deferral_becomes_overdue(self, data: st.DataObject) -> None:
        """The same for the deferral's own end, which no lease outlives."""
        item = data.draw(st.sampled_from(self.may_age()))
        self.run(self.redis.hset(keys.record(QUEUE, item.id), "expire_ms", "1"))
        self.run(self.redis.zadd(keys.index(QUEUE, "expiry"), {item.id: 1}))
        item.overdue = True
        for slot in item.held():
            self.age(slot)

    @rule()
    def reap(self) -> None:
        """Overdue leases lapse, undo windows that are over close, overdue deferrals expire or go up, each once."""
        done = self.run(self.queue.reap())
        assert self.counted(done.lapsed, self.model.lapse())
        closed = [item for item in self.items.values() if item.due]
        assert self.counted(done.closed, len(closed))
        for item in closed:
            self.model.end(item, State.RESOLVED)
        overdue = [item for item in self.model.open() if item.overdue]
        raised = [item for item in overdue if item.escalates and self.model.has_higher(item)]
        assert self.counted(done.escalated, len(raised))
        assert self.counted(done.expired, len(overdue) - len(raised))
        for item in overdue:
            if item not in raised:
                self.model.end(item, State.EXPIRED)
        for item in raised:
            self.model.escalate(item)

    def counted(self, got: int, done: int) -> bool:
        """Whether a round says that it did as many as it did."""
        return got == done

    @invariant()
    def the_server_agrees_with_itself(self) -> None:
        """Everything open stands in exactly one index."""
        assert self.run(self.queue.reconcile()) == []

    @invariant()
    def the_server_agrees_with_the_model(self) -> None:
        """States, tiers, reviews and counts; one outcome for each that ended."""
        for item in self.items.values():
            # Not by `get`, which closes a window that is over.
            found = self.run(self.queue._store.get(item.name)).deferral
            names = self.tiers or ("",)
            filled = [slot for slot in item.slots if slot.answer]
            answers = sorted((slot.answer, names[item.tier if slot.tier is None else slot.tier]) for slot in filled)
            assert (found.state, found.tier, found.reviews_wanted) == (item.state, names[item.tier], len(item.slots))
            assert answers == sorted(
                (review.answer.label, review.tier) for review in found.reviews if isinstance(review.answer, Label)
            )
            assert (found.outcome is not None) == (item.state is not State.OPEN)
            assert len({review.reviewer for review in found.reviews}) == len(found.reviews)
            skips = sorted((skip.reviewer, skip.escalated) for skip in found.skips)
            assert (len(found.flags), skips) == (item.flags, item.skips())
        flagged, _ = self.run(self.queue.list_deferrals(QUEUE, flagged=True, page_size=1_000))
        assert {deferral.name for deferral in flagged} == {
            item.name for item in self.items.values() if item.flags or len(item.skips()) >= SKIPS_MAX
        }
        events = self.run(self.queue.outcomes(QUEUE, "0"))
        assert sorted(event.deferral.name for event in events) == sorted(self.model.ended)
        for state in self.run(self.queue.states()):
            opened = self.model.open()
            waiting = [item for item in opened if item.free()]
            assert (state.open, state.waiting) == (len(opened), len(waiting))
            counts = ((name, sum(item.tier == number for item in waiting)) for number, name in enumerate(self.tiers))
            assert state.tiers == tuple(counts)
            assert state.held == sum(len(item.held()) for item in opened)
            assert (state.next_free_time is None) == (state.held == 0)
            assert state.reviewers == len({slot.holder for item in opened for slot in item.held()})


@pytest.mark.parametrize(
    ("wanted", "limit", "undo_seconds", "tiers"),
    [
        (1, 1, 0.0, ()),
        (2, 3, 0.0, ()),
        (2, 3, 3600.0, ()),
        (1, 1, 3600.0, TIERS),
        (2, 2, 0.0, TIERS),
        (2, 3, 3600.0, TIERS),
    ],
)
def test_the_queue_does_what_the_model_does(
    config: Config, wanted: int, limit: int, undo_seconds: float, tiers: tuple[str, ...]
) -> None:
    """Whatever callers do in whatever order, server and model agree after every step."""
    fields = {"wanted": wanted, "limit": limit, "undo_seconds": undo_seconds, "tiers": tiers, "config": config}
    machine: Any = type("Machine", (Machine,), fields)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            database=None,
            # Explaining a failure traces every line: minutes with a server behind it.
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
