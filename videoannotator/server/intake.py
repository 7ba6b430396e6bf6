"""
Makes jobs of the videos that a batch names, side by side, however many there are.

The names are on disk before anybody looks at the first of them, and what becomes of each is written as it happens: a
server that is killed in the middle goes on where it was. A video that cannot be read is rejected, and the others go on;
a full disk is waited out.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from videoannotator.artifacts import sha256, stored_name, video_path
from videoannotator.batches import BatchInput, BatchPlan, InputState
from videoannotator.errors import Conflict, FieldProblem, InvalidConfig, StorageTrouble, VideoAnnotatorError
from videoannotator.jobs import AUTOMATIC, Batch, Job, NewJob, StageError, StageStatus, new_id
from videoannotator.logs import get_logger
from videoannotator.server.datasets import find_video
from videoannotator.server.submitting import removed_unless_queued
from videoannotator.work.insistence import PASSING
from videoannotator.workspace import Selection, Workspace

UPLOAD_PREFIX = "up_"

_TRY_AGAIN_SECONDS = 2.0

log = get_logger(__name__)


def selection_of(plan: BatchPlan) -> Selection:
    return Selection(preset=plan.preset, pipelines=plan.selected_pipelines, config=plan.config, cache=plan.cache)


class Intake:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._store = workspace.store
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hashing = asyncio.Semaphore(2)  # reading is what costs, and two readers keep a disk busy

    @classmethod
    @asynccontextmanager
    async def open(cls, workspace: Workspace) -> AsyncIterator[Self]:
        """Goes on with what an earlier life left. What is not looked at when the block ends waits for the next."""
        intake = cls(workspace)
        for batch_id in await workspace.store.unfinished_batches():
            intake.begin(batch_id)
        try:
            yield intake
        finally:
            tasks = list(intake._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, batch_id: str) -> None:
        """Look at what waits in the batch, also at what is named in it while that goes on."""
        before = self._tasks.get(batch_id)
        task = asyncio.create_task(self._take_in(batch_id, before), name=f"intake of {batch_id}")
        self._tasks[batch_id] = task
        task.add_done_callback(lambda done: self._forget(batch_id, done))

    async def done(self, batch_id: str, limit_seconds: float) -> bool:
        """Whether everything that was named is looked at, within the limit. The intake goes on in any case."""
        task = self._tasks.get(batch_id)
        if task is None:
            return True
        await asyncio.wait({task}, timeout=limit_seconds)
        return task.done()

    def _forget(self, batch_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(batch_id) is task:
            del self._tasks[batch_id]
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("a bug of ours in one batch", batch_id=batch_id, exc_info=bug)

    async def _take_in(self, batch_id: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        batch = await self._store.batch(batch_id)
        waiting = iter(await self._store.batch_inputs(batch_id, InputState.WAITING))
        async with asyncio.TaskGroup() as group:
            # One more than there are probers, so that none of them waits for a transaction.
            for number in range(self._workspace.prober.most + 1):
                group.create_task(self._work(batch, waiting), name=f"intake {number} of {batch_id}")

    async def _work(self, batch: Batch, waiting: Iterator[BatchInput]) -> None:
        plan = msgspec.convert(batch.plan, BatchPlan)
        for one in waiting:
            await self._settle(batch.id, plan, one)

    async def _settle(self, batch_id: str, plan: BatchPlan, one: BatchInput) -> None:
        """Until it has a job, or a reason why not."""
        while True:
            try:
                await self._queue(batch_id, plan, one)
            except StorageTrouble as trouble:
                if trouble.code not in PASSING:
                    raise
                log.warning("a batch waits for space", batch_id=batch_id, reason=str(trouble))
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
            except VideoAnnotatorError as refusal:
                if refusal.code != "INPUT_NOT_WAITING":  # cancelled meanwhile
                    await self._reject(batch_id, one, StageError(refusal.code, str(refusal)))
                return
            except Exception as bug:
                log.exception("a bug of ours with one video of a batch", batch_id=batch_id, video=one.video)
                reason = f"The server failed on this video: {type(bug).__name__}."
                await self._reject(batch_id, one, StageError("INTERNAL_ERROR", reason))
                return
            else:
                return

    async def _reject(self, batch_id: str, one: BatchInput, error: StageError) -> None:
        with suppress(Conflict):  # it was cancelled meanwhile
            await self._store.reject_input(batch_id, one.position, error)

    async def _queue(self, batch_id: str, plan: BatchPlan, one: BatchInput) -> None:
        if one.video.startswith(UPLOAD_PREFIX) and "/" not in one.video and "." not in one.video:
            await self._queue_upload(batch_id, plan, one)
        else:
            await self._queue_file(batch_id, plan, one)

    async def _queue_file(self, batch_id: str, plan: BatchPlan, one: BatchInput) -> None:
        if plan.dataset_id is None:
            message = "A path stands in a dataset, and the batch names none."
            raise InvalidConfig((FieldProblem("dataset_id", message, "MISSING_FIELD", "Name dataset_id."),))
        dataset = await self._store.dataset(plan.dataset_id)
        path = await asyncio.to_thread(find_video, dataset, one.video, self._workspace.settings)
        await self._admit(batch_id, plan, one, path, path.name)

    async def _queue_upload(self, batch_id: str, plan: BatchPlan, one: BatchInput) -> None:
        uploads = self._workspace.uploads
        with uploads.held(one.video):
            upload = await uploads.find(one.video, plan.owner)
            job_id = new_id("job")
            place = self._workspace.artifacts.video_folder(job_id) / stored_name(upload.filename)
            async with removed_unless_queued(self._workspace, job_id), uploads.moved(upload, place):
                await self._admit(batch_id, plan, one, place, upload.filename, job_id=job_id, upload_id=upload.id)

    async def _admit(
        self,
        batch_id: str,
        plan: BatchPlan,
        one: BatchInput,
        path: Path,
        filename: str,
        *,
        job_id: str | None = None,
        upload_id: str | None = None,
    ) -> None:
        job = await self._workspace.admit(
            path,
            filename,
            selection_of(plan),
            owns_video=job_id is not None,
            job_id=job_id,
            tags=plan.tags,
            priority=plan.priority,
            batch_id=batch_id,
        )
        job = msgspec.structs.replace(job, upload_id=upload_id, owner=plan.submitted_by)
        if plan.skip_done and (earlier := await self._done_before(job)) is not None:
            await self._store.skip_input(batch_id, one.position, earlier.id)
            return
        await self._store.admit_input(batch_id, one.position, job)

    async def _done_before(self, job: NewJob) -> Job | None:
        """A job on the same bytes that completed all that this one would run; they are read only if need be."""
        if not await self._store.has_finished_of_size(job.video.size_bytes):
            return None
        async with self._hashing:
            digest = await asyncio.to_thread(sha256, video_path(job))
        return next((old for old in await self._store.finished_with(digest) if self._covers(old, job)), None)

    def _covers(self, old: Job, job: NewJob) -> bool:
        done = {
            stage.pipeline: stage.config
            for stage in old.stages
            if stage.status is StageStatus.COMPLETED
            and stage.provenance is not None
            and stage.provenance.pipeline_version == self._version(stage.pipeline)
        }
        wanted = [stage for stage in job.stages if stage.skip_because is None and stage.pipeline not in AUTOMATIC]
        if any(self._workspace.catalogue.compares_with_pictures(stage.pipeline, stage.config) for stage in wanted):
            return False  # its pictures may have changed; the cache looks at their hashes
        return all(done.get(stage.pipeline) == stage.config for stage in wanted)

    def _version(self, pipeline: str) -> str | None:
        catalogue = self._workspace.catalogue
        return catalogue.get(pipeline).version if pipeline in catalogue.names else None
