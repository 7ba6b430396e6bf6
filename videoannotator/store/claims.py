"""
Who holds a job. Every write of a worker goes through one of these conditions, in the UPDATE itself, so that a worker
whose lease was taken away changes nothing.
"""

import sqlite3
from typing import Any

from videoannotator.errors import LeaseLost
from videoannotator.jobs import Claim, Job, JobStatus
from videoannotator.store import journal, lanes
from videoannotator.store.rows import COLUMNS, JOBS, JobRow, job_from

HELD = "id = :id AND lease_token = :token AND status IN ('running', 'cancelling')"
"""Of `jobs`: the claim holds it."""

STAGE_HELD = f"pipeline = :pipeline AND job = (SELECT seq FROM jobs WHERE {HELD})"  # noqa: S608
"""Of `stages`: a stage of the job that the claim holds."""

NEXT = f"""
UPDATE jobs SET status = 'running', attempts = attempts + 1, lease_token = lease_token + 1, worker = :worker,
    lease_until = :lease_until, started_at = :now
WHERE seq = :seq AND status = 'pending'
RETURNING {COLUMNS}, lease_token"""  # noqa: S608

_HELD_JOB = f"{JOBS} WHERE {HELD}"


def claim(connection: sqlite3.Connection, worker: str, *, now: int, lease: int) -> Claim | None:
    head = lanes.next_head(connection, now)
    if head is None:
        return None
    values = {"seq": head.seq, "worker": worker, "now": now, "lease_until": now + lease}
    ((*row, token),) = connection.execute(NEXT, values).fetchall()
    lanes.leave(connection, head.lane)
    job = job_from(JobRow._make(row))
    journal.job_update(connection, job, now)
    return Claim(job=job, worker=worker, token=token)


def heartbeat(connection: sqlite3.Connection, claim: Claim, *, now: int, lease: int) -> bool:
    (status,) = change_held(connection, claim, "lease_until = :lease_until", "status", lease_until=now + lease)
    return JobStatus(status) is JobStatus.CANCELLING


def note_video_hash(connection: sqlite3.Connection, claim: Claim, *, sha256: str) -> None:
    change_held(connection, claim, "video = json_set(video, '$.sha256', :sha256)", "id", sha256=sha256)


def log(
    connection: sqlite3.Connection, claim: Claim, *, pipeline: str | None, level: str, message: str, now: int
) -> None:
    held(connection, claim)
    journal.job_log(connection, claim, now, pipeline=pipeline, level=level, message=message)


def held(connection: sqlite3.Connection, claim: Claim) -> Job:
    """The job as it is now. Raises LeaseLost."""
    rows = connection.execute(_HELD_JOB, of(claim)).fetchall()
    if not rows:
        raise lost(claim)
    return job_from(JobRow._make(rows[0]))


def change_held(connection: sqlite3.Connection, claim: Claim, change: str, returning: str, **values: Any) -> Any:
    """What the UPDATE of the held job returns. Raises LeaseLost."""
    sql = f"UPDATE jobs SET {change} WHERE {HELD} RETURNING {returning}"  # noqa: S608
    rows = connection.execute(sql, of(claim) | values).fetchall()
    if not rows:
        raise lost(claim)
    return rows[0]


def of(claim: Claim) -> dict[str, Any]:
    return {"id": claim.job.id, "token": claim.token}


def lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"Job {claim.job.id} is no longer held under lease {claim.token}; nothing was written.")
