"""
Batches: what was named, and what became of it. Those that write are functions on the writer's connection, each one
whole transaction; those that read take a `Database`.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from videoannotator.batches import BatchInput, BatchPlan, BatchTally, InputState, PipelineTally
from videoannotator.errors import Conflict
from videoannotator.jobs import Batch, Job, JobStatus, NewJob, StageError, StageStatus, new_id
from videoannotator.store import nouns, queue
from videoannotator.store.database import Database
from videoannotator.store.rows import JOBS, JobRow, as_json, job_from, maybe_moment, moment

_SLICE = 100
"""Jobs cancelled in one transaction, so that no other write waits for long."""

_MOST_ENDINGS = 21

_LATEST = """batch_id = :batch AND NOT EXISTS (
    SELECT 1 FROM jobs AS later WHERE later.retry_of = jobs.id AND later.batch_id = jobs.batch_id)"""
"""Of `jobs`: of the batch, and not retried in it."""


def add(connection: sqlite3.Connection, name: str, plan: BatchPlan, videos: Sequence[str], *, now: int) -> str:
    batch_id = new_id("batch")
    sql = "INSERT INTO batches (id, name, created_at, plan) VALUES (?, ?, ?, ?)"
    connection.execute(sql, (batch_id, name, now, as_json(plan)))
    _name(connection, batch_id, 0, videos)
    return batch_id


def extend(connection: sqlite3.Connection, batch_id: str, videos: Sequence[str]) -> None:
    """Raises NotFound, Conflict (BATCH_HAS_NO_PLAN)."""
    if require(connection, batch_id).plan is None:
        message = f"Batch {batch_id} does not say what to do with a video."
        raise Conflict(message, hint="Submit another batch.", code="BATCH_HAS_NO_PLAN")
    (after,) = connection.execute(
        "SELECT coalesce(max(position), -1) + 1 FROM batch_inputs WHERE batch_id = ?", (batch_id,)
    ).fetchone()
    _name(connection, batch_id, after, videos)


def admit(connection: sqlite3.Connection, batch_id: str, position: int, job: NewJob, *, now: int) -> Job:
    """Raises Conflict (INPUT_NOT_WAITING) where the batch was cancelled meanwhile."""
    (added,) = queue.add(connection, [job], None, None, now=now)
    _settle(connection, batch_id, position, "state = 'queued', job_id = :job", {"job": job.id})
    return added


def reject(connection: sqlite3.Connection, batch_id: str, position: int, error: StageError) -> None:
    change = "state = 'rejected', error_code = :code, error_message = :message"
    _settle(connection, batch_id, position, change, {"code": error.code, "message": error.message})


def skip(connection: sqlite3.Connection, batch_id: str, position: int, done_by: str) -> None:
    _settle(connection, batch_id, position, "state = 'skipped', job_id = :job", {"job": done_by})


def cancel_waiting(connection: sqlite3.Connection, batch_id: str) -> int:
    require(connection, batch_id)
    sql = "UPDATE batch_inputs SET state = 'cancelled' WHERE batch_id = ? AND state = 'waiting'"
    return connection.execute(sql, (batch_id,)).rowcount


def cancel_slice(connection: sqlite3.Connection, batch_id: str, *, now: int) -> int:
    """How many jobs were pending or running and are cancelled or being cancelled now; 0 when none is left."""
    sql = "SELECT id FROM jobs WHERE batch_id = ? AND status IN ('pending', 'running') ORDER BY seq LIMIT ?"
    found = connection.execute(sql, (batch_id, _SLICE)).fetchall()
    for (job_id,) in found:
        queue.request_cancel(connection, job_id, now=now)
    return len(found)


def pause(connection: sqlite3.Connection, batch_id: str, *, now: int) -> None:
    require(connection, batch_id)
    connection.execute("UPDATE batches SET paused_at = coalesce(paused_at, ?) WHERE id = ?", (now, batch_id))


def resume(connection: sqlite3.Connection, batch_id: str) -> None:
    require(connection, batch_id)
    connection.execute("UPDATE batches SET paused_at = NULL WHERE id = ?", (batch_id,))


def require(connection: sqlite3.Connection, batch_id: str) -> Batch:
    """Raises NotFound (BATCH_NOT_FOUND)."""
    rows = connection.execute(f"{nouns.BATCHES} WHERE id = ?", (batch_id,)).fetchall()
    if not rows:
        raise nouns.no_batch(batch_id)
    return nouns.batch_from(rows[0])


def _name(connection: sqlite3.Connection, batch_id: str, after: int, videos: Sequence[str]) -> None:
    connection.executemany(
        "INSERT INTO batch_inputs (batch_id, position, video) VALUES (?, ?, ?)",
        [(batch_id, position, video) for position, video in enumerate(videos, start=after)],
    )


def _settle(connection: sqlite3.Connection, batch_id: str, position: int, change: str, values: dict[str, Any]) -> None:
    sql = f"UPDATE batch_inputs SET {change} WHERE batch_id = :batch AND position = :position AND state = 'waiting'"  # noqa: S608
    if connection.execute(sql, {"batch": batch_id, "position": position} | values).rowcount == 0:
        raise Conflict(f"Video {position} of batch {batch_id} waits no more.", code="INPUT_NOT_WAITING")


# -- reading


async def inputs_of(database: Database, batch_id: str, state: InputState | None) -> tuple[BatchInput, ...]:
    sql = """SELECT position, video, state, job_id, error_code, error_message FROM batch_inputs
        WHERE batch_id = ? AND (? IS NULL OR state = ?) ORDER BY position"""
    return tuple(_input(row) for row in await database.read(sql, (batch_id, state, state)))


async def unfinished(database: Database) -> tuple[str, ...]:
    """Batches with videos that nobody has looked at yet, oldest first."""
    sql = "SELECT DISTINCT batch_id FROM batch_inputs WHERE state = 'waiting' ORDER BY batch_id"
    return tuple(batch_id for (batch_id,) in await database.read(sql))


async def page(database: Database, limit: int, offset: int) -> tuple[tuple[Batch, ...], int]:
    ((total,),) = await database.read("SELECT count(*) FROM batches")
    rows = await database.read(f"{nouns.BATCHES} ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?", (limit, offset))
    return tuple(nouns.batch_from(row) for row in rows), total


async def latest_jobs(database: Database, batch_id: str) -> dict[str, Job]:
    """The latest retry of each job that is itself no retry in the batch, by the id of that first job."""
    rows = await database.read(f"{JOBS} WHERE {_LATEST} ORDER BY seq", _named(batch_id))
    jobs = [job_from(JobRow._make(row)) for row in rows]
    sql = "SELECT id, retry_of FROM jobs WHERE batch_id = ? AND retry_of IS NOT NULL"
    links = await database.read(sql, (batch_id,))
    earlier: dict[str, str] = dict(links)
    return {_first(job.id, earlier): job for job in jobs}


async def result_sizes(database: Database, batch_id: str) -> dict[str, int]:
    """Bytes of the files of each of its jobs, by job; those without are left out."""
    sql = """SELECT jobs.id, sum(a.size) FROM jobs JOIN artifacts AS a ON a.job = jobs.seq
        WHERE jobs.batch_id = ? GROUP BY jobs.seq"""
    return dict(await database.read(sql, (batch_id,)))


async def has_finished_of_size(database: Database, size_bytes: int) -> bool:
    """Cameras write files of one size by the thousand: this says no more than that reading one may be worth it."""
    sql = """SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_by_size
        WHERE json_extract(video, '$.size_bytes') = ? AND status = 'completed')"""
    ((found,),) = await database.read(sql, (size_bytes,))
    return bool(found)


async def finished_with(database: Database, sha256: str) -> tuple[Job, ...]:
    """Completed jobs on files with this content, newest first; 50 at most."""
    sql = f"""{JOBS} INDEXED BY jobs_by_content WHERE json_extract(video, '$.sha256') = ? AND status = 'completed'
        ORDER BY seq DESC LIMIT 50"""
    return tuple(job_from(JobRow._make(row)) for row in await database.read(sql, (sha256,)))


async def tally(database: Database, batch_id: str) -> BatchTally:
    of_batch = _named(batch_id)
    inputs = await database.read(_INPUTS_TALLY, (batch_id,))
    jobs = await database.read(_JOBS_TALLY, of_batch)
    ((started,),) = await database.read("SELECT min(started_at) FROM jobs WHERE batch_id = ?", (batch_id,))
    endings = await database.read(_ENDINGS, of_batch)
    number = sum(row[1] for row in jobs)
    return BatchTally(
        inputs={InputState(state): count for state, count in inputs},
        jobs=nouns.every_status({JobStatus(row[0]): row[1] for row in jobs}),
        partial=sum(row[2] for row in jobs),
        progress=sum(row[3] for row in jobs) / number if number else 1.0,
        video_seconds=sum(row[4] for row in jobs),
        pipelines=_pipelines(await database.read(_STAGES_TALLY, of_batch)),
        failures=dict(await database.read(_FAILURES, of_batch)),
        started_at=maybe_moment(started),
        last_ended_at=moment(endings[0][0]) if endings else None,
        endings=tuple(moment(at) for (at,) in endings),
    )


_INPUTS_TALLY = "SELECT state, count(*) FROM batch_inputs WHERE batch_id = ? GROUP BY state"

_JOBS_TALLY = f"""
SELECT status, count(*), sum(coalesce(outcome = 'partial', 0)), sum(
    CASE WHEN finished_at IS NOT NULL THEN 1.0 ELSE coalesce((
        SELECT avg(CASE WHEN s.status IN ('pending', 'running') THEN s.progress ELSE 1.0 END)
        FROM stages AS s WHERE s.job = jobs.seq), 0.0) END
), sum(json_extract(video, '$.duration_seconds'))
FROM jobs WHERE {_LATEST} GROUP BY status"""  # noqa: S608

# What the cache served says how long it took long ago, and used nothing now; what a retry took over did run.
_STAGES_TALLY = f"""
SELECT s.pipeline, s.status, count(*), total(iif(s.cached AND s.cpu_seconds IS NULL, 0, s.seconds)),
    total(s.cpu_seconds), max(s.peak_memory_bytes), max(s.peak_gpu_memory_bytes),
    sum(s.read_bytes), sum(s.written_bytes),
    sum((SELECT sum(size) FROM artifacts AS a WHERE a.job = s.job AND a.pipeline = s.pipeline))
