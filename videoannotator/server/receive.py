"""
Takes a form with a video in it straight to disk: one write of the data, and the same memory for every size.

While one block is written in a thread the next one is received. The file is `uploads/*.part` until it is moved away;
whatever else happens (client gone, disk full, form wrong, server stopping), it is removed. It is on disk for good only
after `Upload.sync`, so that whoever looks at the video need not wait for the disk first.
"""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor, Future, wait
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec

import msgspec
from litestar import Request
from litestar.exceptions import InternalServerException
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
)

from videoannotator.errors import FieldProblem, InvalidConfig, Refused, StorageTrouble, VideoAnnotatorError
from videoannotator.faults import reach

P = ParamSpec("P")

BLOCK_BYTES = 1024**2
_FIRST_BLOCK_BYTES = 256 * 1024
"""Blocks grow from here: most of a small video is written and hashed before its last byte is there."""

STALL_SECONDS = 60.0
"""A client that sends nothing for so long has gone, whatever its connection says."""

_MOST_PARTS = 64
_MOST_FIELD_BYTES = 1024**2
_MOST_HEADER_BYTES = 16 * 1024
_FORM_BYTES = 2 * 1024**2
"""What a form may have beside the video: fields, headers, boundaries."""

FILE_FIELD = "video"


class UploadLimits(msgspec.Struct, frozen=True, kw_only=True):
    max_bytes: int
    """Largest video."""

    min_free_bytes: int
    """What must stay free on the disk."""

    fields: frozenset[str]
    """The form's fields beside the file."""

    hashed: bool = False
    """Whether to hash the video while it is written."""


class Upload:
    """A form that has come in whole. Its file is removed unless it is moved away."""

    def __init__(self, part: "_Part", filename: str, fields: dict[str, list[str]]) -> None:
        self._part = part
        self.fields = fields
        self.filename = filename
        """As the client named it: not to be trusted."""

    async def sha256(self) -> str | None:
        """Of the file's bytes, where the limits ask for it; all of them are written then."""
        await self._part.finish()
        return self._part.sha256

    async def move(self, place: Path) -> None:
        """All of the file lies at `place` now, in a folder of its own, which is made; a power cut may still take it."""
        await self._part.finish(place)

    async def sync(self) -> None:
        """What was moved is on disk for good, under its name."""
        await self._part.sync()


@asynccontextmanager
async def receiving(
    request: Request[Any, Any, Any], folder: Path, limits: UploadLimits, threads: Executor
) -> AsyncIterator[Upload]:
    """
    Receive `multipart/form-data` whose field `video` is a file.

    Raises:
        Refused: MALFORMED_MULTIPART, VIDEO_TOO_LARGE, BODY_TOO_LARGE, UPLOAD_STALLED, CLIENT_LEFT.
        InvalidConfig: a field that is missing or unknown.
        StorageTrouble: STORAGE_FULL.
    """
    _refuse_by_length(request.content_length, folder, limits)
    part = _Part(folder / f"{secrets.token_hex(16)}.part", threads, limits)
    try:
        form = _Form(part, limits)
        await form.read(request)
        yield Upload(part, form.filename or "", form.fields)
    finally:
        await part.remove()


def storage_full() -> StorageTrouble:
    return StorageTrouble("The server's disk is full.", hint="Free some space, then try again.", code="STORAGE_FULL")


def require_space(descriptor: int, coming: int, min_free_bytes: int) -> None:
    """Raises StorageTrouble (STORAGE_FULL) before so many more bytes would leave too little room."""
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize - coming < min_free_bytes:
        raise storage_full()


def _refuse_by_length(length: int | None, folder: Path, limits: UploadLimits) -> None:
    """What can be known before the first byte is known before the first byte."""
    if length is None:
        return
    if length > limits.max_bytes + _FORM_BYTES:
        raise _too_large(limits)
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize - length < limits.min_free_bytes:
        raise storage_full()


class _Form:
    """One form, taken apart while it comes in."""

    def __init__(self, part: "_Part", limits: UploadLimits) -> None:
        self._part = part
        self._limits = limits
        self._field = bytearray()
        self._field_bytes = 0
        self._segment: MultipartSegment | None = None
        self.filename: str | None = None
        self.fields: dict[str, list[str]] = {}

    async def read(self, request: Request[Any, Any, Any]) -> None:
        try:
            with _parser(request) as parser:
                async for chunk in chunks(request):
                    for event in parser.parse(chunk):
                        await self._take(event)
        except MultipartError as exc:
            raise _malformed(str(exc)) from exc
        if self.filename is None:
            problem = FieldProblem(FILE_FIELD, "The form has no video.", "MISSING_FIELD", "Send it as a file.")
            raise InvalidConfig((problem,))

    async def _take(self, event: MultipartSegment | bytearray | bytes | None) -> None:
        match event:
            case MultipartSegment():
                self._begin(event)
            case None:
                self._end()
            case data if self._is_file:
                await self._part.write(data)
            case data:
                self._grow_field(data)

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment, self._field = segment, bytearray()
        if self._is_file:
            if self.filename is not None:
                raise _wrong_field(FILE_FIELD, "A job has one video.", "DUPLICATE_FIELD")
            self.filename = segment.filename
        elif segment.name == FILE_FIELD:
            raise _wrong_field(FILE_FIELD, "The video must be sent as a file.", "WRONG_TYPE")
        elif segment.name not in self._limits.fields or segment.filename is not None:
            raise _wrong_field(str(segment.name)[:100], "There is no such field.", "UNKNOWN_FIELD")

    def _grow_field(self, data: bytes | bytearray) -> None:
        self._field_bytes += len(data)
        if self._field_bytes > _MOST_FIELD_BYTES:
            raise Refused("The form's fields are too large.", code="BODY_TOO_LARGE")
        self._field += data

    def _end(self) -> None:
        if self._segment is None or self._is_file:
            return
        try:
            text = self._field.decode()
        except UnicodeDecodeError:
            raise _malformed(f"the field {self._segment.name} is not UTF-8") from None
        self.fields.setdefault(self._segment.name or "", []).append(text)

    @property
    def _is_file(self) -> bool:
        return self._segment is not None and self._segment.name == FILE_FIELD and bool(self._segment.filename)


