"""Large content, and where it is looked for."""

from __future__ import annotations

import os
from typing import Any

from fallback.blobs.chunks import CHUNK_BYTES
from fallback.queue import Queue

SUBJECT = os.urandom(3 * CHUNK_BYTES + 17)
INPUTS = os.urandom(5 * CHUNK_BYTES)


async def contents_in_redis(queue: Queue) -> list[bytes]:
    """The keys of all contents."""
    return sorted([key async for key in queue._store.connection.redis.scan_iter("demur:1:{*}:b:*")])


def with_cant_tell(task: Any) -> dict[str, Any]:
    return {**{field: getattr(task, field) for field in task.__struct_fields__}, "cant_tell": True}
