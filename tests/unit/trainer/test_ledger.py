from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from fallback.answer import Answer, CantTell, Label, Task
from fallback.deferral import Deferral, Draw, OnExpiry, Outcome, Prediction, Review, Source, State
from fallback.errors import InvalidError, StateError, UnavailableError
from fallback.queue import OutcomeEvent
from trainer.ledger import SCHEMA, Ledger, cursor_of, locked, position_of

SEVEN = Label("7")
TASK = Task(question="Which?", cant_tell=True)


def deferral(number: int, *, answer: Answer | None = SEVEN, model: str = "digits") -> Deferral:
    return Deferral(
        id=f"d{number}",
        queue="digits",
        state=State.RESOLVED,
        version=3,
        task=TASK,
        prediction=Prediction(model=model, version="1", answer=Label("1"), confidence=0.62),
        draw=Draw(request_key=f"key {number}", q=0.1, xi=0.05),
        outcome=Outcome(source=Source.PERSON, answer=answer, reviewed=True, create_time=1_700_000_001.5),
        reviews=(
            Review(reviewer="ann", answer=Label("7"), create_time=1_700_000_001.0, blind=True, duration_seconds=2.0),
        ),
        reviews_wanted=1,
        create_time=1_700_000_000.0,
        expire_time=1_700_086_400.0,
        client="robot",
        priority=0,
        attributes={"site": "north"},
        media_type="image/png",
        reasons=("audit",),
        audit=True,
        callback=None,
        on_expiry=OnExpiry.ABSTAIN,
        subject_digest="s" * 64,
        inputs_digest="i" * 64,
    )


def events(numbers: Sequence[int]) -> list[OutcomeEvent]:
    return [OutcomeEvent(cursor=f"1700000000000-{number}", deferral=deferral(number)) for number in numbers]


def test_a_row_holds_all_that_is_known(tmp_path: Path) -> None:
    """Key, version, confidence, prediction, q, the draw, blind or not, reviews, outcome, digests, times."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.append("digits", events([1])) == 1
    [row] = ledger.all()
    reviews = msgspec.json.decode(row.pop("reviews"))
    assert reviews[0]["reviewer"] == "ann"
    assert reviews[0]["blind"] is True
    assert row == {
        "row": 1,
        "position": position_of("1700000000000-1"),
        "deferral": "queues/digits/deferrals/d1",
        "queue": "digits",
        "client": "robot",
        "request_key": "key 1",
        "model": "digits",
        "version": "1",
        "confidence": 0.62,
        "prediction": '{"label":"1","type":"label"}',
        "q": 0.1,
        "xi": 0.05,
        "place": None,
        "epoch": None,
        "certificate": None,
        "reasons": ["audit"],
        "audit": True,
        "blind": True,
        "source": "person",
        "answer": '{"label":"7","type":"label"}',
        "reviewed": True,
        "attributes": '{"site":"north"}',
        "media_type": "image/png",
        "subject_digest": "s" * 64,
        "inputs_digest": "i" * 64,
        "create_time": datetime.fromtimestamp(1_700_000_000, UTC),
        "outcome_time": datetime.fromtimestamp(1_700_000_001.5, UTC),
    }


def test_a_replayed_batch_is_skipped(tmp_path: Path) -> None:
    """Again, overlapping, or an older part: only what is new is added, numbered without a gap."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.append("digits", events([1, 2, 3])) == 3
    assert ledger.append("digits", events([1, 2, 3])) == 0
    assert ledger.append("digits", events([2])) == 0
    assert ledger.append("digits", events([2, 3, 4, 5])) == 2
    assert ledger.append("digits", []) == 0
    assert [row["request_key"] for row in ledger.all()] == [f"key {number}" for number in (1, 2, 3, 4, 5)]
    assert [row["row"] for row in ledger.all()] == [1, 2, 3, 4, 5]
    assert ledger.last_row() == 5


