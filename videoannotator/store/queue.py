"""
The life of a job, from queued to over. Functions on the writer's connection, each one whole transaction: the change
and the event that tells of it.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import (
    BROWSER_COPY,
    Claim,
    Errands,
    Idempotency,
    Job,
    JobStatus,
    NewJob,
    Stage,
    StageError,
    StageStatus,
    new_id,
)
from videoannotator.store import callers, errands, forecasts, inputs, journal, stages
from videoannotator.store.claims import change_held, held
from videoannotator.store.rows import as_json, moment, read_job

_SLICE = 2000
"""Rows deleted in one transaction, so that no other write waits for long."""

# -- into the queue, and out of it


def add(
    connection: sqlite3.Connection,
    jobs: Sequence[NewJob],
    batch_name: str | None,
    once: Idempotency | None,
    *,
    now: int,
) -> tuple[Job, ...]:
    if once is not None and (earlier := callers.spend(connection, once, jobs[0].id, now=now)) is not None:
        return (read_job(connection, earlier),)
    batch_id = None if batch_name is None else _add_batch(connection, batch_name, now)
    return tuple(_add(connection, job, batch_id or job.batch_id, now) for job in jobs)


def request_cancel(connection: sqlite3.Connection, job_id: str, *, now: int) -> Job:
    job = read_job(connection, job_id)
    match job.status:
        case JobStatus.PENDING:
            return _cancelled(connection, job_id, now)
        case JobStatus.RUNNING:
            sql = "UPDATE jobs SET status = 'cancelling', cancel_requested_at = ? WHERE id = ? AND status = 'running'"
            connection.execute(sql, (now, job_id))
            job = read_job(connection, job_id)
            journal.job_update(connection, job, now)
            return job
        case JobStatus.CANCELLING | JobStatus.CANCELLED:
            return job
        case _:
            raise Conflict(
                f"Job {job_id} is {job.status} already.",
                hint="There is nothing left to cancel.",
                code="JOB_ALREADY_FINISHED",
            )


def begin_removal(connection: sqlite3.Connection, job_id: str, *, now: int) -> None:
    """From here on nobody can claim it; a pending job is cancelled."""
    job = read_job(connection, job_id)
    if job.status.is_held:
        raise Conflict(
            f"Job {job_id} is {job.status}.", hint="Cancel it and wait until it is.", code="JOB_STILL_RUNNING"
        )
    if job.status is JobStatus.PENDING:
        _cancelled(connection, job_id, now)


def remove_slice(connection: sqlite3.Connection, job_id: str) -> bool:
    """Remove some of what hangs on a job that is over; the last time the job too. Whether it was the last time."""
    events = "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE job_id = ? LIMIT ?)"
    annotations = """DELETE FROM annotations WHERE id IN (
        SELECT id FROM annotations WHERE job = (SELECT seq FROM jobs WHERE id = ?) LIMIT ?)"""
    for sql in (events, annotations):
        if connection.execute(sql, (job_id, _SLICE)).rowcount == _SLICE:
            return False
    connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
    return True


# -- how it ends


def finish(
    connection: sqlite3.Connection,
    claim: Claim,
    *,
    not_shown: Sequence[str],
    shortfall: StageError | None,
    now: int,
) -> Job:
    job = held(connection, claim)
    if job.status is JobStatus.CANCELLING:
        raise Conflict(f"Job {job.id} is being cancelled.", code="JOB_BEING_CANCELLED")
    if unfinished := [stage.pipeline for stage in job.stages if not stage.status.is_final]:
        raise Conflict(f"Job {job.id} still has to run {', '.join(unfinished)}.", code="STAGES_NOT_FINISHED")
    incomplete = [stage for stage in job.stages if stage.status is not StageStatus.COMPLETED]
    error = _why_not_full(incomplete, not_shown)
    completed = {stage.pipeline for stage in job.stages if stage.status is StageStatus.COMPLETED}
    if error is not None and completed <= {BROWSER_COPY}:
        return fail(connection, claim, error, now=now)
    return _completed(connection, claim, job, _both(error, shortfall), now)


def fail(connection: sqlite3.Connection, claim: Claim, error: StageError, *, now: int) -> Job:
    """A job being cancelled is cancelled whatever else happened: that was promised first."""
    if held(connection, claim).status is JobStatus.CANCELLING:
        return finish_cancelled(connection, claim, now=now)
    _end_held(connection, claim, "failed", now, code=error.code, message=error.message)
    return _failed(connection, claim.job.id, error, now)


def finish_cancelled(connection: sqlite3.Connection, claim: Claim, *, now: int) -> Job:
    if held(connection, claim).status is not JobStatus.CANCELLING:
        raise Conflict(f"Nobody asked to cancel job {claim.job.id}.", code="JOB_NOT_BEING_CANCELLED")
    return _cancelled(connection, claim.job.id, now)


# -- back into the queue

LEASED = """
SELECT id FROM jobs INDEXED BY jobs_leased WHERE lease_until IS NOT NULL AND (? IS NULL OR lease_until < ?)
ORDER BY seq"""


def give_back(connection: sqlite3.Connection, claim: Claim, *, now: int) -> None:
    if held(connection, claim).status is JobStatus.CANCELLING:
        _cancelled(connection, claim.job.id, now)
        return
    change_held(connection, claim, f"{_UNLEASED}, status = 'pending', started_at = NULL, attempts = attempts - 1", "id")
    _requeued(connection, claim.job.id, now)


def take_back(connection: sqlite3.Connection, *, expired_only: bool, max_attempts: int, now: int) -> list[Job]:
    due = now if expired_only else None
    found = connection.execute(LEASED, (due, due)).fetchall()
    return [_take_back(connection, job_id, max_attempts, now) for (job_id,) in found]


def _take_back(connection: sqlite3.Connection, job_id: str, max_attempts: int, now: int) -> Job:
    job = read_job(connection, job_id)
    if job.status is JobStatus.CANCELLING:
        return _cancelled(connection, job_id, now)
    if job.attempts < max_attempts:
        sql = f"UPDATE jobs SET {_UNLEASED}, status = 'pending', started_at = NULL WHERE id = ?"  # noqa: S608
        connection.execute(sql, (job_id,))
        return _requeued(connection, job_id, now)
    error = StageError(
        "CRASHED_TOO_OFTEN",
        f"The server stopped without a word {job.attempts} times while it worked on this job, so it is not begun "
        "again. Its log may say which stage is to blame.",
    )
    sql = f"""UPDATE jobs SET {_UNLEASED}, status = 'failed', finished_at = ?, error_code = ?, error_message = ?
        WHERE id = ?"""  # noqa: S608
    connection.execute(sql, (now, error.code, error.message, job_id))
    return _failed(connection, job_id, error, now)


# -- the pieces

_UNLEASED = "worker = NULL, lease_until = NULL"


def _add_batch(connection: sqlite3.Connection, name: str, now: int) -> str:
    batch_id = new_id("batch")
    connection.execute("INSERT INTO batches (id, name, created_at) VALUES (?, ?, ?)", (batch_id, name, now))
    return batch_id


def _add(connection: sqlite3.Connection, job: NewJob, batch_id: str | None, now: int) -> Job:
    _require_batch(connection, batch_id)
    seq = _insert_job(connection, job, batch_id, now)
    if job.tags:
        connection.executemany("INSERT INTO job_tags (tag, job) VALUES (?, ?)", [(tag, seq) for tag in set(job.tags)])
    stages.add(connection, seq, job.stages, now=now)
    errands.add(connection, seq, job.errands)
    if job.upload_id is not None:
        inputs.use_upload(connection, job.upload_id)
    if job.retry_of is not None:
        carried = [stage.pipeline for stage in job.stages if stage.carried_over]
        stages.carry_over(connection, job.retry_of, job.id, carried)
    added = forecasts.placed_last(connection, _as_added(connection, job, batch_id, now), now)
    journal.job_update(connection, added, now)
    return added


def _as_added(connection: sqlite3.Connection, job: NewJob, batch_id: str | None, now: int) -> Job:
    """As it would be read now; read only where more than was given decides what it is."""
    if job.retry_of is not None or job.errands != Errands():
        return read_job(connection, job.id)
    return Job(
        id=job.id,
        status=JobStatus.PENDING,
        video=job.video,
        video_path=job.video_path,
        owns_video=job.owns_video,
        stages=tuple(stages.as_added(stage, now) for stage in job.stages),
        config=job.config,
        tags=job.tags,
        priority=job.priority,
        attempts=0,
        created_at=moment(now),
        preset=job.preset,
        preset_content=job.preset_content,
        batch_id=batch_id,
        cache=job.cache,
        owner=job.owner,
    )


def _require_batch(connection: sqlite3.Connection, batch_id: str | None) -> None:
    if batch_id is None:
        return
    if not connection.execute("SELECT 1 FROM batches WHERE id = ?", (batch_id,)).fetchall():
        raise NotFound.of("batch", batch_id, "List batches with GET /api/v1/batches.")


def _insert_job(connection: sqlite3.Connection, job: NewJob, batch_id: str | None, now: int) -> int:
    values: dict[str, Any] = {
        "id": job.id,
        "priority": job.priority,
        "batch_id": batch_id,
        "owner": job.owner,
        "retry_of": job.retry_of,
        "filename": job.video.filename,
        "video": as_json(job.video),
        "video_path": str(job.video_path),
        "owns_video": job.owns_video,
        "config": as_json(job.config),
        "cache": job.cache,
        "preset": job.preset,
        "preset_content": None if job.preset_content is None else as_json(job.preset_content),
        "tags": as_json(job.tags),
        "created_at": now,
    }
    rows = connection.execute(_INSERT_JOB, values).fetchall()
    if not rows:
        raise Conflict(f"There is a job {job.id} already.", hint="Take a new id.", code="JOB_EXISTS")
    return int(rows[0][0])


_GIVEN = (
    *("id", "priority", "batch_id", "owner", "retry_of", "filename", "video", "video_path", "owns_video", "config"),
    *("cache", "preset", "preset_content", "tags", "created_at"),
)
_INSERT_JOB = f"""
INSERT INTO jobs ({", ".join(_GIVEN)}) VALUES ({", ".join(f":{name}" for name in _GIVEN)})
ON CONFLICT (id) DO NOTHING RETURNING seq"""  # noqa: S608


def _why_not_full(incomplete: Sequence[Stage], not_shown: Sequence[str]) -> StageError | None:
    """What to tell of a job some of whose stages gave no result, or one that would not show: one sentence each."""
    sentences = [_sentence(stage) for stage in incomplete]
    if not_shown:
        sentences.append(f"The Viewer would not show all of it. {' '.join(not_shown)}")
    if not sentences:
        return None
    codes = {stage.error.code for stage in incomplete if stage.error} or {"VIEWER_CANNOT_SHOW"}
    code = codes.pop() if len(codes) == 1 else "STAGES_FAILED"
    return StageError(code, " ".join(sentences))


def _both(error: StageError | None, more: StageError | None) -> StageError | None:
    if error is None or more is None:
        return error or more
    return StageError(error.code, f"{error.message} {more.message}")


def _sentence(stage: Stage) -> str:
    what = "was skipped" if stage.status is StageStatus.SKIPPED else "failed"
    reason = stage.error.message.rstrip() if stage.error else "no reason is known"
    return f"{stage.pipeline} {what}: {reason}" + ("" if reason.endswith((".", "!", "?")) else ".")


def _completed(connection: sqlite3.Connection, claim: Claim, held: Job, error: StageError | None, now: int) -> Job:
    outcome: Literal["full", "partial"] = "full" if error is None else "partial"
    code, message = (None, None) if error is None else (error.code, error.message)
    _end_held(connection, claim, "completed", now, outcome=outcome, code=code, message=message)
    job = msgspec.structs.replace(
        held, status=JobStatus.COMPLETED, finished_at=moment(now), outcome=outcome, error=error
    )
    sql = "SELECT name FROM artifacts WHERE job = (SELECT seq FROM jobs WHERE id = ?) ORDER BY name"
    journal.job_complete(connection, job, now, [name for (name,) in connection.execute(sql, (job.id,)).fetchall()])
    return job


def _end_held(
    connection: sqlite3.Connection,
    claim: Claim,
    status: str,
    now: int,
    *,
    outcome: str | None = None,
    code: str | None,
    message: str | None,
) -> None:
    change = f"""{_UNLEASED}, status = :status, finished_at = :now, outcome = :outcome, error_code = :code,
        error_message = :message"""
    values = {"status": status, "now": now, "outcome": outcome, "code": code, "message": message}
    change_held(connection, claim, change, "id", **values)


def _failed(connection: sqlite3.Connection, job_id: str, error: StageError, now: int) -> Job:
    """What had not ended failed for the job's reason, so that every stage says why it gave nothing."""
    values = {"now": now, "code": error.code, "message": error.message}
    _end_stages(connection, job_id, "status = 'failed', error_code = :code, error_message = :message", values)
    job = read_job(connection, job_id)
    journal.job_error(connection, job, now)
    return job


