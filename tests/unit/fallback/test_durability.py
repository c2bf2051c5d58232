"""What speaks against a server: what never works, what may lose something, what could not be made sure of."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from fallback.config import RedisSettings
from fallback.durability import Facts, judge

GOOD = Facts(
    version="9.1.2",
    maxmemory=0,
    policy="noeviction",
    append_only=True,
    fsync="always",
    fsync_paused=False,
    cluster=False,
    primary=True,
    loading=False,
    replicas=0,
)


def _judged(settings: dict[str, Any], **facts: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    found = judge(msgspec.structs.replace(GOOD, **facts), RedisSettings(**settings))
    return found.wrong, found.unsafe, found.doubts


def test_nothing_speaks_against_a_good_one() -> None:
    """Whatever its version from 7 on; eviction without a limit evicts nothing."""
    assert _judged({}) == ((), (), ())
    assert _judged({}, version="7.0.15", policy="allkeys-lru") == ((), (), ())
    assert _judged({"cluster": True}, cluster=True) == ((), (), ())
    assert _judged({"replicas_min": 1}, replicas=1) == ((), (), ())


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"version": "6.2.14"}, "expected version 7 or later, got 6.2.14"),
        ({"cluster": True}, "expected redis.cluster = true for a server in cluster mode, got false"),
    ],
)
def test_what_never_works(facts: dict[str, Any], told: str) -> None:
    """Also where unsafe servers are allowed."""
    assert _judged({"allow_unsafe": True}, **facts) == ((told,), (), ())


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"maxmemory": 1, "policy": "volatile-ttl"}, "expected maxmemory-policy noeviction, got volatile-ttl"),
        ({"append_only": False, "fsync": "always"}, "expected appendonly yes, got no"),
        ({"fsync": "no"}, "expected appendfsync always, got no"),
        ({"fsync": "everysec"}, 'expected appendfsync always, got everysec.*redis.fsync = "everysec"'),
        ({"fsync": "sometimes"}, "expected appendfsync always, got sometimes"),
        ({"fsync_paused": True}, "expected no-appendfsync-on-rewrite no, got yes"),
    ],
)
def test_what_may_lose_something(facts: dict[str, Any], told: str) -> None:
    """Each with what was expected and what it has."""
    wrong, (sentence,), doubts = _judged({}, **facts)
    assert (wrong, doubts) == ((), ())
    assert re.search(told, sentence)


def test_what_is_accepted_on_request() -> None:
    """A sync every second, never less."""
    assert _judged({"fsync": "everysec"}, fsync="everysec") == ((), (), ())
    assert _judged({"fsync": "everysec"}, fsync="always") == ((), (), ())
    assert len(_judged({"fsync": "everysec"}, fsync="no")[1]) == 1


def test_what_could_not_be_made_sure_of() -> None:
    """Where CONFIG is not allowed, and where replicas are missing now."""
    wrong, unsafe, (doubt,) = _judged({}, fsync=None, fsync_paused=None)
    assert (wrong, unsafe) == ((), ())
    assert "cannot read its appendfsync (CONFIG is not allowed): make sure that it is always" in doubt
    wrong, unsafe, (doubt,) = _judged({"replicas_min": 2}, replicas=1)
    assert (wrong, unsafe) == ((), ())
    assert "has 1 replicas now, redis.replicas_min is 2" in doubt
