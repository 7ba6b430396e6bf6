"""
One stage of a held job, from waiting for a slot to its recorded ending: room, folder, process, files, row.

Whoever cancels it gets it back only when nothing of it is left: no process, no half-written file.
"""

import asyncio
import sys
import time
from pathlib import Path

import msgspec

from videoannotator.artifacts import Artifacts
from videoannotator.errors import StageEnded, StorageTrouble, VideoAnnotatorError
from videoannotator.gate import Gate
from videoannotator.insistence import Insistence
from videoannotator.jobs import Artifact, Claim, Stage, StageError, StageResult
from videoannotator.logs import get_logger
from videoannotator.notes import Notes
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.runner.messages import Done, Start
from videoannotator.runner.process import Limits, Runner
from videoannotator.scheduler import Scheduler
from videoannotator.settings import Settings
from videoannotator.store import Store

log = get_logger(__name__)


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs are worked on with; one set for all of them."""

    store: Store
    artifacts: Artifacts
    runner: Runner
    catalogue: Catalogue
    settings: Settings
    scheduler: Scheduler
    insist: Insistence
    gate: Gate


class StageRun:
    """One stage of one claimed job."""

    def __init__(self, tools: Tools, claim: Claim, stage: Stage) -> None:
        self._tools = tools
        self._claim = claim
        self._stage = stage
        self._store = tools.store
        self._artifacts = tools.artifacts
        self._where = (claim.job.id, stage.pipeline, claim.token)
        """Job, pipeline, token: the attempt, as `Artifacts` names it."""

        self._notes: Notes | None = None
        self._log = log.bind(job_id=claim.job.id, stage=stage.pipeline)

    async def work(self) -> None:
        """Raises LeaseLost; whatever ends the stage is recorded with it."""
        async with self._tools.scheduler.room(), self._tools.gate.work():
            await self._store.start_stage(self._claim, self._stage.pipeline)
            folder = await asyncio.to_thread(self._artifacts.begin, *self._where)
            started = time.monotonic()
            try:
                done = await self._run_process(folder)
                sealed = await asyncio.to_thread(self._artifacts.seal, *self._where, done.outputs)
            except (StageEnded, StorageTrouble) as ended:
                await asyncio.to_thread(self._artifacts.abandon, *self._where)
                await self._fail(ended, time.monotonic() - started)
            except BaseException:
                await asyncio.to_thread(self._artifacts.abandon, *self._where)
                raise
            else:
                await self._complete(done, sealed, time.monotonic() - started)

    async def _run_process(self, folder: Path) -> Done:
        job, tools = self._claim.job, self._tools
        async with Notes(self._store, self._claim, self._stage.pipeline) as self._notes:
            notes = self._notes
            return await tools.runner.run(
                self._start(folder),
                interpreter=Path(sys.executable),
                log=self._artifacts.log(job.id, self._stage.pipeline),
                limits=_limits(tools.settings),
                on_progress=notes.progress,
                on_log=notes.log,
                on_usage=notes.usage,
            )

    def _start(self, folder: Path) -> Start:
        job, stage, settings = self._claim.job, self._stage, self._tools.settings
        declaration = self._tools.catalogue.get(stage.pipeline)
        return Start(
            code=self._tools.catalogue.code_of(stage.pipeline),
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

    async def _complete(self, done: Done, sealed: tuple[Artifact, ...], seconds: float) -> None:
        result = StageResult(
            annotations=done.annotations,
            artifacts=sealed,
            intervals=done.intervals,
            provenance=done.provenance,
            seconds=round(seconds, 3),
            usage=self._notes.used if self._notes else None,
        )
        await self._tools.insist(lambda: self._store.finish_stage(self._claim, self._stage.pipeline, result))
        await asyncio.to_thread(self._artifacts.publish, *self._where, sealed)

    async def _fail(self, ended: VideoAnnotatorError, seconds: float) -> None:
        self._log.warning("stage failed", code=ended.code, reason=str(ended))
        error, pipeline = StageError(ended.code, str(ended)), self._stage.pipeline
        used = self._notes.used if self._notes else None
        await self._tools.insist(
            lambda: self._store.fail_stage(self._claim, pipeline, error, seconds=round(seconds, 3), usage=used)
        )


def _limits(settings: Settings) -> Limits:
    return Limits(
        grace_seconds=settings.cancel_grace_seconds,
        timeout_seconds=settings.stage_timeout_seconds,
        stall_seconds=settings.stage_stall_seconds,
        memory_bytes=settings.stage_memory,
        log_bytes=settings.stage_log_bytes,
    )
