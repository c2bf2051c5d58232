"""Judges what a client wants parked, before anything is stored. Pure."""

from __future__ import annotations

from math import isfinite
from typing import Final

from fallback.answer import Answer, Number
from fallback.config import QueueSettings, check_queue_name
from fallback.deferral import OnExpiry, Parking
from fallback.errors import InvalidError

PRIORITY_MAX: Final = 9
CLIENT_CHARS_MAX: Final = 256
IDEMPOTENCY_KEY_CHARS_MAX: Final = 128
MEDIA_TYPE_CHARS_MAX: Final = 128
ATTRIBUTES_MAX: Final = 64
ATTRIBUTE_CHARS_MAX: Final = 1_024
REASONS_MAX: Final = 16
PREDICTIONS_MAX: Final = 16
TARGET_CHARS_MAX: Final = 2_048
REVIEW_SECONDS_MAX: Final = 365 * 86_400.0
EXCLUDED_MAX: Final = 32
NAME_CHARS_MAX: Final = 64
_MS: Final = 1000


def check_parking(parking: Parking, settings: QueueSettings) -> None:
    """Raise InvalidError naming the first field that is wrong, what was expected and what came.

    Its task is judged by itself (`fallback.answer.check_task`): one is shared by many.
    """
    check_queue_name(parking.queue)
    for field, text, most in (
        ("client", parking.client, CLIENT_CHARS_MAX),
        ("idempotency_key", parking.idempotency_key, IDEMPOTENCY_KEY_CHARS_MAX),
        ("subject.media_type", parking.media_type, MEDIA_TYPE_CHARS_MAX),
    ):
        if len(text) > most:
            raise InvalidError(f"{field}: expected at most {most} characters, got {len(text)}")
    for field, content, most in (
        ("subject.content", parking.subject, settings.subject_bytes_max),
        ("inputs", parking.inputs, settings.inputs_bytes_max),
    ):
        if len(content) > most:
            raise InvalidError(f"{field}: queue {parking.queue} takes at most {most} bytes, got {len(content)}")
    if not 0 <= parking.priority <= PRIORITY_MAX:
        raise InvalidError(f"priority: expected 0 to {PRIORITY_MAX}, got {parking.priority}")
    if parking.tier or parking.excluded_reviewers:
        _check_reviewers(parking, settings)
    _check_attributes(parking.attributes)
    _check_prediction(parking)
    _check_end(parking)
    _check_callback(parking)


def expiry_of(parking: Parking, settings: QueueSettings) -> OnExpiry:
    """Return what happens at expiry: the client's wish, else the queue's setting; no answer where no model gave one."""
    wish = parking.on_expiry or OnExpiry(settings.on_expiry)
    if parking.prediction is None and wish is OnExpiry.ANSWER_UNREVIEWED:
        return OnExpiry.ABSTAIN
    return wish


def boost_ms(priority: int, settings: QueueSettings) -> int:
    """Return how much earlier its priority makes an item's turn, ms."""
    return int(priority * settings.priority_boost_seconds * _MS)


def _check_reviewers(parking: Parking, settings: QueueSettings) -> None:
    if parking.tier and parking.tier not in settings.tiers:
        known = ", ".join(settings.tiers) or "it has none: leave it out"
        raise InvalidError(f"tier: expected one of queue {parking.queue} ({known}), got {parking.tier[:100]!r}")
    if len(parking.excluded_reviewers) > EXCLUDED_MAX:
        raise InvalidError(
            f"excluded_reviewers: expected at most {EXCLUDED_MAX} names, got {len(parking.excluded_reviewers)}"
        )
    for name in parking.excluded_reviewers:
        if not 1 <= len(name) <= NAME_CHARS_MAX:
            raise InvalidError(
                f"excluded_reviewers: expected names of 1 to {NAME_CHARS_MAX} characters, got one of {len(name)}"
            )


def _check_attributes(attributes: dict[str, str]) -> None:
    if len(attributes) > ATTRIBUTES_MAX:
        raise InvalidError(f"subject.attributes: expected at most {ATTRIBUTES_MAX}, got {len(attributes)}")
    for key, value in attributes.items():
        if len(key) + len(value) > ATTRIBUTE_CHARS_MAX:
            raise InvalidError(
                f"subject.attributes: expected at most {ATTRIBUTE_CHARS_MAX} characters each, "
                f"got {len(key) + len(value)} under {key[:40]!r}"
            )


def _check_prediction(parking: Parking) -> None:
    """Refuse what JSON has no word for."""
    prediction, draw = parking.prediction, parking.draw
    if prediction is not None:
        if not 0 <= prediction.confidence <= 1:
            raise InvalidError(f"prediction.confidence: expected 0 to 1, got {prediction.confidence}")
        _check_said("prediction.answer", prediction.answer)
    if parking.second_opinion is not None:
        said = parking.second_opinion.predictions
        if len(said) > PREDICTIONS_MAX:
            raise InvalidError(f"second_opinion.predictions: expected at most {PREDICTIONS_MAX}, got {len(said)}")
        for answer in said:
            _check_said("second_opinion.predictions", answer)
    if draw is not None and not (0 < draw.q <= 1 and 0 <= draw.xi < 1):
        raise InvalidError(f"draw: expected q in (0, 1] and xi in [0, 1), got q {draw.q}, xi {draw.xi}")


def _check_said(field: str, answer: Answer) -> None:
    if isinstance(answer, Number) and not isfinite(answer.number):
        raise InvalidError(f"{field}.number: expected a finite number, got {answer.number}")


def _check_end(parking: Parking) -> None:
    seconds = parking.review_seconds
    if seconds is not None and not 0 < seconds <= REVIEW_SECONDS_MAX:
        raise InvalidError(
            f"review_deadline: expected more than 0 and at most {REVIEW_SECONDS_MAX:.0f} s, got {seconds}"
        )
    if parking.on_expiry is OnExpiry.ANSWER_UNREVIEWED and parking.prediction is None:
        raise InvalidError("on_expiry: expected ABSTAIN or ESCALATE where no model was asked, got ANSWER_UNREVIEWED")
    if len(parking.reasons) > REASONS_MAX:
        raise InvalidError(f"reasons: expected at most {REASONS_MAX}, got {len(parking.reasons)}")


def _check_callback(parking: Parking) -> None:
    callback = parking.callback
    if callback is None:
        return
    if bool(callback.webhook_url) == bool(callback.grpc_target):
        raise InvalidError("callback: expected exactly one of webhook_url and grpc_target, got both or neither")
    target = callback.webhook_url or callback.grpc_target
    if len(target) > TARGET_CHARS_MAX:
        raise InvalidError(f"callback: expected at most {TARGET_CHARS_MAX} characters, got {len(target)}")
