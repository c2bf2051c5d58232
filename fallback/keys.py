"""Every Redis key, once: its type, what it means, how long it lives.

Layout 1. A queue's keys share the hash tag `{<queue>}`, so that one script may touch them all, on a cluster too. All
begin with `demur:1:`; a layout that readers of this one could not read gets the next number.

    demur:1:queues                   SET     names of queues that something was ever parked in; for ever
    demur:1:{<tag>}:mark             STRING  what replicas are waited for with, on the server of that tag; for a minute

In each queue, after `demur:1:{<queue>}:`

    seq             STRING  how many deferrals were accepted; for ever
    open            ZSET    id -> seq; every OPEN or SETTLING deferral. Its size is the depth
    free            ZSET    id -> order; OPEN, some slot FREE         what is open stands in exactly
    free1, free2, free3     the same at the second tier and above     one of these seven; order is the
    held            ZSET    id -> order; OPEN, none FREE, some HELD   deadline less the boost of its
    full            ZSET    id -> order; OPEN, all FILLED: to settle  priority, then age
    settling        ZSET    id -> when its undo window closes, ms; every SETTLING deferral
    leases          ZSET    <id>:<slot> -> when the lease lapses, ms; every HELD slot
    expiry          ZSET    id -> when it expires, ms; every OPEN deferral
    holds           ZSET    <reviewer>, a zero byte, <id>; every HELD slot, a reviewer's together
    answered        ZSET    the same; every FILLED slot of what is OPEN or SETTLING
    tasks           HASH    digest of a task -> how many OPEN deferrals ask it
    outcomes        STREAM  {id}; one entry for each outcome, in order; until trimmed, at most the retention time
    changes         STREAM  {id}; wakes those who wait for work; the newest few
    outbox          ZSET    id -> when its outcome is to be told next, ms
    dead            ZSET    id -> when telling it was given up, ms; until redelivered, at most the retention time
    resolved, expired, cancelled
                    ZSET    id -> seq; deferrals that ended so; for the retention time
    ended           ZSET    id -> when it is purged, ms
    flagged         ZSET    id -> seq; what review managers should look at; lives as its record
    arriving        ZSET    id -> when the reaper first saw it, ms, 0 before: ids whose small content may be there;
                            <id>.file where a file may
                            without a record; until their script ran, at most the orphan time
    gold            HASH    id -> a gold item without its subject, JSON: see `fallback.gold`; until removed
    tried           HASH    <gold item's id> <reviewer> -> "right <ms>", "wrong <ms>" or "skipped <ms>"; as its item
    erased          HASH    id -> sha256 of inputs that were erased; until the trainer has erased its copy
    load            HASH    how much there is to do; see `fallback.load`. For ever, with few fields:
                              <minute>:<priority>   how many deferrals were parked; for an hour
                              <minute>:reviews, :hold, :asked
                                                    reviews given, ms they were held for, reviews asked for; the same
                              bytes, drafts         bytes that records say they brought, and of drafts, stored now

    d:<id>          HASH    the record: see `fallback.records`; while OPEN, then for the retention time, until it is
                            purged
    b:<id>:subject  STRING  what the reviewer sees; lives as its record; before acceptance its id is in `arriving`
                    HASH    number -> chunk, where it is large and lies in Redis
    b:<id>:inputs   STRING  serialised demur.v1.Tensors; the same
                    HASH
    b:<id>:subject.up, b:<id>:inputs.up
                    HASH    large content on its way; for the orphan time, renamed when its record is accepted
    w:<id>          HASH    <slot>:<reviewer> -> draft, JSON: unfinished work; while OPEN
    t:<digest>      STRING  a task as JSON; while an OPEN deferral asks it, then a day longer than any record
    k:<digest>      STRING  "<id> <input digest>" under sha256 of client and idempotency key; lives as its record
    o:<id>          STRING  what reviewers see of a gold item; as that
    r:<digest>      STRING  "<fingerprint> <reply>" of a request id; for the queue's request_seconds
    trimmed         STRING  the newest outcome that was trimmed; for ever
    g:<digest>      STRING  "<ms> <target>" of a callback whose target said it is gone for good; until redelivered or
                            enabled, at most the retention time

The shared documents (`fallback.documents`), after `demur:1:{documents}:`

    bodies          HASH    key -> "<revision> <body>"; for ever
    changes         STREAM  {key}; one entry for each write; the newest few
    r:<digest>      STRING  as above

What gateways tell the certifier (`fallback.arrivals`), after `demur:1:{samples/<model>}:`

    rows            STREAM  {row}; a row of evidence, JSON, in the order of arrival; until the certifier has it
"""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from typing import Final

