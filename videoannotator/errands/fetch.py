"""A video from its URL to a file, within limits of size and time, from a public address."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from videoannotator.artifacts import storage_trouble
from videoannotator.errors import Refused, StorageTrouble, Unreachable
from videoannotator.media.names import shown_name
from videoannotator.outbound.client import Response, header, requesting
from videoannotator.outbound.policy import Policy
from videoannotator.outbound.targets import Target, target_of

MOST_REDIRECTS = 5
BLOCK_BYTES = 1024**2
TRIES = 3
MOST_AT_ONCE = 8

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_SLOWEST_BYTES_PER_SECOND = 16 * 1024
_PATIENCE_SECONDS = 60.0


class Fetcher:
    """Made once; holds no connection."""

    def __init__(self, policy: Policy, *, max_bytes: int, min_free_bytes: int, timeout_seconds: float) -> None:
        self._policy = policy
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._timeout = timeout_seconds
        self._room = asyncio.Semaphore(MOST_AT_ONCE)

    async def fetch(self, url: str, place: Path) -> int:
        """
        The bytes at `url` as the file `place`, on disk for good; how many. Tried again where the other side is to
        blame. Cancelled or failed, there is no such file.

        Raises:
            Refused: URL_NOT_ALLOWED, FETCH_TOO_LARGE, FETCH_TOO_SLOW.
            Unreachable: FETCH_FAILED.
            StorageTrouble: STORAGE_FULL, STORAGE_NOT_WRITABLE.
        """
        target = target_of(url)
        try:
            async with self._room, asyncio.timeout(self._timeout):
                return await self._persist(target, place)
        except TimeoutError:
            message = f"The video was not here after {self._timeout:g} s."
            raise Refused(message, hint="See fetch_timeout_seconds.", code="FETCH_TOO_SLOW") from None

    async def _persist(self, target: Target, place: Path) -> int:
        for attempt in range(1, TRIES):
            try:
                return await self._follow(target, place)
            except Unreachable:
                await asyncio.sleep(attempt**2)
        return await self._follow(target, place)

    async def _follow(self, target: Target, place: Path) -> int:
        for _ in range(MOST_REDIRECTS + 1):
            async with requesting(self._policy, "GET", target) as response:
                if response.status not in _REDIRECTS:
                    return await self._receive(response, target, place)
                target = target_of(header(response, "location"), base=target)
        raise Refused(f"More than {MOST_REDIRECTS} redirects.", hint="Name the video itself.", code="FETCH_FAILED")

    async def _receive(self, response: Response, target: Target, place: Path) -> int:
        self._refuse_answer(response, target)
        file = _File(place, self._min_free_bytes)
        pace = _Pace(target)
        try:
            block = bytearray()
            async for chunk in response.aiter_stream():
                block += chunk
                pace.note(len(chunk))
                self._refuse_too_large(file.size + len(block), target)
                if len(block) >= BLOCK_BYTES:
                    await _whole(file.write, block)
                    block = bytearray()
            await _whole(file.finish, block)
        except BaseException:
            await _whole(file.drop)
            raise
        return file.size

    def _refuse_answer(self, response: Response, target: Target) -> None:
        if response.status in _MAY_PASS:
            raise Unreachable(f"{target.shown} answered {response.status}.", hint="Try again later.")
        if response.status != 200:
            hint = "Check that the URL can be opened without a login."
            raise Refused(f"{target.shown} answered {response.status}.", hint=hint, code="FETCH_FAILED")
        announced = header(response, "content-length")
        if announced.isdigit():
            self._refuse_too_large(int(announced[:20]), target)

    def _refuse_too_large(self, size: int, target: Target) -> None:
        if size > self._max_bytes:
            message = f"{target.shown} is larger than the {self._max_bytes / 1024**2:g} MiB that this server accepts."
            raise Refused(message, hint="See max_upload_bytes.", code="FETCH_TOO_LARGE")


def filename_of(url: str) -> str:
    """What people may call the video that a URL names: its last part, cleaned."""
    return shown_name(unquote(target_of(url).path.partition("?")[0].rpartition("/")[2]))


class _File:
    """On its way in, beside its place and under another name. All functions block."""

    def __init__(self, place: Path, min_free_bytes: int) -> None:
        self._place = place
        self._part = place.with_name(".fetched.part")
        self._min_free_bytes = min_free_bytes
        self._descriptor = -1
        self.size = 0

    def write(self, block: bytes | bytearray) -> None:
        try:
            self._open()
            disk = os.fstatvfs(self._descriptor)
            if disk.f_bavail * disk.f_frsize - len(block) < self._min_free_bytes:
                hint = "Free some space, then try again."
                raise StorageTrouble("The server's disk is full.", hint=hint, code="STORAGE_FULL")
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as exc:
            raise storage_trouble(exc, self._place.parent) from exc
        self.size += len(block)

    def finish(self, block: bytes | bytearray) -> None:
        self.write(block)
        try:
            os.fsync(self._descriptor)
            self._part.replace(self._place)
        except OSError as exc:
            raise storage_trouble(exc, self._place.parent) from exc
        finally:
            self._close()

    def drop(self) -> None:
        self._close()
        self._part.unlink(missing_ok=True)

    def _open(self) -> None:
        if self._descriptor < 0:
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._part, flags, 0o600)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class _Pace:
    """Ends a transfer that drips: it would hold its place for hours."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._since = time.monotonic()
        self._bytes = 0

    def note(self, more: int) -> None:
        self._bytes += more
        seconds = time.monotonic() - self._since
        if seconds < _PATIENCE_SECONDS:
            return
        if self._bytes < seconds * _SLOWEST_BYTES_PER_SECOND:
            message = f"{self._target.shown} sends less than {_SLOWEST_BYTES_PER_SECOND // 1024} KiB a second."
            raise Refused(message, hint="Try again later, or upload the video.", code="FETCH_TOO_SLOW")
        self._since, self._bytes = time.monotonic(), 0


async def _whole(work: Callable[..., None], *given: bytes | bytearray) -> None:
    """In a thread, to its end: whoever is cancelled waits until nobody writes any more."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise
