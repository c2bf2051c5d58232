"""What the machine knows of the queue: dictionaries, and the rules that it expects the server to follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fallback.answer import Identity
from fallback.deferral import State

SKIPS_MAX = 2
FLAGS_MAX = 20
TIERS = ("reader", "doctor")
SKILLS = {
    "ann": {"reader"},
    "bob": {"reader"},
    "cid": {"reader", "doctor"},
    "dan": {"doctor"},
    "eve": {"reader", "doctor"},
}
REVIEWERS = tuple(SKILLS)


def identity(name: str) -> Identity:
    """Return a reviewer with their skills."""
    return Identity(name=name, skills=frozenset(SKILLS[name]))


@dataclass
class Slot:
    """A place for a review: FREE, held by `holder` under `token`, or FILLED with `answer`.

    `tier` is the number of the tier that it was filled at, once another one is asked.
    """

    holder: str = ""
    token: str = ""
    answer: str = ""
    overdue: bool = False
    tier: int | None = None

    def free(self) -> None:
        self.holder, self.token, self.overdue = "", "", False


@dataclass
class Item:
    """What the model knows of a deferral. `turn` is when its deadline was set: what came first is due first."""

    name: str
    priority: int
    turn: int
    wanted: int
    limit: int
    slots: list[Slot]
    tier: int = 0
    escalates: bool = False
    # What the model said, where a second opinion is asked for, and whether it always is.
    opinion: tuple[str, bool] | None = None
    state: State = State.OPEN
    overdue: bool = False
    # In the undo window, which shows nowhere; and whether its time is over.
    settling: bool = False
    due: bool = False
    # What people have to do with it beside their slots: "undone" may be asked again, "answered", "skipped", "escalated"
    # and "excluded" not.
    past: dict[str, str] = field(default_factory=dict)
    # One of each person, whatever place it was in.
    drafts: dict[str, str] = field(default_factory=dict)
    flags: int = 0

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    def known(self, reviewer: str) -> bool:
        """Whether they hold or answered it."""
        return any(slot.holder == reviewer and (slot.token or slot.answer) for slot in self.slots)

    def skips(self) -> list[tuple[str, bool]]:
        """Who skipped it, and whether to the next tier."""
        return sorted((who, did == "escalated") for who, did in self.past.items() if did in {"skipped", "escalated"})

    def draft(self, reviewer: str) -> str:
        return self.drafts.get(reviewer, "")

    def free(self) -> Slot | None:
        return next((slot for slot in self.slots if not slot.holder), None)

    def held(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.token]

    def answered_by(self, reviewer: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.answer and slot.holder == reviewer), None)

    def end(self, state: State) -> None:
        self.state, self.settling, self.due = state, False, False
        self.drafts = {}
        for slot in self.slots:
            slot.token = ""


class Model:
    """All items and the order of things; what one event does to them."""

    def __init__(self, *, wanted: int, limit: int, tiers: tuple[str, ...], undo: bool) -> None:
        self.wanted = wanted
        self.limit = limit
        self.tiers = tiers
        self.undo = undo
        self.items: dict[str, Item] = {}
        self.ended: list[str] = []
        self._turns = 0

    def turn(self) -> int:
        self._turns += 1
        return self._turns

    def park(
        self,
        name: str,
        *,
        priority: int,
        tier: int,
        excluded: tuple[str, ...],
        escalates: bool,
        opinion: tuple[str, bool] | None,
    ) -> None:
        self.items[name] = Item(
            name=name,
            priority=priority,
            turn=self.turn(),
            wanted=self.wanted,
            limit=self.limit,
            slots=[Slot() for _ in range(self.wanted)],
            tier=tier,
            escalates=escalates,
            opinion=opinion,
            past=dict.fromkeys(excluded, "excluded"),
        )

    def open(self) -> list[Item]:
        return [item for item in self.items.values() if item.state is State.OPEN]

    def may(self, reviewer: str, skills: set[str]) -> list[Item]:
        """What they may take, in the order in which they get it."""
        return [
            item
            for item in sorted(self.open(), key=lambda item: (-item.priority, item.turn))
            if not item.overdue
            and item.free()
            and (not self.tiers or self.tiers[item.tier] in skills)
            and reviewer not in {slot.holder for slot in item.slots}
            and item.past.get(reviewer, "undone") == "undone"
        ]

    def holds(self, reviewer: str) -> Iterator[tuple[Item, Slot]]:
        """What they hold and may go on with."""
        for item in self.open():
            for slot in item.held():
                if slot.holder == reviewer and not slot.overdue:
                    yield item, slot

    def holder(self, token: str) -> tuple[Item, Slot] | None:
        return next(((item, slot) for item in self.open() for slot in item.held() if slot.token == token), None)

    def lapse(self) -> int:
        over = [slot for item in self.items.values() for slot in item.held() if slot.overdue]
        for slot in over:
            slot.free()
        return len(over)

    def has_higher(self, item: Item) -> bool:
        return item.tier + 1 < len(self.tiers)

    def escalate(self, item: Item) -> None:
        for slot in item.slots:
            if not slot.answer:
                slot.free()
            elif slot.tier is None:
                slot.tier = item.tier
        item.slots = [*(slot for slot in item.slots if slot.answer), Slot()]
        item.tier, item.overdue, item.turn = item.tier + 1, False, self.turn()
        item.wanted, item.limit = 1, self.limit

    def conclude(self, item: Item) -> None:
        """What the reviews add up to, once nobody who is still asked could change it."""
        asked = [slot for slot in item.slots if slot.tier is None]
        votes = [slot.answer for slot in asked if slot.answer]
        wanted, limit = item.wanted, item.limit
        if item.opinion is not None and votes:
            if len(asked) > 1 or item.opinion[1] or votes != [item.opinion[0]]:
                wanted = limit = 3
            if len(votes) == len(asked) < wanted:
                item.slots += [Slot() for _ in range(wanted - len(asked))]
        if len(votes) < wanted:
            return
        ((_, most),) = Counter(votes).most_common(1)
        decided = 2 * most > len(asked)
        if not decided and len(votes) < len(asked):
            return
        if not decided and len(votes) < limit:
            item.slots.append(Slot())
        elif not decided and self.has_higher(item):
            self.escalate(item)
        elif self.undo:
            item.settling = True
            for slot in item.held():
                slot.free()
        else:
            self.end(item, State.RESOLVED)

    def end(self, item: Item, state: State) -> None:
        item.end(state)
        self.ended.append(item.name)
