"""
Several probing processes side by side, so that a file that hangs delays nobody but whoever sent it, and hundreds of
files are looked at as fast as the cores allow. One is enough for one caller: the others start only when it is busy, and
leave again when they are idle.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from videoannotator.jobs import Video
from videoannotator.runner.prober import Prober
from videoannotator.runner.process import Runner

MOST = 4
"""Probing is mostly reading; four processes of some 50 MiB keep two cores busy although one of them hangs."""


class Probers:
    def __init__(self, probers: list[Prober]) -> None:
        self.most = len(probers)
        self._idle: asyncio.LifoQueue[Prober] = asyncio.LifoQueue()
        for prober in probers:
            self._idle.put_nowait(prober)

    @classmethod
    @asynccontextmanager
    async def open(cls, runner: Runner, *, most: int = MOST, **options: Any) -> AsyncIterator[Self]:
        """`options` are those of `Prober.open`. Nothing runs before the first probe, nothing is left at the end."""
        async with AsyncExitStack() as stack:
            yield cls([await stack.enter_async_context(Prober.open(runner, **options)) for _ in range(most)])

    async def probe(self, path: Path, filename: str) -> Video:
        """As `Prober.probe`. The one that was used last is taken first: it is warm."""
        prober = await self._idle.get()
        try:
            return await prober.probe(path, filename)
        finally:
            self._idle.put_nowait(prober)
