"""Slices of a model's requests that have a promise of their own. Pure.

A segment is told by what the client says of a request, its attributes, never by what a model makes of it: so a request
is in the same segment for every version, and the probability of a review, which the proof is made of, follows from the
segment alone. What is in no segment is the rest, whose name is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from gateway.promise import RISK_MAX

SEGMENTS_MAX: Final = 16
ATTRIBUTES_MAX: Final = 8
_Risk = Annotated[float, msgspec.Meta(gt=0.0, le=RISK_MAX)]
# What is in no segment.
REST: Final = ""


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests whose `attributes` are among theirs, every one; of several that fit, the first one counts.

    `alpha` and `delta` in (0, 0.5] are this segment's promise; None: the policy's.
    """

    name: str
    attributes: dict[str, str]
    alpha: _Risk | None = None
    delta: _Risk | None = None


def segment_of(segments: Sequence[Segment], attributes: Mapping[str, str]) -> str:
    """Return the name of the segment that a request with these attributes is in."""
    if not attributes:
        return REST
    mine = attributes.items()
    return next((segment.name for segment in segments if segment.attributes.items() <= mine), REST)
