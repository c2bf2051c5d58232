"""Turns a deferral into what Redis keeps of it and back.

A record is a hash. Its `body` is what never changes, as JSON; beside it stand the fields that the scripts change:

    state, version, seq, order, task, key, slots, create_ms, expire_ms
    outcome, event                        from SETTLING on: what it will be, shown nowhere until it is
    outcome_ms                            once it ended
    event, attempt, reason                what is told of it, how often it was tried, why the last attempt failed
    x.<reviewer>                          "skipped <ms> <reason>", "escalated <ms> <reason>" (skipped it to the next
                                          tier), "answered <ms>" (took an answer back, then let go), "excluded <ms>" (by
                                          the client): never asked; "undone <ms>" (took it back): may be asked again
    skips                                 how many of those are skips, escalated ones too
    how                                   blind where it is whatever the queue says; none where the queue says it
    tier                                  the number of the tier that is asked; none at the first, 0
    wanted, limit                         reviews at first and at most, of this tier and (limit) all those before; from
                                          the first escalation on, until then the body says them
    bytes                                 that it brought: content until that is erased, body, the task where it was new
    erased                                when its content was erased, ms
    flag.<n>, flags                       [reviewer, comment, ms] each, and how many there are
    s<n>.state, .generation, .last        of slot n once it was held, it is FREE before; `last` is how its last lease
                                          ended
    s<n>.holder, .nonce, .since, .until   its current or last lease; `how` is blind or assisted
    s<n>.resumed                          <first>-<last>: the generations that were one hold, gone on with elsewhere
    s<n>.answer, .comment, .create_ms     its review
    s<n>.tier                             the number of its tier, once another one is asked
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from fallback import keys
from fallback.answer import Answer, Label, Task
from fallback.blobs import INPUTS, SUBJECT, Reference
from fallback.deferral import (
    Callback,
    Content,
    Deferral,
    Draw,
    Flag,
    GoldMark,
    OnExpiry,
    Outcome,
    Parking,
    Prediction,
    Review,
    SecondOpinion,
    Skip,
    Source,
    State,
    tier_name,
)

MS: Final = 1000.0
_NOTHING_LARGE: Final[Mapping[str, Reference]] = MappingProxyType({})


class Facts(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What never changes of any deferral. Stored without names, once for each that waits."""

    client: str
    priority: int
    attributes: dict[str, str]
    media_type: str
    # Their fields in order; a label stands for itself; `digests` are of subject and inputs, base64, or the references
    # of large ones (see `fallback.blobs`).
    prediction: tuple[str, str, Answer | str, float] | None
    draw: tuple[str, float, float] | None
    reasons: tuple[str, ...]
    audit: bool
    callback: tuple[str, str] | None
    on_expiry: OnExpiry
    digests: tuple[str, str]
    # How many reviews at first, and at most.
    places: tuple[int, int]


class Body(Facts, frozen=True, kw_only=True, array_like=True):
    """What never changes of a deferral; stored with these only where there is one. What comes later goes last."""

    # Of the draw, where its model is under certification: its place, epoch, certificate.
    sample: tuple[str, str, str] | None = None
    # Its predictions, a label for itself, and whether it is always asked for.
    opinion: tuple[tuple[Answer | str, ...], bool] | None = None
    # Which gold item it is, and its answer.
    gold: tuple[str, Answer | str] | None = None
    # How sure people are told that the model is.
    shown: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome without its time, which is the server's to say."""

    source: Source
    answer: Answer | None
    reviewed: bool


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A deferral as it stands, with what only the queue needs to know: N, M, and how telling its outcome goes.

    `settling` is whether the undo window is open; the deferral then reads as OPEN, without its outcome. `tier` is the
    number of the deferral's tier, from 0; N and M are of that tier alone.
    """

    deferral: Deferral
    settling: bool
    wanted: int
    limit: int
    event: str
    attempt: int
    reason: str
    # How many slots there may be, with those of tiers before.
    slots_max: int
    # Of subject and inputs: what the body says.
    stored: tuple[str, str] = ("", "")
    tier: int = 0

    @property
    def places(self) -> int:
        """How many slots are of the deferral's tier."""
        return self.limit - self.slots_max + self.deferral.reviews_wanted

    @property
    def full(self) -> bool:
        """Whether every slot has its review."""
        return len(self.deferral.reviews) == self.deferral.reviews_wanted


