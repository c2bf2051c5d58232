"""A client's side of WatchOutcomes: outcomes one by one, and where to go on when the stream breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import grpc

from fallback.deferral import Deferral
from fallback.deferral_wire import deferral_from_wire
from fallback.edge import error_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One outcome in a queue's stream, and the cursor to go on from."""

    cursor: str
    deferral: Deferral


class OutcomeStream:
    """Iterates once over outcomes, as they come; raises the DemurError that the gateway ends it with.

    `cursor` is where to go on. It moves with each outcome, and also past those that others see: after a break it misses
    nothing, and is kept for longer than that of the last outcome seen.
    """

    def __init__(self, call: Any, cursor: str) -> None:
        self.cursor = cursor
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self.cursor = response.cursor
                if response.HasField("deferral"):
                    return Event(cursor=response.cursor, deferral=deferral_from_wire(response.deferral))
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it; who drops it need not."""
        self._call.cancel()
