"""The stages of a held job: begin, report, end. Functions on the writer's connection, each one whole transaction."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import (
    Artifact,
    Claim,
    Interval,
    Job,
    NewStage,
    Progress,
    Stage,
    StageError,
    StageResult,
    StageStatus,
    Usage,
)
from videoannotator.store import forecasts, journal
from videoannotator.store.claims import STAGE_HELD, held, of
from videoannotator.store.rows import as_json, moment, read_job

MOST_WARNINGS, LONGEST_WARNING = 20, 2000
"""Of a stage, in the job's log; the manifest has all of them in full."""

_USED = Usage.__struct_fields__
_USAGE = ", ".join(f"{name} = coalesce(:{name}, {name})" for name in _USED)
_UNUSED = ", ".join(f"{name} = NULL" for name in _USED)
_USED_BEFORE = ", ".join(f"{name} = old.{name}" for name in _USED)


def start(connection: sqlite3.Connection, claim: Claim, pipeline: str, *, now: int) -> int:
    """Which attempt it is. Attempts only grow, so that no two ever write into the same folder."""
    change = f"""status = 'running', attempts = attempts + 1, started_at = :now, progress = 0, rate = NULL,
        eta_seconds = NULL, retry_at = NULL, {_UNUSED}"""
    stage = _change(connection, claim, pipeline, change, "AND status IN ('pending', 'running')", now=now)
    if stage is None:
        raise _already_ended(connection, claim, pipeline)
    return stage.attempts


def note_progress(connection: sqlite3.Connection, claim: Claim, pipeline: str, progress: Progress, *, now: int) -> None:
    """Of a stage that has ended already, it is no news: nothing happens."""
    change = f"progress = :share, rate = :rate, eta_seconds = :eta_seconds, {_USAGE}"
    values = {"share": progress.share, "rate": progress.rate, "eta_seconds": progress.eta_seconds}
    values |= _used(progress.usage)
    if _change(connection, claim, pipeline, change, "AND status = 'running'", now=now, **values) is None:
        held(connection, claim)


def finish(connection: sqlite3.Connection, claim: Claim, pipeline: str, result: StageResult, *, now: int) -> None:
    change = f"""status = 'completed', progress = 1, rate = NULL, eta_seconds = NULL, finished_at = :now,
        seconds = :seconds, annotations = :annotations, provenance = :provenance, cached = :cached, retry_at = NULL,
        started_at = coalesce(started_at, :now), {_USAGE}"""
    values = {
        "seconds": result.seconds,
        "annotations": result.annotations,
        "provenance": as_json(result.provenance),
        "cached": result.cached,
    } | _used(result.usage)
    condition = "AND status IN ('pending', 'running')" if result.cached else "AND status = 'running'"
    if _change(connection, claim, pipeline, change, condition, now=now, **values) is None:
        raise _already_ended(connection, claim, pipeline)
    if not result.cached:
        forecasts.note(connection, claim.job, pipeline, result.seconds)
    _add_artifacts(connection, claim.job.id, pipeline, result.artifacts)
    _add_intervals(connection, claim.job.id, pipeline, result.intervals)
    for warning in result.provenance.warnings[:MOST_WARNINGS]:
        journal.job_log(connection, claim, now, pipeline=pipeline, level="warning", message=warning[:LONGEST_WARNING])


def fail(
    connection: sqlite3.Connection,
    claim: Claim,
    pipeline: str,
    error: StageError,
    *,
    seconds: float,
    now: int,
    usage: Usage | None = None,
    partial: Sequence[Artifact] = (),
) -> None:
    change = f"""status = 'failed', rate = NULL, eta_seconds = NULL, finished_at = :now, seconds = :seconds,
        error_code = :code, error_message = :message, retry_at = NULL,
        {_USAGE}"""
    values = {"seconds": seconds, "code": error.code, "message": error.message} | _used(usage)
    if _change(connection, claim, pipeline, change, "AND status IN ('pending', 'running')", now=now, **values) is None:
        raise _already_ended(connection, claim, pipeline)
    _add_artifacts(connection, claim.job.id, pipeline, partial)


