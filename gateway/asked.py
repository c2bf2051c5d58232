"""What a ModelInfer request's parameters ask: callback, subject, priority, deadline, key, place in the queue.

Triton's own are `priority`, the level that it waits for a run at, and `timeout`, how long at most, microseconds. Ours:
`demur_subject` is a data: URL with base64, a JSON text, or plain text; `demur_callback` a webhook's URL or a
CallbackService's host:port; `demur_review_deadline` is in seconds; `demur_attributes` a JSON object of texts.
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Mapping
from typing import Any, Final, assert_never

import msgspec

from demur.v1 import types_pb2
from fallback import wire
from fallback.address import check_target, check_url
from fallback.answer import Subject
from fallback.deferral import Callback
from fallback.errors import InvalidError
from gateway.service import KEY_CHARS_MAX, priority_of

PARAMETERS_MAX: Final = 64
REVIEW_SECONDS_MAX: Final = wire.DURATION_SECONDS_MAX
_PREFIX: Final = "demur_"
_PARAMETERS: Final = (
    "demur_callback",
    "demur_subject",
    "demur_priority",
    "demur_review_deadline",
    "demur_idempotency_key",
    "demur_attributes",
)
_TRITONS: Final = frozenset({"priority", "timeout"})


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request's parameters ask. `level` and `timeout_us`: 0 for what the model says."""

    callback: Callback | None = None
    subject: Subject | None = None
    priority: int = 0
    review_seconds: float | None = None
    idempotency_key: str = ""
    attributes: dict[str, str] = {}
    level: int = 0
    timeout_us: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Asked:
        """Read a request's parameters; raises InvalidError naming the one that is wrong. Others' are left alone."""
        if not parameters:
            return _NOTHING
        if len(parameters) > PARAMETERS_MAX:
            raise InvalidError(f"parameters: expected at most {PARAMETERS_MAX}, got {len(parameters)}")
        wanted = [name for name in parameters if name.startswith(_PREFIX) or name in _TRITONS]
        values = {name: _value(parameters[name]) for name in wanted}
        for name in wanted:
            if name not in _PARAMETERS and name not in _TRITONS:
                near = difflib.get_close_matches(name, _PARAMETERS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise InvalidError(f"parameters: {name[:100]!r} is not known{hint}")
        key = _text("demur_idempotency_key", values)
        return cls(
            callback=_callback(_text("demur_callback", values)),
            subject=_subject(_text("demur_subject", values)),
            priority=priority_of("parameters[demur_priority]", _whole("demur_priority", values)),
            review_seconds=_review_seconds(values),
            idempotency_key=wire.text_from_wire("parameters[demur_idempotency_key]", key, chars_max=KEY_CHARS_MAX),
            attributes=_attributes(_text("demur_attributes", values)),
            level=_not_negative("priority", values),
            timeout_us=_not_negative("timeout", values),
        )


_NOTHING: Final = Asked()


def _value(parameter: Any) -> bool | int | float | str | None:
    choice = parameter.WhichOneof("parameter_choice")
    value: bool | int | float | str | None = None if choice is None else getattr(parameter, choice)
    return value


def _text(name: str, values: Mapping[str, bool | int | float | str | None]) -> str:
    value = values.get(name, "")
    if not isinstance(value, str):
        raise InvalidError(f"parameters[{name}]: expected string_param, got {value!r}")
    return value


def _number(name: str, values: Mapping[str, bool | int | float | str | None]) -> float | None:
    value = values.get(name)
    match value:
        case None:
            return None
        case bool() | str():
            raise InvalidError(f"parameters[{name}]: expected a number, got {value!r}")
        case int() | float():
            return value
        case _:
            assert_never(value)


def _whole(name: str, values: Mapping[str, bool | int | float | str | None]) -> int:
    value = _number(name, values)
    if isinstance(value, float):
        raise InvalidError(f"parameters[{name}]: expected int64_param, got {value:g}")
    return value or 0


def _attributes(text: str) -> dict[str, str]:
    field = "parameters[demur_attributes]"
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text.encode(), type=dict[str, str])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidError(f"{field}: expected a JSON object of texts, got {text[:100]!r}") from error
    return wire.attributes_from_wire(found, field=field)


def _not_negative(name: str, values: Mapping[str, bool | int | float | str | None]) -> int:
    found = _whole(name, values)
    if found < 0:
        raise InvalidError(f"parameters[{name}]: expected 0 or more, got {found}")
    return found


def _review_seconds(values: Mapping[str, bool | int | float | str | None]) -> float | None:
    seconds = _number("demur_review_deadline", values)
    if seconds is not None and not 0 <= seconds <= REVIEW_SECONDS_MAX:
        raise InvalidError(
            f"parameters[demur_review_deadline]: expected 0 to {REVIEW_SECONDS_MAX:g} seconds, got {seconds:g}"
        )
    return seconds


def _callback(text: str) -> Callback | None:
    """Read a webhook's URL or a CallbackService's host:port."""
    field = "parameters[demur_callback]"
    if not text:
        return None
    return (
        Callback(webhook_url=check_url(field, text))
        if "://" in text
        else Callback(grpc_target=check_target(field, text))
    )


def _subject(text: str) -> Subject | None:
    """Read a data: URL with base64, a JSON text, or plain text."""
    if not text:
        return None
    if text.startswith("data:"):
        head, comma, body = text[len("data:") :].partition(",")
        media_type, _, encoding = head.rpartition(";")
        try:
            content = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidError("parameters[demur_subject]: expected base64 after data:<type>;base64,") from error
        if not comma or encoding != "base64" or not media_type:
            raise InvalidError(
                f"parameters[demur_subject]: expected data:<type>;base64,<content>, got data:{head[:50]!r}"
            )
        given = types_pb2.Subject(content=content, media_type=media_type)
        return wire.subject_from_wire(given, bytes_max=len(content), field="parameters[demur_subject]")
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Subject(content=text.encode(), media_type="text/plain")
    return Subject(content=text.encode(), media_type="application/json")
