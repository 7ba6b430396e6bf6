"""
The database file of a storage directory: locked, checked, migrated, with one connection that writes and one that reads.

The reading connection can write nothing and checkpoints nothing: SQLite up to 3.51.2 can corrupt a WAL when two
connections checkpoint at once. It is a second connection because on the writer's own a reader would see rows that are
rolled back later.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import aiosqlite

from videoannotator.settings import bundled
from videoannotator.store.bell import Bell
from videoannotator.store.lanes import keep_count
from videoannotator.store.lock import only_one
from videoannotator.store.migrations import migrate, version_of
from videoannotator.store.trouble import DATABASE, damaged, not_writable, translated
from videoannotator.store.writer import News, Writer

P = ParamSpec("P")
T = TypeVar("T")

_CHECKED_BYTES = 64 * 1024**2
"""A database up to this size is read through at the start, in well under half a second."""


class Database:
    def __init__(self, folder: Path, writer: Writer, reader: aiosqlite.Connection) -> None:
        self._folder = folder
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Self]:
        """
        Raises:
            StorageTrouble: STORAGE_IN_USE, STORAGE_FULL, STORAGE_NOT_WRITABLE, DATABASE_DAMAGED, DATABASE_TOO_NEW.
        """
        async with Writer.open(folder, partial(writing_connection, folder)) as writer:
            with translated(folder):
                reader = await aiosqlite.connect(folder / DATABASE, isolation_level=None, cached_statements=256)
            try:
                for pragma in ("query_only = ON", "wal_autocheckpoint = 0", "busy_timeout = 5000"):
                    await reader.execute_fetchall(f"PRAGMA {pragma}")
                yield cls(folder, writer, reader)
            finally:
                await reader.close()  # before the writer: the last connection to close makes the checkpoint

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def newest_event(self) -> int:
        """The seq of the newest event that is on disk."""
        return self._writer.newest_event

    @property
    def listeners(self) -> list[Callable[[News], None]]:
        """Are told what each COMMIT brought to the events table, just before that bell rings."""
        return self._writer.listeners

    @property
    def commits(self) -> Bell:
        """Rings when there are new events on disk."""
        return self._writer.commits

    async def write(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work` in a transaction of the writer; see `Writer.run`."""
        return await self._writer.run(work, *args, **kwargs)

    async def write_alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the writer's connection outside of a transaction; see `Writer.run_alone`."""
        return await self._writer.run_alone(work)

    async def read(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """The rows of one statement, all from one moment after every write that was acknowledged before."""
        with translated(self._folder):
            return list(await self._reader.execute_fetchall(sql, parameters))


@contextmanager
def writing_connection(folder: Path) -> Iterator[sqlite3.Connection]:
    """The directory's only connection that may write, for as long as the lock on the directory is held."""
    with only_one(folder), translated(folder), closing(_opened(folder)) as connection:
        _prepare(connection, folder)
        _check(connection, folder)
        migrate(connection, folder, bundled("migrations"))
        keep_count(connection)
        yield connection


def migrate_folder(folder: Path) -> int:
    """
    Bring the database of a storage directory up to date, which is made if there is none; its version before.

    Raises:
        StorageTrouble: STORAGE_IN_USE, DATABASE_TOO_NEW, DATABASE_DAMAGED, STORAGE_FULL, STORAGE_NOT_WRITABLE.
    """
    before = 0
    if (folder / DATABASE).is_file():
        with only_one(folder), translated(folder), closing(_opened(folder)) as connection:
            before = version_of(connection)
    with writing_connection(folder):
        return before


def _opened(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / DATABASE, isolation_level=None, cached_statements=256)


def _prepare(connection: sqlite3.Connection, folder: Path) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA foreign_keys = ON")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise not_writable(folder, f"its file system allows only SQLite's journal mode {mode!r}, not WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten: docs/decisions/0012
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _check(connection: sqlite3.Connection, folder: Path) -> None:
    """Damage in a larger database is found when its page is read, and told in the same words."""
    if (folder / DATABASE).stat().st_size > _CHECKED_BYTES:
        return
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(folder, found)