def put_back(
    connection: sqlite3.Connection,
    claim: Claim,
    pipeline: str,
    error: StageError,
    *,
    delay: int,
    eased: dict[str, Any] | None,
    now: int,
) -> Stage:
    """`delay` in milliseconds."""
    change = """status = 'pending', started_at = NULL, progress = 0, rate = NULL, eta_seconds = NULL,
        failures = failures + 1, retry_at = :retry_at, last_error = :error, eased = coalesce(:eased, eased)"""
    values = {
        "retry_at": now + delay,
        "error": as_json(error),
        "eased": None if eased is None else as_json(eased),
    }
    stage = _change(connection, claim, pipeline, change, "AND status = 'running'", now=now, **values)
    if stage is None:
        raise _already_ended(connection, claim, pipeline)
    return stage


def add(connection: sqlite3.Connection, job: int, stages: Sequence[NewStage], *, now: int, first: int = 0) -> None:
    """
    `job` is the job's seq, `first` the place of the first of them. What is to be skipped has ended at once; what is
    carried over begins as pending.
    """
    if not stages:
        return
    connection.executemany(
        """INSERT INTO stages (job, pipeline, position, config, status, finished_at, error_code, error_message)
        VALUES (:job, :pipeline, :position, :config, iif(:code IS NULL, 'pending', 'skipped'),
            iif(:code IS NULL, NULL, :now), :code, :message)""",
        [
            {
                "job": job,
                "pipeline": stage.pipeline,
                "position": position,
                "config": as_json(stage.config),
                "code": stage.skip_because.code if stage.skip_because else None,
                "message": stage.skip_because.message if stage.skip_because else None,
                "now": now,
            }
            for position, stage in enumerate(stages, start=first)
        ],
    )


def as_added(stage: NewStage, now: int) -> Stage:
    """As `add` has written it."""
    error = stage.skip_because
    if error is None:
        return Stage(pipeline=stage.pipeline, config=stage.config)
    skipped = StageStatus.SKIPPED
    return Stage(pipeline=stage.pipeline, config=stage.config, status=skipped, finished_at=moment(now), error=error)


def skip(connection: sqlite3.Connection, job: int, stages: Sequence[NewStage], *, now: int) -> None:
    """Stages that were queued before it was known that they have nothing to work on. `job` is the job's seq."""
    connection.executemany(
        """UPDATE stages SET status = 'skipped', finished_at = ?, error_code = ?, error_message = ?
        WHERE job = ? AND pipeline = ? AND status = 'pending'""",
        [(now, s.skip_because.code, s.skip_because.message, job, s.pipeline) for s in stages if s.skip_because],
    )


def carry_over(connection: sqlite3.Connection, finished: str, job_id: str, pipelines: Sequence[str]) -> None:
    """Raises NotFound, Conflict (STAGE_NOT_COMPLETED)."""
    read_job(connection, finished)
    for pipeline in pipelines:
        _carry_over(connection, {"old": finished, "new": job_id, "pipeline": pipeline})


_CARRY_STAGE = f"""
UPDATE stages SET status = 'completed', progress = 1, started_at = old.started_at, finished_at = old.finished_at,
    seconds = old.seconds, annotations = old.annotations, provenance = old.provenance, eased = old.eased, cached = 1,
    {_USED_BEFORE}
FROM (SELECT * FROM stages WHERE job = (SELECT seq FROM jobs WHERE id = :old) AND pipeline = :pipeline) AS old
WHERE stages.job = (SELECT seq FROM jobs WHERE id = :new AND status = 'pending')
    AND stages.pipeline = :pipeline AND stages.status = 'pending' AND old.status = 'completed'"""  # noqa: S608

