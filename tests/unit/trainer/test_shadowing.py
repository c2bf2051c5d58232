"""When a version in shadow lets no less through than the one that answers."""

from __future__ import annotations

from unittest.mock import AsyncMock

import pytest

from demur.v1 import model_pb2 as pb
from trainer.retrain import Rooms, promised
from trainer.shadowing import better, go_on, let_through

_UNKNOWN = -1.0
_ALARMED = pb.Certificate(stage=pb.Certificate.ALARMED)
_CERTIFIED = pb.Certificate(stage=pb.Certificate.CERTIFIED)


def _proof(coverage: float | None, share: float | None = None, *segments: pb.Certificate) -> pb.Certificate:
    tau = None if coverage is None else 0.5
    coverage = None if coverage == _UNKNOWN else coverage
    return pb.Certificate(tau=tau, coverage=coverage, share=share, segments=segments)


@pytest.mark.parametrize(
    ("challenger", "champion", "expected"),
    [
        (_proof(None), _proof(None), False),
        (_proof(0.0), _proof(None), False),
        (_proof(0.4), _proof(None), True),
        (_proof(0.4), _proof(0.5), False),
        (_proof(0.5), _proof(0.5), True),
        (_proof(0.5), _proof(_UNKNOWN), False),
        (_proof(0.5, 1, _proof(_UNKNOWN, 0)), _proof(None), False),
        (_proof(0.9, 0.1, _proof(None, 0.9)), _proof(0.5, 0.1, _proof(0.5, 0.9)), False),
        (_proof(0.4, 0.1, _proof(0.6, 0.9)), _proof(0.5, 0.1, _proof(0.5, 0.9)), True),
        (_proof(0.85, 0.98, _proof(0.6, 0.02)), _proof(0.9, 0.98, _proof(0.5, 0.02)), False),
        (_proof(0.9, None, _proof(0.9, None)), _proof(0.5, None, _proof(0.5, None)), False),
    ],
)
def test_a_challenger_is_better_where_it_lets_no_less_through(
    challenger: pb.Certificate, champion: pb.Certificate, expected: bool
) -> None:
    """Of all requests, whichever segment they are in; not where nobody knows how many are in which."""
    assert better(challenger, champion) is expected


def test_what_is_let_through_counts_segments_by_their_requests() -> None:
    """Where nothing is proved it lets nothing through; a model of one part is all of it."""
    assert let_through(_proof(0.5, 0.2, _proof(1.0, 0.6), _proof(None, 0.2))) == pytest.approx(0.7)
    assert let_through(_proof(0.5)) == 0.5
    assert let_through(_proof(None, 0.2, _proof(None, 0.8))) == 0.0


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (pb.Certificate(stage=pb.Certificate.OFF), False),
        (pb.Certificate(stage=pb.Certificate.SURVEYING), False),
        (pb.Certificate(stage=pb.Certificate.PROVING, epoch="1"), True),
        (pb.Certificate(stage=pb.Certificate.CERTIFIED, epoch="1"), True),
        (pb.Certificate(stage=pb.Certificate.ALARMED, epoch="1"), False),
        (pb.Certificate(stage=pb.Certificate.ALARMED, epoch="1", segments=[_ALARMED]), False),
        (pb.Certificate(stage=pb.Certificate.ALARMED, epoch="1", segments=[_ALARMED, _CERTIFIED]), True),
        (pb.Certificate(stage=pb.Certificate.CERTIFIED, epoch="1", segments=[_ALARMED]), True),
    ],
)
def test_where_there_is_a_proof_to_lose_a_version_is_proved_first(certificate: pb.Certificate, expected: bool) -> None:
    """Not before the certifier has begun, nor after an alarm until a part of the requests is proved anew."""
    assert promised(certificate) is expected


@pytest.mark.parametrize(("row", "own"), [("0", True), ("1", False), ("50000", False)])
async def test_what_another_trainer_made_is_not_looked_after(rooms: Rooms, row: str, own: bool) -> None:
    """Whose notes name a row that the ledger here does not have; nor does it keep others from being trained."""
    manifest = rooms.registry.folder / "digits" / "1" / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('ledger_row = "0"', f'ledger_row = "{row}"'))
    gateway = AsyncMock()
    gateway.list.return_value = [pb.ModelVersion(name="models/digits/versions/1", state=pb.ModelVersion.SHADOW)]
    gateway.certificate.return_value = pb.Certificate()
    assert await go_on(rooms, gateway, "digits") is own
    assert bool(gateway.shadow.await_count) is own
