"""
How the server is told to stop: SIGTERM or Ctrl-C once, and it ends in order; a second time, and it ends at once.

Plain handlers instead of the event loop's own, which Windows does not have. There Ctrl-C and Ctrl-Break are meant.
"""

import asyncio
import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

SAME_WISH_SECONDS = 0.5
"""Ctrl-C reaches a program twice where one that started it hands it on too; that is one wish."""

SIGNALS = (signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGTERM))


class Stopping:
    """Listens for as long as the block runs. Made in the event loop's thread, which must be the main one."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Set by the first signal."""

        self._loop = asyncio.get_running_loop()
        self._first_at: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _take(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self._loop.call_soon_threadsafe(self.asked.set)
        elif now - self._first_at > SAME_WISH_SECONDS:
            _end_at_once(number)


def _end_at_once(number: int) -> None:
    """As if the signal had never been handled. The guardian ends the stages, and the next start takes jobs back."""
    signal.signal(number, signal.SIG_DFL)
    if sys.platform == "win32":
        os._exit(3)  # what Ctrl-C ends a program with there
    os.kill(os.getpid(), number)
