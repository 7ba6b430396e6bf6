"""
The store: what everything above relies on, in verbs. `sqlite.py` keeps the promises; nothing else imports SQLite.

Promises of every verb that writes: when it returns, the change and its event are on disk together; when it raises,
neither is. A status never leaves a final state. Writes that carry a `Claim` are fenced: a worker whose lease was taken
away gets LeaseLost, and nothing it wrote afterwards exists.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from videoannotator.batches import BatchInput, BatchPlan, BatchTally, InputState
from videoannotator.jobs import (
    Artifact,
    Batch,
    Claim,
    Dataset,
    DatasetVideo,
    Event,
    Heard,
    Idempotency,
    Interval,
    Job,
    JobStatus,
    NewJob,
    NewStage,
    Preferences,
    Preset,
    Progress,
    ResumableUpload,
    Scan,
    Stage,
    StageError,
    StageResult,
    StageStatus,
    Token,
    Usage,
    Video,
)
from videoannotator.keeping import OldJob, Receipt


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to list, newest first unless `oldest_first`."""

    status: JobStatus | None = None
    tag: str | None = None
    batch_id: str | None = None
    text: str | None = None
    """Part of the video's name."""

    created_after: float | None = None
    """Seconds since the epoch."""

    created_before: float | None = None
    oldest_first: bool = False
    limit: int = 10
    offset: int = 0


class JobPage(msgspec.Struct, frozen=True):
    jobs: tuple[Job, ...]
    total: int


class StageTally(msgspec.Struct, frozen=True):
    pipeline: str
    status: StageStatus
    number: int
    seconds: float
    """What they ran, all together."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is of what, for monitors."""

    jobs: dict[JobStatus, int]
    """States without any included."""

    stages: tuple[StageTally, ...]
    oldest_pending_at: datetime | None
    """Since when the job waits that waits longest."""


