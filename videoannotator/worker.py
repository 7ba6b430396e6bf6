"""
Takes jobs from the store, runs their stages in processes of their own, and sees every job to one ending.

The worker is one task. It claims while it has room; each job is a task below it, and each stage one below that. Whoever
cancels the worker gets it back only when no stage is left and every job is pending again.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from videoannotator.artifacts import Artifacts, sha256
from videoannotator.errors import Conflict, LeaseLost, StageEnded, StorageTrouble, VideoAnnotatorError
from videoannotator.jobs import Artifact, Claim, Job, JobStatus, Progress, Stage, StageError, StageResult, StageStatus
from videoannotator.logs import get_logger
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.runner.messages import Done, Log, Start
from videoannotator.runner.messages import Progress as Report
from videoannotator.runner.process import Limits, Runner
from videoannotator.scheduler import Scheduler
from videoannotator.settings import Settings
from videoannotator.store import Store

LOOK_AGAIN_SECONDS = 1.0
_TRY_AGAIN_SECONDS = 2.0
_PASSING = frozenset({"STORAGE_FULL", "STORAGE_NOT_WRITABLE"})
"""Troubles of the storage that an operator can end while the server runs."""

T = TypeVar("T")

log = get_logger(__name__)


class Worker:
    def __init__(
        self, *, store: Store, artifacts: Artifacts, runner: Runner, catalogue: Catalogue, settings: Settings
    ) -> None:
        self.store = store
        self.artifacts = artifacts
        self.runner = runner
        self.catalogue = catalogue
        self.settings = settings
        self.scheduler = Scheduler(settings.stage_slots)
        self.trouble: StorageTrouble | None = None
        """Why nothing can be recorded at the moment; None as soon as something could."""

        self.in_trouble = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        self._heard = 0

    @property
    def active_jobs(self) -> int:
        return len(self._jobs)

    async def recover(self) -> list[Job]:
        """Take back what an earlier life left running. Must end before `run` begins."""
        return await self.store.take_back(max_attempts=self.settings.max_attempts)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self.insist(self._claim_while_there_is_room)
                await self._wait()
        finally:
            await _end(self._jobs)

    async def insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write again and again while the disk is full: what has happened must be recorded, however late."""
        while True:
            try:
                written = await write()
            except StorageTrouble as trouble:
                if trouble.code not in _PASSING:
                    raise
                if self.trouble is None:
                    log.warning("the storage cannot be written; trying again", reason=str(trouble))
                self.trouble = trouble
                self.in_trouble.set()
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
            else:
                self.trouble = None
                self.in_trouble.clear()
                return written

    async def _claim_while_there_is_room(self) -> None:
        while len(self._jobs) < self.settings.max_concurrent_jobs:
            claim = await self.store.claim("worker")
            if claim is None:
                return
            task = asyncio.create_task(_JobRun(self, claim).work(), name=f"job {claim.job.id}")
            self._jobs.add(task)

    async def _wait(self) -> None:
        """Until a job ends, the bell rings, or it is time to look again. A job's task never raises on purpose."""
        bell = asyncio.create_task(self._listen(), name="bell")
        try:
            done, _ = await asyncio.wait({bell, *self._jobs}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end({bell})
        for task in done - {bell}:
            self._jobs.discard(task)
            task.result()

    async def _listen(self) -> None:
        self._heard = await self.store.wait_for_work(self._heard, LOOK_AGAIN_SECONDS)


class _JobRun:
    """One claimed job, from claim to ending."""

    def __init__(self, worker: Worker, claim: Claim) -> None:
        self._worker = worker
        self._claim = claim
        self._store = worker.store
        self._artifacts = worker.artifacts
        self._settings = worker.settings
        self._insist = worker.insist
        self._log = log.bind(job_id=claim.job.id)

    async def work(self) -> None:
        try:
            await self._until_an_ending()
        except LeaseLost:
            self._log.warning("the job was taken away; nothing more is written for it")
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._give_back()))
            raise
        except StorageTrouble as trouble:
            if trouble.code not in _PASSING and trouble.code != "RESULT_MISSING":
                raise
            await self._fail(StageError(trouble.code, str(trouble)))
        except Exception as bug:
            self._log.exception("a bug of ours in one job")
            await self._fail(StageError("INTERNAL_ERROR", f"The server failed on this job: {type(bug).__name__}."))

    async def _until_an_ending(self) -> None:
        stages = asyncio.create_task(self._run_stages(), name=f"stages of {self._claim.job.id}")
        watch = asyncio.create_task(self._until_cancel_is_asked(), name=f"watch of {self._claim.job.id}")
        try:
            await asyncio.wait({stages, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end({stages, watch})
        if watch.done() and not watch.cancelled() and (lost := watch.exception()):
            raise lost
        if stages.cancelled():
            await self._finish_cancelled()
            return
        stages.result()
        await self._finish()

    async def _run_stages(self) -> None:
        job = self._claim.job
        await asyncio.to_thread(self._artifacts.settle, job.id, await self._store.artifacts(job.id))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hash_video(), name=f"hash of {job.id}")
                for stage in job.stages:
                    if not stage.status.is_final:
                        group.create_task(self._run_stage(stage), name=f"{stage.pipeline} of {job.id}")
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _hash_video(self) -> None:
        if self._claim.job.video.sha256 is not None:
            return
        stop = threading.Event()
        try:
            digest = await asyncio.to_thread(sha256, self._claim.job.video_path, stop)
        finally:
            stop.set()
        await self._store.note_video_hash(self._claim, digest)

    async def _run_stage(self, stage: Stage) -> None:
        job, token = self._claim.job, self._claim.token
        async with self._worker.scheduler.room():
            await self._store.start_stage(self._claim, stage.pipeline)
            folder = await asyncio.to_thread(self._artifacts.begin, job.id, stage.pipeline, token)
            started = time.monotonic()
            try:
                done = await self._run_process(stage, folder)
                sealed = await asyncio.to_thread(self._artifacts.seal, job.id, stage.pipeline, token, done.outputs)
            except (StageEnded, StorageTrouble) as ended:
                await asyncio.to_thread(self._artifacts.abandon, job.id, stage.pipeline, token)
                await self._fail_stage(stage, ended, time.monotonic() - started)
            except BaseException:
                await asyncio.to_thread(self._artifacts.abandon, job.id, stage.pipeline, token)
                raise
            else:
                await self._complete_stage(stage, done, sealed, time.monotonic() - started)

    async def _complete_stage(self, stage: Stage, done: Done, sealed: tuple[Artifact, ...], seconds: float) -> None:
        result = StageResult(
            annotations=done.annotations,
            artifacts=sealed,
            intervals=done.intervals,
            provenance=done.provenance,
            seconds=round(seconds, 3),
        )
        await self._insist(lambda: self._store.finish_stage(self._claim, stage.pipeline, result))
        await asyncio.to_thread(self._artifacts.publish, self._claim.job.id, stage.pipeline, self._claim.token, sealed)

    async def _fail_stage(self, stage: Stage, ended: VideoAnnotatorError, seconds: float) -> None:
        self._log.warning("stage failed", stage=stage.pipeline, code=ended.code, reason=str(ended))
        error = StageError(ended.code, str(ended))
        await self._insist(
            lambda: self._store.fail_stage(self._claim, stage.pipeline, error, seconds=round(seconds, 3))
        )

    async def _run_process(self, stage: Stage, folder: Path) -> Done:
        job, settings = self._claim.job, self._settings
        declaration = self._worker.catalogue.get(stage.pipeline)
        start = Start(
            code=self._worker.catalogue.code_of(stage.pipeline),
            pipeline=stage.pipeline,
            pipeline_version=declaration.version,
            known_limits=declaration.known_limits,
            video_path=str(job.video_path),
            video=job.video,
            config=stage.config,
            output_folder=str(folder),
            threads=settings.stage_threads,
            max_lost_frames=settings.max_lost_frames,
            network=settings.stage_network,
        )
        async with _Notes(self._store, self._claim, stage.pipeline) as notes:
            return await self._worker.runner.run(
                start,
                interpreter=Path(sys.executable),
                log=self._artifacts.log(job.id, stage.pipeline),
                limits=_limits(settings),
                on_progress=notes.progress,
                on_log=notes.log,
            )

    async def _until_cancel_is_asked(self) -> None:
        """Keep the lease meanwhile. Raises LeaseLost."""
        renewed, heard = time.monotonic(), 0
        while True:
            heard = await self._store.wait_for_work(heard, LOOK_AGAIN_SECONDS)
            if time.monotonic() - renewed >= self._settings.lease_seconds / 3:
                await self._insist(lambda: self._store.heartbeat(self._claim))
                renewed = time.monotonic()
            if (await self._store.get(self._claim.job.id)).status is JobStatus.CANCELLING:
                return

    async def _finish(self) -> None:
        job_id = self._claim.job.id
        job = await self._store.get(job_id)
        if any(stage.status is StageStatus.COMPLETED for stage in job.stages):
            artifacts = await self._store.artifacts(job_id)
            await self._insist(lambda: asyncio.to_thread(self._artifacts.write_manifest, job, artifacts))
        try:
            ended = await self._insist(lambda: self._store.finish(self._claim))
        except Conflict as conflict:
            if conflict.code != "JOB_BEING_CANCELLED":
                raise
            await self._finish_cancelled()
            return
        self._log.info("job ended", status=ended.status, outcome=ended.outcome)

    async def _finish_cancelled(self) -> None:
        ended = await self._insist(lambda: self._store.finish_cancelled(self._claim))
        self._log.info("job cancelled", stopped_after_seconds=ended.stopped_after_seconds)

    async def _give_back(self) -> None:
        try:
            await self._store.give_back(self._claim)
        except (LeaseLost, StorageTrouble) as exc:
            self._log.warning("the job could not be put back; the next start does it", reason=str(exc))

    async def _fail(self, error: StageError) -> None:
        try:
            await self._insist(lambda: self._store.fail(self._claim, error))
        except LeaseLost:
            self._log.warning("the job was taken away before its failure was recorded")
        except Conflict:
            await self._finish_cancelled()


class _Notes:
    """
    Brings what a stage reports into the store, without ever making the stage wait.

    Progress that arrives while an earlier one is being written is replaced by what comes after it; log lines are not.
    """

    def __init__(self, store: Store, claim: Claim, pipeline: str) -> None:
        self._store = store
        self._claim = claim
        self._pipeline = pipeline
        self._began: tuple[float, float] | None = None
        self._latest: Progress | None = None
        self._lines: list[Log] = []
        self._news = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> "_Notes":
        self._writing = asyncio.create_task(self._write(), name=f"notes of {self._pipeline}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._news.set()
        await self._writing

    def progress(self, report: Report) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = (now, report.done_seconds)
        began, first = self._began
        rate = (report.done_seconds - first) / (now - began) if now > began else 0.0
        eta = max(0.0, report.total_seconds - report.done_seconds) / rate if rate > 0 else None
        self._latest = Progress(report.done_seconds, report.total_seconds, rate or None, eta)
        self._news.set()

    def log(self, line: Log) -> None:
        self._lines.append(line)
        self._news.set()

    async def _write(self) -> None:
        while not (self._closing and not self._news.is_set()):
            await self._news.wait()
            self._news.clear()
            try:
                await self._write_what_is_new()
            except StorageTrouble as trouble:
                # Worth a warning and not the stage: its result may find room again.
                log.warning("progress could not be recorded", job_id=self._claim.job.id, reason=str(trouble))
            except LeaseLost:
                return  # the job's own watch notices it too, and stops the stage

    async def _write_what_is_new(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            await self._store.log(self._claim, self._pipeline, line.level, line.message)
        latest, self._latest = self._latest, None
        if latest is not None:
            await self._store.note_progress(self._claim, self._pipeline, latest)


def _limits(settings: Settings) -> Limits:
    return Limits(
        grace_seconds=settings.cancel_grace_seconds,
        timeout_seconds=settings.stage_timeout_seconds,
        stall_seconds=settings.stage_stall_seconds,
        memory_bytes=settings.stage_memory,
        log_bytes=settings.stage_log_bytes,
    )


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are really over; what they raise is their owner's to look at."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
