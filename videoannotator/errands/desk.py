"""The errands of a claimed job: its video is brought before the stages run, its results are taken out after them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from videoannotator.artifacts import MANIFEST, Artifacts, stored_name
from videoannotator.errands.fetch import Fetcher
from videoannotator.errands.publish import publish
from videoannotator.errors import Refused, Undelivered
from videoannotator.jobs import Claim, Job, NewStage, StageError, StageStatus, Video
from videoannotator.logs import get_logger
from videoannotator.outbound.targets import target_of
from videoannotator.paths.roots import Place, place_in
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.runner.probers import Probers
from videoannotator.settings import Settings
from videoannotator.store import Store
from videoannotator.store.foreign import write_annotations

log = get_logger(__name__)


class Desk:
    """One for all jobs."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: Artifacts,
        prober: Probers,
        catalogue: Catalogue,
        fetcher: Fetcher,
        settings: Settings,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._prober = prober
        self._catalogue = catalogue
        self._fetcher = fetcher
        self._settings = settings

    async def bring_video(self, claim: Claim) -> Claim:
        """
        The claim, its job's video fetched, looked at and in its place.

        Raises:
            Refused, Unreachable: the job cannot be worked on; nothing of the video is kept.
            StorageTrouble: STORAGE_FULL, STORAGE_NOT_WRITABLE.
            LeaseLost.
        """
        job = claim.job
        url = job.errands.video_url
        if url is None or job.errands.fetched:
            return claim
        place = self._artifacts.video_folder(job.id) / stored_name(job.video.filename)
        await self._store.log(claim, None, "info", f"The video is fetched from {target_of(url).shown}.")
        size = await self._fetcher.fetch(url, place)
        await self._store.log(claim, None, "info", f"The video is here: {size} bytes.")
        try:
            video = await self._prober.probe(place, job.video.filename)
            planned = self._plan(job, video)
        except Refused:
            await asyncio.to_thread(place.unlink, missing_ok=True)
            raise
        return msgspec.structs.replace(claim, job=await self._store.note_video(claim, video, place, planned))

    async def take_out(self, job: Job) -> StageError | None:
        """
        Publish what the job's stages made where the caller wanted it too; the manifest is written already. What was
        not possible; None where everything was, or nothing was wanted.
        """
        errands = job.errands
        if not any(stage.status is StageStatus.COMPLETED for stage in job.stages):
            return None
        troubles = []
        if errands.output_directory is not None:
            troubles.append(await self._try(job, self._publish, errands.output_directory))
        if errands.db_location is not None:
            troubles.append(await self._try(job, self._write, errands.db_location))
        return _together([trouble for trouble in troubles if trouble is not None])

    def _plan(self, job: Job, video: Video) -> tuple[NewStage, ...]:
        config = {stage.pipeline: stage.config for stage in job.stages}
        copying = self._catalogue.copying(video) if self._settings.browser_copy else ()
        return (*self._catalogue.plan(video, config, config), *copying)

    async def _try(
        self, job: Job, deliver: Callable[[Job, Place], Awaitable[None]], path: Path
    ) -> Undelivered | Refused | None:
        try:
            place = place_in(path, self._settings.output_roots, never=self._settings.storage_dir)
            await deliver(job, place)
        except (Undelivered, Refused) as trouble:
            log.warning("results were not delivered", job_id=job.id, path=str(path), reason=str(trouble))
            return trouble
        log.info("results delivered", job_id=job.id, path=str(path))
        return None

    async def _publish(self, job: Job, place: Place) -> None:
        folder = self._artifacts.results(job.id)
        files = [folder / artifact.name for artifact in await self._store.artifacts(job.id)] + [folder / MANIFEST]
        await _to_its_end(lambda stop: publish(files, place, job.id, stop))

    async def _write(self, job: Job, place: Place) -> None:
        found = await self._store.intervals_by_pipeline(job.id)
        await _to_its_end(lambda _: write_annotations(place, job, found))


def _together(troubles: list[Undelivered | Refused]) -> StageError | None:
    if not troubles:
        return None
    return StageError(troubles[0].code, " ".join(str(trouble) for trouble in troubles))


async def _to_its_end(work: Callable[[threading.Event], None]) -> None:
    """In a thread. Whoever is cancelled asks it to stop, and waits until nothing is being written any more."""
    stop = threading.Event()
    working = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({working})
        raise
