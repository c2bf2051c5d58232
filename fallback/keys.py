"""Every Redis key, once: its type, what it means, how long it lives.

Layout 1. A queue's keys share the hash tag `{<queue>}`, so that one script may touch them all, on a cluster too. All
begin with `demur:1:`; a layout that readers of this one could not read gets the next number.

    demur:1:queues                   SET     names of queues that something was ever parked in; for ever

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
    holding         HASH    id -> how many of its slots are HELD
    holds           ZSET    <reviewer>, a zero byte, <id>:<slot>; every HELD slot, a reviewer's together
    tasks           HASH    digest of a task -> how many OPEN deferrals ask it
    outcomes        STREAM  {id}; one entry for each outcome, in order; until trimmed, at most the retention time
    changes         STREAM  {id}; wakes those who wait for work; the newest few
    outbox          ZSET    id -> when its outcome is to be told next, ms
    dead            ZSET    id -> when telling it was given up, ms; until redelivered, at most the retention time
    resolved, expired, cancelled
                    ZSET    id -> seq; deferrals that ended so; for the retention time
    ended           ZSET    id -> when it is purged, ms
    flagged         ZSET    id -> seq; what review managers should look at; lives as its record

    d:<id>          HASH    the record: see `fallback.records`; while OPEN, then for the retention time
    b:<id>:subject  STRING  what the reviewer sees; lives as its record; before acceptance for the orphan time
    b:<id>:inputs   STRING  serialised demur.v1.Tensors; the same
    w:<id>          HASH    <slot>:<reviewer> -> draft, JSON: unfinished work; while OPEN
    t:<digest>      STRING  a task as JSON; while an OPEN deferral asks it, then for the retention time and a day
    k:<digest>      STRING  "<id> <input digest>" under sha256 of client and idempotency key; lives as its record
    r:<digest>      STRING  "<fingerprint> <reply>" of a request id; for the queue's request_seconds

The shared documents (`fallback.documents`), after `demur:1:{documents}:`

    bodies          HASH    key -> "<revision> <body>"; for ever
    changes         STREAM  {key}; one entry for each write; the newest few
    r:<digest>      STRING  as above
"""

from __future__ import annotations

import base64
import hashlib
import secrets
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
    "holding",
    "holds",
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
)
NAME_BYTES: Final = 12
DOCUMENT_INDEXES: Final = ("bodies", "changes")
DOCUMENTS: Final = f"{LAYOUT}:{{documents}}:"


def prefix(queue: str) -> str:
    """Return what all keys of a queue begin with."""
    return f"{LAYOUT}:{{{queue}}}:"


def indexes(queue: str) -> list[str]:
    """Return the queue's keys of fixed name, in the order of INDEXES."""
    return [prefix(queue) + name for name in INDEXES]


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


def drafts(queue: str, deferral_id: str) -> str:
    """Return the key of the unfinished work on a deferral."""
    return f"{prefix(queue)}w:{deferral_id}"


def task(queue: str, digest: str) -> str:
    """Return the key of a task."""
    return f"{prefix(queue)}t:{digest}"


def digest(*parts: str) -> str:
    """Return a fixed-length name for texts that somebody else chose; no two lists of parts share one."""
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return digest_bytes(joined.encode("utf-8", "surrogatepass"))


def digest_bytes(content: bytes) -> str:
    """Return the first 96 bits of sha256 in 20 letters and digits: names stand in memory many times over."""
    return _text(hashlib.sha256(content).digest()[:NAME_BYTES])


def fresh_id() -> str:
    """Return 96 random bits in 20 letters and digits."""
    return _text(secrets.token_bytes(NAME_BYTES))


def _text(content: bytes) -> str:
    return base64.b32encode(content).decode("ascii").rstrip("=").lower()
