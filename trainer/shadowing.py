"""What becomes of a retrained version while an error rate is promised: it is proved in shadow before it answers.

Of a version that takes over at once nothing is proved, and everything would go to people until it is; one that is
retrained again and again would never be proved. So it goes into the shadow, is judged by what people say of the same
requests, and takes over as soon as its own certificate lets no less through than the one in force. Until then no other
one is trained. After an alarm there is nothing to lose until a part of the requests is proved anew: then it takes over
at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from demur.v1 import model_pb2 as pb
from gateway.model_client import ModelClient
from gateway.registry import parse_name
from trainer.retrain import Rooms, trained_row

_DAY: Final = 86_400

log = structlog.get_logger(__name__)


def let_through(certificate: pb.Certificate) -> float | None:
    """Return the share of all requests that a certificate lets through, segments and all; 0 where nothing is proved.

    Each segment counts by its share of the model's requests, whichever version answers them. None for a moment after
    it changed, until that is counted.
    """
    parts = [certificate, *certificate.segments]
    if any(part.HasField("tau") and not part.HasField("coverage") for part in parts):
        return None
    through = [part.coverage if part.HasField("tau") else 0.0 for part in parts]
    if len(parts) == 1:
        return through[0]
    whole = sum(part.share for part in parts)
    if not whole or not all(part.HasField("share") for part in parts):
        return None
    return sum(part.share * let for part, let in zip(parts, through, strict=True)) / whole


def better(challenger: pb.Certificate, champion: pb.Certificate) -> bool:
    """Return whether a challenger's proof lets something through, and no less than the champion's."""
    mine, other = let_through(challenger), let_through(champion)
    return mine is not None and other is not None and mine > 0 and mine >= other


async def go_on(rooms: Rooms, gateway: ModelClient, model: str) -> bool:
    """Promote what is proved, and give up what was not in time; True while a retrained version is still in shadow."""
    waiting = [version for version in await gateway.list(model) if version.state == pb.ModelVersion.SHADOW]
    own = [version for version in waiting if await asyncio.to_thread(_retrained, rooms, model, version)]
    if not own:
        return False
    certificate = await gateway.certificate(model)
    proofs = {proof.version: proof for proof in certificate.challengers}
    for version in own:
        number, proof = parse_name(version.name)[1], proofs.get(version.name)
        if proof is not None and better(proof, certificate):
            now, before = let_through(proof), let_through(certificate)
            reason = f"proved in shadow: certificate {proof.certificate} lets {now:.1%} through, {before:.1%} before"
            await gateway.promote(model, number, reason=reason)
            log.info("promoted", model=model, version=number, reason=reason)
            return False
        days = rooms.settings.shadow_days_max
        if time.time() - version.create_time.seconds > days * _DAY:
            reason = f"in {days:g} days no better certificate was proved"
            await gateway.shadow(model, number, stop=True, reason=reason)
            log.info("out of the shadow", model=model, version=number, reason=reason)
    return True


def _retrained(rooms: Rooms, model: str, version: pb.ModelVersion) -> bool:
    """Return whether the trainer made a version; what somebody else put into the shadow is theirs to promote."""
    found = rooms.registry.get(model, parse_name(version.name)[1])
    return trained_row(rooms, found) is not None