FROM jobs JOIN stages AS s ON s.job = jobs.seq WHERE {_LATEST} GROUP BY s.pipeline, s.status ORDER BY s.pipeline"""  # noqa: S608

_FAILURES = f"""
SELECT code, sum(videos) FROM (
    SELECT s.error_code AS code, count(DISTINCT s.job) AS videos FROM jobs JOIN stages AS s ON s.job = jobs.seq
    WHERE {_LATEST} AND s.status = 'failed' GROUP BY s.error_code
    UNION ALL
    SELECT error_code, count(*) FROM jobs WHERE {_LATEST} AND status = 'failed'
        AND NOT EXISTS (SELECT 1 FROM stages AS s WHERE s.job = jobs.seq AND s.status = 'failed') GROUP BY error_code
    UNION ALL
    SELECT error_code, count(*) FROM batch_inputs WHERE batch_id = :batch AND state = 'rejected' GROUP BY error_code
) GROUP BY code ORDER BY code"""  # noqa: S608

_ENDINGS = f"""
SELECT finished_at FROM jobs WHERE {_LATEST} AND status IN ('completed', 'failed')
ORDER BY finished_at DESC LIMIT {_MOST_ENDINGS}"""  # noqa: S608


def _pipelines(rows: Sequence[Sequence[Any]]) -> dict[str, PipelineTally]:
    by_name: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        by_name.setdefault(row[0], []).append(row)
    return {name: _pipeline(found) for name, found in by_name.items()}


def _pipeline(rows: Sequence[Sequence[Any]]) -> PipelineTally:
    return PipelineTally(
        counts={StageStatus(row[1]): row[2] for row in rows},
        seconds=sum(row[3] for row in rows),
        cpu_seconds=sum(row[4] for row in rows),
        peak_memory_bytes=max(_known(rows, 5), default=None),
        peak_gpu_memory_bytes=max(_known(rows, 6), default=None),
        read_bytes=sum(_known(rows, 7)) if _known(rows, 7) else None,
        written_bytes=sum(_known(rows, 8)) if _known(rows, 8) else None,
        result_bytes=sum(_known(rows, 9)),
    )


def _known(rows: Sequence[Sequence[Any]], column: int) -> list[int]:
    return [row[column] for row in rows if row[column] is not None]


def _first(job_id: str, earlier: dict[str, str]) -> str:
    while job_id in earlier and earlier[job_id] != job_id:
        job_id = earlier[job_id]
    return job_id


def _input(row: Sequence[Any]) -> BatchInput:
    position, video, state, job_id, code, message = row
    error = None if code is None else StageError(code, message)
    return BatchInput(position=position, video=video, state=InputState(state), job_id=job_id, error=error)


def _named(batch_id: str) -> Any:
    return {"batch": batch_id}
