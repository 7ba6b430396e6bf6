"""A bell that many may wait for. It counts, so that a ring between two waits is not missed."""

import asyncio


class Bell:
    def __init__(self) -> None:
        self.rung = 0
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ring(self) -> None:
        self.rung += 1
        self._next.set_result(None)
        self._next = asyncio.get_running_loop().create_future()

    async def wait(self, limit_seconds: float, heard: int) -> int:
        """Until it has rung more than `heard` times, or the limit; how often it has rung."""
        if self.rung <= heard:
            await asyncio.wait({self._next}, timeout=limit_seconds)
        return self.rung
