"""The JSON of a job: API.md's fields and those that the browser client reads (VIEWER.md section 4), as one object."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from videoannotator.jobs import Job, JobStatus, Stage, StageError, StageStatus


class VideoAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    filename: str
    size_bytes: int
    duration_seconds: float
    width: int
    height: int
    frame_rate: float
    variable_frame_rate: bool
    has_audio: bool
    sha256: str | None = None


class StageAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    pipeline: str
    status: StageStatus
    progress: float
    attempts: int
    cached: bool
    """Taken over from earlier, equal work: the job that this one retries, or the cache."""

    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    annotations: int | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    error: StageError | None = None
    retry_at: datetime | None = None
    """While it waits for its next attempt."""

    last_error: StageError | None = None
    """What ended the attempt before."""

    device: str | None = None
    engine: str | None = None
    warnings: tuple[str, ...] = ()
    """What it has to say of its result: that the video has no sound, say. They stand in the job's log too."""


class CallbackAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far the telling that the job is over has come."""

    state: Literal["waiting", "delivered", "given_up"]
    attempts: int
    next_at: datetime | None = None
    last_attempt_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None


class JobAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    id: str
    status: JobStatus
    video_filename: str
    video_size_bytes: int
    video_duration_seconds: float
    selected_pipelines: tuple[str, ...]
    config: dict[str, dict[str, Any]]
    """What the caller gave, before defaults; what was used stands in the manifest."""

    error_message: str | None
    """Null where all is well; with `completed` it says which part failed."""

    created_at: datetime
    queued_at: datetime
    progress: float
    progress_pct: float
    stages: tuple[StageAnswer, ...]
    tags: tuple[str, ...]
    priority: int
    attempts: int
    video: VideoAnswer | None = None
    """Left out until the video is fetched, where the job named a URL; then size and duration above are 0."""

    callback: CallbackAnswer | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    stopped_after_seconds: float | None = None
    current_stage: str | None = None
    eta_seconds: float | None = None
    queue_position: int | None = None
    outcome: str | None = None
    error_code: str | None = None
    preset: str | None = None
    batch_id: str | None = None
    retry_of: str | None = None


def describe(job: Job) -> JobAnswer:
    return JobAnswer(
        id=job.id,
        status=job.status,
        video_filename=job.video.filename,
        video_size_bytes=job.video.size_bytes,
        video_duration_seconds=job.video.duration_seconds,
        selected_pipelines=job.selected_pipelines,
        config=job.config,
        error_message=job.error.message if job.error else None,
        error_code=job.error.code if job.error else None,
        created_at=job.created_at,
        queued_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        completed_at=job.finished_at if job.status is JobStatus.COMPLETED else None,
        cancelled_at=job.finished_at if job.status is JobStatus.CANCELLED else None,
        stopped_after_seconds=job.stopped_after_seconds,
        progress=round(job.progress, 4),
        progress_pct=round(job.progress * 100, 2),
        current_stage=job.current_stage,
        eta_seconds=job.eta_seconds,
        queue_position=job.queue_position,
        stages=tuple(_stage(stage) for stage in job.stages),
        outcome=job.outcome,
        tags=job.tags,
        priority=job.priority,
        attempts=job.attempts,
        preset=job.preset,
        batch_id=job.batch_id,
        retry_of=job.retry_of,
        video=None if job.awaits_video else _video(job),
        callback=_callback(job),
    )


def _stage(stage: Stage) -> StageAnswer:
    made = stage.provenance
    return StageAnswer(
        pipeline=stage.pipeline,
        status=stage.status,
        progress=1.0 if stage.status is StageStatus.COMPLETED else round(stage.progress, 4),
        attempts=stage.attempts,
        cached=stage.cached,
        retry_at=stage.retry_at,
        last_error=stage.last_error,
        started_at=stage.started_at,
        finished_at=stage.finished_at,
        seconds=stage.seconds,
        annotations=stage.annotations,
        rate=stage.rate,
        eta_seconds=stage.eta_seconds,
        error=stage.error,
        device=made.device if made else None,
        engine=made.engine if made else None,
        warnings=made.warnings if made else (),
    )


def _callback(job: Job) -> CallbackAnswer | None:
    if job.callback is None:
        return None
    told = job.callback
    return CallbackAnswer(
        state=told.state,
        attempts=told.attempts,
        next_at=told.next_at,
        last_attempt_at=told.last_attempt_at,
        last_status=told.last_status,
        last_error=told.last_error,
    )


def _video(job: Job) -> VideoAnswer:
    video = job.video
    return VideoAnswer(
        filename=video.filename,
        size_bytes=video.size_bytes,
        duration_seconds=video.duration_seconds,
        width=video.width,
        height=video.height,
        frame_rate=video.frame_rate,
        variable_frame_rate=video.variable_frame_rate,
        has_audio=video.has_audio,
        sha256=video.sha256,
    )
