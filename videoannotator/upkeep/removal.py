"""
The end of data: what is old goes by itself where the operator wants it. What somebody wants gone at once is for
`erasure.py`.

Both go through the rows first and the files after, job by job; a crash in between leaves files without rows, and a mark
by which the next start knows that they are to go. Nothing here touches a job that is pending or running.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec

from videoannotator.artifacts import Artifacts
from videoannotator.errors import NotFound
from videoannotator.faults import reach
from videoannotator.keeping import OldJob
from videoannotator.logs import get_logger
from videoannotator.store import Store
from videoannotator.upkeep.orphans import mark, unmark
from videoannotator.work.cache import Cache

LOOK_AGAIN_SECONDS = 3600.0
_PAGE = 200

log = get_logger(__name__)


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed for its age, or would be."""

    jobs: tuple[OldJob, ...]
    bytes_freed: int
    batches: int = 0


class Upkeep:
    """Retention: jobs that ended so many days ago, with all their files."""

    def __init__(self, store: Store, artifacts: Artifacts) -> None:
        self._store = store
        self._artifacts = artifacts

    async def run(self, retention_days: float) -> None:
        """Sweep now and then, for as long as nobody cancels; nothing where `retention_days` is 0."""
        while retention_days > 0:
            swept = await self.sweep(datetime.now(UTC) - timedelta(days=retention_days))
            if swept.jobs:
                log.info("old jobs removed", jobs=len(swept.jobs), freed_bytes=swept.bytes_freed)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def preview(self, before: datetime) -> Swept:
        """What `sweep` would remove."""
        found = [job async for job in self._old(before)]
        sizes = [await asyncio.to_thread(self._artifacts.size, job.id) for job in found]
        return Swept(jobs=tuple(found), bytes_freed=sum(sizes))

    async def sweep(self, before: datetime) -> Swept:
        """Remove the jobs that ended before then, oldest first, and batches of which nothing is left."""
        removed, freed = [], 0
        while page := await self._store.finished_before(before, _PAGE):
            for job in page:
                freed += await asyncio.to_thread(self._artifacts.size, job.id)
                await remove_job(self._store, self._artifacts, job.id)
                removed.append(job)
        batches = await self._store.remove_old_batches(before)
        return Swept(jobs=tuple(removed), bytes_freed=freed, batches=batches)

    async def _old(self, before: datetime) -> AsyncIterator[OldJob]:
        """All of them at once: nothing is removed meanwhile, so pages would have to be told apart."""
        for job in await self._store.finished_before(before, 1_000_000):
            yield job


async def remove_job(store: Store, artifacts: Artifacts, job_id: str) -> None:
    """
    Rows, then files. Of a job that is pending or final, or gone already. With the last job of a video go the results
    that are remembered of it.
    """
    digest = None
    await asyncio.to_thread(mark, artifacts, job_id)
    try:
        digest = (await store.get(job_id)).video.sha256
        await store.remove(job_id)
    except NotFound:
        log.debug("the job is gone already", job_id=job_id)
    reach("job.forgotten")
    await asyncio.to_thread(artifacts.remove, job_id)
    await asyncio.to_thread(unmark, artifacts, job_id)
    if digest is not None and not await store.jobs_with_content(digest):
        await asyncio.to_thread(Cache(artifacts.cache, 0).forget, digest)
