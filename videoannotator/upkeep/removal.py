"""
The end of data: what is old goes by itself where the operator wants it, and what somebody wants gone goes at once.

Both go through the rows first and the files after, job by job; a crash in between leaves files without rows, and a mark
by which the next start knows that they are to go. Nothing here touches a job that is pending or running, except
`Erasure`, which is for exactly that and waits until each has ended.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from videoannotator.artifacts import Artifacts, sha256
from videoannotator.errors import NotFound
from videoannotator.faults import reach
from videoannotator.jobs import Job, new_id
from videoannotator.keeping import ErasedFile, OldJob, Receipt
from videoannotator.logs import get_logger
from videoannotator.store import Store
from videoannotator.upkeep.orphans import lost_with, mark, unmark
from videoannotator.work.cache import Cache

LOOK_AGAIN_SECONDS = 3600.0
_PAGE = 200
_CHECKPOINT_TRIES = 50

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


class Erasure:
    """
    Everything of a video, or of all videos with a tag: copies, results, logs, rows, and what the database file still
    holds of deleted rows.
    """

    def __init__(
        self, store: Store, artifacts: Artifacts, folder: Path, delete: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        """`delete` ends a job that runs, waits for that and removes it; without it there must be no worker."""
        self._store = store
        self._artifacts = artifacts
        self._folder = folder
        self._delete = delete or (lambda job_id: remove_job(store, artifacts, job_id))

    async def of_video(self, digest: str, *, originals: bool) -> Receipt:
        """
        `digest` is the SHA-256 of the file's bytes. With `originals` also the files that were annotated in place.

        Raises:
            NotFound: NOTHING_TO_ERASE.
        """
        known = await self._store.jobs_with_content(digest)
        unread = [job_id for job_id, path in await self._store.jobs_of_unknown_content() if await _is(path, digest)]
        lost = await asyncio.to_thread(lost_with, self._artifacts, digest)
        return await self._erase((*known, *unread), lost=lost, originals=originals, video_sha256=digest)

    async def of_tag(self, tag: str, *, originals: bool) -> Receipt:
        """Raises NotFound (NOTHING_TO_ERASE)."""
        found = await self._store.jobs_with_tag(tag)
        batches = await self._store.forget_tag(tag)
        return await self._erase(
            found, batches=batches, originals=originals, tag_sha256=hashlib.sha256(tag.encode()).hexdigest()
        )

    async def _erase(
        self,
        job_ids: Sequence[str],
        *,
        originals: bool,
        batches: int = 0,
        lost: Sequence[Path] = (),
        video_sha256: str | None = None,
        tag_sha256: str | None = None,
    ) -> Receipt:
        if not job_ids and not batches and not lost:
            message = "No job has this video or tag."
            hint = "Look at the hash, or at the tags of the jobs."
            raise NotFound(message, hint=hint, code="NOTHING_TO_ERASE")
        jobs = [await self._store.get(job_id) for job_id in job_ids]
        files, outside = await asyncio.to_thread(self._inventory, jobs, lost, originals=originals)
        receipt = Receipt(
            id=new_id("receipt"),
            made_at=datetime.now(UTC),
            video_sha256=video_sha256,
            tag_sha256=tag_sha256,
            jobs=len(jobs),
            files=tuple(files),
            originals_left=0 if originals else len(outside),
        )
        await self._store.put_receipt(receipt)
        await self._store.forget_names(job_ids)
        for job in jobs:
            await self._delete(job.id)
        for folder in lost:
            await asyncio.to_thread(shutil.rmtree, folder)
        if originals:
            await asyncio.to_thread(_unlink, outside)
        copies = await asyncio.to_thread(self._remove_database_copies)
        receipt = msgspec.structs.replace(receipt, finished=True, database_copies=copies)
        await self._store.put_receipt(receipt)
        clean = await self._scrub(job_ids)
        receipt = msgspec.structs.replace(receipt, database_clean=clean)
        await self._store.put_receipt(receipt)
        await asyncio.to_thread(self._write, receipt)
        log.warning("erased", receipt=receipt.id, jobs=receipt.jobs, files=len(files), database_clean=clean)
        return receipt

    def _inventory(
        self, jobs: Sequence[Job], lost: Sequence[Path], *, originals: bool
    ) -> tuple[list[ErasedFile], list[Path]]:
        """Every file with its hash, and the videos that lie outside of the storage directory."""
        files: list[ErasedFile] = []
        for job in jobs:
            files += [_account(kind, file) for kind, file in self._artifacts.files(job.id)]
        for folder in lost:
            files += [_account("lost", file) for file in sorted(folder.rglob("*")) if file.is_file()]
        outside = sorted({job.video_path for job in jobs if not job.owns_video and job.video_path.is_file()})
        if originals:
            files += [_account("original", file) for file in outside]
        return files, outside

    def _remove_database_copies(self) -> int:
        copies = list(self._folder.glob("videoannotator.version-*.sqlite"))
        _unlink(copies)
        return len(copies)

    async def _scrub(self, job_ids: Sequence[str]) -> bool:
        """Rows are overwritten when they are deleted; here the log of writes is emptied, and both are searched."""
        for _ in range(_CHECKPOINT_TRIES):
            if await self._store.truncate_wal():
                break
            await asyncio.sleep(0.1)
        if not await asyncio.to_thread(self._store.remains, job_ids):
            return True
        # Rows of before this program overwrote what it deletes, or a page that was split: written anew it is gone.
        await self._store.vacuum()
        await self._store.truncate_wal()
        return not await asyncio.to_thread(self._store.remains, job_ids)

    def _write(self, receipt: Receipt) -> None:
        folder = self._folder / "receipts"
        folder.mkdir(mode=0o700, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
        (folder / f"{receipt.id}.json").write_bytes(content + b"\n")


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


async def _is(path: Path, digest: str) -> bool:
    try:
        return await asyncio.to_thread(sha256, path) == digest
    except OSError:
        return False


def _account(kind: str, file: Path) -> ErasedFile:
    return ErasedFile(kind, file.stat().st_size, sha256(file))


def _unlink(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
