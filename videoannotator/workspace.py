"""
One opened storage directory and everything that works on it, without a port: the server and `annotate` both stand on
this. What goes into the queue goes through `admit` and `submit`, so that both refuse the same things.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from videoannotator.artifacts import Artifacts, storage_trouble, stored_name
from videoannotator.errands.courier import Courier
from videoannotator.errands.desk import Desk
from videoannotator.errands.fetch import Fetcher, filename_of
from videoannotator.errands.possible import require_possible
from videoannotator.errors import Conflict, NotFound, StorageTrouble, VideoAnnotatorError, there_are
from videoannotator.jobs import Errands, Idempotency, Job, NewJob, NewStage, Preset, Video, new_id
from videoannotator.logs import get_logger
from videoannotator.machine.devices import Devices, Nvml
from videoannotator.machine.resources import Resources
from videoannotator.outbound.policy import Policy
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.presets import DEFAULT_PRESET, builtin_presets, chosen
from videoannotator.repeating import again, bring_video
from videoannotator.runner.births import Births
from videoannotator.runner.probers import Probers
from videoannotator.runner.process import Runner
from videoannotator.scans import Scans
from videoannotator.settings import Settings
from videoannotator.store import Store
from videoannotator.store.lock import only_one
from videoannotator.store.sqlite import SqliteStore
from videoannotator.upkeep.orphans import Orphans, mark, unmark
from videoannotator.upkeep.removal import Upkeep, remove_job
from videoannotator.uploads import Uploads
from videoannotator.work.cache import Cache
from videoannotator.work.stage_run import makings
from videoannotator.work.worker import Worker

log = get_logger(__name__)


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks to be run: a preset, pipelines, or both; `config` goes over the preset's parameters."""

    preset: str | None = None
    pipelines: tuple[str, ...] = ()
    config: dict[str, dict[str, Any]] = {}
    cache: bool = True
    """Whether results of earlier, equal work may be taken, and the new ones remembered."""


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """An order that can be carried out, were there a video."""

    preset: Preset | None
    complete: dict[str, dict[str, Any]]
    """Their parameters, defaults filled in."""


