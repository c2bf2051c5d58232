from __future__ import annotations

import hashlib

import pytest

from fallback.errors import InvalidError
from gateway.samples import ClosingRow, JoinRow, SampledRecord, Scored, commit
from trainer.rows import (
    CertificateRow,
    EpochRow,
    LabelRow,
    LostRow,
    ProcessRow,
    RevealRow,
    Row,
    WatermarkRow,
    arrived,
    chain,
    decode,
    encode,
    first_break,
    genesis,
    link,
)

ROWS: list[Row] = [
    EpochRow(model="m", epoch="1", commitment=commit(bytes(32)), sla_seconds=60),
    ProcessRow(
        epoch="1",
        version="7",
        scorer="margin",
        segment="",
        alpha=0.01,
        delta=0.05,
        grid=(0.9, 0.1 + 0.2),
        first_second=1,
        last_second=9,
    ),
    JoinRow(second=1, gateway="a"),
    SampledRecord(
        second=1,
        gateway="a",
        counter=1,
        model="m",
        epoch="1",
        segment="",
        request_key="client/k",
        q=1 / 3,
        floor=0.1,
        draw=0.05,
        scored=(Scored(version="7", scorer="margin", confidence=2 / 3, prediction='"cat"', eligible=True),),
    ),
    LabelRow(second=1, gateway="a", counter=1, truth=None, wrong=()),
    ClosingRow(second=1, gateway="a", eligible=9, answered=5, sampled=1, histogram=(9,)),
    LostRow(gateway="a"),
    WatermarkRow(second=1, reached=62),
    CertificateRow(epoch="1", version="7", segment="", log_peaks=(0.0, 0.0), log_evidence=(-1.5, -1.5), tau=None),
    RevealRow(epoch="1", secret=bytes(32).hex()),
]


def test_a_row_reads_back_as_it_was_written() -> None:
    """To the last bit of every number, and to the same bytes again."""
    for row in ROWS:
        assert decode(encode(row)) == row
        assert encode(decode(encode(row))) == encode(row)


def test_what_is_no_row_is_refused() -> None:
    """With what was found."""
    broken = b'{"type":"lost","gateway":"\xff"}', b'{"type":"lost","gateway":"a","x":' + b"[" * 100_000
    for body in (b"", b"{}", b'{"type":"label"}', b'{"type":"lost","gateway":1}', *broken):
        for read in (decode, arrived):
            with pytest.raises(InvalidError, match="expected a row"):
                read(body)


def test_a_chain_holds_until_something_is_changed() -> None:
    """The first row that does not follow is named: changed, left out, put in, or in another order."""
    links, first = link(genesis("m"), ROWS), genesis("m")
    assert first_break(first, links) is None
    assert first_break(first, links[:4]) is None
    assert first_break(first, [*links[:3], *links[4:]]) == 3
    assert first_break(first, [*links[:3], links[4], links[3], *links[5:]]) == 3
    assert first_break(first, [*links[:3], links[0], *links[3:]]) == 3
    assert first_break(genesis("other"), links) == 0


def test_a_chain_goes_on_where_it_ended() -> None:
    """Rows that are linked later have the same digests as if all had come at once."""
    whole = link(genesis("m"), ROWS)
    part = link(genesis("m"), ROWS[:4])
    assert [*part, *link(part[-1].digest, ROWS[4:])] == whole


def test_a_digest_is_what_the_documentation_says() -> None:
    """SHA-256 over the digest before and the row's bytes."""
    assert chain(genesis("m"), b"row") == hashlib.sha256(bytes.fromhex(genesis("m")) + b"row").hexdigest()


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    """Its commitment would give it away."""
    with pytest.raises(InvalidError, match="32 bytes"):
        commit(b"secret")
    assert commit(bytes(32)) != commit(bytes(31) + b"\1")
