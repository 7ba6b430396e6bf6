"""Jobs and their stages, from rows to Structs. One statement reads them, so that what it says is of one moment."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from videoannotator.errors import NotFound
from videoannotator.jobs import (
    Callback,
    Errands,
    Job,
    JobStatus,
    Provenance,
    Stage,
    StageError,
    StageStatus,
    Usage,
    Video,
)

COLUMNS = """seq, id, status, video, video_path, owns_video, config, tags, priority, attempts, created_at, started_at,
    finished_at, outcome, error_code, error_message, stopped_after_seconds, preset, preset_content, batch_id, retry_of,
    cache,
    (SELECT json_group_array(json_object(
        'pipeline', pipeline, 'position', position, 'config', json(config), 'status', status, 'progress', progress,
        'rate', rate, 'eta_seconds', eta_seconds, 'attempts', attempts, 'started_at', started_at,
        'finished_at', finished_at, 'seconds', seconds, 'annotations', annotations, 'error_code', error_code,
        'error_message', error_message, 'provenance', json(provenance), 'failures', failures, 'retry_at', retry_at,
        'last_error', json(last_error), 'eased', json(eased), 'cached', json(iif(cached, 'true', 'false')),
        'peak_memory_bytes', peak_memory_bytes, 'cpu_seconds', cpu_seconds,
        'peak_gpu_memory_bytes', peak_gpu_memory_bytes, 'read_bytes', read_bytes, 'written_bytes', written_bytes
    )) FROM stages WHERE job = jobs.seq),
    (SELECT json_object('video_url', video_url, 'fetched', json(iif(fetched, 'true', 'false')),
        'output_directory', output_directory, 'db_location', db_location
    ) FROM errands WHERE job = jobs.seq),
    (SELECT json_object('url', url, 'state', state, 'attempts', attempts, 'next_at', next_at,
        'last_attempt_at', last_attempt_at, 'last_status', last_status, 'last_error', last_error
    ) FROM callbacks WHERE job = jobs.seq),
    owner"""
"""Of a row of `jobs`, with all that hangs on it; for `JobRow`, also behind RETURNING."""

JOBS = f"SELECT {COLUMNS} FROM jobs"  # noqa: S608
"""Jobs with their stages, to be followed by WHERE; places in the queue are told by `forecasts`."""


class JobRow(NamedTuple):
    seq: int
    id: str
    status: str
    video: str
    video_path: str
    owns_video: int
    config: str
    tags: str
    priority: int
    attempts: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    outcome: Literal["full", "partial"] | None
    error_code: str | None
    error_message: str | None
    stopped_after_seconds: float | None
    preset: str | None
    preset_content: str | None
    batch_id: str | None
    retry_of: str | None
    cache: int
    stages: str
    errands: str | None
    callback: str | None
    owner: str


class _StageRow(msgspec.Struct, frozen=True):
    pipeline: str
    position: int
    config: dict[str, Any]
    status: StageStatus
    progress: float
    rate: float | None
    eta_seconds: float | None
    attempts: int
    started_at: int | None
    finished_at: int | None
    seconds: float | None
    annotations: int | None
    error_code: str | None
    error_message: str | None
    provenance: Provenance | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None
    peak_gpu_memory_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    failures: int
    retry_at: int | None
    last_error: StageError | None
    eased: dict[str, Any] | None
    cached: bool


_NONE = Errands()
_encode = msgspec.json.Encoder().encode
_stages = msgspec.json.Decoder(list[_StageRow])


class _CallbackRow(msgspec.Struct, frozen=True):
    url: str
    state: Literal["waiting", "delivered", "given_up"]
    attempts: int
    next_at: int
    last_attempt_at: int | None
    last_status: int | None
    last_error: str | None


class _ErrandsRow(msgspec.Struct, frozen=True):
    video_url: str | None
    fetched: bool
    output_directory: str | None
    db_location: str | None


_errands = msgspec.json.Decoder(_ErrandsRow)
_callback = msgspec.json.Decoder(_CallbackRow)
_video = msgspec.json.Decoder(Video)
_tags = msgspec.json.Decoder(tuple[str, ...])
_configs = msgspec.json.Decoder(dict[str, dict[str, Any]])
_object = msgspec.json.Decoder(dict[str, Any])


def job_from(row: JobRow) -> Job:
    return Job(
        id=row.id,
        status=JobStatus(row.status),
        video=_video.decode(row.video),
        video_path=Path(row.video_path),
        owns_video=bool(row.owns_video),
        stages=tuple(_stage_from(stage) for stage in sorted(_stages.decode(row.stages), key=lambda s: s.position)),
        config=_configs.decode(row.config),
        tags=_tags.decode(row.tags),
        priority=row.priority,
        attempts=row.attempts,
        created_at=moment(row.created_at),
        started_at=maybe_moment(row.started_at),
        finished_at=maybe_moment(row.finished_at),
        outcome=row.outcome,
        error=_error(row.error_code, row.error_message),
        stopped_after_seconds=row.stopped_after_seconds,
        preset=row.preset,
        preset_content=None if row.preset_content is None else _object.decode(row.preset_content),
        batch_id=row.batch_id,
        retry_of=row.retry_of,
        cache=bool(row.cache),
        errands=_errands_from(row),
        callback=_callback_from(row),
        owner=row.owner,
    )


def _errands_from(row: JobRow) -> Errands:
    callback_url = None if row.callback is None else _callback.decode(row.callback).url
    if row.errands is None:
        return _NONE if callback_url is None else Errands(callback_url=callback_url)
    errands = _errands.decode(row.errands)
    return Errands(
        video_url=errands.video_url,
        fetched=errands.fetched,
        output_directory=None if errands.output_directory is None else Path(errands.output_directory),
        db_location=None if errands.db_location is None else Path(errands.db_location),
        callback_url=callback_url,
    )


def _callback_from(row: JobRow) -> Callback | None:
    if row.callback is None:
        return None
    callback = _callback.decode(row.callback)
    return Callback(
        url=callback.url,
        state=callback.state,
        attempts=callback.attempts,
        next_at=moment(callback.next_at) if callback.state == "waiting" and callback.next_at else None,
        last_attempt_at=maybe_moment(callback.last_attempt_at),
        last_status=callback.last_status,
        last_error=callback.last_error,
    )


def read_job(connection: sqlite3.Connection, job_id: str) -> Job:
    """Raises NotFound (JOB_NOT_FOUND)."""
    return only_job(job_id, connection.execute(f"{JOBS} WHERE id = ?", (job_id,)).fetchall())


def only_job(job_id: str, rows: Sequence[Sequence[Any]]) -> Job:
    """Raises NotFound (JOB_NOT_FOUND)."""
    if not rows:
        raise no_job(job_id)
    return job_from(JobRow._make(rows[0]))


def no_job(job_id: str) -> NotFound:
    return NotFound.of("job", job_id, "List jobs with GET /api/v1/jobs.")


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def maybe_moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else moment(milliseconds)


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def as_json(value: Any) -> str:
    return _encode(value).decode()


def _stage_from(row: _StageRow) -> Stage:
    return Stage(
        pipeline=row.pipeline,
        config=row.config,
        status=row.status,
        progress=row.progress,
        rate=row.rate,
        eta_seconds=row.eta_seconds,
        attempts=row.attempts,
        started_at=maybe_moment(row.started_at),
        finished_at=maybe_moment(row.finished_at),
        seconds=row.seconds,
        annotations=row.annotations,
        error=_error(row.error_code, row.error_message),
        provenance=row.provenance,
        usage=_usage(row),
        failures=row.failures,
        retry_at=maybe_moment(row.retry_at),
        last_error=row.last_error,
        eased=row.eased,
        cached=row.cached,
    )


def _usage(row: _StageRow) -> Usage | None:
    if row.peak_memory_bytes is None or row.cpu_seconds is None:
        return None
    return Usage(
        peak_memory_bytes=row.peak_memory_bytes,
        cpu_seconds=row.cpu_seconds,
        peak_gpu_memory_bytes=row.peak_gpu_memory_bytes,
        read_bytes=row.read_bytes,
        written_bytes=row.written_bytes,
    )


def _error(code: str | None, message: str | None) -> StageError | None:
    return None if code is None or message is None else StageError(code, message)
