"""Readers, and doctors above them: who is asked in tests of tiers."""

from __future__ import annotations

from fallback.answer import Identity

TIERS = ("reader", "doctor")


def who(name: str, *skills: str) -> Identity:
    return Identity(name=name, skills=frozenset(skills))


ANN, BOB, CID = (who(name, "reader") for name in ("ann", "bob", "cid"))
DORA, EVE = (who(name, "doctor") for name in ("dora", "eve"))
BOTH = who("both", *TIERS)
