"""
What somebody wants gone goes at once, wherever it lies: a recording, or all that has a participant's tag.

Jobs that run are cancelled and waited for. Rows go first and files after, as in `removal.py`. The receipt says what
went, and of what nobody can tell whose it is.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from videoannotator.artifacts import Artifacts, sha256
from videoannotator.errors import NotFound
from videoannotator.jobs import Job, ResumableUpload, new_id
from videoannotator.keeping import ErasedFile, Receipt
from videoannotator.logs import get_logger
from videoannotator.store import Store
from videoannotator.store.trouble import DATABASE
from videoannotator.upkeep.lost import LostJob, lost_jobs
from videoannotator.upkeep.removal import remove_job

_CHECKPOINT_TRIES = 50
_SQLITE = b"SQLite format 3\0"

log = get_logger(__name__)


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure is about, and all that was found of it."""

    what: str
    """As an error names it."""

    video_sha256: str | None = None
    tag_sha256: str | None = None
    """Of the tag itself."""

    jobs: tuple[Job, ...] = ()
    batches: int = 0
    uploads: tuple[ResumableUpload, ...] = ()
    lost: tuple[LostJob, ...] = ()
    unattributed: int = 0
    """Folders in `lost/` of which nobody can tell whether they belong to it."""

    @property
    def is_empty(self) -> bool:
        return not (self.jobs or self.batches or self.uploads or self.lost)


