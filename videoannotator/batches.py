"""A batch: many videos submitted as one. What was named, what became of it, and how it goes."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from videoannotator.jobs import Job, JobStatus, StageError, StageStatus


class InputState(StrEnum):
    WAITING = "waiting"  #: named, and not looked at yet
    QUEUED = "queued"  #: it has a job; the job's state says more
    REJECTED = "rejected"  #: no job was made of it, and `error` says why
    SKIPPED = "skipped"  #: the same was done before, by `job_id`
    CANCELLED = "cancelled"  #: the batch was cancelled before it was looked at


class BatchInput(msgspec.Struct, frozen=True, kw_only=True):
    position: int
    """From 0, in the order in which videos were named."""

    video: str
    """As it was named: a path in the dataset, or the id of an upload."""

    state: InputState
    job_id: str | None = None
    """Of a queued one its first job: retries follow it."""

    error: StageError | None = None


class PipelineTally(msgspec.Struct, frozen=True, kw_only=True):
    """The stages of one pipeline, over the latest jobs of a batch."""

    counts: dict[StageStatus, int]
    seconds: float
    """How long its processes ran, all together; what was served from the cache took none of them."""

    cpu_seconds: float
    peak_memory_bytes: int | None = None
    """The most that one of them had."""

    peak_gpu_memory_bytes: int | None = None
    """The same of a GPU's memory; None where none ran there, or the driver does not say."""

    read_bytes: int | None = None
    """From disks, all together; None where the system does not say."""

    written_bytes: int | None = None
    result_bytes: int = 0
    """Size of the files that they made, all together."""


class BatchTally(msgspec.Struct, frozen=True, kw_only=True):
    """A batch at one moment. A job that was retried counts by its latest retry only."""

    inputs: dict[InputState, int]
    """Empty for a batch whose jobs were submitted ready-made."""

    jobs: dict[JobStatus, int]
    partial: int
    """How many of the completed ones lack a stage."""

    progress: float
    """Mean over the jobs, 0 to 1; 1.0 where there is none."""

    pipelines: dict[str, PipelineTally]
    failures: dict[str, int]
    """Error code to the number of videos it kept from a full result, rejected ones included."""

    started_at: datetime | None = None
    """When the first of its jobs was begun."""

    last_ended_at: datetime | None = None
    endings: tuple[datetime, ...] = ()
    """The latest times at which a job was completed or failed, newest first, 21 at most."""

    video_seconds: float = 0.0
    """Length of all its videos that have a job."""

    @property
    def videos(self) -> int:
        """How many were named."""
        return sum(self.inputs.values()) or sum(self.jobs.values())

    @property
    def removed(self) -> int:
        """Videos whose job was deleted since."""
        return max(0, self.inputs.get(InputState.QUEUED, 0) - sum(self.jobs.values()))

    @property
    def unfinished(self) -> int:
        waiting = self.inputs.get(InputState.WAITING, 0)
        return waiting + sum(number for status, number in self.jobs.items() if not status.is_final)

    @property
    def success_rate(self) -> float:
        """Share of the videos that came to an end which have a result; 0.0 where none has ended."""
        completed = self.jobs.get(JobStatus.COMPLETED, 0)
        ended = completed + self.jobs.get(JobStatus.FAILED, 0) + self.jobs.get(JobStatus.CANCELLED, 0)
        ended += self.inputs.get(InputState.REJECTED, 0) + self.inputs.get(InputState.CANCELLED, 0)
        return completed / ended if ended else 0.0

    @property
    def total_progress(self) -> float:
        """Over all videos, 0 to 1: what was rejected or skipped is done with."""
        waiting, jobs = self.inputs.get(InputState.WAITING, 0), sum(self.jobs.values())
        aside = max(0, self.videos - waiting - jobs)
        return (self.progress * jobs + aside) / self.videos if self.videos else 1.0

    def videos_per_hour(self, now: datetime) -> float | None:
        """From the first begin to the last end, or until now while some are left; None where none has ended."""
        ended = self.jobs.get(JobStatus.COMPLETED, 0) + self.jobs.get(JobStatus.FAILED, 0)
        if self.started_at is None or not ended:
            return None
        until = now if self.unfinished else self.last_ended_at or now
        seconds = (until - self.started_at).total_seconds()
        return ended * 3600 / seconds if seconds > 0 else None

    def eta_seconds(self, now: datetime) -> float | None:
        """At the pace of the latest endings; None where that is not known yet, or nothing is left."""
        if not self.unfinished or not self.endings or self.started_at is None:
            return None
        window = self.endings[:20]
        since = self.endings[20] if len(self.endings) > 20 else self.started_at
        pace = len(window) / max(0.001, (now - since).total_seconds())
        jobs = sum(self.jobs.values())
        left = jobs * (1 - self.progress) + self.inputs.get(InputState.WAITING, 0)
        return left / pace


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """One video of a batch and what became of it, for the report."""

    video: str
    state: str
    """An input's state, or its latest job's; `removed` where the job was deleted since."""

    job: Job | None = None
    job_id: str | None = None
    error: StageError | None = None


def lines(inputs: tuple[BatchInput, ...], latest: dict[str, Job]) -> tuple[BatchLine, ...]:
    """
    Every video that was named, in that order, then jobs that nobody named; `latest` maps the id of a first job to the
    latest of its retries.
    """
    named = [_line(one, latest) for one in inputs]
    known = {one.job_id for one in inputs if one.state is InputState.QUEUED}
    return (*named, *(_of_job(job.video.filename, job) for first, job in latest.items() if first not in known))


def _line(one: BatchInput, latest: dict[str, Job]) -> BatchLine:
    if one.state is not InputState.QUEUED:
        return BatchLine(video=one.video, state=one.state, job_id=one.job_id, error=one.error)
    job = latest.get(one.job_id or "")
    if job is None:
        return BatchLine(video=one.video, state="removed", job_id=one.job_id)
    return _of_job(one.video, job)


def _of_job(video: str, job: Job) -> BatchLine:
    return BatchLine(video=video, state=job.status, job=job, job_id=job.id, error=job.error)


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to do with each video of a batch. Stored with it, so that a restart goes on with what was asked."""

    dataset_id: str | None = None
    preset: str | None = None
    selected_pipelines: tuple[str, ...] = ()
    config: dict[str, dict[str, Any]] = {}
    tags: tuple[str, ...] = ()
    priority: int = 0
    owner: str | None = None
    """Whose uploads may be used; None means anybody's."""

    submitted_by: str = ""
    """Whose key it was; owners take turns."""

    cache: bool = True
    skip_done: bool = False
    """Leave out a video whose bytes went through the same stages before."""
