"""
One claimed job, from claim to ending.

Whoever cancels it gets it back only when no stage of it is left and it is pending again.
"""

import asyncio
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from videoannotator.artifacts import sha256, video_path
from videoannotator.errors import Conflict, LeaseLost, Refused, StorageTrouble, Unreachable
from videoannotator.faults import reach
from videoannotator.formats import viewer
from videoannotator.jobs import Claim, Job, JobStatus, StageError, StageStatus
from videoannotator.logs import get_logger
from videoannotator.machine.resources import AtWork
from videoannotator.work.company import company
from videoannotator.work.insistence import PASSING
from videoannotator.work.stage_run import StageRun, Tools

LOOK_AGAIN_SECONDS = 1.0
"""The bell may be lost, the database may not: so often it is asked."""

log = get_logger(__name__)


class JobRun:
    def __init__(self, tools: Tools, claim: Claim) -> None:
        self._tools = tools
        self._claim = claim
        self._store = tools.store
        self._artifacts = tools.artifacts
        self._settings = tools.settings
        self._insist = tools.insist
        self._log = log.bind(job_id=claim.job.id)
        self._fetching = False
        self._shortfall: StageError | None = None
        self._at_work: dict[asyncio.Task[None], StageRun] = {}
        self._ended: dict[str, asyncio.Event] = {}
        """Of each pipeline that is to run now: set when it has ended, well or not."""

    @property
    def is_waiting(self) -> bool:
        """Its video is on its way, or all that is left waits for another attempt: others may work meanwhile."""
        if self._fetching:
            return True
        return bool(self._at_work) and all(run.is_waiting for run in self._at_work.values())

    @property
    def at_work(self) -> list[AtWork]:
        """Its stages that have a process now."""
        return [stage for run in self._at_work.values() if (stage := run.at_work) is not None]

    async def work(self) -> None:
        try:
            await self._until_an_ending()
        except LeaseLost:
            self._log.warning("the job was taken away; nothing more is written for it")
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._give_back()))
            raise
        except StorageTrouble as trouble:
            if trouble.code not in PASSING and trouble.code != "RESULT_MISSING":
                raise
            await self._fail(StageError(trouble.code, str(trouble)))
        except (Refused, Unreachable) as reason:
            await self._fail(StageError(reason.code, str(reason)))
        except Exception as bug:
            self._log.exception("a bug of ours in one job")
            await self._fail(StageError("INTERNAL_ERROR", f"The server failed on this job: {type(bug).__name__}."))
        await self._thin_progress()

    async def _until_an_ending(self) -> None:
        stages = asyncio.create_task(self._run_stages(), name=f"stages of {self._claim.job.id}")
        watch = asyncio.create_task(self._until_cancel_is_asked(), name=f"watch of {self._claim.job.id}")
        try:
            await asyncio.wait({stages, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end({stages, watch})
        if watch.done() and not watch.cancelled() and (lost := watch.exception()):
            raise lost
        if stages.cancelled():
            await self._finish_cancelled()
            return
        stages.result()
        await self._finish()

    async def _run_stages(self) -> None:
        await self._bring_video()
        job = self._claim.job
        await asyncio.to_thread(self._artifacts.settle, job.id, await self._store.artifacts(job.id))
        to_run = [stage for stage in job.stages if not stage.status.is_final]
        tools = self._tools
        together = company(to_run, job.video, catalogue=tools.catalogue, settings=self._settings, runner=tools.runner)
        try:
            async with together as companions, asyncio.TaskGroup() as group:
                self._hashing = group.create_task(self._hash_video(), name=f"hash of {job.id}")
                self._ended = {stage.pipeline: asyncio.Event() for stage in to_run}
                for stage in to_run:
                    run = StageRun(
                        self._tools,
                        self._claim,
                        stage,
                        hash_of_video=self._hash_of_video,
                        until_ended=self._until_ended,
                        company=companions,
                    )
                    task = group.create_task(run.work(), name=f"{stage.pipeline} of {job.id}")
                    self._at_work[task] = run
                    task.add_done_callback(self._at_work.__delitem__)
                    task.add_done_callback(partial(_set, self._ended[stage.pipeline]))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        await self._take_out()

    async def _bring_video(self) -> None:
        self._fetching = self._claim.job.awaits_video
        try:
            self._claim = await self._tools.desk.bring_video(self._claim)
        finally:
            self._fetching = False

    async def _take_out(self) -> None:
        """Before the job is called completed, and while it can still be cancelled."""
        errands = self._claim.job.errands
        if errands.output_directory is None and errands.db_location is None:
            return
        job = await self._store.get(self._claim.job.id)
        await self._write_manifest(job)
        self._shortfall = await self._tools.desk.take_out(job)

    async def _until_ended(self, pipelines: Iterable[str]) -> None:
        """Those of them that are to run in this job have ended."""
        for pipeline in pipelines:
            if pipeline in self._ended:
                await self._ended[pipeline].wait()

    async def _hash_of_video(self) -> str | None:
        await asyncio.wait({self._hashing})
        return self._hashing.result()

    async def _hash_video(self) -> str | None:
        """None where it cannot be read: the stages will say so, in their own words."""
        if self._claim.job.video.sha256 is not None:
            return self._claim.job.video.sha256
        stop = threading.Event()
        try:
            digest = await asyncio.to_thread(sha256, video_path(self._claim.job), stop)
        except OSError as exc:
            self._log.warning("the video cannot be hashed", reason=str(exc))
            return None
        finally:
            stop.set()
        await self._insist(lambda: self._store.note_video_hash(self._claim, digest))
        return digest

    async def _until_cancel_is_asked(self) -> None:
        """Keep the lease meanwhile. Raises LeaseLost."""
        renewed, heard = time.monotonic(), 0
        while True:
            heard = await self._store.wait_for_cancels(heard, LOOK_AGAIN_SECONDS)
            if time.monotonic() - renewed >= self._settings.lease_seconds / 3:
                await self._insist(lambda: self._store.heartbeat(self._claim))
                renewed = time.monotonic()
            if await self._store.status(self._claim.job.id) is JobStatus.CANCELLING:
                return

    async def _finish(self) -> None:
        job_id = self._claim.job.id
        job = await self._store.get(job_id)
        await self._drop_chunks()
        await self._write_manifest(job)
        reach("job.manifest")
        try:
            ended = await self._insist(
                lambda: self._store.finish(self._claim, not_shown=_not_shown(job), shortfall=self._shortfall)
            )
        except Conflict as conflict:
            if conflict.code != "JOB_BEING_CANCELLED":
                raise
            await self._finish_cancelled()
            return
        reach("job.finished")
        self._log.info("job ended", status=ended.status, outcome=ended.outcome)

    async def _write_manifest(self, job: Job) -> None:
        artifacts = await self._store.artifacts(job.id)
        if artifacts or any(stage.status is StageStatus.COMPLETED for stage in job.stages):
            await self._insist(lambda: asyncio.to_thread(self._artifacts.write_manifest, job, artifacts))

    async def _drop_chunks(self) -> None:
        await asyncio.to_thread(self._artifacts.drop_chunks, self._claim.job.id)

    async def _finish_cancelled(self) -> None:
        await self._drop_chunks()
        ended = await self._insist(lambda: self._store.finish_cancelled(self._claim))
        self._log.info("job cancelled", stopped_after_seconds=ended.stopped_after_seconds)

    async def _thin_progress(self) -> None:
        try:
            await self._store.thin_progress(self._claim.job.id)
        except StorageTrouble as trouble:
            self._log.warning("the job's progress stays in the database until the job goes", reason=str(trouble))

    async def _give_back(self) -> None:
        try:
            await self._store.give_back(self._claim)
        except (LeaseLost, StorageTrouble) as exc:
            self._log.warning("the job could not be put back; the next start does it", reason=str(exc))

    async def _fail(self, error: StageError) -> None:
        await self._drop_chunks()
        try:
            await self._insist(lambda: self._store.fail(self._claim, error))
        except LeaseLost:
            self._log.warning("the job was taken away before its failure was recorded")
        except Conflict:
            await self._finish_cancelled()


def _not_shown(job: Job) -> tuple[str, ...]:
    """What the Viewer would not show of the job's files, alone or because one hides the other."""
    made = [stage.provenance for stage in job.stages if stage.provenance is not None]
    tracks = {name: track for provenance in made for name, track in provenance.viewer_tracks.items()}
    together = viewer.shown_together(sorted(tracks))
    hidden = viewer.displaced([(name, tracks[name]) for name in together])
    return (*(sentence for provenance in made for sentence in provenance.not_shown), *(f"{why}." for why in hidden))


async def end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they are really over; what they raise is their owner's to look at."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _set(event: asyncio.Event, _: object) -> None:
    event.set()
