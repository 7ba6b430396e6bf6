"""The SQL of errands: what a job needs of the world outside. Functions on the writer's connection."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from videoannotator.jobs import Claim, Errands, NewStage, Video
from videoannotator.store import journal, stages
from videoannotator.store.claims import change_held
from videoannotator.store.rows import as_json, read_job

DUE = """
SELECT jobs.id FROM callbacks CROSS JOIN jobs ON jobs.seq = callbacks.job
WHERE callbacks.state = 'waiting' AND callbacks.next_at <= ? AND jobs.status IN ('completed', 'failed', 'cancelled')
ORDER BY callbacks.next_at, callbacks.job LIMIT ?"""
"""
Jobs that are over, and whose callback is due at the first place, as many as the second says. CROSS: left alone, SQLite
goes through all jobs that are over, and this is asked every few seconds.
"""


def add(connection: sqlite3.Connection, job: int, errands: Errands) -> None:
    """`job` is the job's seq."""
    if errands.video_url or errands.output_directory or errands.db_location:
        connection.execute(
            "INSERT INTO errands (job, video_url, fetched, output_directory, db_location) VALUES (?, ?, ?, ?, ?)",
            (job, errands.video_url, errands.fetched, _text(errands.output_directory), _text(errands.db_location)),
        )
    if errands.callback_url:
        connection.execute("INSERT INTO callbacks (job, url) VALUES (?, ?)", (job, errands.callback_url))


def note_video(
    connection: sqlite3.Connection, claim: Claim, *, video: Video, path: Path, planned: Sequence[NewStage], now: int
) -> None:
    """The video is there: what it is, which stages have nothing to do on it, and which come in addition."""
    change = "video = :video, video_path = :path, filename = :filename"
    values = {"video": as_json(video), "path": str(path), "filename": video.filename}
    (seq,) = change_held(connection, claim, change, "seq", **values)
    connection.execute("UPDATE errands SET fetched = 1 WHERE job = ?", (seq,))
    known = {stage.pipeline for stage in claim.job.stages}
    stages.skip(connection, seq, [stage for stage in planned if stage.skip_because is not None], now=now)
    more = [stage for stage in planned if stage.pipeline not in known]
    stages.add(connection, seq, more, now=now, first=len(claim.job.stages))
    journal.job_update(connection, read_job(connection, claim.job.id), now)


def note_attempt(
    connection: sqlite3.Connection,
    job_id: str,
    *,
    state: str,
    next_at: int,
    status: int | None,
    error: str | None,
    now: int,
) -> None:
    """An attempt to tell that the job is over. A job that was removed meanwhile has nobody to tell."""
    connection.execute(
        """UPDATE callbacks SET state = ?, attempts = attempts + 1, next_at = ?, last_attempt_at = ?, last_status = ?,
        last_error = ? WHERE job = (SELECT seq FROM jobs WHERE id = ?) AND state = 'waiting'""",
        (state, next_at, now, status, error, job_id),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
