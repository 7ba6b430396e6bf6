"""
The store in one SQLite file. This is the table of contents: each verb is one function on the writer's connection
(`queue`, `stages`, `claims`, `nouns`) or one statement on the reader's; `database` keeps the two connections,
`writer` the transactions, `events` the followers.
"""

import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

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
    Token,
    Usage,
    Video,
)
from videoannotator.keeping import OldJob, Receipt
from videoannotator.store import (
    JobPage,
    JobQuery,
    Store,
    Tally,
    batches,
    callers,
    claims,
    errands,
    events,
    inputs,
    keeping,
    nouns,
    queue,
    scanned,
    stages,
)
from videoannotator.store.bell import Bell
from videoannotator.store.database import Database
from videoannotator.store.events import Tail
from videoannotator.store.forecasts import Forecasts
from videoannotator.store.listing import page_of
from videoannotator.store.rows import JOBS, maybe_moment, milliseconds, no_job, only_job
from videoannotator.store.thinning import Place, thin_slice

P = ParamSpec("P")
T = TypeVar("T")

_ARTIFACT = ("name", "pipeline", "role", "media_type", "size", "sha256")
_OF_JOB = "WHERE job = (SELECT seq FROM jobs WHERE id = ?)"


class SqliteStore(Store):
    def __init__(
        self,
        database: Database,
        tail: Tail,
        clock: Callable[[], float],
        lease_seconds: float,
        *,
        stage_slots: int = 2,
        job_slots: int = 4,
    ) -> None:
        self._database = database
        self._forecasts = Forecasts(database, stage_slots=stage_slots, job_slots=job_slots)
        self._tail = tail
        self._clock = clock
        self._lease = round(lease_seconds * 1000)
        self._bell = Bell()
        self._cancels = Bell()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        lease_seconds: float = 30.0,
        stage_slots: int = 2,
        job_slots: int = 4,
    ) -> AsyncIterator[Self]:
        """
        The store of a directory, which is made if it does not exist. `clock` gives seconds since the epoch. Stages and
        jobs that its worker runs side by side are known for forecasts only.

        Raises:
            StorageTrouble: STORAGE_IN_USE, STORAGE_FULL, STORAGE_NOT_WRITABLE, DATABASE_DAMAGED, DATABASE_TOO_NEW.
        """
        async with Database.open(folder) as database, Tail.open(database) as tail:
            yield cls(database, tail, clock, lease_seconds, stage_slots=stage_slots, job_slots=job_slots)

    # -- jobs, from the outside

    async def add(
        self, *jobs: NewJob, batch_name: str | None = None, once: Idempotency | None = None
    ) -> tuple[Job, ...]:
        added = await self._database.write(queue.add, jobs, batch_name, once, now=self._now())
        self._bell.ring()
        return added

    async def earlier(self, once: Idempotency) -> Job | None:
        rows = await self._database.read(callers.EARLIER, callers.earlier_values(once, self._now()))
        job_id = callers.job_of(rows, once)
        return None if job_id is None else await self.get(job_id)

    async def get(self, job_id: str) -> Job:
        job = only_job(job_id, await self._database.read(f"{JOBS} WHERE id = ?", (job_id,)))
        (told,) = await self._forecasts.of([job], self._now())
        return told

    async def status(self, job_id: str) -> JobStatus:
        rows = await self._database.read("SELECT status FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise no_job(job_id)
        return JobStatus(rows[0][0])

    async def jobs(self, query: JobQuery) -> JobPage:
        return await page_of(self._database, self._forecasts, query, self._now())

    async def counts(self) -> dict[JobStatus, int]:
        rows = await self._database.read("SELECT status, count(*) FROM jobs GROUP BY status")
        return nouns.every_status({JobStatus(status): number for status, number in rows})

    async def tally(self) -> Tally:
        stages = await self._database.read(nouns.STAGE_TALLY)
        ((oldest,),) = await self._database.read(nouns.OLDEST_PENDING)
        return Tally(
            jobs=await self.counts(),
            stages=tuple(nouns.stage_tally_from(row) for row in stages),
            oldest_pending_at=maybe_moment(oldest),
        )

    async def request_cancel(self, job_id: str) -> Job:
        job = await self._database.write(queue.request_cancel, job_id, now=self._now())
        self._cancels.ring()
        return job

    async def remove(self, job_id: str) -> None:
        await self._database.write(queue.begin_removal, job_id, now=self._now())
        while not await self._database.write(queue.remove_slice, job_id):
            pass
        self._tail.forget(job_id)

    async def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        sql = f"SELECT {', '.join(_ARTIFACT)}, in_zip FROM artifacts {_OF_JOB} ORDER BY name"  # noqa: S608
        return tuple(_artifact(row) for row in await self._database.read(sql, (job_id,)))

    async def intervals_by_pipeline(self, job_id: str) -> tuple[tuple[str, Interval], ...]:
        columns = "pipeline, kind, onset, duration, label, track"
        sql = f"SELECT {columns} FROM annotations {_OF_JOB} ORDER BY onset, id"  # noqa: S608
        rows = await self._database.read(sql, (job_id,))
        return tuple((pipeline, Interval(*values)) for pipeline, *values in rows)

    async def intervals(self, job_id: str) -> tuple[Interval, ...]:
        sql = f"SELECT kind, onset, duration, label, track FROM annotations {_OF_JOB} ORDER BY onset, id"  # noqa: S608
        return tuple(Interval(*row) for row in await self._database.read(sql, (job_id,)))

    # -- jobs, from a worker

    async def claim(self, worker: str) -> Claim | None:
        return await self._database.write(claims.claim, worker, now=self._now(), lease=self._lease)

    async def heartbeat(self, claim: Claim) -> bool:
        return await self._fenced(claims.heartbeat, claim, now=self._now(), lease=self._lease)

    async def start_stage(self, claim: Claim, pipeline: str) -> int:
        return await self._fenced(stages.start, claim, pipeline, now=self._now())

    async def note_progress(self, claim: Claim, pipeline: str, progress: Progress) -> None:
        await self._fenced(stages.note_progress, claim, pipeline, progress, now=self._now())

    async def note_video_hash(self, claim: Claim, sha256: str) -> None:
        await self._fenced(claims.note_video_hash, claim, sha256=sha256)

    async def log(self, claim: Claim, pipeline: str | None, level: str, message: str) -> None:
        await self._fenced(claims.log, claim, pipeline=pipeline, level=level, message=message, now=self._now())

    async def finish_stage(self, claim: Claim, pipeline: str, result: StageResult) -> None:
        await self._fenced(stages.finish, claim, pipeline, result, now=self._now())

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
        now = self._now()
        await self._fenced(stages.fail, claim, pipeline, error, seconds=seconds, usage=usage, partial=partial, now=now)

    async def put_back_stage(
        self, claim: Claim, pipeline: str, error: StageError, *, delay_seconds: float, eased: dict[str, Any] | None
    ) -> Stage:
        delay = round(delay_seconds * 1000)
        return await self._fenced(stages.put_back, claim, pipeline, error, delay=delay, eased=eased, now=self._now())

    async def note_video(self, claim: Claim, video: Video, path: Path, planned: Sequence[NewStage]) -> Job:
        await self._fenced(errands.note_video, claim, video=video, path=path, planned=planned, now=self._now())
        return await self.get(claim.job.id)

    async def finish(
        self, claim: Claim, *, not_shown: tuple[str, ...] = (), shortfall: StageError | None = None
    ) -> Job:
        return await self._fenced(queue.finish, claim, not_shown=not_shown, shortfall=shortfall, now=self._now())

    async def fail(self, claim: Claim, error: StageError) -> Job:
        return await self._fenced(queue.fail, claim, error, now=self._now())

    async def finish_cancelled(self, claim: Claim) -> Job:
        return await self._fenced(queue.finish_cancelled, claim, now=self._now())

    async def thin_progress(self, job_id: str) -> None:
        place: Place | None = Place()
        while place is not None:
            place = await self._database.write(thin_slice, job_id, place)

    async def give_back(self, claim: Claim) -> None:
        await self._fenced(queue.give_back, claim, now=self._now())

    async def take_back(self, *, expired_only: bool = False, max_attempts: int = 3) -> list[Job]:
        taken = await self._database.write(
            queue.take_back, expired_only=expired_only, max_attempts=max_attempts, now=self._now()
        )
        if taken:
            self._bell.ring()
        return taken

    # -- who is told

    async def due_callbacks(self, limit: int) -> tuple[Job, ...]:
        rows = await self._database.read(errands.DUE, (self._now(), limit))
        return tuple([await self.get(job_id) for (job_id,) in rows])

    async def note_callback(
        self,
        job_id: str,
        *,
        state: Literal["waiting", "delivered", "given_up"],
        next_at: datetime,
        status: int | None,
        error: str | None,
    ) -> None:
        await self._database.write(
            errands.note_attempt,
            job_id,
            state=state,
            next_at=milliseconds(next_at),
            status=status,
            error=error,
            now=self._now(),
        )

    # -- what happens

    def follow(
        self, *, after: int | None = None, job_id: str | None = None, batch_id: str | None = None
    ) -> AsyncGenerator[Event, None]:
        return self._tail.follow(after, job_id, batch_id)

    def follow_together(
        self,
        *,
        after: int | None = None,
        job_id: str | None = None,
        batch_id: str | None = None,
        pause_seconds: float,
    ) -> AsyncGenerator[Heard, None]:
        return self._tail.batches(after, job_id, batch_id, pause_seconds)

    async def last_seq(self) -> int:
        return self._database.newest_event

    async def job_events(self, job_id: str, event_type: str) -> tuple[Event, ...]:
        return await events.of_job(self._database, job_id, event_type)

    async def wait_for_work(self, heard: int, limit_seconds: float) -> int:
        return await self._bell.wait(limit_seconds, heard)

    async def wait_for_cancels(self, heard: int, limit_seconds: float) -> int:
        return await self._cancels.wait(limit_seconds, heard)

    # -- the small nouns

    async def add_token(self, token: Token, secret_hash: str) -> None:
        await self._database.write(nouns.add_token, token, secret_hash)

    async def token_by_hash(self, secret_hash: str) -> Token | None:
        rows = await self._database.read(f"{nouns.TOKENS} WHERE secret_hash = ?", (secret_hash,))
        return nouns.token_from(rows[0]) if rows else None

    async def tokens(self) -> tuple[Token, ...]:
        rows = await self._database.read(f"{nouns.TOKENS} ORDER BY created_at, id")
        return tuple(nouns.token_from(row) for row in rows)

    async def token(self, token_id: str) -> Token:
        rows = await self._database.read(f"{nouns.TOKENS} WHERE id = ?", (token_id,))
        if not rows:
            raise nouns.no_token(token_id)
        return nouns.token_from(rows[0])

    async def revoke_token(self, token_id: str, *, keep_an_admin: bool = False) -> None:
        await self._database.write(nouns.revoke_token, token_id, keep_an_admin=keep_an_admin, now=self._now())

    async def preferences(self, caller: str) -> Preferences:
        return callers.preferences_from(await self._database.read(callers.PREFERENCES, (caller,)))

    async def put_preferences(self, caller: str, preferences: Preferences) -> None:
        await self._database.write(callers.put_preferences, caller, preferences)

    async def put_preset(self, preset: Preset) -> None:
        await self._database.write(nouns.put_preset, preset)

    async def presets(self) -> tuple[Preset, ...]:
        return tuple(nouns.preset_from(row) for row in await self._database.read(nouns.PRESETS))

    async def remove_preset(self, name: str) -> None:
        await self._database.write(nouns.remove_preset, name)

    async def add_dataset(self, dataset: Dataset) -> None:
        await self._database.write(nouns.add_dataset, dataset)

    async def dataset(self, dataset_id: str) -> Dataset:
        rows = await self._database.read(f"{nouns.DATASETS} WHERE id = ?", (dataset_id,))
        if not rows:
            raise nouns.no_dataset(dataset_id)
        return nouns.dataset_from(rows[0])

    async def datasets(self) -> tuple[Dataset, ...]:
        rows = await self._database.read(f"{nouns.DATASETS} ORDER BY name")
        return tuple(nouns.dataset_from(row) for row in rows)

    async def remove_dataset(self, dataset_id: str) -> None:
        await self._database.write(nouns.remove_dataset, dataset_id)

    async def add_upload(self, upload: ResumableUpload) -> None:
        await self._database.write(inputs.add_upload, upload)

    async def upload(self, upload_id: str) -> ResumableUpload:
        rows = await self._database.read(f"{inputs.UPLOADS} WHERE id = ?", (upload_id,))
        if not rows:
            raise inputs.no_upload(upload_id)
        return inputs.upload_from(rows[0])

    async def uploads(self) -> tuple[ResumableUpload, ...]:
        rows = await self._database.read(f"{inputs.UPLOADS} ORDER BY expires_at, id")
        return tuple(inputs.upload_from(row) for row in rows)

    async def note_received(self, upload_id: str, received: int, expires_at: datetime) -> None:
        await self._database.write(inputs.note_received, upload_id, received, milliseconds(expires_at))

    async def remove_upload(self, upload_id: str) -> None:
        await self._database.write(inputs.remove_upload, upload_id)

    async def begin_scan(self, dataset_id: str) -> Scan:
        await self._database.write(scanned.begin, dataset_id, now=self._now())
        ((*row,),) = await self._database.read(f"{scanned.SCANS} WHERE dataset_id = ?", (dataset_id,))
        return scanned.scan_from(row)

    async def scan(self, dataset_id: str) -> Scan | None:
        rows = await self._database.read(f"{scanned.SCANS} WHERE dataset_id = ?", (dataset_id,))
        return scanned.scan_from(rows[0]) if rows else None

    async def note_scanned(self, dataset_id: str, number: int, found: int, videos: Sequence[DatasetVideo]) -> None:
        await self._database.write(scanned.note, dataset_id, number, found, videos)

    async def end_scan(
        self, dataset_id: str, number: int, state: Literal["completed", "failed"], message: str | None
    ) -> None:
        await self._database.write(scanned.end, dataset_id, number, state, message, now=self._now())

    async def interrupt_scans(self) -> None:
        await self._database.write(scanned.interrupt, now=self._now())

    async def dataset_videos(
        self, dataset_id: str, *, limit: int | None = None, offset: int = 0
    ) -> tuple[DatasetVideo, ...]:
        sql = f"{scanned.VIDEOS} WHERE dataset_id = ? ORDER BY path LIMIT ? OFFSET ?"
        rows = await self._database.read(sql, (dataset_id, -1 if limit is None else limit, offset))
        return tuple(scanned.video_from(row) for row in rows)

    async def count_dataset_videos(self, dataset_id: str) -> tuple[int, int]:
        sql = "SELECT count(*), count(error_code) FROM dataset_videos WHERE dataset_id = ?"
        ((total, unreadable),) = await self._database.read(sql, (dataset_id,))
        return total, unreadable

    async def batch(self, batch_id: str) -> Batch:
        rows = await self._database.read(f"{nouns.BATCHES} WHERE id = ?", (batch_id,))
        if not rows:
            raise nouns.no_batch(batch_id)
        return nouns.batch_from(rows[0])

    async def batches(self) -> tuple[Batch, ...]:
        """Newest first."""
        rows = await self._database.read(f"{nouns.BATCHES} ORDER BY created_at DESC, id DESC")
        return tuple(nouns.batch_from(row) for row in rows)

    # -- batches whose videos are looked at one by one

    async def add_batch(self, name: str, plan: BatchPlan, videos: Sequence[str]) -> str:
        return await self._database.write(batches.add, name, plan, videos, now=self._now())

    async def extend_batch(self, batch_id: str, videos: Sequence[str]) -> None:
        await self._database.write(batches.extend, batch_id, videos)

    async def batch_inputs(self, batch_id: str, state: InputState | None = None) -> tuple[BatchInput, ...]:
        return await batches.inputs_of(self._database, batch_id, state)

    async def unfinished_batches(self) -> tuple[str, ...]:
        return await batches.unfinished(self._database)

    async def admit_input(self, batch_id: str, position: int, job: NewJob) -> Job:
        added = await self._database.write(batches.admit, batch_id, position, job, now=self._now())
        self._bell.ring()
        return added

    async def reject_input(self, batch_id: str, position: int, error: StageError) -> None:
        await self._database.write(batches.reject, batch_id, position, error)

    async def skip_input(self, batch_id: str, position: int, done_by: str) -> None:
        await self._database.write(batches.skip, batch_id, position, done_by)

    async def batch_page(self, limit: int, offset: int) -> tuple[tuple[Batch, ...], int]:
        return await batches.page(self._database, limit, offset)

    async def batch_tally(self, batch_id: str) -> BatchTally:
        return await batches.tally(self._database, batch_id)

    async def latest_jobs(self, batch_id: str) -> dict[str, Job]:
        return await batches.latest_jobs(self._database, batch_id)

    async def batch_result_sizes(self, batch_id: str) -> dict[str, int]:
        return await batches.result_sizes(self._database, batch_id)

    async def cancel_batch(self, batch_id: str) -> None:
        await self._database.write(batches.cancel_waiting, batch_id)
        while await self._database.write(batches.cancel_slice, batch_id, now=self._now()):
            self._cancels.ring()

    async def pause_batch(self, batch_id: str) -> None:
        await self._database.write(batches.pause, batch_id, now=self._now())

    async def resume_batch(self, batch_id: str) -> None:
        await self._database.write(batches.resume, batch_id)
        self._bell.ring()

    async def has_finished_of_size(self, size_bytes: int) -> bool:
        return await batches.has_finished_of_size(self._database, size_bytes)

    async def finished_with(self, sha256: str) -> tuple[Job, ...]:
        return await batches.finished_with(self._database, sha256)

    # -- what is kept

    async def finished_before(self, before: datetime, limit: int) -> tuple[OldJob, ...]:
        return await keeping.finished_before(self._database, milliseconds(before), limit)

    async def remove_old_batches(self, before: datetime) -> int:
        removed = 0
        while some := await self._database.write(keeping.remove_old_batches, milliseconds(before), 100):
            removed += some
        return removed

    async def jobs_with_content(self, sha256: str) -> tuple[str, ...]:
        return await keeping.jobs_with_content(self._database, sha256)

    async def jobs_with_tag(self, tag: str) -> tuple[str, ...]:
        return await keeping.jobs_with_tag(self._database, tag)

    def jobs_of_unknown_content(self) -> AsyncIterator[tuple[str, Path]]:
        return keeping.jobs_of_unknown_content(self._database)

    def tags_in_copies(self, job_ids: Iterable[str]) -> Mapping[str, frozenset[str]]:
        return keeping.tags_in_copies(self._database.folder, job_ids)

    async def add_finished(self, job: NewJob, results: Mapping[str, StageResult]) -> Job:
        return await self._database.write(keeping.add_finished, job, results, now=self._now())

    async def forget_names(self, job_ids: Sequence[str]) -> None:
        await self._database.write(keeping.forget_names, job_ids)

    async def forget_tag(self, tag: str) -> int:
        return await self._database.write(keeping.forget_tag, tag)

    async def forget_scanned(self, videos: Sequence[Path]) -> None:
        await self._database.write(keeping.forget_scanned, videos)

    async def put_receipt(self, receipt: Receipt) -> None:
        await self._database.write(keeping.put_receipt, receipt)

    async def receipts(self) -> tuple[Receipt, ...]:
        return await keeping.receipts(self._database)

    async def truncate_wal(self) -> bool:
        return await self._database.write_alone(keeping.truncate_wal)

    async def vacuum(self) -> None:
        await self._database.write_alone(keeping.vacuum)

    def remains(self, needles: Sequence[str]) -> bool:
        return keeping.remains(self._database.folder, needles)

    async def _fenced(
        self,
        work: Callable[Concatenate[sqlite3.Connection, Claim, P], T],
        claim: Claim,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Every write under a claim goes through here, and its SQL holds it against the claim's token."""
        return await self._database.write(work, claim, *args, **kwargs)

    def _now(self) -> int:
        return round(self._clock() * 1000)


def _artifact(row: Sequence[Any]) -> Artifact:
    *columns, in_zip = row
    return Artifact(**dict(zip(_ARTIFACT, columns, strict=True)), in_zip=bool(in_zip))