class Store(Protocol):
    # -- jobs, from the outside

    async def add(
        self, *jobs: NewJob, batch_name: str | None = None, once: Idempotency | None = None
    ) -> tuple[Job, ...]:
        """
        Queue jobs, all or none, and ring for the worker. With `batch_name` they are one batch, whose id their
        `batch_id` then is. With `once`, a single job; the answer is the job of the same request's first sending,
        another id than the given one's, where there was one.

        Raises:
            Conflict: IDEMPOTENCY_KEY_REUSED.
        """

    async def earlier(self, once: Idempotency) -> Job | None:
        """
        The job that this request made when it was sent before, in the last 24 hours.

        Raises:
            Conflict: IDEMPOTENCY_KEY_REUSED, for another body or for a job that was deleted since.
        """

    async def get(self, job_id: str) -> Job:
        """Raises NotFound (JOB_NOT_FOUND)."""

    async def status(self, job_id: str) -> JobStatus:
        """The same and no more, for who asks often. Raises NotFound (JOB_NOT_FOUND)."""

    async def jobs(self, query: JobQuery) -> JobPage:
        """One page; a page past the end is empty and still knows the total."""

    async def counts(self) -> dict[JobStatus, int]:
        """How many jobs are in each state, states without any included."""

    async def tally(self) -> Tally:
        """Counted in the indexes, without reading the rows."""

    async def request_cancel(self, job_id: str) -> Job:
        """
        A pending job is cancelled at once; a running one becomes `cancelling` and its worker sees to it; one already
        cancelled or being cancelled stays as it is.

        Raises:
            NotFound: JOB_NOT_FOUND.
            Conflict: JOB_ALREADY_FINISHED.
        """

    async def remove(self, job_id: str) -> None:
        """
        Forget a job that is pending or final, and all that hangs on it.

        Raises:
            NotFound: JOB_NOT_FOUND.
            Conflict: JOB_STILL_RUNNING; cancel it first.
        """

    async def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        """What the completed stages of a job made, ordered by name."""

    async def intervals(self, job_id: str) -> tuple[Interval, ...]:
        """The index over a job's annotations, ordered by onset."""

    async def intervals_by_pipeline(self, job_id: str) -> tuple[tuple[str, Interval], ...]:
        """The same with the pipeline that found each."""

    # -- jobs, from a worker

    async def claim(self, worker: str) -> Claim | None:
        """The pending job of the highest priority that waits longest, now running and leased; None if there is none."""

    async def heartbeat(self, claim: Claim) -> bool:
        """Renew the lease; whether somebody asked for cancellation. Raises LeaseLost."""

    async def start_stage(self, claim: Claim, pipeline: str) -> int:
        """Note that a stage begins; which attempt this is, from 1. Raises LeaseLost."""

    async def note_progress(self, claim: Claim, pipeline: str, progress: Progress) -> None:
        """Raises LeaseLost."""

    async def note_video_hash(self, claim: Claim, sha256: str) -> None:
        """Raises LeaseLost."""

    async def log(self, claim: Claim, pipeline: str | None, level: str, message: str) -> None:
        """Raises LeaseLost."""

    async def finish_stage(self, claim: Claim, pipeline: str, result: StageResult) -> None:
        """
        The stage is completed, its artifacts and intervals are known and its warnings stand in the job's log, in one
        transaction. A cached result needs no `start_stage` before it. Raises LeaseLost.
        """

    async def fail_stage(
        self,
        claim: Claim,
        pipeline: str,
        error: StageError,
        *,
        seconds: float,
        usage: Usage | None = None,
        partial: Sequence[Artifact] = (),
    ) -> None:
        """The stage failed; `partial` artifacts, of what it found before, are known. Raises LeaseLost."""

    async def put_back_stage(
        self, claim: Claim, pipeline: str, error: StageError, *, delay_seconds: float, eased: dict[str, Any] | None
    ) -> Stage:
        """
        The attempt failed and another follows, not before `delay_seconds` have passed: pending, with `retry_at`, also
        after a restart. `eased` are parameters that are changed for it. Raises LeaseLost.
        """

    async def note_video(self, claim: Claim, video: Video, path: Path, planned: Sequence[NewStage]) -> Job:
        """
        The video that was fetched for a job: of the `planned` stages, those that have nothing to do on it are skipped,
        and those that the job did not have come in addition. Raises LeaseLost.
        """

    async def finish(
        self, claim: Claim, *, not_shown: tuple[str, ...] = (), shortfall: StageError | None = None
    ) -> Job:
        """
        The job is over, and how follows from its stages: all completed, `completed` and full; some, `completed` and
        partial; none, or nothing but the copy for browsers, `failed`. Sentences on what the Viewer would not show make
        a completed job partial too. Raises LeaseLost. A job being cancelled must go
        through `finish_cancelled`; here it raises Conflict (JOB_BEING_CANCELLED).
        """

    async def fail(self, claim: Claim, error: StageError) -> Job:
        """The job failed as a whole; what stages completed stays readable. Raises LeaseLost."""

    async def finish_cancelled(self, claim: Claim) -> Job:
        """Everything the job had started is gone. Raises LeaseLost."""

    async def thin_progress(self, job_id: str) -> None:
        """
        Forget what a job that has ended reported between each stage's first report and its last. Every other event
        stays, and a replay tells what is left in order. Nothing happens to a job that goes on.
        """

    async def give_back(self, claim: Claim) -> None:
        """The server stops: pending again, or cancelled if that was asked; the attempt does not count."""

    async def take_back(self, *, expired_only: bool = False, max_attempts: int = 3) -> list[Job]:
        """
        Put what an earlier life left running back to pending; completed stages stay completed. A job begun
        `max_attempts` times becomes failed (CRASHED_TOO_OFTEN), one being cancelled becomes cancelled. Call before the
        first claim. `expired_only` leaves alone whose lease still runs.
        """

    # -- who is told

    async def due_callbacks(self, limit: int) -> tuple[Job, ...]:
        """Jobs that are over and whose callback is due, those that wait longest first."""

    async def note_callback(
        self,
        job_id: str,
        *,
        state: Literal["waiting", "delivered", "given_up"],
        next_at: datetime,
        status: int | None,
        error: str | None,
    ) -> None:
        """One more attempt was made."""

    # -- what happens

    def follow(
        self, *, after: int | None = None, job_id: str | None = None, batch_id: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """
        Every event with `seq > after`, in order, without gap or repeat, for ever; None means from now on. The first
        event may take any time; close the iterator to stop.
        """

    def follow_together(
        self,
        *,
        after: int | None = None,
        job_id: str | None = None,
        batch_id: str | None = None,
        pause_seconds: float,
    ) -> AsyncGenerator[Heard, None]:
        """The same for who sends them on: as many at once as there are, and an empty one after each pause."""

    async def last_seq(self) -> int:
        """The seq of the newest event, 0 where there is none."""

    async def job_events(self, job_id: str, event_type: str) -> tuple[Event, ...]: ...

    async def wait_for_work(self, heard: int, limit_seconds: float) -> int:
        """
        Until the worker's bell has rung more than `heard` times (a job was added or taken back, a batch goes on), or
        the limit; how often it has rung. Begin with 0 and hand on the answer: then no ring between two waits is
        missed, whoever else waits.
        """

    async def wait_for_cancels(self, heard: int, limit_seconds: float) -> int:
        """The same for the bell of those that run: somebody asked to cancel a job, any job."""

    # -- the small nouns

    async def add_token(self, token: Token, secret_hash: str) -> None: ...

    async def token_by_hash(self, secret_hash: str) -> Token | None: ...

    async def token(self, token_id: str) -> Token:
        """Raises NotFound (TOKEN_NOT_FOUND)."""

    async def tokens(self) -> tuple[Token, ...]: ...

    async def revoke_token(self, token_id: str, *, keep_an_admin: bool = False) -> None:
        """
        Raises:
            NotFound: TOKEN_NOT_FOUND.
            Conflict: LAST_ADMIN_TOKEN, with `keep_an_admin` and none left that could make another.
        """

    async def preferences(self, caller: str) -> Preferences:
        """Empty ones where nothing was said yet."""

    async def put_preferences(self, caller: str, preferences: Preferences) -> None: ...

    async def put_preset(self, preset: Preset) -> None: ...

    async def presets(self) -> tuple[Preset, ...]: ...

    async def remove_preset(self, name: str) -> None:
        """Raises NotFound (PRESET_NOT_FOUND)."""

    async def add_dataset(self, dataset: Dataset) -> None:
        """Raises Conflict (DATASET_EXISTS) where the name is taken."""

    async def dataset(self, dataset_id: str) -> Dataset:
        """Raises NotFound (DATASET_NOT_FOUND)."""

    async def datasets(self) -> tuple[Dataset, ...]: ...

    async def remove_dataset(self, dataset_id: str) -> None:
        """Raises NotFound (DATASET_NOT_FOUND). Jobs made from it stay."""

    # -- resumable uploads

    async def add_upload(self, upload: ResumableUpload) -> None: ...

    async def upload(self, upload_id: str) -> ResumableUpload:
        """Raises NotFound (UPLOAD_NOT_FOUND)."""

    async def uploads(self) -> tuple[ResumableUpload, ...]:
        """All of them, whoever owns them; those that expire first come first."""

    async def note_received(self, upload_id: str, received: int, expires_at: datetime) -> None:
        """Raises NotFound (UPLOAD_NOT_FOUND)."""

    async def remove_upload(self, upload_id: str) -> None:
        """Raises NotFound (UPLOAD_NOT_FOUND)."""

    # -- scans of datasets

    async def begin_scan(self, dataset_id: str) -> Scan:
        """Raises NotFound (DATASET_NOT_FOUND), Conflict (SCAN_RUNNING)."""

    async def scan(self, dataset_id: str) -> Scan | None:
        """The latest; None where there was none."""

    async def note_scanned(self, dataset_id: str, number: int, found: int, videos: Sequence[DatasetVideo]) -> None:
        """Raises NotFound (DATASET_NOT_FOUND)."""

    async def end_scan(
        self, dataset_id: str, number: int, state: Literal["completed", "failed"], message: str | None
    ) -> None: ...

    async def interrupt_scans(self) -> None: ...

    async def dataset_videos(
        self, dataset_id: str, *, limit: int | None = None, offset: int = 0
    ) -> tuple[DatasetVideo, ...]:
        """Ordered by path."""

    async def count_dataset_videos(self, dataset_id: str) -> tuple[int, int]:
        """All, and those that cannot be read."""

    # -- batches

    async def batch(self, batch_id: str) -> Batch:
        """Raises NotFound (BATCH_NOT_FOUND)."""

    async def batches(self) -> tuple[Batch, ...]: ...

    # -- what is kept

    async def finished_before(self, before: datetime, limit: int) -> tuple[OldJob, ...]:
        """Final jobs that ended before then, oldest first."""

    async def remove_old_batches(self, before: datetime) -> int:
        """How many batches from before then, of which no job is left and nothing waits, were removed."""

    async def jobs_with_content(self, sha256: str) -> tuple[str, ...]: ...

    async def jobs_with_tag(self, tag: str) -> tuple[str, ...]: ...

    def jobs_of_unknown_content(self) -> AsyncIterator[tuple[str, Path]]:
        """Jobs whose video nobody has read to its end yet, and where it is; fetched slice by slice."""

    def tags_in_copies(self, job_ids: Iterable[str]) -> Mapping[str, frozenset[str]]:
        """The tags of these jobs, as far as copies of the database from before an upgrade know them. Blocks."""

    async def add_finished(self, job: NewJob, results: Mapping[str, StageResult]) -> Job:
        """A job that was done elsewhere, completed; `results` has one for each of its stages."""

    async def forget_names(self, job_ids: Sequence[str]) -> None:
        """Batches keep a line for each of these jobs, without the video's name."""

    async def forget_tag(self, tag: str) -> int:
        """
        How many batches were submitted with this tag: they lose it with their name, and the names of videos that no
        job was made of.
        """

    async def forget_scanned(self, videos: Sequence[Path]) -> None:
        """Scans of datasets name these no more."""

    async def put_receipt(self, receipt: Receipt) -> None:
        """A later one with the same id takes its place."""

    async def receipts(self) -> tuple[Receipt, ...]:
        """Oldest first."""

    async def truncate_wal(self) -> bool:
        """Empty the log of writes, which holds pages as they were; False where a reader was in the way."""

    async def vacuum(self) -> None:
        """Write the whole database anew; all other writes wait."""

    def remains(self, needles: Sequence[str]) -> bool:
        """Whether one of these texts is anywhere in the database's bytes. Blocks: call it in a thread."""

    # -- batches whose videos are looked at one by one

    async def add_batch(self, name: str, plan: BatchPlan, videos: Sequence[str]) -> str:
        """Put on record which videos are to be looked at; the batch's id."""

    async def extend_batch(self, batch_id: str, videos: Sequence[str]) -> None:
        """Raises NotFound (BATCH_NOT_FOUND), Conflict (BATCH_HAS_NO_PLAN)."""

    async def batch_inputs(self, batch_id: str, state: InputState | None = None) -> tuple[BatchInput, ...]:
        """In the order in which they were named."""

    async def unfinished_batches(self) -> tuple[str, ...]:
        """Those with videos that wait to be looked at, oldest first."""

    async def admit_input(self, batch_id: str, position: int, job: NewJob) -> Job:
        """The video has a job now, which is queued. Raises Conflict (INPUT_NOT_WAITING)."""

    async def reject_input(self, batch_id: str, position: int, error: StageError) -> None:
        """No job is made of it. Raises Conflict (INPUT_NOT_WAITING)."""

    async def skip_input(self, batch_id: str, position: int, done_by: str) -> None:
        """No job is made of it, because that one did it before. Raises Conflict (INPUT_NOT_WAITING)."""

    async def batch_page(self, limit: int, offset: int) -> tuple[tuple[Batch, ...], int]:
        """Newest first, and how many there are in all."""

    async def batch_tally(self, batch_id: str) -> BatchTally: ...

    async def latest_jobs(self, batch_id: str) -> dict[str, Job]:
        """The latest retry of each of its jobs, by the id of the first."""

    async def batch_result_sizes(self, batch_id: str) -> dict[str, int]:
        """Bytes of the files of each of its jobs that has some, by the job's id."""

    async def cancel_batch(self, batch_id: str) -> None:
        """What waits, is pending or runs is cancelled or being cancelled. Raises NotFound (BATCH_NOT_FOUND)."""

    async def pause_batch(self, batch_id: str) -> None:
        """Nothing of it is claimed until `resume_batch`. Raises NotFound (BATCH_NOT_FOUND)."""

    async def resume_batch(self, batch_id: str) -> None:
        """Raises NotFound (BATCH_NOT_FOUND)."""

    async def has_finished_of_size(self, size_bytes: int) -> bool:
        """Whether there is a completed job on a file of exactly this size, so that it is worth reading another."""

    async def finished_with(self, sha256: str) -> tuple[Job, ...]:
        """Completed jobs on files with this content, newest first; 50 at most."""
