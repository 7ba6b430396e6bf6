"""Work ahead: a thread decodes the next frames while the last ones are looked at, on another core."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue
from typing import Generic, TypeVar

T = TypeVar("T")


@contextmanager
def ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """
    The same items in the same order, taken by a thread that starts at once and keeps up to `depth` of them ready.

    What taking them raises is raised after the last good item. On leaving, the thread has ended, also when not all
    items were used.
    """
    queue: Queue[T | None] = Queue(depth)
    stop = threading.Event()
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = _Coming(queue, pool.submit(_fill, queue, items, stop))
        try:
            yield coming
        finally:
            stop.set()
            coming.drain()


def _fill(queue: "Queue[T | None]", items: Iterable[T], stop: threading.Event) -> None:
    try:
        for item in items:
            if stop.is_set():
                return
            queue.put(item)
    finally:
        queue.put(None)


class _Coming(Generic[T]):
    def __init__(self, queue: "Queue[T | None]", filling: Future[None]) -> None:
        self._queue = queue
        self._filling = filling
        self._ended = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if (item := self._queue.get()) is not None:
            return item
        self._ended = True
        self._filling.result()
        raise StopIteration

    def drain(self) -> None:
        """Take what is left, so that a thread that waits for room can go."""
        while not self._ended:
            self._ended = self._queue.get() is None
