"""
Several probing processes side by side, so that a file that hangs delays nobody but whoever sent it for long, and
hundreds of files are looked at as fast as the cores allow.

One process looks at some two hundred ordinary files a second, and to start another one takes as long as dozens of them:
it is started only when there was always somebody who waited for a while, and leaves again when it is idle. Who waits is
served in turn.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from videoannotator.errors import StageDied
from videoannotator.jobs import Video
from videoannotator.logs import get_logger
from videoannotator.runner.group import stop
from videoannotator.runner.prober import Prober
from videoannotator.runner.process import Runner

MOST = 4
"""Probing is mostly reading; four processes of some 50 MiB keep two cores busy although one of them hangs."""

PATIENCE_SECONDS = 0.25
"""How long there is always somebody who waits for a process, before another one is started."""

log = get_logger(__name__)


class Probers:
    """Made by `open`."""

    def __init__(self, probers: list[Prober], patience_seconds: float) -> None:
        self.most = len(probers)
        self._patience = patience_seconds
        self._idle = probers
        """Nobody works with them. The one that was used last is at the end."""

        self._waiting: deque[asyncio.Future[Prober]] = deque()
        self._impatience: asyncio.TimerHandle | None = None
        """Set while somebody waits."""

        self._growing: asyncio.Task[Any] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, runner: Runner, *, most: int = MOST, patience_seconds: float = PATIENCE_SECONDS, **options: Any
    ) -> AsyncIterator[Self]:
        """`options` are those of `Prober.open`. Nothing runs before the first probe, nothing is left at the end."""
        async with AsyncExitStack() as stack:
            found = [await stack.enter_async_context(Prober.open(runner, **options)) for _ in range(most)]
            probers = cls(found, patience_seconds)
            try:
                yield probers
            finally:
                probers._be_patient()
                if probers._growing is not None:
                    await stop(probers._growing)

    def expect(self) -> None:
        """A file comes in a moment: start a process for it where there is none yet."""
        if self._growing is None and (prober := self._take()) is not None:
            self._growing = asyncio.create_task(self._warm_up(prober), name="first prober")

    async def probe(self, path: Path, filename: str) -> Video:
        """As `Prober.probe`."""
        prober = self._take() or await self._wait()
        try:
            return await prober.probe(path, filename)
        finally:
            self._give(prober)

    def _take(self) -> Prober | None:
        """A warm one; where none is at work and none is warm, one that has to be started."""
        warm = [prober for prober in self._idle if prober.pid is not None]
        if not warm and len(self._idle) < self.most:
            return None
        prober = warm[-1] if warm else self._idle[-1]
        self._idle.remove(prober)
        return prober

    async def _wait(self) -> Prober:
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Prober] = loop.create_future()
        self._waiting.append(mine)
        self._impatience = self._impatience or loop.call_later(self._patience, self._grow)
        try:
            return await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                with suppress(ValueError):  # it was passed over already
                    self._waiting.remove(mine)
            else:
                self._give(mine.result())
            raise
        finally:
            if not self._waiting:
                self._be_patient()

    def _give(self, prober: Prober) -> None:
        """To who waits longest, or back."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(prober)
                return
        self._idle.append(prober)

    def _be_patient(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _grow(self) -> None:
        if self._growing is None or self._growing.done():
            self._growing = asyncio.create_task(self._start_more(), name="more probers")

    async def _start_more(self) -> None:
        """One after the other, for as long as somebody waits."""
        while self._idle and self._waiting:
            if not await self._warm_up(self._idle.pop(0)):
                return
            await asyncio.sleep(self._patience)

    async def _warm_up(self, prober: Prober) -> bool:
        try:
            await prober.warm_up()
        except StageDied as died:
            log.warning("no further video reader can be started", reason=str(died))
            return False
        finally:
            self._give(prober)
        return True