class Workspace:
    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        runner: Runner,
        prober: Probers,
        resources: Resources,
        cache: Cache | None,
        devices: Devices,
    ) -> None:
        self.settings = settings
        self.store = store
        self.runner = runner
        self.prober = prober
        self.catalogue = Catalogue.of(settings)
        self.artifacts = Artifacts(settings.storage_dir)
        self.scans = Scans(store, prober)
        self.policy = Policy(settings.outbound_allowed)
        self.uploads = Uploads(self.artifacts.uploads, store, settings)
        self._builtin_presets = builtin_presets()
        self.worker = Worker(
            store=store,
            artifacts=self.artifacts,
            runner=runner,
            catalogue=self.catalogue,
            settings=settings,
            cache=cache,
            desk=self._desk(),
            devices=devices,
        )
        self.cache = cache
        self.resources = resources
        self.failed = asyncio.Event()
        """Set when the worker has ended by itself, which it never should: stop, and say `failure`."""
        self.failure: BaseException | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        cache: Cache | None = None,
        devices: Devices | None = None,
        soon: Selection | None = None,
        births: Births | None = None,
    ) -> AsyncIterator[Self]:
        """
        Lock the directory, bring the database up to date, mend what a crash left, and begin to work. Without `cache` it
        is the directory's own, unless the settings turn it off.

        When the block ends no stage process is left, and what was running is pending again. The GPUs are those that
        NVIDIA's driver knows, unless `devices` are given. The processes for what will be asked for `soon`, where that
        is known, start while all else is being opened; for `births` see `Runner.open`.

        Raises:
            StorageTrouble: the directory is in use, full, not writable, damaged, or of a newer program.
        """
        folder = settings.storage_dir
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise storage_trouble(exc, folder) from exc
        async with AsyncExitStack() as stack:
            opened = SqliteStore.open(
                folder,
                lease_seconds=settings.lease_seconds,
                stage_slots=settings.stage_slots,
                job_slots=settings.max_concurrent_jobs,
            )
            store = await stack.enter_async_context(opened)
            if devices is None:
                devices = stack.enter_context(closing(Nvml()))
            runner = await stack.enter_async_context(Runner.open(storage_id(folder), devices, births))
            prober = await stack.enter_async_context(Probers.open(runner))
            if soon is not None:
                _expect(soon, settings, runner, prober)
            resources = await stack.enter_async_context(Resources.open(folder))
            if cache is None and settings.cache == "on":
                cache = Cache(Artifacts(folder).cache, settings.cache_bytes)
            workspace = cls(
                settings=settings,
                store=store,
                runner=runner,
                prober=prober,
                resources=resources,
                cache=cache,
                devices=devices,
            )
            resources.tell(lambda sample: workspace.worker.gate.note_free(sample.disk_free_bytes))
            resources.watch(lambda: workspace.worker.at_work)
            await asyncio.to_thread(workspace.artifacts.prepare)
            if cache is not None:
                await asyncio.to_thread(cache.prepare)
            await workspace._begin(stack)
            yield workspace

    async def _begin(self, stack: AsyncExitStack) -> None:
        """Mend what an earlier life left, then begin what goes on by itself until the stack is closed."""
        orphans = Orphans(self.store, self.artifacts)
        found = await orphans.find()
        await self.worker.recover()
        await self.uploads.settle()
        await self.scans.settle()
        stack.push_async_callback(self.scans.close)
        for name, work in (
            ("worker", self._work()),
            ("expired uploads", self.uploads.sweep()),
            ("retention", Upkeep(self.store, self.artifacts).run(self.settings.retention_days)),
            ("courier", Courier(self.store, self.policy, self.settings).run()),
            ("orphans", orphans.settle(found)),
        ):
            stack.push_async_callback(_stop, asyncio.create_task(work, name=name))

    async def check(self, selection: Selection) -> None:
        """Raises what `admit` would raise for every video."""
        _, pipelines, config = await self._resolve(selection)
        complete = self.catalogue.require(pipelines, config)
        await asyncio.to_thread(self.catalogue.require_intact, complete)

    async def admit(
        self,
        path: Path,
        filename: str,
        selection: Selection,
        *,
        owns_video: bool,
        job_id: str | None = None,
        tags: tuple[str, ...] = (),
        priority: int = 0,
        batch_id: str | None = None,
        errands: Errands | None = None,
        considered: Considered | None = None,
    ) -> NewJob:
        """
        Look at a video and at what is asked, and refuse what cannot be done. Nothing is queued yet. The path must be
        resolved: from now on no link in it is followed. `considered` is what `consider` gave for this order.

        Raises:
            UnreadableVideo, InvalidConfig: see there.
            StorageTrouble: STORAGE_FULL, too little free space to write results.
        """
        considered = considered or await self.consider(selection, errands)
        preset = considered.preset
        video = await self.prober.probe(path, filename)
        copying = self.catalogue.copying(video) if self.settings.browser_copy else ()
        return NewJob(
            id=job_id or new_id("job"),
            video=video,
            video_path=path,
            owns_video=owns_video,
            stages=(*self.catalogue.stages(video, considered.complete), *copying),
            config=selection.config,
            cache=selection.cache,
            preset=preset.name if preset else None,
            preset_content=msgspec.to_builtins(preset) if preset else None,
            tags=tags,
            priority=priority,
            batch_id=batch_id,
            errands=errands or Errands(),
        )

    async def admit_from_url(
        self,
        url: str,
        selection: Selection,
        *,
        errands: Errands | None = None,
        tags: tuple[str, ...] = (),
        priority: int = 0,
        batch_id: str | None = None,
    ) -> NewJob:
        """
        The same for a video that is to be fetched when the job's turn comes: of the video nothing is known yet, and
        which of the stages have nothing to do on it shows then.

        Raises:
            InvalidConfig, StorageTrouble: see there.
        """
        errands = msgspec.structs.replace(errands or Errands(), video_url=url)
        considered = await self.consider(selection, errands)
        preset = considered.preset
        job_id, filename = new_id("job"), filename_of(url)
        return NewJob(
            id=job_id,
            video=Video(filename=filename, size_bytes=0, container="", duration_seconds=0.0),
            video_path=self.artifacts.video_folder(job_id) / stored_name(filename),
            owns_video=True,
            stages=tuple(NewStage(name, values) for name, values in considered.complete.items()),
            config=selection.config,
            preset=preset.name if preset else None,
            preset_content=msgspec.to_builtins(preset) if preset else None,
            tags=tags,
            priority=priority,
            batch_id=batch_id,
            cache=selection.cache,
            errands=errands,
        )

    async def consider(self, selection: Selection, errands: Errands | None = None) -> Considered:
        """
        Look at what is asked.

        Raises:
            InvalidConfig: it cannot be done, with every problem found.
            StorageTrouble: STORAGE_FULL, too little free space to write results.
        """
        preset, pipelines, config = await self._resolve(selection)
        complete = self.catalogue.require(pipelines, config)
        await asyncio.to_thread(self._require_possible, complete, errands)
        self.worker.expect(complete)
        return Considered(preset=preset, complete=complete)

    async def submit(
        self, *jobs: NewJob, batch_name: str | None = None, once: Idempotency | None = None
    ) -> tuple[Job, ...]:
        """
        When it returns, the jobs are on disk and will be worked on, whatever happens to this process. With `once` it
        may be the job of an earlier sending of the same request; see `Store.add`.
        """
        return await self.store.add(*jobs, batch_name=batch_name, once=once)

    async def cancel(self, job_id: str) -> Job:
        job = await self.store.request_cancel(job_id)
        if job.status.is_final:
            await asyncio.to_thread(self.artifacts.drop_chunks, job_id)
        return job

    async def retry(self, job_id: str, *, from_scratch: bool = False) -> Job:
        """
        A new job on the same video, with what the old one finished. Final states never change, so the old one stays.

        Raises:
            Conflict: JOB_NOT_FINISHED, JOB_SUCCEEDED where nothing is left to do again, VIDEO_GONE.
        """
        old = await self.store.get(job_id)
        new = again(old, self.catalogue, self.artifacts, from_scratch=from_scratch)
        await asyncio.to_thread(bring_video, old, new)
        kept = {stage.pipeline for stage in new.stages if stage.carried_over}
        artifacts = [a for a in await self.store.artifacts(old.id) if a.pipeline in kept]
        await asyncio.to_thread(mark, self.artifacts, new.id)
        await asyncio.to_thread(self.artifacts.carry_over, old.id, new.id, artifacts)
        (job,) = await self.submit(new)
        await asyncio.to_thread(unmark, self.artifacts, new.id)
        return job

    async def delete(self, job_id: str) -> None:
        """Cancel the job if it runs, wait until it has ended, then remove rows and files."""
        job = await self.store.get(job_id)
        if not job.status.is_final:
            last = await self.store.last_seq()
            with suppress(Conflict):
                await self.cancel(job_id)
            await self._until_final(job_id, last)
        await remove_job(self.store, self.artifacts, job_id)

    async def presets(self) -> tuple[Preset, ...]:
        """The built-in ones, then those that users stored, by name."""
        return (*self._builtin_presets.values(), *await self.store.presets())

    async def preset(self, name: str) -> Preset:
        """Raises NotFound (PRESET_NOT_FOUND)."""
        presets = {preset.name: preset for preset in await self.presets()}
        if name not in presets:
            raise NotFound.of("preset", name, there_are(name, presets))
        return presets[name]

    async def _resolve(self, selection: Selection) -> tuple[Preset | None, tuple[str, ...], dict[str, dict[str, Any]]]:
        if selection.preset is None and selection.pipelines:
            return None, selection.pipelines, dict(selection.config)
        presets = {preset.name: preset for preset in await self.presets()}
        pipelines, config = chosen(presets, selection.preset, selection.pipelines, selection.config)
        return presets[selection.preset or DEFAULT_PRESET], pipelines, config

    def _desk(self) -> Desk:
        settings = self.settings
        fetcher = Fetcher(
            self.policy,
            max_bytes=settings.max_upload_bytes,
            min_free_bytes=settings.min_free_bytes,
            timeout_seconds=settings.fetch_timeout_seconds,
        )
        return Desk(
            store=self.store,
            artifacts=self.artifacts,
            prober=self.prober,
            catalogue=self.catalogue,
            fetcher=fetcher,
            settings=settings,
        )

    def _require_possible(self, complete: dict[str, dict[str, Any]], errands: Errands | None) -> None:
        self.catalogue.require_intact(complete)
        self._require_space()
        if errands is not None:
            require_possible(errands, self.settings, self.policy)

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.settings.storage_dir).free
        if free < self.settings.min_free_bytes:
            message = f"Only {free / 2**20:.0f} MiB are free in {self.settings.storage_dir}."
            hint = f"Free some: at least {self.settings.min_free_bytes / 2**20:.0f} MiB (min_free_bytes) are kept."
            raise StorageTrouble(message, hint=hint, code="STORAGE_FULL")

    async def _until_final(self, job_id: str, after: int) -> None:
        if (await self.store.get(job_id)).status.is_final:
            return
        async with aclosing(self.store.follow(after=after, job_id=job_id)) as events:
            async for _ in events:
                if (await self.store.get(job_id)).status.is_final:
                    return

    async def _work(self) -> None:
        try:
            await self.worker.run()
        except Exception as exc:
            log.critical("the worker ended", exc_info=exc)
            self.failure = exc
        finally:
            self.failed.set()


def _expect(soon: Selection, settings: Settings, runner: Runner, prober: Probers) -> None:
    """Begin processes that will be needed; what is wrong with the selection shows when it is considered."""
    catalogue = Catalogue.of(settings)
    with suppress(VideoAnnotatorError):
        pipelines, config = chosen(builtin_presets(), soon.preset, soon.pipelines, soon.config)
        for making in makings(catalogue.require(pipelines, config), catalogue, settings)[: settings.stage_slots]:
            runner.expect(making)
        prober.expect()


def is_in_use(folder: Path) -> bool:
    """Whether a living process holds this directory as its storage."""
    try:
        with only_one(folder):
            return False
    except StorageTrouble:
        return True


def storage_id(folder: Path) -> str:
    """What processes of a storage directory are marked with."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