def test_each_queue_has_its_own_place(tmp_path: Path) -> None:
    """The same stream id in two queues is two outcomes."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.cursor("digits") == "0"
    ledger.append("digits", events([1, 2]))
    assert ledger.append("other", events([1])) == 1
    assert ledger.cursor("digits") == "1700000000000-2"
    assert ledger.cursor("other") == "1700000000000-1"
    assert ledger.last_row() == 3


def test_the_place_survives_tidying_and_checkpoints(tmp_path: Path) -> None:
    """Merging small files changes neither rows nor the place; a replay after it is skipped too."""
    ledger = Ledger(tmp_path / "ledger")
    for number in range(1, 13):
        ledger.append("digits", events([number]))
    before = ledger.all()
    assert not ledger.tidy(files_max=12)
    assert ledger.tidy(files_max=11)
    assert ledger.all() == before
    assert ledger.cursor("digits") == "1700000000000-12"
    assert ledger.append("digits", events([11, 12])) == 0


def test_writers_that_race_do_not_double_rows(tmp_path: Path) -> None:
    """Even without the lock: one commits, the others see that they came second, or that nothing is left to do."""
    folder = tmp_path / "ledger"
    Ledger(folder).append("digits", events([1]))
    barrier = threading.Barrier(4)
    added: list[int] = []

    def write() -> None:
        barrier.wait()
        try:
            added.append(Ledger(folder).append("digits", events([1, 2, 3])))
        except UnavailableError:
            added.append(0)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [0, 0, 0, 2]
    assert [row["request_key"] for row in Ledger(folder).all()] == ["key 1", "key 2", "key 3"]


def test_rows_are_read_by_model_from_a_row_on(tmp_path: Path) -> None:
    """What training asks for: one model's, after the last it saw, the newest of them."""
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.rows("digits") == []
    others = [OutcomeEvent(cursor="1700000000000-9", deferral=deferral(9, model="other"))]
    ledger.append("digits", [*events(range(1, 6)), *others])
    assert [row.row for row in ledger.rows("digits", after=2)] == [3, 4, 5]
    assert [row.row for row in ledger.rows("digits", limit=2)] == [4, 5]
    assert [row.row for row in ledger.rows("other")] == [6]
    row = ledger.rows("digits")[0]
    assert (row.answer, row.prediction, row.source, row.q) == (Label("7"), Label("1"), Source.PERSON, 0.1)


def test_an_outcome_without_answer_or_model_has_its_row_too(tmp_path: Path) -> None:
    """Cancelled, "can't tell", asked of people without a model: all are kept."""
    cancelled = msgspec.structs.replace(
        deferral(1),
        reviews=(),
        prediction=None,
        draw=None,
        outcome=Outcome(source=Source.CANCELLATION, answer=None, reviewed=False, create_time=1.0),
    )
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("q", [OutcomeEvent(cursor="1-1", deferral=cancelled)])
    ledger.append("q", [OutcomeEvent(cursor="1-2", deferral=deferral(2, answer=CantTell()))])
    first, second = ledger.all()
    assert (first["model"], first["q"], first["blind"], first["answer"]) == (None, None, None, None)
    assert second["answer"] == '{"type":"cant_tell"}'


def test_a_deferral_without_outcome_is_refused(tmp_path: Path) -> None:
    """The stream holds none; one that does is a fault to hear of."""
    still_open = msgspec.structs.replace(deferral(1), outcome=None, state=State.OPEN)
    with pytest.raises(InvalidError, match="expected an outcome, got a deferral that is open"):
        Ledger(tmp_path / "ledger").append("q", [OutcomeEvent(cursor="1-1", deferral=still_open)])


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """The lock is the holder's until it lets go or dies."""
    with (
        locked(tmp_path / "lock"),
        pytest.raises(StateError, match="another trainer holds it"),
        locked(tmp_path / "lock"),
    ):
        pass
    with locked(tmp_path / "lock"):
        pass


@given(st.integers(0, 2**42), st.integers(0, 2**20 - 1), st.integers(0, 2**42), st.integers(0, 2**20 - 1))
def test_positions_are_ordered_as_stream_ids_are(ms: int, seq: int, other_ms: int, other_seq: int) -> None:
    """One number for two, there and back, fits a signed 64-bit integer."""
    position = position_of(f"{ms}-{seq}")
    assert cursor_of(position) == f"{ms}-{seq}"
    assert position < 2**63
    assert (position < position_of(f"{other_ms}-{other_seq}")) == ((ms, seq) < (other_ms, other_seq))