def _digest(content: bytes) -> str:
    """Return sha256 as base64 without its padding; empty for nothing."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode("ascii").rstrip("=") if content else ""


def encode_task(task: Task) -> tuple[str, bytes]:
    """Return a task's digest and its JSON."""
    encoded = msgspec.json.encode(task, order="sorted")
    return keys.digest_bytes(encoded), encoded


def encode_body(
    parking: Parking,
    on_expiry: OnExpiry,
    places: tuple[int, int],
    large: Mapping[str, Reference] = _NOTHING_LARGE,
) -> bytes:
    """Return what never changes of a parked request, as JSON.

    `places` is how many reviews at first, and at most; `large` says where its large contents lie.
    """
    facts = Facts(
        client=parking.client,
        priority=parking.priority,
        attributes=parking.attributes,
        media_type=parking.media_type,
        prediction=None if parking.prediction is None else _told(parking.prediction),
        draw=None if parking.draw is None else _drawn(parking.draw),
        reasons=parking.reasons,
        audit=parking.audit,
        callback=None if parking.callback is None else _called(parking.callback),
        on_expiry=on_expiry,
        digests=(
            large[SUBJECT].write() if SUBJECT in large else _digest(parking.subject),
            large[INPUTS].write() if INPUTS in large else _digest(parking.inputs),
        ),
        places=places,
    )
    sample = None if parking.draw is None else _sampled(parking.draw)
    opinion = None if parking.second_opinion is None else _opined(parking.second_opinion)
    gold = None if parking.gold is None else (parking.gold.id, _short(parking.gold.answer))
    shown = None if parking.prediction is None else parking.prediction.shown
    later = [sample, opinion, gold, shown]
    while later and later[-1] is None:
        later.pop()
    return msgspec.json.encode((*msgspec.structs.astuple(facts), *later) if later else facts)


def encode_verdict(verdict: Verdict) -> bytes:
    """Return an outcome as the scripts store it."""
    return msgspec.json.encode(verdict)


def decode(queue: str, deferral_id: str, fields: Mapping[str, str], task: Task, tiers: tuple[str, ...] = ()) -> Record:
    """Return the record that the hash `fields` says; `tiers` are the queue's."""
    body = msgspec.json.decode(fields["body"], type=Body)
    state = State(fields["state"])
    slots, tier = int(fields["slots"]), int(fields.get("tier", 0))
    slots_max = int(fields.get("limit", body.places[1]))
    reviews = _reviews(fields, slots, tiers, tier)
    deferral = Deferral(
        id=deferral_id,
        queue=queue,
        state=State.OPEN if state is State.SETTLING else state,
        version=int(fields["version"]),
        task=task,
        prediction=_prediction(body),
        draw=_draw(body),
        outcome=None if state is State.SETTLING else _outcome(fields),
        reviews=reviews,
        reviews_wanted=slots,
        create_time=_time(fields["create_ms"]),
        expire_time=_time(fields["expire_ms"]),
        client=body.client,
        priority=body.priority,
        attributes=body.attributes,
        media_type=body.media_type,
        reasons=body.reasons,
        audit=body.audit,
        callback=_callback(body),
        on_expiry=body.on_expiry,
        subject_digest=_hex(body.digests[0]),
        inputs_digest=_hex(body.digests[1]),
        skips=_skips(fields),
        flags=tuple(_flag(fields[f"flag.{n}"]) for n in range(int(fields.get("flags", 0)))),
        content=_content(fields, body),
        tier=tier_name(tiers, tier),
        second_opinion=_opinion(body),
        gold=None if body.gold is None else GoldMark(id=body.gold[0], answer=_whole(body.gold[1])),
    )
    return Record(
        deferral=deferral,
        settling=state is State.SETTLING,
        wanted=int(fields.get("wanted", body.places[0])),
        limit=slots_max - sum(review.tier != deferral.tier for review in reviews),
        slots_max=slots_max,
        event=fields.get("event", ""),
        attempt=int(fields.get("attempt", 0)),
        reason=fields.get("reason", ""),
        stored=body.digests,
        tier=tier,
    )


def content_keys(
    queue: str, deferral_id: str, parking: Parking, large: Mapping[str, Reference] = _NOTHING_LARGE
) -> dict[str, tuple[str, bytes]]:
    """Return what small content a parked request brings: its name in the scripts -> (its key, the bytes)."""
    found = {
        "subject": (keys.subject(queue, deferral_id), parking.subject),
        "inputs": (keys.inputs(queue, deferral_id), parking.inputs),
    }
    return {name: (key, content) for name, (key, content) in found.items() if content and name not in large}


