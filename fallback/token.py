"""The token that proves a reviewer's hold on a slot: opaque to its holder, compared field by field on every call."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from fallback.errors import InvalidError
from fallback.queue_settings import QUEUE_NAME

TOKEN_CHARS_MAX: Final = 512


class Hold(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which slot of which deferral, in which generation of its leases; the nonce is what nobody can guess."""

    queue: str
    id: str
    slot: int
    generation: int
    nonce: str


def write(hold: Hold) -> str:
    """Return the token, safe in a URL."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(hold)).decode().rstrip("=")


def read(token: str) -> Hold:
    """Return what a token says; raises InvalidError for what never was one."""
    refusal = InvalidError("token: expected a token that a lease came with, got something else")
    if len(token) > TOKEN_CHARS_MAX:
        raise refusal
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        hold = msgspec.msgpack.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=Hold)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise refusal from error
    if not QUEUE_NAME.fullmatch(hold.queue) or hold.slot < 0 or not (hold.id.isascii() and hold.id.isalnum()):
        raise refusal
    return hold
