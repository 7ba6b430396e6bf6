"""
The file of a resumable upload while bytes are added at its end.

One block is written in a thread while the next one is received, so memory does not grow with the upload. What `sync`
and `close` answer is on disk for good.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from pathlib import Path

from videoannotator.errors import NotFound, Refused, VideoAnnotatorError
from videoannotator.jobs import ResumableUpload
from videoannotator.server.receive import BLOCK_BYTES, of_disk, require_space

_NOTED_EVERY_BYTES = 64 * 1024**2
"""What a crash can cost a client at most."""


class Growing:
    """Made for one request; `close` on every path."""

    def __init__(self, path: Path, upload: ResumableUpload, min_free_bytes: int, threads: Executor) -> None:
        self._path = path
        self._upload = upload
        self._min_free_bytes = min_free_bytes
        self._threads = threads
        self._block = bytearray()
        self._come_in = upload.received
        self._written = upload.received
        self._synced = upload.received
        self._descriptor = -1
        self._writing: Future[None] | None = None
        self._trouble: VideoAnnotatorError | None = None

    async def write(self, data: bytes) -> None:
        """
        Raises:
            Refused: UPLOAD_TOO_LONG; what fits is kept.
            StorageTrouble: the disk is full or not writable; what was written before is kept.
            NotFound: UPLOAD_NOT_FOUND, the file is gone.
        """
        fits = data[: self._upload.length - self._come_in]
        self._block += fits
        self._come_in += len(fits)
        if len(self._block) >= BLOCK_BYTES:
            await self._hand_over()
        if len(fits) < len(data):
            raise too_long(self._upload)

    @property
    def is_worth_noting(self) -> bool:
        return self._written - self._synced >= _NOTED_EVERY_BYTES

    async def sync(self) -> int:
        """How many bytes of the upload are on disk for good now."""
        await self._settled()
        await self._in_thread(self._sync)
        return self._synced

    async def close(self) -> int:
        """
        Write what is still held, whatever happened before; how many bytes are on disk for good. `raise_trouble` says
        why it may be fewer than came in.
        """
        return await asyncio.shield(asyncio.wrap_future(self._threads.submit(self._finish, self._writing)))

    def raise_trouble(self) -> None:
        """Raises what kept the last bytes from the disk."""
        if self._trouble is not None:
            raise self._trouble

    async def _hand_over(self) -> None:
        await self._settled()
        block, self._block = self._block, bytearray()
        self._writing = self._threads.submit(self._write, block)

    async def _settled(self) -> None:
        if self._writing is not None:
            await asyncio.shield(asyncio.wrap_future(self._writing))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.shield(asyncio.wrap_future(self._threads.submit(work)))

    # -- in a thread

    def _write(self, block: bytearray) -> None:
        try:
            self._open()
            require_space(self._descriptor, len(block), self._min_free_bytes)
            rest = memoryview(block)
            while rest:
                done = os.write(self._descriptor, rest)
                self._written += done
                rest = rest[done:]
        except OSError as exc:
            raise of_disk(exc) from exc

    def _sync(self) -> None:
        if self._descriptor < 0:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as exc:
            raise of_disk(exc) from exc
        self._synced = self._written

    def _finish(self, writing: Future[None] | None) -> int:
        if writing is not None:
            wait([writing])
        try:
            if self._block and (writing is None or writing.exception() is None):
                self._write(self._block)
            self._sync()
        except VideoAnnotatorError as trouble:
            self._trouble = trouble
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)
        return self._synced

    def _open(self) -> None:
        """At the end of what is known; what a crash left behind it is cut off."""
        if self._descriptor >= 0:
            return
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound.of("upload", self._upload.id, "Its bytes are gone: begin it again.") from None
        os.ftruncate(self._descriptor, self._upload.received)
        os.lseek(self._descriptor, 0, os.SEEK_END)


def too_long(upload: ResumableUpload) -> Refused:
    return Refused(f"Upload {upload.id} has {upload.length} bytes; these are more.", code="UPLOAD_TOO_LONG")
