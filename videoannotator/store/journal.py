"""
The events table, written: what each kind of event says, as the contract of the HTTP API lists them. Functions on the
writer's connection, called in the transaction of the change that they tell of. Times in them are ISO 8601, UTC.
"""

import sqlite3
from functools import lru_cache
from typing import Any

import msgspec

from videoannotator.jobs import Claim, Job, Stage
from videoannotator.store.rows import as_json, milliseconds, moment


def job_update(connection: sqlite3.Connection, job: Job, now: int, *, stage: Stage | None = None) -> None:
    """A job changed and goes on; with `stage`, because that stage did."""
    data = {
        "job_id": job.id,
        "id": job.id,
        "status": job.status,
        "progress": round(job.progress, 4),
        "progress_pct": round(job.progress * 100, 2),
        "current_stage": job.current_stage,
        "eta_seconds": job.eta_seconds,
        "queue_position": job.queue_position,
        "stage": None if stage is None else _of_stage(stage),
        "timestamp": iso(now),
    }
    _append(connection, "job.update", job, now, data)


def job_complete(connection: sqlite3.Connection, job: Job, now: int, artifacts: list[str]) -> None:
    data = {"job_id": job.id, "artifacts": artifacts, "completion_time": iso(now), "outcome": job.outcome}
    _append(connection, "job.complete", job, now, data)


def job_error(connection: sqlite3.Connection, job: Job, now: int) -> None:
    assert job.error is not None, "a failed job says why"
    data = {"job_id": job.id, "error_message": job.error.message, "error_code": job.error.code}
    _append(connection, "job.error", job, now, data)


def job_cancelled(connection: sqlite3.Connection, job: Job, now: int) -> None:
    data = {"job_id": job.id, "cancelled_at": iso(now), "stopped_after_seconds": job.stopped_after_seconds}
    _append(connection, "job.cancelled", job, now, data)


def job_log(
    connection: sqlite3.Connection, claim: Claim, now: int, *, pipeline: str | None, level: str, message: str
) -> None:
    data = {"job_id": claim.job.id, "level": level, "stage": pipeline, "message": message, "timestamp": iso(now)}
    _append(connection, "job.log", claim.job, now, data)


@lru_cache(maxsize=16)  # what shares a transaction is of nearly the same moment
def iso(milliseconds: int) -> str:
    return moment(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of_stage(stage: Stage) -> dict[str, Any]:
    data = {
        "pipeline": stage.pipeline,
        "status": stage.status,
        "progress": round(stage.progress, 4),
        "rate": stage.rate,
        "eta_seconds": stage.eta_seconds,
        **(msgspec.structs.asdict(stage.usage) if stage.usage else {}),
        "attempts": None if stage.retry_at is None else stage.attempts,
        "retry_at": None if stage.retry_at is None else iso(milliseconds(stage.retry_at)),
    }
    return _present(data)


def _append(connection: sqlite3.Connection, kind: str, job: Job, now: int, data: dict[str, Any]) -> None:
    connection.execute(
        "INSERT INTO events (type, job_id, batch_id, at, data) VALUES (?, ?, ?, ?, ?)",
        (kind, job.id, job.batch_id, now, as_json(_present(data))),
    )


def _present(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