LAYOUT: Final = "demur:1"
QUEUES: Final = f"{LAYOUT}:queues"
# The order in which scripts get them: scripts name each by the same word.
INDEXES: Final = (
    "seq",
    "open",
    "free",
    "free1",
    "free2",
    "free3",
    "held",
    "full",
    "settling",
    "leases",
    "expiry",
    "holds",
    "answered",
    "tasks",
    "outcomes",
    "changes",
    "outbox",
    "dead",
    "resolved",
    "expired",
    "cancelled",
    "ended",
    "flagged",
    "arriving",
    "gold",
    "tried",
    "erased",
    "load",
)
# Where what waits stands, by tier.
FREE: Final = ("free", "free1", "free2", "free3")
NAME_BYTES: Final = 12
_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz234567"
# Two digits of base32 at once: the library's own takes twice as long, and every item needs three names.
_PAIR: Final = tuple(high + low for high in _DIGITS for low in _DIGITS)
_PAIRS: Final = 10
_SHIFTS: Final = tuple(range(10 * (_PAIRS - 1), -1, -10))
DOCUMENT_INDEXES: Final = ("bodies", "changes")
DOCUMENTS: Final = f"{LAYOUT}:{{documents}}:"


def arrivals(model: str) -> str:
    """Return the key of the rows that gateways tell of `model`."""
    return f"{LAYOUT}:{{samples/{model}}}:rows"


def prefix(queue: str) -> str:
    """Return what all keys of a queue begin with."""
    return f"{LAYOUT}:{{{queue}}}:"


@lru_cache(maxsize=1_024)
def indexes(queue: str, names: tuple[str, ...] = INDEXES) -> tuple[str, ...]:
    """Return the queue's keys of fixed name, in the order of `names`."""
    return tuple(prefix(queue) + name for name in names)


def document_indexes() -> list[str]:
    """Return the keys of the shared documents, in the order of DOCUMENT_INDEXES."""
    return [DOCUMENTS + name for name in DOCUMENT_INDEXES]


def index(queue: str, name: str) -> str:
    """Return the key of one index."""
    if name not in INDEXES:
        raise ValueError(f"no index is called {name!r}")
    return prefix(queue) + name


def record(queue: str, deferral_id: str) -> str:
    """Return the key of a deferral's record."""
    return f"{prefix(queue)}d:{deferral_id}"


def subject(queue: str, deferral_id: str) -> str:
    """Return the key of what the reviewer sees."""
    return f"{prefix(queue)}b:{deferral_id}:subject"


def inputs(queue: str, deferral_id: str) -> str:
    """Return the key of what the model saw."""
    return f"{prefix(queue)}b:{deferral_id}:inputs"


def content(queue: str, deferral_id: str, what: str) -> str:
    """Return the key of the subject or the inputs, whichever `what` says."""
    return f"{prefix(queue)}b:{deferral_id}:{what}"


def upload(queue: str, deferral_id: str, what: str) -> str:
    """Return the key of large content whose record is not accepted yet."""
    return f"{content(queue, deferral_id, what)}.up"


def file_note(deferral_id: str) -> str:
    """Return what stands in `arriving` while a file of this deferral may be on its way."""
    return f"{deferral_id}.file"


def drafts(queue: str, deferral_id: str) -> str:
    """Return the key of the unfinished work on a deferral."""
    return f"{prefix(queue)}w:{deferral_id}"


def task(queue: str, digest: str) -> str:
    """Return the key of a task."""
    return f"{prefix(queue)}t:{digest}"


def gone(queue: str, target: str) -> str:
    """Return the key of a callback's target that said it is gone for good."""
    return f"{prefix(queue)}g:{digest(target)}"


def gold_subject(queue: str, one: str) -> str:
    """Return the key of what reviewers see of a gold item."""
    return f"{prefix(queue)}o:{one}"


def idempotency(queue: str, client: str, key: str) -> str:
    """Return the key of what a client's idempotency key made."""
    return f"{prefix(queue)}k:{digest(client, key)}"


def trimmed(queue: str) -> str:
    """Return the key of the newest outcome that was trimmed."""
    return f"{prefix(queue)}trimmed"


def digest(*parts: str) -> str:
    """Return a fixed-length name for texts that somebody else chose; no two lists of parts share one."""
    joined = "".join([f"{len(part)}:{part}" for part in parts])
    return digest_bytes(joined.encode("utf-8", "surrogatepass"))


def digest_bytes(content: bytes) -> str:
    """Return the first 96 bits of sha256 in 20 letters and digits: names stand in memory many times over."""
    return _text(hashlib.sha256(content).digest()[:NAME_BYTES])


def fresh_id() -> str:
    """Return 96 random bits in 20 letters and digits."""
    return _text(secrets.token_bytes(NAME_BYTES))


def id_from(seed: bytes) -> str:
    """Return an id that is always the same for a seed, which nobody else may have."""
    return digest_bytes(seed)


def mark(key: str) -> str:
    """Return the key of the mark that stands on the same server as `key`."""
    tag = key.partition("{")[2].partition("}")[0]
    return f"{LAYOUT}:{{{tag or key}}}:mark"


def _text(content: bytes) -> str:
    """Return base32 without padding, in small letters: ten pairs of its digits for 96 bits."""
    number = int.from_bytes(content) << (10 * _PAIRS - 8 * NAME_BYTES)
    return "".join([_PAIR[number >> shift & 1023] for shift in _SHIFTS])
