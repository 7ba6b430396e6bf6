"""
Whether new work may begin: nothing is claimed, and no further stage started, while the disk is nearly full or the
server is about to stop. What runs goes on; that is what the space that is left is kept for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from videoannotator.errors import StorageTrouble
from videoannotator.logs import get_logger

_MOST_MARGIN_BYTES = 64 * 1024**2
"""A tenth more than the limit, but not more than this, must be free before work goes on: no stop and go."""

log = get_logger(__name__)


class Gate:
    def __init__(self, pause_free_bytes: int) -> None:
        """With `pause_free_bytes` 0 it never closes for the disk."""
        self.low_disk: StorageTrouble | None = None
        """Why work is paused, while it is."""

        self.stopping = False
        """Set by `close`, for good."""

        self._limit = pause_free_bytes
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._at_work = 0

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Wait until it is open; the block counts as work until it ends."""
        await self._open.wait()
        self._at_work += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            if self._at_work == 0:
                self._idle.set()

    async def idle(self, limit_seconds: float) -> bool:
        """Whether all work ends within the limit."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """For good: the server stops."""
        self.stopping = True
        self._open.clear()

    def note_free(self, free_bytes: int) -> None:
        """So much is free on the disk now."""
        if self.low_disk is None and free_bytes < self._limit:
            self.low_disk = _low(free_bytes, self._limit)
            self._open.clear()
            log.warning("the queue is paused", reason=str(self.low_disk))
        elif self.low_disk is not None and free_bytes >= self._limit + min(self._limit // 10, _MOST_MARGIN_BYTES):
            self.low_disk = None
            log.warning("there is space again: the queue goes on")
            if not self.stopping:
                self._open.set()


def _low(free_bytes: int, limit: int) -> StorageTrouble:
    mib = 2**20
    message = f"The queue is paused: only {free_bytes / mib:.0f} MiB are free, and {limit / mib:.0f} MiB are kept."
    hint = "Free some space; it goes on by itself. The limit is the setting pause_free_bytes."
    return StorageTrouble(message, hint=hint, code="DISK_LOW")
