"""What SQLite and the system say about a storage directory, translated once into what a person can do about it."""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videoannotator.errors import StorageTrouble

DATABASE = "videoannotator.sqlite"

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_LITTLE_BYTES = 1024**2


def storage_full(folder: Path) -> StorageTrouble:
    return StorageTrouble(
        f"The disk that holds {folder} is full, and nothing was written.",
        hint="Free some space there, then try again; the queue goes on by itself.",
        code="STORAGE_FULL",
    )


def not_writable(folder: Path, reason: str) -> StorageTrouble:
    return StorageTrouble(
        f"The storage directory {folder} cannot be written: {reason}.",
        hint="Give this user the right to write there, or choose another directory (VIDEOANNOTATOR_STORAGE_DIR).",
        code="STORAGE_NOT_WRITABLE",
    )


def damaged(folder: Path, reason: str) -> StorageTrouble:
    """Says which copies there are to go back to, because that is what the reader needs next."""
    copies = sorted(copy.name for copy in folder.glob("videoannotator.version-*.sqlite"))
    back = f"go back to {copies[-1]} (older, made before an upgrade)" if copies else "go back to a backup of yours"
    return StorageTrouble(
        f"The database {folder / DATABASE} is damaged ({reason}), and it was left as it is.",
        hint=f"Move it aside with its -wal and -shm files and start with an empty one, or {back}, or save what can be "
        f"read: sqlite3 {DATABASE} .recover | sqlite3 saved.sqlite. Videos and results that the other database does "
        "not know are then put aside, in lost/.",
        code="DATABASE_DAMAGED",
    )


def locked(folder: Path) -> StorageTrouble:
    return StorageTrouble(
        f"Another program holds a lock on the database in {folder}.",
        hint="Close whatever has it open (a database browser, a backup), then try again.",
        code="STORAGE_IN_USE",
    )


def closed(folder: Path) -> StorageTrouble:
    return StorageTrouble(
        f"The storage directory {folder} has been closed; nothing was written.", code="STORAGE_CLOSED"
    )


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn SQLite's errors about the directory into StorageTrouble; errors about our own SQL pass as they are."""
    try:
        yield
    except sqlite3.Error as exc:
        trouble = of_sqlite(folder, exc)
        if trouble is None:
            raise
        raise trouble from exc


def of_sqlite(folder: Path, exc: sqlite3.Error) -> StorageTrouble | None:
    """None where the error says nothing about the directory: a broken constraint, a bug in our SQL."""
    match getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return storage_full(folder)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return not_writable(folder, str(exc))
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(folder, str(exc))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return locked(folder)
        case sqlite3.SQLITE_IOERR:
            return _failed_disk(folder, exc)
        case _:
            return None


def _failed_disk(folder: Path, exc: sqlite3.Error) -> StorageTrouble:
    if _has_no_space(folder):  # a quota, or no room for the shared-memory file, is not SQLITE_FULL
        return storage_full(folder)
    return StorageTrouble(
        f"Reading or writing the database in {folder} failed: {exc}.",
        hint="Look at the system's log for errors of the disk; network file systems are not fit for SQLite.",
    )


def of_system(folder: Path, exc: OSError) -> StorageTrouble:
    return storage_full(folder) if exc.errno in _NO_SPACE else not_writable(folder, exc.strerror or str(exc))


def _has_no_space(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LITTLE_BYTES
    except OSError:
        return False
