"""The Hypothesis machine with faults at the Redis boundary: server and model agree whatever happens on the way.

A fault is armed and strikes one of the next calls to the server: its reply is lost after the server did its work, once
or for good; it is sent twice; it is held up; the caller's task is cancelled before, in the middle or after; the server
forgets its scripts; the server is killed and comes back. The caller then does what a real client does: it calls again
with the same request id, or idempotency key. What has neither, a lease, is not repeated: nobody knows of that hold, and
it lapses.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