class _Part:
    """
    A file on its way in. One block is in a thread's hands at a time, so that blocks land in order; the descriptor is
    closed only when no thread has it.
    """

    def __init__(self, path: Path, threads: Executor, limits: UploadLimits) -> None:
        self._path = path
        self._threads = threads
        self._limits = limits
        self._block = bytearray()
        self._block_bytes = _FIRST_BLOCK_BYTES
        self._size = 0
        self._descriptor = -1
        self._work: list[Future[None]] = []
        self._hash = hashlib.sha256() if limits.hashed else None
        self._is_whole = False
        self._place: Path | None = None

    @property
    def sha256(self) -> str | None:
        """Of all that was written; ask after `finish`."""
        return self._hash.hexdigest() if self._hash else None

    async def write(self, data: bytes | bytearray) -> None:
        self._size += len(data)
        if self._size > self._limits.max_bytes:
            raise _too_large(self._limits)
        self._block += data
        if len(self._block) >= self._block_bytes:
            self._block_bytes = min(BLOCK_BYTES, 2 * self._block_bytes)
            await self._settled()
            self._begin(self._write, self._taken())

    async def finish(self, place: Path | None = None) -> None:
        """The rest is written; with `place`, the file is moved there."""
        if self._is_whole and place is None:
            return
        self._begin(self._finish, tuple(self._work), self._taken(), place)
        await self._settled()
        self._is_whole = True

    async def sync(self) -> None:
        """The file and the names that lead to it, at the same time: the disk makes one effort of it."""
        assert self._place is not None, "it was moved"
        self._begin(self._sync_file)
        for folder in (self._place.parent, self._place.parent.parent):
            self._begin(_sync_folder, folder)
        await self._settled()

    async def remove(self) -> None:
        """Close, and remove what was not moved away. Goes on in its thread if nobody waits any more."""
        if self._work or self._descriptor >= 0 or self._place is None:
            await asyncio.shield(asyncio.wrap_future(self._threads.submit(self._remove, self._work)))

    def _taken(self) -> bytearray:
        block, self._block = self._block, bytearray()
        return block

    def _begin(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        self._work.append(self._threads.submit(work, *args, **kwargs))

    async def _settled(self) -> None:
        """All that was begun is done. Raises what went wrong."""
        if self._work:
            await asyncio.shield(asyncio.gather(*map(asyncio.wrap_future, self._work)))
            self._work = []

    # -- in a thread

    def _write(self, block: bytearray) -> None:
        try:
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            require_space(self._descriptor, len(block), self._limits.min_free_bytes)
            if self._hash:
                self._hash.update(block)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as exc:
            raise of_disk(exc) from exc

    def _finish(self, before: tuple[Future[None], ...], block: bytearray, place: Path | None) -> None:
        for work in before:  # it was begun before this, so that it has a thread
            work.result()
        if not self._is_whole:
            self._write(block)
            reach("upload.received")
        if place is None:
            return
        try:
            place.parent.mkdir(mode=0o700)
            self._path.rename(place)
        except OSError as exc:
            raise of_disk(exc) from exc
        self._place = place
        reach("upload.moved")

    def _sync_file(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as exc:
            raise of_disk(exc) from exc
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _remove(self, work: list[Future[None]]) -> None:
        wait(work)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._place is None:
            self._path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        raise of_disk(exc) from exc
    finally:
        os.close(descriptor)


async def chunks(request: Request[Any, Any, Any]) -> AsyncGenerator[bytes, None]:
    """The body as it comes in. Raises Refused (UPLOAD_STALLED, CLIENT_LEFT)."""
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(stream, b"")
            if not chunk:
                return
            yield chunk
    except TimeoutError:
        message = f"Nothing arrived for {STALL_SECONDS:.0f} seconds."
        raise Refused(message, hint="Send the video again.", code="UPLOAD_STALLED") from None
    except InternalServerException as gone:
        raise Refused("The client left before the upload was complete.", code="CLIENT_LEFT") from gone


def _parser(request: Request[Any, Any, Any]) -> PushMultipartParser:
    boundary = request.content_type[1].get("boundary", "")
    if not 1 <= len(boundary) <= 256:
        raise _malformed("the Content-Type names no usable boundary")
    return PushMultipartParser(
        boundary, max_header_size=_MOST_HEADER_BYTES, max_header_count=8, max_segment_count=_MOST_PARTS
    )


def _malformed(reason: str) -> Refused:
    return Refused(f"The form cannot be read: {reason}.", hint="Send multipart/form-data.", code="MALFORMED_MULTIPART")


def _wrong_field(name: str, message: str, code: str) -> InvalidConfig:
    return InvalidConfig((FieldProblem(name, message, code),))


def _too_large(limits: UploadLimits) -> Refused:
    message = f"The video is larger than the {limits.max_bytes / 1024**2:g} MiB that this server accepts."
    return Refused(message, hint="Raise VIDEOANNOTATOR_MAX_UPLOAD_BYTES, or send less.", code="VIDEO_TOO_LARGE")


def of_disk(exc: OSError) -> VideoAnnotatorError:
    """What a failed write of somebody's video means to them."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return storage_full()
    return StorageTrouble(f"The upload cannot be written: {exc.strerror}.", code="STORAGE_NOT_WRITABLE")
