"""What scans of datasets found: the SQL, and rows to Structs."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from videoannotator.errors import Conflict
from videoannotator.jobs import DatasetVideo, Scan, StageError, Video
from videoannotator.store.nouns import no_dataset
from videoannotator.store.rows import as_json, maybe_moment, moment

SCANS = "SELECT dataset_id, number, state, found, looked_at, started_at, finished_at, message FROM scans"
VIDEOS = "SELECT path, size_bytes, modified_ns, video, error_code, error_message FROM dataset_videos"

_video = msgspec.json.Decoder(Video)


def begin(connection: sqlite3.Connection, dataset_id: str, *, now: int) -> int:
    """The number of the new scan. Raises NotFound, Conflict (SCAN_RUNNING)."""
    if not connection.execute("SELECT 1 FROM datasets WHERE id = ?", (dataset_id,)).fetchone():
        raise no_dataset(dataset_id)
    rows = connection.execute(
        """INSERT INTO scans (dataset_id, number, state, started_at) VALUES (?, 1, 'running', ?)
        ON CONFLICT (dataset_id) DO UPDATE SET number = number + 1, state = 'running', found = 0, looked_at = 0,
            started_at = excluded.started_at, finished_at = NULL, message = NULL
            WHERE state <> 'running'
        RETURNING number""",
        (dataset_id, now),
    ).fetchall()
    if not rows:
        message = f"Dataset {dataset_id} is being scanned already."
        raise Conflict(message, hint="Wait until it is done.", code="SCAN_RUNNING")
    return int(rows[0][0])


def note(
    connection: sqlite3.Connection, dataset_id: str, number: int, found: int, videos: Sequence[DatasetVideo]
) -> None:
    """Raises NotFound where the dataset was removed meanwhile."""
    sql = "UPDATE scans SET found = ?, looked_at = looked_at + ? WHERE dataset_id = ? AND number = ?"
    if connection.execute(sql, (found, len(videos), dataset_id, number)).rowcount == 0:
        raise no_dataset(dataset_id)
    connection.executemany(
        """INSERT OR REPLACE INTO dataset_videos
        (dataset_id, path, scan, size_bytes, modified_ns, video, error_code, error_message)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        [
            (
                dataset_id,
                video.path,
                number,
                video.size_bytes,
                video.modified_ns,
                None if video.video is None else as_json(video.video),
                video.error.code if video.error else None,
                video.error.message if video.error else None,
            )
            for video in videos
        ],
    )


def end(
    connection: sqlite3.Connection, dataset_id: str, number: int, state: str, message: str | None, *, now: int
) -> None:
    """A completed scan forgets what is no longer there."""
    sql = "UPDATE scans SET state = ?, message = ?, finished_at = ? WHERE dataset_id = ? AND number = ?"
    connection.execute(sql, (state, message, now, dataset_id, number))
    if state == "completed":
        connection.execute("DELETE FROM dataset_videos WHERE dataset_id = ? AND scan < ?", (dataset_id, number))


def interrupt(connection: sqlite3.Connection, *, now: int) -> None:
    """What an earlier life was scanning is being scanned no longer."""
    message = "The server stopped meanwhile: scan again."
    sql = "UPDATE scans SET state = 'interrupted', finished_at = ?, message = ? WHERE state = 'running'"
    connection.execute(sql, (now, message))


def scan_from(row: Sequence[Any]) -> Scan:
    dataset_id, number, state, found, looked_at, started_at, finished_at, message = row
    return Scan(
        dataset_id=dataset_id,
        number=number,
        state=state,
        found=found,
        looked_at=looked_at,
        started_at=moment(started_at),
        finished_at=maybe_moment(finished_at),
        message=message,
    )


def video_from(row: Sequence[Any]) -> DatasetVideo:
    path, size_bytes, modified_ns, video, code, message = row
    return DatasetVideo(
        path=path,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        video=None if video is None else _video.decode(video),
        error=None if code is None else StageError(code, message),
    )
