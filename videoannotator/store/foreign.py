"""
A job's annotations in a database of the caller's. Not our store: another program may have it open, and it may be
anything. One transaction writes a job or nothing, and writing a job again replaces it. All functions block.

The tables are made where they are missing; docs/api.md describes them.
"""

import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from videoannotator.errors import Undelivered
from videoannotator.jobs import Interval, Job
from videoannotator.paths.roots import Place, folder_in
from videoannotator.store.rows import as_json

_BUSY_SECONDS = 10.0
_one_at_a_time = threading.Lock()
"""POSIX drops all locks of a process on a file when any of its descriptors of it is closed."""

_TABLES = """
CREATE TABLE IF NOT EXISTS videoannotator_jobs (
    job_id TEXT PRIMARY KEY, video_filename TEXT NOT NULL, video_sha256 TEXT, duration_seconds REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, frame_rate REAL NOT NULL, tags TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS videoannotator_stages (
    job_id TEXT NOT NULL REFERENCES videoannotator_jobs (job_id) ON DELETE CASCADE, pipeline TEXT NOT NULL,
    status TEXT NOT NULL, error TEXT, annotations INTEGER, parameters TEXT NOT NULL, provenance TEXT,
    PRIMARY KEY (job_id, pipeline)
);
CREATE TABLE IF NOT EXISTS videoannotator_annotations (
    job_id TEXT NOT NULL REFERENCES videoannotator_jobs (job_id) ON DELETE CASCADE, pipeline TEXT NOT NULL,
    kind TEXT NOT NULL, onset REAL NOT NULL, duration REAL NOT NULL, label TEXT NOT NULL, track INTEGER
);
CREATE INDEX IF NOT EXISTS videoannotator_annotations_by_job
    ON videoannotator_annotations (job_id, pipeline, onset);"""


def write_annotations(place: Place, job: Job, found: Sequence[tuple[str, Interval]]) -> None:
    """
    `found` are the intervals of the job with their pipelines.

    Raises:
        Undelivered: OUTPUT_DATABASE_LOCKED, OUTPUT_DATABASE_UNUSABLE (damaged, no database, other tables of these
            names), OUTPUT_NOT_WRITABLE. The file is as it was.
    """
    with _one_at_a_time:
        try:
            with folder_in(Place(place.root, place.parts[:-1]), make=True) as folder:
                _write(folder, place, job, found)
        except sqlite3.Error as exc:
            raise _meaning(exc) from exc
        except OSError as exc:
            message = f"The database in db_location cannot be opened: {exc.strerror}."
            raise Undelivered(message, hint="The results are in the server's own storage.") from exc


def _write(folder: int, place: Place, job: Job, found: Sequence[tuple[str, Interval]]) -> None:
    name = place.parts[-1]
    _refuse_unless_plain(folder, name)
    path = Path(f"/proc/self/fd/{folder}") / name if sys.platform == "linux" else place.path
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        _refuse_unless_opened(folder, name)
        try:
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            _replace(connection, job, found)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _replace(connection: sqlite3.Connection, job: Job, found: Sequence[tuple[str, Interval]]) -> None:
    video = job.video
    connection.execute("DELETE FROM videoannotator_annotations WHERE job_id = ?", (job.id,))
    connection.execute("DELETE FROM videoannotator_stages WHERE job_id = ?", (job.id,))
    connection.execute("DELETE FROM videoannotator_jobs WHERE job_id = ?", (job.id,))
    connection.execute(
        """INSERT INTO videoannotator_jobs (job_id, video_filename, video_sha256, duration_seconds, width, height,
        frame_rate, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            job.id,
            video.filename,
            video.sha256,
            video.duration_seconds,
            video.width,
            video.height,
            video.frame_rate,
            as_json(job.tags),
        ),
    )
    connection.executemany(
        """INSERT INTO videoannotator_stages (job_id, pipeline, status, error, annotations, parameters, provenance)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        [
            (
                job.id,
                stage.pipeline,
                stage.status,
                stage.error.message if stage.error else None,
                stage.annotations,
                as_json(stage.config),
                as_json(msgspec.to_builtins(stage.provenance)) if stage.provenance else None,
            )
            for stage in job.stages
        ],
    )
    connection.executemany(
        """INSERT INTO videoannotator_annotations (job_id, pipeline, kind, onset, duration, label, track)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        [(job.id, pipeline, i.kind, i.onset, i.duration, i.label, i.track) for pipeline, i in found],
    )


def _refuse_unless_plain(folder: int, name: str) -> None:
    """A file of its own, or none yet: a link, also a hard one, may be another database under a harmless name."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise Undelivered("What db_location names is a link, or no file, and is not opened.", hint="Name another file.")


def _refuse_unless_opened(folder: int, name: str) -> None:
    """What SQLite has open is what lies there: it was not swapped for a link in between."""
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if sys.platform != "linux":
        same = stat.S_ISREG(there.st_mode)
    else:
        same = any(_is_open_as(descriptor, there) for descriptor in Path("/proc/self/fd").iterdir())
    if not same:
        raise Undelivered("The database in db_location was exchanged while it was opened.", hint="Name another file.")


def _is_open_as(descriptor: Path, there: os.stat_result) -> bool:
    try:
        found = descriptor.stat()
    except OSError:
        return False
    return os.path.samestat(found, there)


def _meaning(exc: sqlite3.Error) -> Undelivered:
    hint = "The results are in the server's own storage; retry when it is mended."
    match getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            message = f"Another program kept the database in db_location locked for {_BUSY_SECONDS:g} s."
            return Undelivered(message, hint=hint, code="OUTPUT_DATABASE_LOCKED")
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_IOERR:
            return Undelivered(f"The database in db_location cannot be written: {exc}.", hint=hint)
        case _:
            message = f"The database in db_location cannot take the annotations: {exc}."
            return Undelivered(message, hint=hint, code="OUTPUT_DATABASE_UNUSABLE")
