"""All places for large content: new content goes where the setting says, old is found where its reference says."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from fallback.blobs import FOLDER, INPUTS, REDIS, SUBJECT, Blob, Blobs, Reference, sha256
from fallback.blobs.chunks import Chunks
from fallback.blobs.folder import Folder
from fallback.config import Config, FallbackSettings
from fallback.connection import Connection
from fallback.deferral import Parking
from fallback.errors import DemurError, UnavailableError

FOLDER_NAME: Final = "blobs"


class BlobStore:
    """The places of one process; belongs to one event loop."""

    def __init__(self, config: Config, connection: Connection) -> None:
        settings = config.table("fallback", FallbackSettings)
        self.bytes_min = settings.blob_bytes_min
        self._chosen = settings.blobs
        # A file has no time to live: a note says that it is on its way, and the sweep spares it.
        self.needs_note = settings.blobs == FOLDER
        self._places: dict[str, Blobs] = {
            REDIS: Chunks(connection),
            FOLDER: Folder(Path(settings.blob_folder) if settings.blob_folder else config.data_folder / FOLDER_NAME),
        }
        self._writing = asyncio.Semaphore(settings.blob_concurrency_max)
        self._reading = asyncio.Semaphore(settings.blob_concurrency_max)

    def takes(self, parking: Parking) -> bool:
        """Say whether some content of a request is too large to stand beside its record."""
        least = self.bytes_min
        return len(parking.subject) > least or len(parking.inputs) > least

    async def put(self, one: str, parking: Parking, *, orphan_seconds: float) -> dict[str, Reference]:
        """Write what is large of a request under the id `one`; returns where each lies. A few at once, others wait.

        Raises UnavailableError where it took so long that the first of it may soon be swept.
        """
        references: dict[str, Reference] = {}
        async with self._writing:
            started = time.monotonic()
            for what, content in ((SUBJECT, parking.subject), (INPUTS, parking.inputs)):
                if len(content) > self.bytes_min:
                    digest = base64.b64encode(await sha256(content)).decode().rstrip("=")
                    blob = Blob(queue=parking.queue, id=one, what=what)
                    await self._places[self._chosen].put(blob, content, orphan_seconds=orphan_seconds)
                    references[what] = Reference(place=self._chosen, size_bytes=len(content), digest=digest)
        if time.monotonic() - started > orphan_seconds / 2:
            raise UnavailableError("the content took too long to be written; nothing was accepted, try again")
        return references

    async def get(self, blob: Blob, reference: Reference) -> bytes | None:
        """Return what lies there, to be checked; None where nothing does. A few at once, others wait."""
        async with self._reading:
            return await self._place(reference.place).get(blob, reference.size_bytes)

    async def there(self, blobs: Sequence[tuple[Blob, Reference | None]]) -> list[bool]:
        """Say of each whether something lies there; without a reference it is a string beside its record."""
        places = [REDIS if reference is None else reference.place for _, reference in blobs]
        found: dict[int, bool] = {}
        for place in set(places):
            numbers = [number for number, name in enumerate(places) if name == place]
            said = await self._place(place).there([blobs[number][0] for number in numbers])
            found |= dict(zip(numbers, said, strict=True))
        return [found[number] for number in range(len(blobs))]

    async def delete(self, queue: str, ids: Sequence[str]) -> None:
        """Delete all contents of these deferrals, wherever they lie."""
        for place in self._places.values():
            await place.delete(queue, ids)

    async def sweep(
        self, queue: str, *, orphan_seconds: float, strays: Callable[[list[str]], Awaitable[set[str]]]
    ) -> int:
        """Delete orphans where no time to live does it; returns how many."""
        return sum(
            [await place.sweep(queue, orphan_seconds=orphan_seconds, strays=strays) for place in self._places.values()]
        )

    def _place(self, name: str) -> Blobs:
        place = self._places.get(name)
        if place is None:
            raise DemurError(f"blobs: expected one of {', '.join(self._places)}, got a reference to {name[:20]!r}")
        return place
