"""Which stage may start now. Stages wait in the order they asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Scheduler:
    """Room for so many stage processes at once, over all jobs."""

    def __init__(self, slots: int) -> None:
        self._room = asyncio.Semaphore(slots)
        self.free = slots
        """Slots that nobody holds or waits for."""

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it; it is free again when the block ends, on every path."""
        self.free -= 1
        try:
            async with self._room:
                yield
        finally:
            self.free += 1
