"""Tiers, escalation, exclusion and going on elsewhere over real channels, with and without credentials."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fallback.answer import Label
from fallback.client import ReviewClient
from fallback.config import Config
from fallback.deferral import OnExpiry, Source, State
from fallback.errors import ForbiddenError, InvalidError, StateError
from fallback.identity import Credentials
from fallback.long_polls import LEASE_BYTES_MAX
from fallback.queue import Parked, Queue
from tests.integration.fallback.edges.conftest import parking_of
from tests.integration.fallback.edges.test_verbs import serving

TIERS = ("reader", "doctor")
PEOPLE = {"ann": ["reader"], "bob": ["reader"], "dora": ["doctor"], "both": ["reader", "doctor"], "nina": []}


async def _park(queue: Queue, **fields: Any) -> str:
    (verdict,) = await queue.park([parking_of("digits", fields)])
    assert isinstance(verdict, Parked), verdict
    return verdict.name


class Clinic:
    """A service with credentials whose queue has readers and doctors, and a client for each of its people."""

    def __init__(self, queue: Queue, clients: dict[str, ReviewClient]) -> None:
        self.queue = queue
        self._clients = clients

    def __getitem__(self, name: str) -> ReviewClient:
        return self._clients[name]


@pytest.fixture
async def clinic(config: Config, tmp_path: Path) -> AsyncIterator[Clinic]:
    """Two readers answer, doctors stand above; olga manages."""
    path = tmp_path / "credentials.toml"
    path.write_text(
        "\n".join(
            f'[[identity]]\nname = "{name}"\ntoken_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
            f'roles = ["{"operator" if name == "olga" else "reviewer"}"]\nskills = {skills}'
            for name, skills in {**PEOPLE, "olga": []}.items()
        )
    )
    async with AsyncExitStack() as stack:
        queue, address = await stack.enter_async_context(
            serving(config, Credentials.load(path), tiers=TIERS, reviews_wanted=2, reviews_max=2)
        )
        clients = {
            name: await stack.enter_async_context(ReviewClient(address, token=name)) for name in (*PEOPLE, "olga")
        }
        yield Clinic(queue, clients)


async def test_skills_come_from_the_credentials(clinic: Clinic) -> None:
    """Who has none may answer nothing here; a wish for a skill narrows, and cannot widen."""
    await _park(clinic.queue)
    with pytest.raises(ForbiddenError, match="'nina' may not answer these: queue digits takes the skill reader or doc"):
        await clinic["nina"].lease("digits")
    with pytest.raises(ForbiddenError, match="takes the skill doctor"):
        await clinic["ann"].lease("digits", skills=["doctor"])
    with pytest.raises(InvalidError, match="skills: expected some of queue digits's"):
        await clinic["ann"].lease("digits", skills=["nurse"])
    assert await clinic["dora"].lease("digits") == await clinic["both"].lease("digits", skills=["doctor"]) == []
    (lease,) = await clinic["ann"].lease("digits", skills=["reader"])
    assert lease.deferral.tier == "reader"


async def test_a_reader_sends_it_to_a_doctor(clinic: Clinic) -> None:
    """What the wire tells: the tier, how many wait at each, to the operator who sent it up and why."""
    name = await _park(clinic.queue)
    (lease,), (other,) = await clinic["ann"].lease("digits"), await clinic["bob"].lease("digits")
    (state,) = await clinic["olga"].queues()
    assert (state.tiers, state.waiting, state.next_free_time) == ({"reader": 0, "doctor": 0}, 0, lease.expire_time)
    await clinic["ann"].skip(lease.token, reason="not mine to say", escalate=True)
    (state,) = await clinic["olga"].queues()
    assert (state.tiers, state.waiting, state.next_free_time) == ({"reader": 0, "doctor": 1}, 1, None)
    with pytest.raises(StateError, match="is over: the next tier is asked"):
        await clinic["bob"].submit(other.token, Label("7"))
    (skip,) = (await clinic["olga"].get(name)).skips
    assert (skip.reviewer, skip.reason, skip.escalated) == ("ann", "not mine to say", True)
    assert await clinic["bob"].lease("digits") == []
    (held,) = await clinic["dora"].lease("digits")
    assert (held.deferral.tier, held.deferral.reviews_wanted) == ("doctor", 1)
    assert await clinic["both"].lease("digits") == []
    done = (await clinic["dora"].submit(held.token, Label("7"))).deferral
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.tier) == (State.RESOLVED, Source.PERSON, "doctor")


async def test_readers_who_differ_bring_in_a_doctor(clinic: Clinic) -> None:
    """One place; whoever answered is not asked again, whatever their skills."""
    await _park(clinic.queue)
    for reader, digit in (("both", "7"), ("bob", "1")):
        (lease,) = await clinic[reader].lease("digits")
        reviewed = await clinic[reader].submit(lease.token, Label(digit))
    assert (reviewed.deferral.state, reviewed.deferral.tier) == (State.OPEN, "doctor")
    assert await clinic["both"].lease("digits") == []
    with pytest.raises(StateError, match="the next tier is asked because of your review"):
        await clinic["bob"].undo(reviewed.deferral.name)
    (lease,) = await clinic["dora"].lease("digits")
    assert (lease.blind, lease.deferral.prediction) == (True, None)
    with pytest.raises(StateError, match="there is no tier above"):
        await clinic["dora"].skip(lease.token, escalate=True)
    done = (await clinic["dora"].submit(lease.token, Label("3"))).deferral
    assert done.outcome is not None
    assert (done.outcome.source, done.outcome.answer) == (Source.PERSON, Label("3"))
    assert [review.tier for review in (await clinic.queue.get(done.name)).reviews] == ["reader", "reader", "doctor"]


async def test_nobody_in_time_is_the_next_tiers(clinic: Clinic) -> None:
    """As the client wished; the doctor has a day of their own."""
    name = await _park(clinic.queue, on_expiry=OnExpiry.ESCALATE, review_seconds=0.05)
    await asyncio.sleep(0.1)
    assert (await clinic.queue.reap()).escalated == 1
    (lease,) = await clinic["dora"].lease("digits")
    assert (lease.deferral.name, lease.deferral.tier) == (name, "doctor")
    assert lease.deferral.expire_time - lease.deferral.create_time > 86_000


async def test_an_excluded_reviewer_gets_nothing(clinic: Clinic) -> None:
    """Nor does the wire tell anybody who is excluded."""
    name = await _park(clinic.queue, excluded_reviewers=("ann",))
    assert await clinic["ann"].lease("digits") == []
    (lease,) = await clinic["bob"].lease("digits")
    assert lease.deferral.name == name
    assert (await clinic["olga"].get(name)).skips == ()


async def test_a_second_tab_goes_on_where_the_first_was(clinic: Clinic) -> None:
    """With the draft; the first is told what happened, and its late answer changes nothing."""
    name = await _park(clinic.queue)
    (first,) = await clinic["ann"].lease("digits")
    await clinic["ann"].save_draft(first.token, '{"label": "7"}')
    (second,) = await clinic["ann"].lease("digits", resume=True)
    assert (second.deferral.name, second.draft, second.subject) == (name, '{"label": "7"}', b"image of a seven")
    with pytest.raises(StateError, match="is over: it was taken over in another place"):
        await clinic["ann"].submit(first.token, Label("1"))
    await clinic["ann"].submit(second.token, Label("7"))
    assert await clinic["ann"].lease("digits", resume=True, wait_seconds=0.2) == []


async def test_what_does_not_fit_into_a_reply_stays_held_by_who_goes_on(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is new goes back to the queue; the rest comes when they ask again."""
    monkeypatch.setattr("fallback.long_polls.LEASE_BYTES_MAX", 40)
    assert LEASE_BYTES_MAX > 40
    names = {await _park(clinic.queue) for _ in range(3)}
    held = [(await clinic["ann"].lease("digits"))[0] for _ in range(3)]
    assert {lease.deferral.name for lease in held} == names
    assert len(await clinic["ann"].lease("digits", limit=3, resume=True)) == 2
    await asyncio.sleep(0.1)
    assert (await clinic["olga"].queues())[0].held == 3


async def test_without_credentials_everybody_has_every_skill(config: Config) -> None:
    """On loopback people name themselves, and answer at any tier, if not at two."""
    async with (
        serving(config, tiers=TIERS) as (queue, address),
        ReviewClient(address, identity="ann") as ann,
        ReviewClient(address, identity="bob") as bob,
    ):
        await _park(queue)
        (lease,) = await ann.lease("digits")
        await ann.skip(lease.token, escalate=True)
        assert await ann.lease("digits") == []
        (lease,) = await bob.lease("digits", skills=["doctor"])
        assert (await bob.submit(lease.token, Label("7"))).deferral.state is State.RESOLVED
