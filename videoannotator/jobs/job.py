"""One video and its stages: the states it can be in, and who holds it."""

import secrets
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from videoannotator.jobs.stage import AUTOMATIC, NewStage, Stage, StageError, StageStatus
from videoannotator.jobs.video import Video

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """A ULID behind a prefix: ids sort by the time they were made. Source: github.com/ulid/spec."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return f"{prefix}_{''.join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))}"


class JobStatus(StrEnum):
    PENDING = "pending"  #: waits for a worker
    RUNNING = "running"  #: a worker has claimed it
    CANCELLING = "cancelling"  #: somebody asked to stop it, and its worker is seeing to that
    COMPLETED = "completed"  #: every stage that could run has run; see `outcome`
    FAILED = "failed"  #: no stage gave a result, or the job itself could not be worked on
    CANCELLED = "cancelled"  #: stopped because somebody asked

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)

    @property
    def is_held(self) -> bool:
        """A worker holds a lease on it."""
        return self in (JobStatus.RUNNING, JobStatus.CANCELLING)


class Errands(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job needs of the world outside the storage directory."""

    video_url: str | None = None
    """Where its video is fetched from, before anything else."""

    fetched: bool = False
    """The video has been fetched and looked at. Until then nothing is known of it but a name."""

    output_directory: Path | None = None
    """Where its results are published too, in a folder of the job's."""

    db_location: Path | None = None
    """A SQLite file that its annotations are written into too."""

    callback_url: str | None = None
    """Who is told that it is over."""


class Callback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the telling is."""

    url: str
    state: Literal["waiting", "delivered", "given_up"] = "waiting"
    attempts: int = 0
    next_at: datetime | None = None
    """When it is tried again, where an attempt has failed."""

    last_attempt_at: datetime | None = None
    last_status: int | None = None
    """What the other side answered, where it did."""

    last_error: str | None = None


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """What `store.add` needs. Everything in it is already checked."""

    id: str
    video: Video
    video_path: Path
    """Where the bytes are, on this machine."""

    owns_video: bool
    """The file lies under the storage directory and goes when the job goes."""

    stages: tuple[NewStage, ...]
    config: dict[str, dict[str, Any]] = {}
    """What the caller gave, before defaults."""

    preset: str | None = None
    preset_content: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    """Higher goes first."""

    owner: str = ""
    """Whose key it is submitted with."""

    batch_id: str | None = None
    retry_of: str | None = None
    upload_id: str | None = None
    """The resumable upload that the video was; it is used up with the job."""

    cache: bool = True
    """Whether results of earlier, equal work may be taken for it, and its own remembered."""
    errands: Errands = Errands()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    status: JobStatus
    video: Video
    video_path: Path
    owns_video: bool
    stages: tuple[Stage, ...]
    config: dict[str, dict[str, Any]]
    tags: tuple[str, ...]
    priority: int
    attempts: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: Literal["full", "partial"] | None = None
    """Of a completed job: `partial` where a stage failed or was skipped."""

    error: StageError | None = None
    stopped_after_seconds: float | None = None
    """Of a cancelled job: from the request until the last of its processes was gone."""

    preset: str | None = None
    preset_content: dict[str, Any] | None = None
    batch_id: str | None = None
    retry_of: str | None = None
    cache: bool = True
    errands: Errands = Errands()
    callback: Callback | None = None
    owner: str = ""
    """Whose key it was submitted with; empty for none. Owners take turns."""

    queue_position: int | None = None
    """1 is next. Only while pending, and where its batch is not paused."""

    expected_seconds: float | None = None
    """Until it is over, as far as can be told from how long such stages took before; None where nothing tells."""

    @property
    def awaits_video(self) -> bool:
        """Its video has yet to be fetched."""
        return self.errands.video_url is not None and not self.errands.fetched

    @property
    def progress(self) -> float:
        """0 to 1: the mean over the stages."""
        if self.status is JobStatus.COMPLETED or not self.stages:
            return 1.0
        return sum(1.0 if s.status.is_final else s.progress for s in self.stages) / len(self.stages)

    @property
    def eta_seconds(self) -> float | None:
        """What is expected, or else the longest of the running stages' own; None while one cannot say."""
        if self.expected_seconds is not None:
            return round(self.expected_seconds, 1)
        ahead = [s.eta_seconds for s in self.stages if not s.status.is_final]
        known = [eta for eta in ahead if eta is not None]
        return max(known) if known and len(known) == len(ahead) else None

    @property
    def selected_pipelines(self) -> tuple[str, ...]:
        """What a user asked for: the stages without those that the program added."""
        return tuple(stage.pipeline for stage in self.stages if stage.pipeline not in AUTOMATIC)

    @property
    def current_stage(self) -> str | None:
        return next((s.pipeline for s in self.stages if s.status is StageStatus.RUNNING), None)


class Claim(msgspec.Struct, frozen=True):
    """A worker's hold on a job. Whoever writes with an older `token` gets LeaseLost."""

    job: Job
    worker: str
    token: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs submitted as one."""

    id: str
    name: str
    created_at: datetime
    counts: dict[JobStatus, int]
    plan: dict[str, Any] | None = None
    """What to do with each of its videos, as it was asked; None where its jobs were submitted ready-made."""

    paused_at: datetime | None = None
    """Nothing of a paused batch is claimed."""
