"""
A copy of the database as it is at one moment, made while a server works on it, and what is done to such a copy. All of
it blocks. The original is opened read-only: such a connection writes nothing and checkpoints nothing.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from videoannotator.errors import StorageTrouble
from videoannotator.settings import bundled
from videoannotator.store.migrations import newest_version, require_known, version_of
from videoannotator.store.trouble import DATABASE, damaged, translated


class KnownFile(msgspec.Struct, frozen=True):
    """A file of a job as the database knows it; `sha256` is None where nobody has read it to its end yet."""

    job_id: str
    path: str
    """Relative to the storage directory."""

    sha256: str | None


def copy_database(folder: Path, target: Path) -> int:
    """
    Copy the database of a storage directory into one file, which must not exist yet; the version of its schema.

    Raises:
        StorageTrouble: DATABASE_TOO_NEW, DATABASE_DAMAGED, STORAGE_FULL, NO_DATABASE.
    """
    with translated(folder), _reading(folder) as live, closing(sqlite3.connect(target)) as copy:
        require_known(live, folder)
        live.backup(copy)
        # One file: nothing beside it is needed to read it, and the store turns this on again by itself.
        copy.execute("PRAGMA journal_mode = DELETE")
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise damaged(folder, found)
        return version_of(copy)


def living(folder: Path, job_ids: Sequence[str]) -> set[str]:
    """Which of these jobs the database of a storage directory has now."""
    with translated(folder), _reading(folder) as live:
        rows = (live.execute("SELECT id FROM jobs WHERE id = ?", (job_id,)).fetchone() for job_id in job_ids)
        return {row[0] for row in rows if row}


def known_files(copy: Path) -> tuple[KnownFile, ...]:
    """Results, and the videos that jobs own."""
    with _opened(copy) as database:
        results = database.execute(
            "SELECT jobs.id, 'results/' || jobs.id || '/' || name, sha256 FROM artifacts JOIN jobs ON seq = job"
        ).fetchall()
        videos = database.execute(
            "SELECT id, video_path, json_extract(video, '$.sha256') FROM jobs WHERE owns_video"
        ).fetchall()
    found = [KnownFile(*row) for row in results]
    return (
        *found,
        *(KnownFile(job_id, f"videos/{job_id}/{Path(path).name}", digest) for job_id, path, digest in videos),
    )


def job_ids(copy: Path) -> tuple[str, ...]:
    with _opened(copy) as database:
        return tuple(job_id for (job_id,) in database.execute("SELECT id FROM jobs ORDER BY seq"))


def videos_elsewhere(copy: Path) -> int:
    """How many jobs have a video that lies outside of the storage directory."""
    with _opened(copy) as database:
        return int(database.execute("SELECT count(*) FROM jobs WHERE NOT owns_video").fetchone()[0])


def leave_out(copy: Path, jobs: Sequence[str]) -> None:
    """Take jobs out of a copy, and uploads that were on their way: their bytes are not in it."""
    with _opened(copy) as database:
        database.execute("PRAGMA foreign_keys = ON")
        with database:
            database.execute("DELETE FROM uploads")
            for table, column in (("events", "job_id"), ("jobs", "id")):
                database.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(job,) for job in jobs])  # noqa: S608


def move_videos(copy: Path, folder: Path) -> None:
    """Owned videos lie in another storage directory now."""
    with _opened(copy) as database, database:
        rows = database.execute("SELECT id, video_path FROM jobs WHERE owns_video").fetchall()
        places = [(str(folder / "videos" / job_id / Path(path).name), job_id) for job_id, path in rows]
        database.executemany("UPDATE jobs SET video_path = ? WHERE id = ?", places)


def require_known_version(copy: Path) -> None:
    """Raises StorageTrouble (DATABASE_TOO_NEW, DATABASE_DAMAGED)."""
    with translated(copy.parent), _opened(copy) as database:
        require_known(database, copy.parent)


def newest_known_version() -> int:
    return newest_version(bundled("migrations"))


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    if not (folder / DATABASE).is_file():
        message = f"There is no database in {folder}."
        raise StorageTrouble(message, hint="Name the storage directory with --storage-dir.", code="NO_DATABASE")
    address = f"file:{quote(str((folder / DATABASE).resolve()))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout = 5000")
        yield connection


@contextmanager
def _opened(copy: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(copy)) as connection:
        yield connection