def _short(answer: Answer) -> Answer | str:
    return answer.label if isinstance(answer, Label) else answer


def _whole(short: Answer | str) -> Answer:
    return Label(short) if isinstance(short, str) else short


def _told(prediction: Prediction) -> tuple[str, str, Answer | str, float]:
    return prediction.model, prediction.version, _short(prediction.answer), prediction.confidence


def _drawn(draw: Draw) -> tuple[str, float, float]:
    return draw.request_key, draw.q, draw.xi


def _sampled(draw: Draw) -> tuple[str, str, str] | None:
    return (draw.place, draw.epoch, draw.certificate) if draw.place else None


def _opined(opinion: SecondOpinion) -> tuple[tuple[Answer | str, ...], bool]:
    return tuple(map(_short, opinion.predictions)), opinion.always


def _called(callback: Callback) -> tuple[str, str]:
    return callback.webhook_url, callback.grpc_target


def _prediction(body: Body) -> Prediction | None:
    if body.prediction is None:
        return None
    model, version, answer, confidence = body.prediction
    return Prediction(model=model, version=version, answer=_whole(answer), confidence=confidence, shown=body.shown)


def _draw(body: Body) -> Draw | None:
    if body.draw is None:
        return None
    request_key, q, xi = body.draw
    place, epoch, certificate = body.sample or ("", "", "")
    return Draw(request_key=request_key, q=q, xi=xi, place=place, epoch=epoch, certificate=certificate)


def _opinion(body: Body) -> SecondOpinion | None:
    if body.opinion is None:
        return None
    predictions, always = body.opinion
    return SecondOpinion(predictions=tuple(map(_whole, predictions)), always=always)


def _callback(body: Body) -> Callback | None:
    if body.callback is None:
        return None
    webhook_url, grpc_target = body.callback
    return Callback(webhook_url=webhook_url, grpc_target=grpc_target)


def _content(fields: Mapping[str, str], body: Body) -> Content:
    if "erased" in fields:
        return Content.ERASED
    return Content.PRESENT if any(body.digests) else Content.NONE


def _hex(stored: str) -> str:
    digest = stored.rpartition(":")[2]
    return base64.b64decode(digest + "=" * (-len(digest) % 4)).hex()


def _outcome(fields: Mapping[str, str]) -> Outcome | None:
    if "outcome" not in fields:
        return None
    verdict = msgspec.json.decode(fields["outcome"], type=Verdict)
    return Outcome(
        source=verdict.source,
        answer=verdict.answer,
        reviewed=verdict.reviewed,
        create_time=_time(fields["outcome_ms"]),
    )


def _reviews(fields: Mapping[str, str], slots: int, tiers: tuple[str, ...], tier: int) -> tuple[Review, ...]:
    found = [
        _review(fields, slot, tier_name(tiers, int(fields.get(f"s{slot}.tier", tier))))
        for slot in range(slots)
        if fields.get(f"s{slot}.state") == "filled"
    ]
    return tuple(sorted(found, key=lambda review: review.create_time))


def _review(fields: Mapping[str, str], slot: int, tier: str) -> Review:
    def field(name: str) -> str:
        return fields[f"s{slot}.{name}"]

    created = _time(field("create_ms"))
    return Review(
        reviewer=field("holder"),
        answer=msgspec.json.decode(field("answer"), type=Answer),
        comment=field("comment"),
        create_time=created,
        blind=field("how") == "blind",
        duration_seconds=max(0.0, created - _time(field("since"))),
        tier=tier,
    )


def _skips(fields: Mapping[str, str]) -> tuple[Skip, ...]:
    if "skips" not in fields:
        return ()
    said = {name[2:]: value.split(" ", 2) for name, value in fields.items() if name.startswith("x.")}
    found = [
        Skip(reviewer=reviewer, reason=parts[2], create_time=_time(parts[1]), escalated=parts[0] == "escalated")
        for reviewer, parts in said.items()
        if parts[0] in {"skipped", "escalated"}
    ]
    return tuple(sorted(found, key=lambda skip: skip.create_time))


def _flag(encoded: str) -> Flag:
    reviewer, comment, milliseconds = msgspec.json.decode(encoded, type=tuple[str, str, str])
    return Flag(reviewer=reviewer, comment=comment, create_time=int(milliseconds) / MS)


def _time(milliseconds: str) -> float:
    return int(milliseconds) / MS
