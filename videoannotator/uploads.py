"""
Resumable uploads: how far each is stands in the store, its bytes in `uploads/<id>`.

What the store says was received is on disk for good. A file may be longer, by what came in just before a crash; that
tail is cut off when the upload goes on. One hand at a time holds an upload (`held`): two that write would mix.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from videoannotator.errors import Conflict, NotFound, StorageTrouble
from videoannotator.jobs import ResumableUpload, new_id
from videoannotator.logs import get_logger
from videoannotator.settings import Settings
from videoannotator.store import Store

_LONGEST_WAIT_SECONDS = 60.0

log = get_logger(__name__)


class Uploads:
    def __init__(self, folder: Path, store: Store, settings: Settings) -> None:
        self._folder = folder
        self._store = store
        self._settings = settings
        self._held: set[str] = set()

    def path(self, upload: ResumableUpload) -> Path:
        return self._folder / upload.id

    async def begin(self, owner: str, *, length: int, filename: str, metadata: str) -> ResumableUpload:
        """
        Raises:
            StorageTrouble: STORAGE_FULL, it would not fit on the disk.
        """
        await asyncio.to_thread(self._require_space, length)
        upload = ResumableUpload(
            id=new_id("up"),
            owner=owner,
            filename=filename,
            metadata=metadata,
            length=length,
            created_at=datetime.now(UTC),
            expires_at=self._expiry(),
        )
        await asyncio.to_thread(_make, self.path(upload))
        await self._store.add_upload(upload)
        return upload

    async def find(self, upload_id: str, owner: str | None) -> ResumableUpload:
        """
        `owner` None finds everybody's.

        Raises:
            NotFound: UPLOAD_NOT_FOUND, also where it is somebody else's, or has expired.
        """
        upload = await self._store.upload(upload_id)
        if owner not in (None, upload.owner) or upload.expires_at <= datetime.now(UTC):
            raise NotFound.of("upload", upload_id, "It was never begun, was used, was removed or has expired.")
        return upload

    @contextmanager
    def held(self, upload_id: str) -> Iterator[None]:
        """Raises Conflict (UPLOAD_BUSY) where another request has it."""
        if upload_id in self._held:
            message = f"Another request works on upload {upload_id}."
            raise Conflict(message, hint="Wait until it has ended, then ask how far it got.", code="UPLOAD_BUSY")
        self._held.add(upload_id)
        try:
            yield
        finally:
            self._held.discard(upload_id)

    async def note(self, upload: ResumableUpload, received: int) -> datetime:
        """So many bytes are on disk for good; when the upload expires now."""
        expires = self._expiry()
        await self._store.note_received(upload.id, received, expires)
        return expires

    async def remove(self, upload: ResumableUpload) -> None:
        await self._store.remove_upload(upload.id)
        await asyncio.to_thread(self.path(upload).unlink, missing_ok=True)

    @asynccontextmanager
    async def moved(self, upload: ResumableUpload, place: Path) -> AsyncIterator[None]:
        """
        The upload's bytes lie at `place` in the block, which puts a job with this `upload_id` into the queue; when it
        raises, they are an upload as before. A crash at any point leaves the job or the upload, never neither.

        Raises:
            Conflict: UPLOAD_INCOMPLETE.
        """
        if not upload.is_complete:
            message = f"{upload.length - upload.received} of {upload.length} bytes of upload {upload.id} are missing."
            raise Conflict(message, hint="Send the rest with PATCH.", code="UPLOAD_INCOMPLETE")
        await asyncio.to_thread(_link, self.path(upload), place)
        try:
            yield
        finally:
            await asyncio.shield(asyncio.create_task(self._drop_if_used(upload), name=f"used {upload.id}"))

    async def settle(self) -> None:
        """After a crash: remove files without a row, and rows without a file."""
        known = {upload.id: upload for upload in await self._store.uploads()}
        for file in await asyncio.to_thread(lambda: list(self._folder.glob("up_*"))):
            if file.name not in known:
                await asyncio.to_thread(file.unlink, missing_ok=True)
        for upload in known.values():
            if not await asyncio.to_thread(self._is_whole, upload):
                log.warning("the bytes of an upload are gone", upload_id=upload.id)
                await self.remove(upload)

    async def sweep(self) -> None:
        """Remove what has expired, for as long as nobody cancels."""
        while True:
            await self._remove_expired()
            await asyncio.sleep(min(_LONGEST_WAIT_SECONDS, self._settings.upload_expiry_seconds / 2))

    async def _remove_expired(self) -> None:
        for upload in await self._store.uploads():
            if upload.expires_at > datetime.now(UTC):
                return
            if upload.id not in self._held:
                log.info("upload expired", upload_id=upload.id, received=upload.received, length=upload.length)
                with suppress(NotFound), self.held(upload.id):
                    await self.remove(upload)

    async def _drop_if_used(self, upload: ResumableUpload) -> None:
        try:
            await self._store.upload(upload.id)
        except NotFound:
            await asyncio.to_thread(self.path(upload).unlink, missing_ok=True)

    def _is_whole(self, upload: ResumableUpload) -> bool:
        try:
            return self.path(upload).stat().st_size >= upload.received
        except FileNotFoundError:
            return False

    def _expiry(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._settings.upload_expiry_seconds)

    def _require_space(self, length: int) -> None:
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize - length < self._settings.min_free_bytes:
            hint = "Free some space, then try again."
            raise StorageTrouble(f"There is no room for {length} bytes.", hint=hint, code="STORAGE_FULL")


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    _sync(path.parent)


def _link(source: Path, place: Path) -> None:
    """A second name, so that neither a crash before nor one after the row is written loses the file."""
    place.parent.mkdir(mode=0o700, parents=True)
    os.link(source, place)
    _sync(place.parent)
    _sync(place.parent.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
