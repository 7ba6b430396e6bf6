"""
One stage of a held job, from waiting for a slot to its recorded ending: room, folder, process, files, row.

Whoever cancels it gets it back only when nothing of it is left: no process, no half-written file.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.artifacts import Artifacts, video_path
from videoannotator.errands.desk import Desk
from videoannotator.errors import Conflict, StageEnded, StageFailed, StorageTrouble, VideoAnnotatorError
from videoannotator.faults import reach
from videoannotator.jobs import (
    Artifact,
    Claim,
    ModelFiles,
    NamedPicture,
    Output,
    Provenance,
    Stage,
    StageError,
    StageResult,
)
from videoannotator.logs import get_logger
from videoannotator.machine.resources import AtWork
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.declaration import Declaration
from videoannotator.runner.messages import Done, Start
from videoannotator.runner.process import Limits, Making, Runner, Warmth
from videoannotator.settings import Settings
from videoannotator.store import Store
from videoannotator.work.cache import Cache
from videoannotator.work.company import Company
from videoannotator.work.fetching import fetch
from videoannotator.work.gate import Gate
from videoannotator.work.ingredients import Ingredients
from videoannotator.work.insistence import Insistence
from videoannotator.work.notes import Notes
from videoannotator.work.retries import Retry, longest_delay_seconds, next_attempt
from videoannotator.work.reuse import Reuse
from videoannotator.work.scheduler import Need, Place, Scheduler

log = get_logger(__name__)


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs are worked on with; one set for all of them."""

    store: Store
    artifacts: Artifacts
    runner: Runner
    catalogue: Catalogue
    settings: Settings
    cache: Cache | None
    scheduler: Scheduler
    insist: Insistence
    gate: Gate
    desk: Desk


def expect(tools: Tools, complete: Mapping[str, Mapping[str, Any]]) -> None:
    """A job with these configurations may come in a moment: where there is room, have its processes load already."""
    if not tools.gate.is_open:
        return
    for making in makings(complete, tools.catalogue, tools.settings)[: tools.scheduler.free]:
        tools.runner.expect(making)


def makings(complete: Mapping[str, Mapping[str, Any]], catalogue: Catalogue, settings: Settings) -> tuple[Making, ...]:
    """How the processes of these pipelines, so configured, will be made; those that need no GPU."""
    return tuple(
        Making(
            interpreter=str(
                catalogue.supplies.environments.interpreter(catalogue.get(name).engine(config).environment)
            ),
            code=catalogue.code_of(name),
            pipeline=name,
            threads=settings.stage_threads,
            network=settings.stage_network,
            environ=tuple(Place().environ.items()),
        )
        for name, config in complete.items()
        if not _need(catalogue.get(name), config).gpu
    )