_CARRY_ARTIFACTS = """
INSERT INTO artifacts (job, name, pipeline, role, media_type, size, sha256, in_zip)
SELECT (SELECT seq FROM jobs WHERE id = :new), name, pipeline, role, media_type, size, sha256, in_zip
FROM artifacts WHERE job = (SELECT seq FROM jobs WHERE id = :old) AND pipeline = :pipeline"""

_CARRY_INTERVALS = """
INSERT INTO annotations (job, pipeline, kind, onset, duration, label, track)
SELECT (SELECT seq FROM jobs WHERE id = :new), pipeline, kind, onset, duration, label, track
FROM annotations WHERE job = (SELECT seq FROM jobs WHERE id = :old) AND pipeline = :pipeline ORDER BY id"""


def _carry_over(connection: sqlite3.Connection, values: dict[str, str]) -> None:
    if connection.execute(_CARRY_STAGE, values).rowcount != 1:
        raise Conflict(
            f"{values['pipeline']} cannot be taken over from job {values['old']}: it is not completed there, or not "
            f"pending in job {values['new']}.",
            hint="Run it again instead.",
            code="STAGE_NOT_COMPLETED",
        )
    connection.execute(_CARRY_ARTIFACTS, values)
    connection.execute(_CARRY_INTERVALS, values)


def _used(usage: Usage | None) -> dict[str, Any]:
    """Where nothing is known, what a report said before stays."""
    return dict.fromkeys(_USED) if usage is None else msgspec.structs.asdict(usage)


def _change(
    connection: sqlite3.Connection, claim: Claim, pipeline: str, change: str, condition: str, **values: Any
) -> Stage | None:
    """Change a stage of the held job and tell of it; None where the condition, or the fence, let nothing through."""
    sql = f"UPDATE stages SET {change} WHERE {STAGE_HELD} {condition}"  # noqa: S608
    if connection.execute(sql, of(claim) | {"pipeline": pipeline} | values).rowcount == 0:
        return None
    job = read_job(connection, claim.job.id)
    stage = _stage_of(job, pipeline)
    journal.job_update(connection, job, values["now"], stage=stage)
    return stage


def _already_ended(connection: sqlite3.Connection, claim: Claim, pipeline: str) -> Conflict:
    """Why a change found no row, where the lease is not the reason. Raises LeaseLost where it is."""
    stage = _stage_of(held(connection, claim), pipeline)
    return Conflict(f"Stage {pipeline} of job {claim.job.id} is {stage.status} already.", code="STAGE_NOT_RUNNING")


def _stage_of(job: Job, pipeline: str) -> Stage:
    for stage in job.stages:
        if stage.pipeline == pipeline:
            return stage
    raise NotFound.of("stage", pipeline, f"Job {job.id} has no such stage.")


def _add_artifacts(connection: sqlite3.Connection, job_id: str, pipeline: str, artifacts: Sequence[Artifact]) -> None:
    for a in artifacts:
        added = connection.execute(
            """INSERT INTO artifacts (job, name, pipeline, role, media_type, size, sha256, in_zip)
            VALUES ((SELECT seq FROM jobs WHERE id = ?), ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
            (job_id, a.name, pipeline, a.role, a.media_type, a.size, a.sha256, a.in_zip),
        )
        if added.rowcount == 0:
            raise Conflict(
                f"Another stage of job {job_id} has made a file {a.name!r} already.",
                hint="Pipelines whose files have the same names cannot be in one job.",
                code="ARTIFACT_EXISTS",
            )


def _add_intervals(connection: sqlite3.Connection, job_id: str, pipeline: str, intervals: Sequence[Interval]) -> None:
    (job,) = connection.execute("SELECT seq FROM jobs WHERE id = ?", (job_id,)).fetchone()
    connection.executemany(
        "INSERT INTO annotations (job, pipeline, kind, onset, duration, label, track) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(job, pipeline, i.kind, i.onset, i.duration, i.label, i.track) for i in intervals],
    )
