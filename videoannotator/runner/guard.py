"""The server's side of the guardian: keeps one alive, and tells it which groups there are."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from videoannotator.logs import get_logger
from videoannotator.runner import guardian
from videoannotator.runner.ear import exit_of, within
from videoannotator.runner.group import stop, to_its_end

_START_AGAIN_SECONDS = 0.1
_LEAVE_SECONDS = guardian.PATIENCE_SECONDS + 1.0

log = get_logger(__name__)


class Guard:
    def __init__(self, needle: bytes) -> None:
        self._needle = needle
        self._groups: set[int] = set()
        self._telling = -1
        self._start()

    @classmethod
    @asynccontextmanager
    async def open(cls, needle: bytes) -> AsyncIterator[Self]:
        """While the block runs there is a guardian: when one ends, another takes over all it watched."""
        guard = cls(needle)
        keeping = asyncio.create_task(guard._keep(), name="guard")
        try:
            yield guard
        finally:
            try:
                await stop(keeping)
            finally:
                await to_its_end(asyncio.create_task(guard._dismiss()))

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, pgid: int) -> None:
        self._groups.add(pgid)
        self._say(b"+%d\n" % pgid)

    def remove(self, pgid: int) -> None:
        self._groups.discard(pgid)
        self._say(b"-%d\n" % pgid)

    def _start(self) -> None:
        with ExitStack() as on_failure:
            inner, telling = os.pipe()
            on_failure.callback(os.close, telling)
            try:
                os.set_blocking(telling, False)
                # Said before there is anybody to hear it: from its first moment on a guardian knows all it needs, even
                # if the server is killed in the next one.
                for line in (b"=%s\n" % self._needle, *(b"+%d\n" % pgid for pgid in self._groups)):
                    os.write(telling, line)
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(guardian.__file__))],
                    stdin=inner,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
            finally:
                os.close(inner)
            on_failure.pop_all()
        self._telling = telling

    async def _keep(self) -> None:
        while True:
            await exit_of(self._process)
            log.warning("the guardian has ended; starting it again", exit_status=self._process.wait())
            self._hang_up()
            while self._telling == -1:
                try:
                    self._start()
                except OSError as exc:
                    log.warning("the guardian cannot be started; trying again", reason=str(exc))
                    await asyncio.sleep(_START_AGAIN_SECONDS * 10)
            await asyncio.sleep(_START_AGAIN_SECONDS)

    def _say(self, line: bytes) -> None:
        """Lines are shorter than PIPE_BUF, so each is written whole or not at all."""
        if self._telling == -1:
            return  # its successor is told everything at once
        try:
            os.write(self._telling, line)
        except BrokenPipeError:
            return  # it has just ended, and `_keep` is about to notice
        except BlockingIOError:
            log.warning("the guardian does not listen; it is replaced")
            # In this order: one that is only slow would take the closed pipe for the end of the server.
            self._process.kill()
            self._hang_up()

    def _hang_up(self) -> None:
        if self._telling != -1:
            os.close(self._telling)
            self._telling = -1

    async def _dismiss(self) -> None:
        self._hang_up()
        leaving = asyncio.create_task(exit_of(self._process))
        if not await within(_LEAVE_SECONDS, leaving):
            self._process.kill()
            await leaving
        with suppress(ChildProcessError):
            self._process.wait()