def _cancelled(connection: sqlite3.Connection, job_id: str, now: int) -> Job:
    """A job that is pending or being cancelled is cancelled; since when it was asked says how long it took."""
    sql = f"""UPDATE jobs SET {_UNLEASED}, status = 'cancelled', finished_at = :now,
        cancel_requested_at = coalesce(cancel_requested_at, :now),
        stopped_after_seconds = max(0, (:now - coalesce(cancel_requested_at, :now)) / 1000.0)
        WHERE id = :id AND status IN ('pending', 'cancelling')"""  # noqa: S608
    connection.execute(sql, {"now": now, "id": job_id})
    _end_stages(connection, job_id, "status = 'cancelled'", {"now": now})
    job = read_job(connection, job_id)
    journal.job_cancelled(connection, job, now)
    return job


def _end_stages(connection: sqlite3.Connection, job_id: str, change: str, values: dict[str, Any]) -> None:
    sql = f"""UPDATE stages SET {change}, rate = NULL, eta_seconds = NULL, retry_at = NULL,
        finished_at = :now
        WHERE job = (SELECT seq FROM jobs WHERE id = :id) AND status IN ('pending', 'running')"""  # noqa: S608
    connection.execute(sql, {"id": job_id} | values)


def _requeued(connection: sqlite3.Connection, job_id: str, now: int) -> Job:
    sql = """UPDATE stages SET status = 'pending', started_at = NULL, progress = 0, rate = NULL, eta_seconds = NULL
        WHERE job = (SELECT seq FROM jobs WHERE id = ?) AND status = 'running'"""
    connection.execute(sql, (job_id,))
    job = forecasts.placed(connection, read_job(connection, job_id), now)
    journal.job_update(connection, job, now)
    return job
