"""What the demo's processes write down: one JSON object a line, one file a process, read back by the orchestrator.

The counts of a run come from these files and from nothing else, so that nothing that Demur says of itself is taken on
trust: clients write what they were replied, reviewers what they answered, the receiver what it was told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from benchmarks import journals
from benchmarks.journals import Tail
from fallback.answer import Answer, Label


class Replied(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="replied"):
    """A client's request came back. `time` is when it was sent, in Unix seconds; `deferral` is empty if answered.

    `certificate` is the name of the one in force, empty for none.
    """

    index: int
    time: float
    latency_ms: float
    decision: str
    label: str
    confidence: float
    version: str
    deferral: str = ""
    certificate: str = ""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="failed"):
    """A call of a client ended in anything but a reply. `call` is the method's name."""

    index: int
    time: float
    call: str
    error: str


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="told"):
    """What a client got when it waited for one of its deferrals; `label` is empty where the outcome has no answer."""

    deferral: str
    state: str
    label: str


class Watched(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="watched"):
    """One event of the stream of outcomes. `predicted` is what the model had said."""

    deferral: str
    state: str
    audit: bool
    label: str
    predicted: str


class Reviewed(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="reviewed"):
    """A reviewer's answer went in. `truth` is what the image really shows."""

    deferral: str
    time: float
    label: str
    truth: str


class Called(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="called"):
    """One attempt to call back that carried a good signature; `status` is what the receiver answered (200 or 500)."""

    id: str
    time: float
    type: str
    deferral: str
    label: str
    status: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="refused"):
    """One attempt to call back that the receiver could not believe or read."""

    time: float
    reason: str


class Stumbled(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="stumbled"):
    """A reviewer's or the watcher's call failed and was made again."""

    time: float
    call: str
    error: str


Entry = Replied | Failed | Told | Watched | Reviewed | Called | Refused | Stumbled
Journal = journals.Journal[Entry]
_decoder: Final = msgspec.json.Decoder(Entry)


def tail(path: Path) -> Tail[Entry]:
    """Return what reads the entries of one process as they come."""
    return Tail(path, _decoder)


def label_of(answer: Answer | None) -> str:
    """Return the label of an answer, empty for none: nobody answered, or the person could not tell."""
    return answer.label if isinstance(answer, Label) else ""
