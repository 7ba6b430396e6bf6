"""
The one connection that writes, in a thread of its own.

A write is one function that runs from its first statement to its last without anybody else in between. All that queued
up while the disk was busy shares one COMMIT. When one of them raises, all are undone and done again with each in a
savepoint, so that one that raises undoes only its own rows: a savepoint around each from the start would cost all of
them a tenth of their time for the few that fail. A caller hears of success after the COMMIT and never before, and a
caller that is cancelled stops waiting but stops nothing: its write is on disk whole, or not at all.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from videoannotator.faults import reach
from videoannotator.store.bell import Bell
from videoannotator.store.trouble import closed, of_sqlite

P = ParamSpec("P")
T = TypeVar("T")

EVENTS = "SELECT seq, type, job_id, batch_id, data FROM events WHERE seq > ?"

_MOST_AT_ONCE = 256
_MOST_NEWS = 500
_log = logging.getLogger(__name__)


class News(NamedTuple):
    """What one COMMIT brought to the events table."""

    since: int
    """The newest seq before it."""

    newest: int
    """And after it."""

    rows: Sequence[Any]
    """All between, as `EVENTS` gives them; none where there are too many to be handed round."""


class Writer:
    def __init__(self, folder: Path) -> None:
        self.newest_event = 0
        """The seq of the newest event that is on disk."""

        self.commits = Bell()
        """Rings when there are new events on disk, before those who wrote them hear of it."""

        self.listeners: list[Callable[[News], None]] = []
        """Are told just before the bell rings, so that nobody has to read what was written a moment ago."""

        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._written = 0
        self._closing = False
        self._ended = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, connect: Callable[[], AbstractContextManager[sqlite3.Connection]]
    ) -> AsyncIterator[Self]:
        """`connect` opens and closes the connection, in the thread. On the way out, what was queued is written."""
        writer = cls(folder)
        opened = _Write(writer._loop.create_future(), _nothing)
        thread = threading.Thread(target=writer._live, args=(connect, opened), name="store-writer", daemon=True)
        thread.start()
        try:
            await opened.future
            yield writer
        finally:
            writer._closing = True
            writer._waiting.put(None)
            await _joined(thread)

    async def run(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        What `work` returned, after it is on disk. `work` must not begin or end transactions, and changes nothing but
        rows: it may be called twice.

        Raises:
            StorageTrouble: it could not be written, and nothing of it is.
            Exception: what `work` raised; nothing of it is written.
        """
        if self._closing:
            raise closed(self._folder)
        write = _Write(self._loop.create_future(), lambda connection: work(connection, *args, **kwargs))
        self._waiting.put(write)
        result: T = await write.future
        return result

    async def run_alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same for what must not be in a transaction: a checkpoint, a VACUUM. Other writes wait."""
        if self._closing:
            raise closed(self._folder)
        write = _Write(self._loop.create_future(), work, alone=True)
        self._waiting.put(write)
        result: T = await write.future
        return result

    # -- in the thread

    def _live(self, connect: Callable[[], AbstractContextManager[sqlite3.Connection]], opened: "_Write") -> None:
        try:
            with connect() as connection:
                self._written = _newest_event(connection)
                self._tell([opened], News(0, self._written, ()))
                while batch := self._next_batch():
                    for part in _parts(batch):
                        self._tell(part, self._commit(connection, part))
        except Exception as exc:  # handed to whoever opened, and to all who still write
            opened.error = exc
            self._tell([opened], None)
            self._refuse_to_the_end(exc)

    def _refuse_to_the_end(self, exc: Exception) -> None:
        while not self._ended:
            batch = self._next_batch()
            for write in batch:
                write.error = exc
            self._tell(batch, None)

    def _next_batch(self) -> "list[_Write]":
        """All that waits now, at least one; empty when it is time to go."""
        first = self._waiting.get()
        if first is None:
            self._ended = True
            return []
        batch = [first]
        while len(batch) < _MOST_AT_ONCE and not self._waiting.empty():
            following = self._waiting.get()
            if following is None:
                self._waiting.put(None)
                break
            batch.append(following)
        return batch

    def _commit(self, connection: sqlite3.Connection, batch: "list[_Write]") -> News | None:
        """Give every write its result or its error; what is new if there was a COMMIT."""
        if batch[0].alone:
            self._do_alone(connection, batch[0])
            return None
        try:
            connection.execute("BEGIN IMMEDIATE")
            if not self._attempt_all(connection, batch):
                connection.execute("BEGIN IMMEDIATE")
                for write in batch:
                    self._attempt(connection, write)
            news = _news(connection, self._written)
            reach("store.committing")
            connection.execute("COMMIT")
            reach("store.committed")
        except Exception as exc:  # handed to all whose rows went with it
            meaning = self._meaning(exc)
            for write in batch:
                write.error = write.error or meaning
            with suppress(sqlite3.Error):  # SQLite may have done it already; if it cannot, the next BEGIN says so
                connection.execute("ROLLBACK")
            return None
        self._written = news.newest
        return news

    def _attempt_all(self, connection: sqlite3.Connection, batch: "list[_Write]") -> bool:
        """Whether all of them went well; if not, everything is undone and the transaction is over."""
        try:
            for write in batch:
                write.result = write.work(connection)
        except Exception:  # which of them, and what it means, shows when they are done again
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return False
        return True

    def _do_alone(self, connection: sqlite3.Connection, write: "_Write") -> None:
        try:
            write.result = write.work(connection)
        except Exception as exc:  # handed to whoever waits for it
            write.error = self._meaning(exc)

    def _attempt(self, connection: sqlite3.Connection, write: "_Write") -> None:
        connection.execute("SAVEPOINT write")
        try:
            write.result = write.work(connection)
        except Exception as exc:  # handed to whoever waits for this write
            write.error = self._meaning(exc)
            if not connection.in_transaction:  # SQLite undid everything, so everybody must hear of it
                raise
            connection.execute("ROLLBACK TO write")
        connection.execute("RELEASE write")

    def _meaning(self, exc: Exception) -> Exception:
        trouble = of_sqlite(self._folder, exc) if isinstance(exc, sqlite3.Error) else None
        if trouble is None:
            return exc
        trouble.__cause__ = exc
        return trouble

    def _tell(self, batch: "list[_Write]", news: News | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, batch, news)
        except RuntimeError:  # the loop is closed, and nobody is left to hear it
            _log.warning("The event loop ended before the store was closed; %d writes went unheard.", len(batch))

    # -- in the loop

    def _settle(self, batch: "list[_Write]", news: News | None) -> None:
        if news is not None and news.newest > self.newest_event:
            self.newest_event = news.newest
            for listener in self.listeners:
                listener(news)
            self.commits.ring()
        for write in batch:
            write.settle()


class _Write:
    """A function that waits for its turn, and what came of it."""

    __slots__ = ("alone", "error", "future", "result", "work")

    def __init__(
        self, future: asyncio.Future[Any], work: Callable[[sqlite3.Connection], Any], *, alone: bool = False
    ) -> None:
        self.alone = alone
        self.future = future
        self.work = work
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():
            if self.error is not None:
                _log.error("A write failed after its caller had left: %s", self.error)
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _parts(batch: list[_Write]) -> list[list[_Write]]:
    """Those that share a transaction, in order; each that stands alone in a part of its own."""
    parts: list[list[_Write]] = []
    for write in batch:
        if parts and not write.alone and not parts[-1][0].alone:
            parts[-1].append(write)
        else:
            parts.append([write])
    return parts


def _nothing(_: sqlite3.Connection) -> None:
    return None


def _news(connection: sqlite3.Connection, since: int) -> News:
    rows = connection.execute(f"{EVENTS} ORDER BY seq LIMIT ?", (since, _MOST_NEWS + 1)).fetchall()
    if len(rows) > _MOST_NEWS:
        return News(since, _newest_event(connection), ())
    return News(since, rows[-1][0] if rows else since, rows)


def _newest_event(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


async def _joined(thread: threading.Thread) -> None:
    """Wait for the thread although the waiting task may be cancelled: the lock on the directory goes with it."""
    joining = asyncio.create_task(asyncio.to_thread(thread.join), name="store-writer-join")
    cancelled: asyncio.CancelledError | None = None
    while not joining.done():
        try:
            await asyncio.shield(joining)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
