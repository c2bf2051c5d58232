"""What a gateway and its clerk say to each other arrives as it was said."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from fallback.config import Config, FallbackSettings, QueueSettings
from fallback.errors import ConflictError, DemurError, FullError, OverError, UnavailableError
from fallback.queue import Parked
from fallback.redis_settings import RedisSettings
from gateway import clerk_wire
from gateway.clerk_wire import Errand, Frames, Order, Reply, Settings
from gateway.slip import Slip


def test_frames_are_found_however_they_are_cut() -> None:
    """A byte at a time, or many at once."""
    draw = random.Random(1)
    contents = [draw.randbytes(draw.choice((0, 1, 100, 100_000))) for _ in range(20)]
    stream = b"".join(clerk_wire.frame(content) for content in contents)
    for most in (1, 1_000, len(stream)):
        frames, found, at = Frames(), [], 0
        while at < len(stream):
            size = most if most == 1 else draw.randrange(1, most + 1)
            found += [msgspec.msgpack.decode(each) for each in frames.feed(stream[at : at + size])]
            at += size
            if most == 1 and len(found) == 4:
                break
        assert found == contents[: len(found)]
        assert len(found) == (4 if most == 1 else 20)


@pytest.mark.parametrize(
    "verdict",
    [
        Parked(name="queues/q/deferrals/1", created=True),
        Parked(name="queues/q/deferrals/1", created=False, expected_wait=7.5, over="depth_max"),
        ConflictError("used"),
        UnavailableError("away", retry_after_seconds=1.0),
        FullError("full", retry_after_seconds=5.0),
        OverError("over", queue="q", limit="depth_max", unreviewed=True, retry_after_seconds=2.0),
        DemurError("internal error, id 1"),
    ],
)
def test_a_verdict_is_the_same_afterwards(verdict: Parked | DemurError) -> None:
    """Its class, its sentence, and when to come back."""
    sent = clerk_wire.reply([(Errand(3, 1, 2.0, ()), [verdict])])
    (content,) = Frames().feed(sent)
    fine, ((ticket, said),) = msgspec.msgpack.decode(content, type=Reply)
    assert not fine
    (found,) = clerk_wire.from_wire(said)
    assert (ticket, type(found)) == (3, type(verdict))
    if isinstance(verdict, Parked):
        assert found == verdict
    else:
        assert vars(found) == vars(verdict)


def test_audits_that_are_parked_are_told_by_their_tickets() -> None:
    """What was there before, was over a limit or was refused has more to say."""
    new = Parked(name="queues/q/deferrals/1", created=True)
    cases: list[list[Parked | DemurError]] = [
        [new, new],
        [new, msgspec.structs.replace(new, created=False)],
        [msgspec.structs.replace(new, over="depth_max")],
        [UnavailableError("away")],
    ]
    sent = clerk_wire.reply([(Errand(number, 1, None, ()), case) for number, case in enumerate(cases)])
    (content,) = Frames().feed(sent)
    fine, others = msgspec.msgpack.decode(content, type=Reply)
    assert (fine, [ticket for ticket, _ in others]) == ((0,), [1, 2, 3])


def test_an_errand_is_the_same_afterwards() -> None:
    """With numbers that were part of something larger."""
    numbers = memoryview(b"0123456789")[2:6]
    slip = Slip("client", "key", numbers, 1, 0.25, None, 1.0, 0.5, ("threshold",), audit=False)
    sent = clerk_wire.frame(([], [Errand(1, 2, float("inf"), (slip,))]))
    (content,) = Frames().feed(sent)
    assert msgspec.msgpack.decode(content, type=Order) == ((), (Errand(1, 2, float("inf"), (slip,)),))


def test_a_clerk_has_its_gateways_configuration(tmp_path: Path) -> None:
    """The server, the limits of content, every queue."""
    config = Config(
        data_folder=tmp_path,
        tables={"redis": RedisSettings(url="unix:///x"), "fallback": FallbackSettings(blob_concurrency_max=2)},
        queues={"default": QueueSettings(depth_max=7), "q": QueueSettings(reviews_wanted=2)},
    )
    sent = msgspec.msgpack.encode(Settings.of(config))
    found = msgspec.msgpack.decode(sent, type=Settings).config()
    assert found.table("redis", RedisSettings) == RedisSettings(url="unix:///x")
    assert found.table("fallback", FallbackSettings) == config.table("fallback", FallbackSettings)
    assert (found.queue("q").reviews_wanted, found.queue("other").depth_max) == (2, 7)
    assert found.data_folder == tmp_path


def test_an_id_is_that_of_its_errand_and_row() -> None:
    """The same whenever it is asked for, and nobody else's."""
    nonce, other = b"0" * 16, b"1" * 16
    assert clerk_wire.ids(nonce, 7, 3) == clerk_wire.ids(nonce, 7, 3)
    found = {one for each in (nonce, other) for ticket in range(50) for one in clerk_wire.ids(each, ticket, 4)}
    assert len(found) == 400
    assert all(len(one) == 20 and one.isalnum() for one in found)
