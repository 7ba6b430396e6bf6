"""
How long something took, had there been a processor whenever one was wanted.

What tests bound is a promise about our code; on a machine that does other things too, a clock on the wall counts these
things as well. Linux says of each thread how long it stood in the queue for a processor (the second figure of its
`schedstat`), and that is not counted here. Other systems do not say, and there all of it counts.
"""

import os
import threading
import time
from pathlib import Path


class Stopwatch:
    """
    Runs from when it is made, for the thread that made it. `others` are processes that this thread waits for meanwhile:
    what they wait for a processor is not counted either.
    """

    def __init__(self, *others: int) -> None:
        self._queues = [_queue_of(os.getpid(), threading.get_native_id()), *(_queue_of(pid, pid) for pid in others)]
        self._began = self._now()

    @property
    def seconds(self) -> float:
        return self._now() - self._began

    def _now(self) -> float:
        return time.monotonic() - sum(map(_waited_seconds, self._queues))


def _queue_of(pid: int, thread: int) -> Path:
    return Path(f"/proc/{pid}/task/{thread}/schedstat")


def _waited_seconds(queue: Path) -> float:
    try:
        return int(queue.read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0
