"""The server's side of probing: one small process, started at the first probe, replaced when it hangs or dies."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from videoannotator.errors import StageBroke, StageDied, UnreadableVideo
from videoannotator.jobs import Video
from videoannotator.logs import get_logger
from videoannotator.runner.frames import encode
from videoannotator.runner.group import Group, stop
from videoannotator.runner.messages import Log, Probe, Probed, ProbeMessage, Ready, Unreadable
from videoannotator.runner.process import Runner

START_SECONDS = 60.0
"""Until the reader's libraries are loaded, from a cold and busy disk."""

log = get_logger(__name__)


class Prober:
    """One probe at a time; others wait their turn. Made by `open`."""

    def __init__(self, runner: Runner, scratch: Path, *, code: str, limit_seconds: float, idle_seconds: float) -> None:
        self._runner = runner
        self._scratch = scratch
        self._code = code
        self._limit = limit_seconds
        self._idle = idle_seconds
        self._turn = asyncio.Lock()
        self._group: Group[ProbeMessage] | None = None
        self._fresh = True
        self._used_at = 0.0
        self._leaving: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        runner: Runner,
        *,
        code: str = "videoannotator.media.probe:probe",
        limit_seconds: float = 10.0,
        idle_seconds: float = 30.0,
    ) -> AsyncIterator[Self]:
        """Nothing runs before the first probe, and nothing is left when the block ends."""
        async with runner.scratch() as scratch:
            prober = cls(runner, scratch, code=code, limit_seconds=limit_seconds, idle_seconds=idle_seconds)
            try:
                yield prober
            finally:
                await prober._close()

    @property
    def pid(self) -> int | None:
        """Of the process that is warm now."""
        return None if self._group is None else self._group.pid

    async def warm_up(self) -> None:
        """Start the process now, for the next probe. Raises StageDied."""
        async with self._turn:
            await self._reader()

    async def probe(self, path: Path, filename: str) -> Video:
        """
        What kind of video this is. Waiting for the turn does not count against the time limit.

        Raises:
            UnreadableVideo: it is none that is opened; also when reading it hangs (PROBE_TIMEOUT) or crashes.
            StageDied: the reader cannot be started here, whatever the file.
        """
        asked = encode(Probe(path=os.fsencode(path), filename=filename))
        async with self._turn:
            answer = await self._ask(asked, filename)
        match answer:
            case Probed(video=video):
                return video
            case Unreadable(code=code, message=message, hint=hint):
                raise UnreadableVideo(message, hint=hint, code=code)

    async def _ask(self, asked: bytes, filename: str) -> Probed | Unreadable:
        """Twice where the first process had read other files before: one of those may be what broke it."""
        group, fresh = await self._reader()
        answer = await self._try(group, asked, filename)
        if answer is None and not fresh:
            group, _ = await self._reader()
            answer = await self._try(group, asked, filename)
        if answer is None:
            hint = "The file is damaged or made to do harm."
            message = f"{filename} crashed the reader."
            return Unreadable(code=UnreadableVideo.code, message=message, hint=hint)
        return answer

    async def _reader(self) -> tuple[Group[ProbeMessage], bool]:
        """A living process, and whether it has read nothing yet."""
        if self._group is not None and self._group.has_left:
            await self._end()
        if self._group is not None:
            return self._group, False
        return await self._start(), True

    async def _start(self) -> Group[ProbeMessage]:
        argv = (sys.executable, "-P", "-m", "videoannotator.runner.probe", self._code)
        with open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230, PTH123  (it does not block)
            self._group = self._runner.start(
                argv,
                errors=nowhere.fileno(),
                kind=ProbeMessage,
                threads=1,
                who="the video reader",
                scratch=self._scratch,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await self._group.ear.hear()
        except (TimeoutError, StageBroke):
            ready = None
        except BaseException:
            await self._end()
            raise
        if not isinstance(ready, Ready):
            await self._end()
            raise StageDied("The video reader could not be started.", hint="Run: videoannotator diagnose")
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._leave_when_idle(), name="idle prober")
        return self._group

    async def _try(self, group: Group[ProbeMessage], asked: bytes, filename: str) -> Probed | Unreadable | None:
        """The answer; None when the process ended, or spoke nonsense, instead of giving one."""
        answered = False
        try:
            async with asyncio.timeout(self._limit):
                await group.tell(asked)
                answer = await _answer(group)
                answered = answer is not None
                return answer
        except StageBroke as exc:
            log.warning("the video reader broke", filename=filename, reason=str(exc))
            return None
        except TimeoutError:
            message = f"{filename} could not be read within {self._limit:g} s."
            return Unreadable(code="PROBE_TIMEOUT", message=message, hint="The file is damaged or made to do harm.")
        finally:
            self._used_at = asyncio.get_running_loop().time()
            if not answered:
                await self._end()

    async def _leave_when_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while self._group is not None:
            await asyncio.sleep(max(0.0, self._used_at + self._idle - loop.time()))
            async with self._turn:
                if loop.time() >= self._used_at + self._idle:
                    await self._end()

    async def _close(self) -> None:
        try:
            if self._leaving is not None:
                await stop(self._leaving)
        finally:
            await self._end()

    async def _end(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        try:
            await group.end(0)
        finally:
            group.close()


async def _answer(group: Group[ProbeMessage]) -> Probed | Unreadable | None:
    while True:
        match await group.ear.hear():
            case Probed() | Unreadable() as answer:
                return answer
            case Log(message=message):
                log.error("a bug of ours in probing", traceback=message)
            case Ready() | None:
                return None
