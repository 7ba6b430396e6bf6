"""One run of a pipeline in one job: what was asked, how far it is, how it ended."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from videoannotator.jobs.result import Artifact, Interval, Provenance

BROWSER_COPY = "browser_copy"
"""The stage that copies a video for browsers."""

PEOPLE = "people"
"""The stage that puts faces and persons together."""

AUTOMATIC = frozenset({BROWSER_COPY, PEOPLE})
"""Stages that the program adds where they are needed. Nobody selects them, and they alone are no result."""


class StageStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"  #: the video lacks what the pipeline needs, a sound track say
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (StageStatus.PENDING, StageStatus.RUNNING)


class StageError(msgspec.Struct, frozen=True):
    code: str
    message: str


class Usage(msgspec.Struct, frozen=True):
    """What the processes of a stage take, sampled a few times a second."""

    peak_memory_bytes: int
    """Resident, of all its processes together; pages that several share count for each."""

    cpu_seconds: float
    """Of the first process and its descendants; what one of those used that was ended by force is left out."""

    peak_gpu_memory_bytes: int | None = None
    """Of all its processes on its card. None where it ran on the processor, or the driver does not say."""

    read_bytes: int | None = None
    """From disks, counted like `cpu_seconds`, without what the system had in memory; None where it does not say."""

    written_bytes: int | None = None
    """To disks, in the same way."""


class Progress(msgspec.Struct, frozen=True):
    """How far a stage is: seconds of the video's timeline, so that it means the same for every pipeline."""

    done_seconds: float
    total_seconds: float
    rate: float | None = None
    eta_seconds: float | None = None
    usage: Usage | None = None

    @property
    def share(self) -> float:
        return min(1.0, max(0.0, self.done_seconds / self.total_seconds)) if self.total_seconds > 0 else 0.0


class NewStage(msgspec.Struct, frozen=True):
    pipeline: str
    config: dict[str, Any]
    skip_because: StageError | None = None
    """Set where the probe already shows that the stage has nothing to work on."""

    carried_over: bool = False
    """Completed in the job that `retry_of` names: its result, artifacts and intervals are taken from there."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a pipeline in one job."""

    pipeline: str
    config: dict[str, Any]
    """Every parameter with its value, defaults filled in."""

    status: StageStatus = StageStatus.PENDING
    progress: float = 0.0
    rate: float | None = None
    """Seconds of video worked through in a second."""

    eta_seconds: float | None = None
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    """How long the process ran."""

    annotations: int | None = None
    error: StageError | None = None
    provenance: Provenance | None = None
    usage: "Usage | None" = None
    failures: int = 0
    """Attempts that failed and were followed by another."""

    retry_at: datetime | None = None
    """The next attempt does not begin before."""

    last_error: StageError | None = None
    """What ended the last attempt that was followed by another."""

    eased: dict[str, Any] | None = None
    """Parameters changed because memory ran out; empty where there was none to change, None where it did not."""

    cached: bool = False
    """The result was not computed for this job but taken from earlier, equal work."""

    @property
    def used_config(self) -> dict[str, Any]:
        """The parameters of the next, or the last, attempt."""
        return self.config | (self.eased or {})


class StageResult(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that ended well."""

    annotations: int
    artifacts: tuple[Artifact, ...]
    intervals: tuple[Interval, ...]
    provenance: Provenance
    seconds: float
    usage: Usage | None = None
    cached: bool = False
    """Taken from earlier, equal work; then `seconds` are those of that."""
