"""How `demur queue` shows queues, deferrals and dead letters: tables for people, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec
from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demur.v1 import review_pb2 as pb
from fallback.answer import Answer, Boxes, CantTell, Json, Label, Labels, Number
from fallback.client import ReviewQueue
from fallback.deferral import Deferral
from fallback.deferral_wire import deferral_to_wire
from fallback.telling import CallbackEntry
from fallback.telling_wire import entry_to_wire
from fallback.wire import answer_from_wire

_ANSWER_CHARS_MAX = 60
_WIDTH_MAX = 1_000


def queues(found: Sequence[ReviewQueue], *, json: bool) -> None:
    """Show counts, a queue a line."""
    if json:
        return _lines([asdict(queue) for queue in found])
    table = _table("queue", *(("waiting", "held", "open", "reviewers")), right=4)
    for column in ("reviews are", "lease", "by tier", "wait", "over"):
        table.add_column(column)
    for queue in found:
        counts = (queue.waiting, queue.held, queue.open, queue.reviewers)
        kind = "assisted" if queue.assisted else "blind"
        tiers = Text(", ".join(f"{tier} {waiting}" for tier, waiting in queue.tiers.items()) or "-")
        wait, over = _span(queue.expected_wait_seconds), ", ".join(queue.over) or "-"
        table.add_row(Text(queue.name), *map(str, counts), kind, f"{queue.lease_seconds:g} s", tiers, wait, over)
    return _print(table, len(found), "no queue has anything yet")


def deferrals(found: Sequence[Deferral], *, json: bool, empty: str) -> None:
    """Show deferrals, one a line; `empty` says that there are none."""
    if json:
        return _lines([_plain(deferral) for deferral in found])
    table = _table("name", "state", "answer", "parked", "expires", "notes")
    for deferral in found:
        table.add_row(
            Text(deferral.name),
            deferral.state.value,
            Text(_answer_of(deferral)),
            _time(deferral.create_time),
            _time(deferral.expire_time),
            _notes(deferral),
        )
    # A name is for copying: a narrow terminal wraps the line instead.
    table.columns[0].no_wrap = True
    return _print(table, len(found), empty)


def deferral(found: Deferral, *, json: bool) -> None:
    """Show all that is known of one."""
    if json:
        return _lines([_plain(found)])
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "name": found.name,
        "state": found.state.value,
        "version": str(found.version),
        "question": found.task.question,
        "answer": _answer_of(found),
        "from": _source(found),
        "model's guess": _guess(found),
        "reasons": ", ".join(found.reasons) or "-",
        "parked": _time(found.create_time),
        "expires": _time(found.expire_time),
        "priority": str(found.priority),
        "tier": found.tier or "-",
        "subject": found.media_type or "-",
        "content": found.content.value,
        "attributes": ", ".join(f"{key}={value}" for key, value in found.attributes.items()) or "-",
    }
    said = [("flag", f"{flag.reviewer}: {flag.comment}") for flag in found.flags]
    said += [
        ("escalated by" if skip.escalated else "skip", f"{skip.reviewer}: {skip.reason or 'no reason given'}")
        for skip in found.skips
    ]
    for key, value in [*rows.items(), *said]:
        table.add_row(Text(key, "dim"), Text(_safe(value)))
    return Console().print(table)


def outcome(found: Deferral, *, json: bool) -> None:
    """Show one outcome on one line."""
    if json:
        return _lines([_plain(found)])
    when = _time(found.outcome.create_time) if found.outcome else ""
    text = f"{when}  {found.name}  {found.state.value}  {_answer_of(found)}  {_source(found)}"
    return Console(soft_wrap=True).print(text, markup=False, highlight=False)


def callbacks(found: Sequence[CallbackEntry], *, json: bool, empty: str) -> None:
    """Show callbacks, one a line."""
    if json:
        return _lines([_callback(entry) for entry in found])
    table = _table("name", "type", "to", "attempts", "next, or given up", "last failure")
    for entry in found:
        row = (entry.name, entry.type, _to(entry), str(entry.attempt), _time(entry.time), entry.reason or "-")
        table.add_row(*(Text(_safe(value)) for value in row))
    table.columns[0].no_wrap = True
    return _print(table, len(found), empty)


def callback(found: CallbackEntry, *, json: bool) -> None:
    """Show all that is known of one."""
    if json:
        return _lines([_callback(found)])
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "name": found.name,
        "deferral": found.deferral,
        "version": str(found.version),
        "type": found.type,
        "to": _to(found) + (" (answered 410: called no more)" if found.disabled else ""),
        "state": found.state.value,
        "attempts": str(found.attempt),
        "outcome": _time(found.create_time),
        "next, or given up": _time(found.time) if found.time else "-",
        "last failure": found.reason or "-",
    }
    for key, value in rows.items():
        table.add_row(Text(key, "dim"), Text(_safe(value)))
    return Console().print(table)


def gold(queue: str, found: pb.ListGoldResponse, *, json: bool) -> None:
    """Show a queue's gold items and how reviewers did with them."""
    if json:
        plain = MessageToDict(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        return _lines([plain])
    table = _table("item", "right", "wrong", "answer")
    for item in found.items:
        answer = Text(words(answer_from_wire(item.answer)))
        table.add_row(Text(item.name), str(item.tried.right), str(item.tried.wrong), answer)
    table.columns[0].no_wrap = True
    _print(table, len(found.items), f"queue {queue} has no gold items: add some with demur queue gold add or keep")
    if not found.items:
        return None
    people = _table("reviewer", "right", "wrong")
    for reviewer, tried in sorted(found.reviewers.items()):
        people.add_row(Text(_safe(reviewer)), str(tried.right), str(tried.wrong))
    none = f"nobody has answered one yet; {found.share:.1%} of what people take are gold items"
    return _print(people, len(found.reviewers), none)


def _to(entry: CallbackEntry) -> str:
    return "-" if entry.callback is None else entry.callback.webhook_url or entry.callback.grpc_target


def _callback(entry: CallbackEntry) -> object:
    """Return the contract's JSON."""
    return MessageToDict(
        entry_to_wire(entry), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _plain(found: Deferral) -> dict[str, object]:
    """Return the contract's JSON."""
    wire = deferral_to_wire(found, show_prediction=True, show_notes=True)
    plain: dict[str, object] = MessageToDict(wire, preserving_proto_field_name=True)
    return plain


def _notes(found: Deferral) -> str:
    counts = (("flag", len(found.flags)), ("skip", len(found.skips)))
    return ", ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts if count)


def _answer_of(found: Deferral) -> str:
    return "-" if found.outcome is None or found.outcome.answer is None else words(found.outcome.answer)


def _guess(found: Deferral) -> str:
    guess = found.prediction
    if guess is None:
        return "not shown"
    sure = guess.confidence if guess.shown is None else guess.shown
    return f"{words(guess.answer)} ({sure:.3f}, {guess.model} {guess.version})"


def _source(found: Deferral) -> str:
    if found.outcome is None:
        return "-"
    return found.outcome.source.value + ("" if found.outcome.reviewed else ", seen by nobody")


def words(answer: Answer) -> str:
    """Return an answer in a few words."""
    match answer:
        case Label(label=label):
            text = label
        case Labels(labels=labels):
            text = ", ".join(labels) or "none of them"
        case Boxes(boxes=boxes):
            text = f"{len(boxes)} boxes"
        case Number(number=number):
            text = f"{number:g}"
        case Json(json=text):
            pass
        case CantTell():
            text = "can't tell"
    return _safe(text if len(text) <= _ANSWER_CHARS_MAX else text[: _ANSWER_CHARS_MAX - 1] + "…")


def _safe(text: str) -> str:
    """Leave out what would steer the terminal: the text may come from anybody."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float | None) -> str:
    """Say roughly how long; whoever reads it plans with minutes, not with digits."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _table(*columns: str, right: int = 0) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if 0 < number <= right else "left", overflow="fold")
    return table


def _print(table: Table, count: int, empty: str) -> None:
    console = Console()
    if table.columns[0].no_wrap:
        console.width = max(
            console.width, console.measure(table, options=console.options.update_width(_WIDTH_MAX)).maximum
        )
    console.print(table if count else Text(empty, "dim"), crop=False, soft_wrap=not count)


def _lines(found: Sequence[object]) -> None:
    for one in found:
        sys.stdout.write(msgspec.json.encode(one).decode() + "\n")
    sys.stdout.flush()