class Erasure:
    """
    Everything of a video, or of all videos with a tag: copies, results, logs, rows, what was put aside in `lost/`, and
    what the database file still holds of deleted rows.
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
        unread = [job_id async for job_id in self._unread_with(digest)]
        aside = await self._aside()
        target = _Target(
            what="video",
            video_sha256=digest,
            jobs=await self._get((*known, *unread)),
            uploads=tuple([upload async for upload in self._uploads_of(digest)]),
            lost=tuple(lost for lost in aside if digest in lost.videos),
            unattributed=sum(not lost.videos for lost in aside),
        )
        return await self._erase(target, originals=originals)

    async def of_tag(self, tag: str, *, originals: bool) -> Receipt:
        """
        Of `lost/` what an older database knew by this tag, and what has the bytes of a video that has it.

        Raises:
            NotFound: NOTHING_TO_ERASE.
        """
        jobs, aside = await self._get(await self._store.jobs_with_tag(tag)), await self._aside()
        videos = {job.video.sha256 for job in jobs if job.video.sha256}
        videos |= {digest for lost in aside if lost.tags and tag in lost.tags for digest in lost.videos}
        its_own = tuple(lost for lost in aside if (lost.tags and tag in lost.tags) or lost.videos & videos)
        strange = [lost for lost in aside if lost not in its_own and lost.tags is None]
        target = _Target(
            what="tag",
            tag_sha256=hashlib.sha256(tag.encode()).hexdigest(),
            jobs=jobs,
            batches=await self._store.forget_tag(tag),
            lost=its_own,
            unattributed=sum([not await self._is_of_others(lost) for lost in strange]),
        )
        return await self._erase(target, originals=originals)

    async def _get(self, job_ids: Iterable[str]) -> tuple[Job, ...]:
        return tuple([await self._store.get(job_id) for job_id in job_ids])

    async def _unread_with(self, digest: str) -> AsyncIterator[str]:
        """Jobs whose video nobody has read to its end yet, and which is this one. Each file is read once."""
        read: dict[Path, bool] = {}
        async for job_id, path in self._store.jobs_of_unknown_content():
            if path not in read:
                read[path] = await _is(path, digest)
            if read[path]:
                yield job_id

    async def _uploads_of(self, digest: str) -> AsyncIterator[ResumableUpload]:
        """Those that are whole and that no job was made of yet."""
        for upload in await self._store.uploads():
            if upload.is_complete and await _is(self._artifacts.uploads / upload.id, digest):
                yield upload

    async def _aside(self) -> tuple[LostJob, ...]:
        return await asyncio.to_thread(lost_jobs, self._artifacts, self._store.tags_in_copies)

    async def _is_of_others(self, lost: LostJob) -> bool:
        """Its video is known by jobs that go on, and none of them has the tag."""
        return any([await self._store.jobs_with_content(digest) for digest in lost.videos])

    async def _erase(self, target: _Target, *, originals: bool) -> Receipt:
        if target.is_empty:
            raise _nothing(target)
        files, outside = await asyncio.to_thread(self._inventory, target, originals=originals)
        receipt = Receipt(
            id=new_id("receipt"),
            made_at=datetime.now(UTC),
            video_sha256=target.video_sha256,
            tag_sha256=target.tag_sha256,
            jobs=len(target.jobs),
            files=tuple(files),
            originals_left=0 if originals else len(outside),
            lost_unattributed=target.unattributed,
        )
        await self._store.put_receipt(receipt)
        await self._remove(target)
        if originals:
            await asyncio.to_thread(_unlink, outside)
            await self._store.forget_scanned(outside)
        copies = await asyncio.to_thread(self._remove_database_copies)
        left = await asyncio.to_thread(self._other_databases)
        receipt = msgspec.structs.replace(receipt, finished=True, database_copies=copies, databases_left=left)
        await self._store.put_receipt(receipt)
        clean = await self._scrub([job.id for job in target.jobs])
        receipt = msgspec.structs.replace(receipt, database_clean=clean)
        await self._store.put_receipt(receipt)
        await asyncio.to_thread(self._write, receipt)
        log.warning("erased", receipt=receipt.id, jobs=receipt.jobs, files=len(files), database_clean=clean)
        return receipt

    async def _remove(self, target: _Target) -> None:
        await self._store.forget_names([job.id for job in target.jobs])
        for job in target.jobs:
            await self._delete(job.id)
        for upload in target.uploads:
            await self._store.remove_upload(upload.id)
            await asyncio.to_thread((self._artifacts.uploads / upload.id).unlink, missing_ok=True)
        for lost in target.lost:
            await asyncio.to_thread(shutil.rmtree, lost.folder)

    def _inventory(self, target: _Target, *, originals: bool) -> tuple[list[ErasedFile], list[Path]]:
        """Every file with its hash, and the videos that lie outside of the storage directory."""
        files: list[ErasedFile] = []
        for job in target.jobs:
            files += [_account(kind, file) for kind, file in self._artifacts.files(job.id)]
        files += [_account("upload", self._artifacts.uploads / upload.id) for upload in target.uploads]
        for lost in target.lost:
            plain = [file for file in sorted(lost.folder.rglob("*")) if file.is_file() and not file.is_symlink()]
            files += [_account("lost", file) for file in plain]
        outside = sorted({job.video_path for job in target.jobs if not job.owns_video and job.video_path.is_file()})
        if originals:
            files += [_account("original", file) for file in outside]
        return files, outside

    def _remove_database_copies(self) -> int:
        copies = list(self._folder.glob("videoannotator.version-*.sqlite"))
        _unlink(copies)
        return len(copies)

    def _other_databases(self) -> int:
        """A damaged one that was moved aside, say: whose it is nobody knows, and it may hold the same rows."""
        files = [file for file in self._folder.iterdir() if file.name != DATABASE and file.is_file()]
        return sum(_begins_with(file, _SQLITE) for file in files)

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


def _nothing(target: _Target) -> NotFound:
    hint = "Look at the hash, or at the tags of the jobs."
    if target.unattributed:
        hint = f"But {unattributed(target.unattributed)}"
    return NotFound(f"No job has this {target.what}.", hint=hint, code="NOTHING_TO_ERASE")


def unattributed(folders: int) -> str:
    """A sentence for whoever answers for the erasure."""
    return f"{folders} folder{'' if folders == 1 else 's'} in lost/ could not be attributed to anybody: look there."


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


def _begins_with(file: Path, magic: bytes) -> bool:
    try:
        with file.open("rb") as content:
            return content.read(len(magic)) == magic
    except OSError:
        return False