class StageRun:
    """One stage of one claimed job."""

    def __init__(
        self,
        tools: Tools,
        claim: Claim,
        stage: Stage,
        *,
        hash_of_video: Callable[[], Awaitable[str | None]],
        until_ended: Callable[[Iterable[str]], Awaitable[None]],
        company: Company,
    ) -> None:
        self._tools = tools
        self._claim = claim
        self._stage = stage
        self._store = tools.store
        self._artifacts = tools.artifacts
        self._where = (claim.job.id, stage.pipeline, claim.token)
        """Job, pipeline, token: the attempt, as `Artifacts` names it."""

        cache = tools.cache if claim.job.cache else None
        self._ingredients = Ingredients(tools.catalogue, tools.settings, claim.job, stage.pipeline)
        self._reuse = Reuse(cache, tools.artifacts, self._where, hash_of_video)
        self._place = Place()
        self._notes: Notes | None = None
        self._log = log.bind(job_id=claim.job.id, stage=stage.pipeline)
        self.is_waiting = False
        """Nothing of it runs, and it wants no slot: its next attempt is to come."""

        self._pid: int | None = None
        self._until_ended = until_ended
        self._company = company
        self._fetch_trouble: StageFailed | None = None
        self._is_over = False
        self._fingerprint: str | None = None
        self._chunks: Path | None = None

    @property
    def at_work(self) -> AtWork | None:
        """None while it has no process."""
        if self._pid is None:
            return None
        job = self._claim.job
        return AtWork(pid=self._pid, job_id=job.id, pipeline=self._stage.pipeline, batch_id=job.batch_id)

    async def work(self) -> None:
        """Attempt after attempt, until the stage has ended for good. Raises LeaseLost."""
        await self._until_others_have_ended()
        await self._fetch_models()
        while not self._is_over:
            await self._until_its_time()
            self._fingerprint = await asyncio.to_thread(self._ingredients.fingerprint, self._stage)
            if (earlier := await self._reuse.take(self._fingerprint)) is not None:
                await self._serve(earlier)
            else:
                await self._attempt()

    async def _until_others_have_ended(self) -> None:
        after = self._tools.catalogue.get(self._stage.pipeline).after
        if not after:
            return
        self.is_waiting = True
        try:
            await self._until_ended(after)
        finally:
            self.is_waiting = False
        made = await self._store.artifacts(self._claim.job.id)
        self._ingredients.earlier = tuple(artifact for artifact in made if artifact.pipeline in after)

    async def _fetch_models(self) -> None:
        """Those that are missing, where the settings ask for it. Nothing is raised: the attempt tells what is wrong."""
        if not self._tools.catalogue.supplies.auto_download:
            return
        missing = await asyncio.to_thread(self._ingredients.missing_models, self._stage)
        self.is_waiting = bool(missing)
        try:
            for name in missing:
                await fetch(name, self._tools.settings, self._say)
        except StageFailed as trouble:
            self._fetch_trouble = trouble
        finally:
            self.is_waiting = False

    async def _say(self, line: str) -> None:
        await self._tools.insist(lambda: self._store.log(self._claim, self._stage.pipeline, "info", line))

    async def _serve(self, earlier: StageResult) -> None:
        """No process, no slot. The files are those of this attempt now."""
        self._company.withdraw(self._stage.pipeline)
        if not await self._publish(earlier):
            return
        told = f"{self._stage.pipeline} was done before on the same video with the same parameters: taken from there."
        await self._tools.insist(lambda: self._store.log(self._claim, self._stage.pipeline, "info", told))

    async def _until_its_time(self) -> None:
        """Without a slot. Never longer than the longest delay: somebody may have set the clock back."""
        if self._stage.retry_at is None:
            return
        left = (self._stage.retry_at - datetime.now(UTC)).total_seconds()
        self.is_waiting = True
        try:
            await asyncio.sleep(min(left, longest_delay_seconds(self._tools.settings)))
        finally:
            self.is_waiting = False

    async def _attempt(self) -> None:
        need = _need(self._tools.catalogue.get(self._stage.pipeline), self._stage.used_config, self._claim.job.priority)
        async with self._tools.scheduler.room(need, self._wait_for_memory) as self._place, self._tools.gate.work():
            self._company.enter(self._stage.pipeline)
            await self._store.start_stage(self._claim, self._stage.pipeline)
            reach("stage.started")
            started = time.monotonic()
            try:
                folder = await asyncio.to_thread(self._artifacts.begin, *self._where)
                self._chunks = await asyncio.to_thread(self._chunks_folder)
                done = await self._run_process(folder)
                reach("stage.done")
                sealed = await asyncio.to_thread(self._artifacts.seal, *self._where, done.outputs)
            except (StageEnded, StorageTrouble) as ended:
                await self._end_badly(ended, time.monotonic() - started)
            except BaseException:
                await asyncio.to_thread(self._artifacts.abandon, *self._where)
                raise
            else:
                reach("stage.sealed")
                await self._complete(done, sealed, time.monotonic() - started)

    def _wait_for_memory(self, why: str) -> None:
        self._log.info("stage waits", reason=why)

    async def _run_process(self, folder: Path) -> Done:
        job, tools = self._claim.job, self._tools
        if self._fetch_trouble is not None:
            raise self._fetch_trouble
        models, pictures = await asyncio.to_thread(self._ingredients.files, self._stage)
        async with Notes(self._store, self._claim, self._stage.pipeline) as self._notes:
            notes = self._notes
            try:
                return await tools.runner.run(
                    self._start(folder, models, pictures),
                    interpreter=self._ingredients.interpreter(self._stage),
                    log=self._artifacts.log(job.id, self._stage.pipeline),
                    limits=_limits(tools.settings),
                    on_progress=notes.progress,
                    on_log=notes.log,
                    on_usage=notes.usage,
                    on_process=self._has_process,
                    warmth=self._warmth(models),
                    environ=self._place.environ,
                )
            finally:
                self._pid = None

    def _has_process(self, pid: int) -> None:
        self._pid = pid

    def _warmth(self, models: tuple[ModelFiles, ...]) -> Warmth | None:
        """On what terms the process may stay for another job; None where it pays for nobody."""
        settings, config = self._tools.settings, self._stage.used_config
        declaration = self._tools.catalogue.get(self._stage.pipeline)
        if not declaration.warm or settings.warm_seconds <= 0:
            return None
        chosen = [str(config.get(name, "")) for name in ("engine", "model", "device")]
        return Warmth(
            loaded=" ".join([declaration.version, *chosen, *(model.sha256 for model in models)]),
            idle_seconds=settings.warm_seconds,
            most_stages=settings.warm_stages,
            most_growth_bytes=settings.warm_growth_bytes,
            most_waiting=settings.stage_slots,
        )

    def _start(self, folder: Path, models: tuple[ModelFiles, ...], pictures: tuple[NamedPicture, ...]) -> Start:
        job, stage, settings = self._claim.job, self._stage, self._tools.settings
        declaration = self._tools.catalogue.get(stage.pipeline)
        return Start(
            code=self._tools.catalogue.code_of(stage.pipeline),
            pipeline=stage.pipeline,
            pipeline_version=declaration.version,
            known_limits=declaration.known_limits,
            video_path=str(video_path(job)),
            video=job.video,
            config=stage.used_config,
            output_folder=str(folder),
            threads=settings.stage_threads,
            max_lost_frames=settings.max_lost_frames,
            network=settings.stage_network,
            environment=self._ingredients.environment(self._stage),
            models=models,
            pictures=pictures,
            earlier={made.name: str(self._artifacts.results(job.id) / made.name) for made in self._ingredients.earlier},
            chunks_folder=str(self._chunks or ""),
            chunk_seconds=settings.checkpoint_seconds,
            sharing=self._company.sharing(stage.pipeline, free_slots=self._tools.scheduler.free),
        )

    def _chunks_folder(self) -> Path | None:
        """Of exactly this work on exactly this file."""
        if self._fingerprint is None or self._tools.settings.checkpoint_seconds <= 0:
            return None
        try:
            video = self._claim.job.video_path.stat()
        except OSError:
            return None  # the stage will say so
        work = f"{self._fingerprint[:16]}-{video.st_size:x}-{video.st_mtime_ns:x}"
        return self._artifacts.chunks(self._claim.job.id, self._stage.pipeline, work)

    async def _complete(self, done: Done, sealed: tuple[Artifact, ...], seconds: float) -> None:
        result = StageResult(
            annotations=done.annotations,
            artifacts=sealed,
            intervals=done.intervals,
            provenance=self._with_warning(done.provenance),
            seconds=round(seconds, 3),
            usage=self._notes.used if self._notes else None,
        )
        if await self._publish(result):
            await self._reuse.keep(self._fingerprint, result)

    async def _publish(self, result: StageResult) -> bool:
        """False where another stage of the job made a file of the same name; then this one has failed."""
        try:
            await self._tools.insist(lambda: self._store.finish_stage(self._claim, self._stage.pipeline, result))
        except Conflict as taken:
            if taken.code != "ARTIFACT_EXISTS":
                raise
            await self._end_badly(taken, result.seconds)
            return False
        reach("stage.recorded")
        await asyncio.to_thread(self._artifacts.publish, *self._where, result.artifacts)
        reach("stage.published")
        await self._drop_chunks()
        self._log.info("stage completed", seconds=result.seconds, annotations=result.annotations, cached=result.cached)
        self._is_over = True
        return True

    def _with_warning(self, provenance: Provenance) -> Provenance:
        """Says so where the parameters are not those that were asked for."""
        changed = [f"{name} {value} instead of {self._stage.config[name]}" for name, value in self._eased.items()]
        if not changed:
            return provenance
        warning = f"Made with {', '.join(changed)}, because memory ran out."
        return msgspec.structs.replace(provenance, warnings=(*provenance.warnings, warning))

    @property
    def _eased(self) -> dict[str, Any]:
        return self._stage.eased or {}

    async def _end_badly(self, ended: VideoAnnotatorError, seconds: float) -> None:
        declaration = self._tools.catalogue.get(self._stage.pipeline)
        retry = next_attempt(ended, self._stage, declaration, self._tools.settings)
        if retry is None:
            await self._fail(ended, seconds)
        else:
            await asyncio.to_thread(self._artifacts.abandon, *self._where)
            await self._put_back(ended, retry)

    async def _put_back(self, ended: VideoAnnotatorError, retry: Retry) -> None:
        self._log.warning("stage is tried again", code=ended.code, reason=str(ended), delay=retry.delay_seconds)
        error, pipeline = StageError(ended.code, str(ended)), self._stage.pipeline
        self._stage = await self._tools.insist(
            lambda: self._store.put_back_stage(
                self._claim, pipeline, error, delay_seconds=retry.delay_seconds, eased=retry.eased
            )
        )
        reach("stage.put_back")
        told = f"{error.message} {retry.told}"
        await self._tools.insist(lambda: self._store.log(self._claim, pipeline, "warning", told))

    async def _fail(self, ended: VideoAnnotatorError, seconds: float) -> None:
        self._log.warning("stage failed", code=ended.code, reason=str(ended))
        partial = await asyncio.to_thread(self._partial) if isinstance(ended, StageFailed) else ()
        names = ", ".join(artifact.name for artifact in partial)
        told = f"{ended} What was found until then: {names}." if partial else str(ended)
        error, pipeline = StageError(ended.code, told), self._stage.pipeline
        used = self._notes.used if self._notes else None
        await self._tools.insist(
            lambda: self._store.fail_stage(
                self._claim, pipeline, error, seconds=round(seconds, 3), usage=used, partial=partial
            )
        )
        if partial:
            await asyncio.to_thread(self._artifacts.publish, *self._where, partial)
        else:
            await asyncio.to_thread(self._artifacts.abandon, *self._where)
        await self._drop_chunks()
        self._is_over = True

    def _partial(self) -> tuple[Artifact, ...]:
        """What a stage that broke off has kept; nothing where that cannot be brought to disk."""
        declared = self._tools.catalogue.get(self._stage.pipeline).outputs
        outputs = [msgspec.convert(msgspec.structs.asdict(one), Output) for one in declared]
        try:
            return self._artifacts.seal(*self._where, self._artifacts.kept(*self._where, outputs))
        except StorageTrouble as trouble:
            self._log.warning("what was found is not kept", reason=str(trouble))
            return ()

    async def _drop_chunks(self) -> None:
        await asyncio.to_thread(self._artifacts.drop_chunks, self._claim.job.id, self._stage.pipeline)


def _need(declaration: Declaration, config: Mapping[str, Any], priority: int = 0) -> Need:
    needs = declaration.gpu_memory_bytes(config)
    return Need(priority=priority, gpu=needs is not None, gpu_memory_bytes=needs or 0)


def _limits(settings: Settings) -> Limits:
    return Limits(
        grace_seconds=settings.cancel_grace_seconds,
        timeout_seconds=settings.stage_timeout_seconds,
        stall_seconds=settings.stage_stall_seconds,
        memory_bytes=settings.stage_memory,
        log_bytes=settings.stage_log_bytes,
    )
