"""
Scans of datasets: which videos lie below a directory, and what each of them is.

A scan is a task of its own; one video at a time is looked at, so that uploads never wait for a scan. Files that have
not changed since the last one are not looked at again. No link is followed; what cannot be used is listed with the
reason. A server that stops leaves the scan `interrupted`, with what it had found.
"""

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from videoannotator.artifacts import VIDEO_SUFFIXES
from videoannotator.errors import NotFound, Refused, StageDied, StorageTrouble
from videoannotator.jobs import Dataset, DatasetVideo, Scan, StageError
from videoannotator.logs import get_logger
from videoannotator.paths.nofollow import are_plain, open_inside
from videoannotator.runner.probers import Probers
from videoannotator.store import Store

MOST_VIDEOS = 100_000
_TOLD_AT_ONCE = 25
_AT_ONCE = 2

log = get_logger(__name__)


class _Found(msgspec.Struct, frozen=True):
    """A file with the name of a video."""

    parts: tuple[str, ...]
    size_bytes: int
    modified_ns: int
    problem: StageError | None = None

    @property
    def path(self) -> str:
        return "/".join(self.parts).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Scans:
    def __init__(self, store: Store, prober: Probers) -> None:
        self._store = store
        self._prober = prober
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def settle(self) -> None:
        """At the start: none is running."""
        await self._store.interrupt_scans()

    async def begin(self, dataset: Dataset) -> Scan:
        """
        Raises:
            NotFound: DATASET_NOT_FOUND.
            Conflict: SCAN_RUNNING.
        """
        scan = await self._store.begin_scan(dataset.id)
        task = asyncio.create_task(self._run(dataset, scan.number), name=f"scan {dataset.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return scan

    async def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, dataset: Dataset, number: int) -> None:
        try:
            async with self._room:
                message = await self._scan(dataset, number)
            await self._store.end_scan(dataset.id, number, "completed", message)
        except NotFound:
            log.info("a dataset was removed while it was scanned", dataset_id=dataset.id)
        except (OSError, StorageTrouble, StageDied) as exc:
            log.warning("a scan failed", dataset_id=dataset.id, reason=str(exc))
            await self._end_failed(dataset, number, exc)
        except Exception:
            log.exception("a bug of ours in a scan", dataset_id=dataset.id)
            await self._store.end_scan(dataset.id, number, "failed", "The server failed on it; its log says how.")

    async def _end_failed(self, dataset: Dataset, number: int, exc: Exception) -> None:
        reason = exc.strerror or "it cannot be read" if isinstance(exc, OSError) else str(exc)
        try:
            await self._store.end_scan(dataset.id, number, "failed", f"The directory could not be scanned: {reason}.")
        except StorageTrouble as trouble:
            log.warning("a scan's end could not be recorded", dataset_id=dataset.id, reason=str(trouble))

    async def _scan(self, dataset: Dataset, number: int) -> str | None:
        """What to say of it, where not all is well."""
        found = await asyncio.to_thread(lambda: sorted(_walk(dataset.base_path), key=lambda one: one.parts))
        left_out = len(found) - MOST_VIDEOS
        found = found[:MOST_VIDEOS]
        before = {video.path: video for video in await self._store.dataset_videos(dataset.id)}
        await self._store.note_scanned(dataset.id, number, len(found), ())
        for start in range(0, len(found), _TOLD_AT_ONCE):
            slice_of = found[start : start + _TOLD_AT_ONCE]
            looked = [await self._look(dataset, one, before.get(one.path)) for one in slice_of]
            await self._store.note_scanned(dataset.id, number, len(found), looked)
        if left_out > 0:
            return f"{left_out} videos were left out: a dataset has up to {MOST_VIDEOS}. Make one for each folder."
        return None

    async def _look(self, dataset: Dataset, found: _Found, before: DatasetVideo | None) -> DatasetVideo:
        seen = DatasetVideo(path=found.path, size_bytes=found.size_bytes, modified_ns=found.modified_ns)
        if found.problem is not None:
            return msgspec.structs.replace(seen, error=found.problem)
        if before is not None and before.video is not None and _same_file(before, seen):
            return before
        try:
            await asyncio.to_thread(_require_reachable, dataset.base_path, found.parts)
            video = await self._prober.probe(dataset.base_path.joinpath(*found.parts), found.parts[-1])
        except Refused as refusal:
            return msgspec.structs.replace(seen, error=StageError(refusal.code, str(refusal)))
        return msgspec.structs.replace(seen, video=video)


def _walk(base: Path) -> Iterator[_Found]:
    """Raises OSError where the directory itself cannot be read; folders below that cannot are left out."""
    os.close(os.open(base, os.O_RDONLY | os.O_DIRECTORY))
    for folder, folders, files, descriptor in os.fwalk(base, follow_symlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        above = Path(folder).relative_to(base).parts
        videos = [n for n in files if Path(n).suffix.lower() in VIDEO_SUFFIXES and not n.startswith(".")]
        for name in (*videos, *folders):  # of the folders only those that are links are told
            found = _found((*above, name), name, descriptor)
            if found is not None:
                yield found


def _found(parts: tuple[str, ...], name: str, folder: int) -> _Found | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None  # removed between listing and looking
    if stat.S_ISDIR(status.st_mode):
        return None
    return _Found(parts, status.st_size, status.st_mtime_ns, _problem(parts, status.st_mode))


def _problem(parts: tuple[str, ...], mode: int) -> StageError | None:
    if stat.S_ISLNK(mode):
        return StageError("PATH_NOT_ALLOWED", "This is a link, and links are not followed.")
    if not stat.S_ISREG(mode):
        return StageError("NOT_A_FILE", "This is a pipe, socket or device.")
    if not are_plain(parts) or not _is_utf8("/".join(parts)):
        return StageError("PATH_NOT_ALLOWED", "Its name is not UTF-8, or holds a backslash: rename it.")
    return None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require_reachable(base: Path, parts: tuple[str, ...]) -> None:
    """It may have been swapped for a link since it was listed. Raises Refused."""
    try:
        os.close(open_inside(base, parts))
    except OSError as exc:
        raise Refused(f"It cannot be opened: {exc.strerror}.", code="FILE_UNREADABLE") from exc


def _same_file(before: DatasetVideo, now: DatasetVideo) -> bool:
    return (before.size_bytes, before.modified_ns) == (now.size_bytes, now.modified_ns)
