"""Names of deferrals, and what a script's refusal is called outside."""

from __future__ import annotations

import pytest

from fallback.config import Config
from fallback.errors import (
    AbortedError,
    ConflictError,
    DemurError,
    InvalidError,
    NotFoundError,
    StateError,
    TakenOverError,
)
from fallback.store import Store, accepted, own_request, parse, refused

NAME = "queues/digits/deferrals/1a"


def test_a_name_leads_to_queue_and_id() -> None:
    """queues/<queue>/deferrals/<id>."""
    assert parse(NAME) == ("digits", "1a")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "queues/digits/deferrals/",
        "queues/digits/deferrals/1a/x",
        "queues//deferrals/1a",
        "models/digits/x/1a",
        "queues/a{b/deferrals/1a",
        "queues/digits/deferrals/1:a",
        "queues/digits/deferrals/é",
        "queues/" + "x" * 300,
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    """INVALID_ARGUMENT, with the form that was expected."""
    with pytest.raises(InvalidError, match="name: expected queues/<queue>/deferrals/<id>, got"):
        parse(name)


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (["refused", "unknown"], NotFoundError, f"{NAME}: no such deferral"),
        (["refused", "forged"], InvalidError, "token: expected a token that a lease came with"),
        (["refused", "foreign"], StateError, "another reviewer's"),
        (["refused", "ended", "cancelled"], StateError, f"{NAME}: is cancelled already"),
        (["refused", "ended", "settling"], StateError, f"{NAME}: is being settled already"),
        (["refused", "stale", "lapsed"], StateError, "is over: it lapsed; lease again"),
        (["refused", "stale", "resumed"], TakenOverError, "is over: it was taken over in another place; lease again"),
        (["refused", "reused"], ConflictError, "request_id: was used for another call"),
        (["refused", "changed", "7"], AbortedError, f"{NAME}: is at version 7 meanwhile"),
        (["refused", "limit", 3], StateError, "has 3 places for reviews"),
        (["refused", "something", "new"], StateError, f"{NAME}: something new"),
    ],
)
def test_a_refusal_is_told_in_words(reply: list[object], kind: type[DemurError], told: str) -> None:
    """Its own class, so its own gRPC code, and a sentence that says which and what to do."""
    error = refused(reply, NAME)
    assert type(error) is kind
    assert told in error.message
    with pytest.raises(kind):
        accepted(reply, NAME)


def test_a_request_is_the_same_for_the_same_caller_and_call(config: Config) -> None:
    """Its key is the caller's and the id's, its fingerprint the whole call's."""
    store = Store(config)
    first = store.request("digits", "1", "ann", "submit", "token")
    assert store.request("digits", "1", "ann", "submit", "token") == first
    other_call, other_caller = store.request("digits", "1", "ann", "release"), store.request("digits", "1", "bob", "x")
    assert (other_call.key, other_call.fingerprint == first.fingerprint) == (first.key, False)
    assert other_caller.key != first.key
    with pytest.raises(InvalidError, match="request_id: expected at most 128 characters, got 129"):
        store.request("digits", "1" * 129, "ann")


def test_without_a_request_id_each_call_is_its_own(config: Config) -> None:
    """Only our own repeats are recognised."""
    store = Store(config)
    assert store.request("digits", "", "ann").key != store.request("digits", "", "ann").key
    assert own_request().seconds < store.config.queue("digits").request_seconds
