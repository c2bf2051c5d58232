from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from fallback.answer import Answer
from fallback.config import Config
from fallback.queue import OutcomeEvent, Queue
from trainer.config import TrainerSettings
from trainer.dataset import Limits, build
from trainer.digits import manifest
from trainer.follow import follow, keep_inputs
from trainer.loop import catch_up
from trainer.retrain import Rooms

Review = Callable[[dict[int, Answer]], Awaitable[list[str]]]
Truth = Callable[..., dict[int, Answer]]

SETTINGS = TrainerSettings(ledger_batch_rows_max=7, outcomes_keep_seconds=0)
# A writer that takes one outcome at a time, so that it may be killed between any two steps of any of them.
CHILD = """
import asyncio
from fallback import config
from fallback.queue import Queue
from trainer.config import TrainerSettings
from trainer.follow import follow
from trainer.ledger import locked
from trainer.retrain import Rooms

async def main():
    settings = TrainerSettings(ledger_batch_rows_max=1, outcomes_keep_seconds=0, ledger_files_max=5)
    rooms = Rooms.open(config.load())
    queue = Queue.connect(config.load())
    with locked(rooms.data / "lock"):
        print("writing", flush=True)
        while True:
            await follow(queue, rooms.ledger, rooms.contents, settings)

asyncio.run(main())
"""


async def drain(queue: Queue, rooms: Rooms) -> int:
    total = 0
    while grown := await follow(queue, rooms.ledger, rooms.contents, SETTINGS):
        total += grown
    return total


async def test_outcomes_reach_the_ledger_in_batches_with_their_inputs(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """Every outcome once, in order; each input kept under the digest its row names; the stream trimmed behind."""
    rooms = Rooms.open(config)
    names = await review(truth(20))
    assert await drain(queue, rooms) == 20
    rows = rooms.ledger.all()
    assert sorted(row["deferral"] for row in rows) == sorted(names)
    assert [row["position"] for row in rows] == sorted(row["position"] for row in rows)
    for row in rows:
        assert rooms.contents.get(row["inputs_digest"]) == await queue.inputs(row["deferral"])
        assert (row["q"], row["xi"], row["blind"], row["source"]) == (1.0, 0.5, True, "person")
    assert await queue.outcomes("digits", "0") == []
    assert await drain(queue, rooms) == 0


async def test_a_writer_that_dies_between_steps_leaves_nothing_twice_and_nothing_out(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """After the contents, after the commit, before the trimming: the next one goes on from what it finds."""
    rooms = Rooms.open(config)
    await review(truth(10))
    events = await queue.outcomes("digits", "0", count=4)
    await keep_inputs(queue, events, rooms.contents)  # ... and dies before the commit
    rooms.ledger.append("digits", events)  # ... and dies before the trimming
    assert len(await queue.outcomes("digits", "0")) == 10
    assert await drain(queue, rooms) == 6
    assert len({row["deferral"] for row in rooms.ledger.all()}) == len(rooms.ledger.all()) == 10


async def test_a_writer_killed_again_and_again_writes_each_outcome_once(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """Killed with -9 at whatever moment, three times over; the fourth finishes."""
    rooms = Rooms.open(config)
    names = await review(truth(40))
    for rows in (3, 12, 25):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        assert await child.stdout.readline() == b"writing\n"
        while await asyncio.to_thread(rooms.ledger.last_row) < rows:  # noqa: ASYNC110 - the table tells nobody
            await asyncio.sleep(0.003)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        assert rooms.ledger.last_row() < 40, "killed while there was work left"
    await drain(queue, rooms)
    rows_found = rooms.ledger.all()
    assert sorted(row["deferral"] for row in rows_found) == sorted(names)
    assert [row["row"] for row in rows_found] == [*range(1, 41)]
    assert all(rooms.contents.get(row["inputs_digest"]) for row in rows_found)


async def test_outcomes_stay_for_watchers_for_their_window(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """What is in the ledger is still there for whoever watches, until the window has passed."""
    rooms = Rooms.open(config)
    await review(truth(5))
    keeping = TrainerSettings(outcomes_keep_seconds=3600)
    assert await follow(queue, rooms.ledger, rooms.contents, keeping) == 5
    assert len(await queue.outcomes("digits", "0")) == 5
    assert await follow(queue, rooms.ledger, rooms.contents, keeping) == 0


async def test_a_single_retraining_takes_what_waits_first(config: Config, review: Review, truth: Truth) -> None:
    """`demur train MODEL` reads the stream itself where no watching trainer does."""
    await review(truth(5))
    rooms = Rooms.open(config)
    assert await catch_up(config, rooms) == 5
    assert await catch_up(config, rooms) == 0


async def test_a_server_that_lost_its_history_and_counts_from_earlier_is_noticed(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """The ledger is ahead of the stream: outcomes are not passed over, and none is taken twice."""
    rooms = Rooms.open(config)
    await review(truth(3))
    ahead = [
        OutcomeEvent(cursor=f"4000000000000-{number}", deferral=event.deferral)
        for number, event in enumerate(await queue.outcomes("digits", "0"))
    ]
    rooms.ledger.append("digits", ahead)
    names = await review(truth(4, 3))
    assert await follow(queue, rooms.ledger, rooms.contents, SETTINGS) == 0, "noticed"
    assert await drain(queue, rooms) == 4
    assert await drain(queue, rooms) == 0
    rows = [row["deferral"] for row in rooms.ledger.all()]
    assert len(rows) == len(set(rows)) == 7
    assert set(names) < set(rows)


async def test_what_is_erased_in_the_queue_is_erased_here_too(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """Before its outcome is taken in, or after: no inputs are kept, the row with its digests is, training goes on."""
    rooms = Rooms.open(config)
    early, late, kept = await review(truth(3))
    await queue.erase(early, request_id="1")
    assert await drain(queue, rooms) == 3
    await queue.erase(late, request_id="2")
    assert await drain(queue, rooms) == 0
    digests = {row["deferral"]: row["inputs_digest"] for row in rooms.ledger.all()}
    assert {name: rooms.contents.get(digest) is not None for name, digest in digests.items()} == {
        early: False,
        late: False,
        kept: True,
    }
    assert all(digests.values())
    assert await queue.erasures("digits") == {}
    made = build(
        manifest("digits"),
        rooms.ledger.rows("digits"),
        [],
        rooms.contents,
        trained_row=0,
        limits=Limits(holdout_share=0.2, replay_examples_max=10),
    )
    assert made.counts.skipped == {"erased": 2}