@pytest.mark.parametrize("cursor", ["", "5", "a-b", "-1", "1-", f"1-{2**20}", f"{2**43}-0"])
def test_what_is_no_stream_id_is_refused(cursor: str) -> None:
    """Named with what came."""
    with pytest.raises(InvalidError, match="cursor: expected"):
        position_of(cursor)


def names(ledger: Ledger) -> list[str]:
    return [row["request_key"] for row in ledger.all()]


def test_a_stream_that_lost_its_history_is_counted_anew(tmp_path: Path) -> None:
    """Earlier ids are taken again, once each; what the old stream brought is known by its deferral."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("digits", events([5, 6, 7]))
    ledger.append("other", events([5]))
    ledger.begin_history("digits")
    assert ledger.cursor("digits") == "0"
    assert ledger.append("digits", events([5, 6])) == 0, "a server put back to an older state brings what is in"
    assert ledger.cursor("digits") == "1700000000000-6"
    assert ledger.append("digits", events([6, 7, 8])) == 1
    assert ledger.append("digits", events([8])) == 0
    lost = [OutcomeEvent(cursor="1600000000000-1", deferral=deferral(99))]
    ledger.begin_history("digits")
    assert ledger.append("digits", lost) == 1
    assert ledger.append("digits", lost) == 0
    assert (ledger.cursor("digits"), ledger.cursor("other")) == ("1600000000000-1", "1700000000000-5")
    assert names(ledger) == ["key 5", "key 6", "key 7", "key 5", "key 8", "key 99"]
    assert [row["row"] for row in ledger.all()] == [*range(1, 7)]


def test_merging_leaves_large_files_alone_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only small files count and are merged: a large ledger is not written again and again."""
    ledger = Ledger(tmp_path / "ledger")
    for number in range(1, 5):
        ledger.append("digits", events([number]))
    with monkeypatch.context() as patched:
        patched.setattr("trainer.ledger._MERGED_BYTES", 1_000)
        assert not ledger.tidy(files_max=3), "none is small"
    assert ledger.tidy(files_max=3)
    assert len(ledger.all()) == 4


def test_the_log_holds_no_copy_of_texts(tmp_path: Path) -> None:
    """Attributes, comments and answers stand in the rows alone, not in the statistics of each commit."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("digits", events([1]))
    said = b"".join(path.read_bytes() for path in (tmp_path / "ledger" / "_delta_log").glob("*.json"))
    assert b"queues/digits/deferrals/d1" in said
    assert b"north" not in said
    assert b"ann" not in said.replace(b"dataChange", b"")


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    """A sentence with the path, of the kind that is tried again; no traceback, no end of the process."""
    (tmp_path / "ledger").write_bytes(b"a file where a folder must be")
    with pytest.raises(UnavailableError, match=r"ledger could not be read or written"):
        Ledger(tmp_path / "ledger").append("digits", events([1]))
    with pytest.raises(UnavailableError, match=r"could not be read or written"), locked(tmp_path / "ledger" / "lock"):
        pass


def test_a_table_of_before_places_were_known_goes_on(tmp_path: Path) -> None:
    """It gets the columns with the next row, and says nothing of records until then."""
    folder = tmp_path / "ledger"
    earlier = pa.schema([field for field in SCHEMA if field.name not in {"place", "epoch", "certificate"}])
    DeltaTable.create(folder, schema=earlier, name="ledger")
    ledger = Ledger(folder)
    assert ledger.told("digits", after=0) == []
    assert ledger.append("digits", events([1])) == 1
    sampled = msgspec.structs.replace(
        deferral(2),
        draw=Draw(request_key="key 2", q=0.1, xi=0.05, place="5-g-1", epoch="1700", certificate="1-ab.1"),
    )
    assert ledger.append("digits", [OutcomeEvent(cursor="1700000000000-2", deferral=sampled)]) == 1
    assert [row["certificate"] for row in ledger.all()] == [None, "1-ab.1"]
    [told] = ledger.told("digits", after=0)
    assert (told.row, told.place, told.epoch, told.source) == (2, "5-g-1", "1700", Source.PERSON)
    assert told.reviews[0].answer == SEVEN
    assert ledger.told("digits", after=2) == []
    assert ledger.told("cats", after=0) == []
