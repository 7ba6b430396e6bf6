"""
Results of stages, kept for the next time the same work is asked for.

    cache/<2 hex>/<fingerprint>/<sha256 of the video>/    entry.json and the stage's files

An entry appears by a rename and goes by one, so that a crash leaves it whole or not at all, and several processes may
use one folder. Files are shared with the results they came from where the file system can link; the removal of one
never touches the other. Whoever takes an entry hashes its files: what is damaged is dropped and not served. The least
recently used entries go when all of them are larger than the limit. All functions block: call them in a thread.
"""

import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from videoannotator.artifacts import clone_or_copy, link_or_copy
from videoannotator.faults import reach
from videoannotator.jobs import StageResult
from videoannotator.logs import get_logger

_ENTRY = "entry.json"
_NEW, _GONE = ".new-", ".gone-"
_LEFT_SECONDS = 3600.0
"""What a crash left in the middle is removed when it is that old: another process may be at it."""

_KEEP_SHARE = 0.9
"""Of the limit is left after an eviction, so that not every new entry evicts one."""

log = get_logger(__name__)


class Cache:
    def __init__(self, folder: Path, limit_bytes: int, *, links_out: bool = True) -> None:
        """Without `links_out` what is served is a file of its own, that somebody may edit."""
        self._folder = folder
        self._limit = limit_bytes
        self._give = link_or_copy if links_out else clone_or_copy
        self._size: int | None = None
        self._one_at_a_time = threading.Lock()

    def prepare(self) -> None:
        """Clear away what crashes left. Raises nothing: a cache that cannot be used is none."""
        with suppress(OSError):
            for left in self._folder.glob(".*-*"):
                if left.name.startswith((_NEW, _GONE)) and time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)

    def may_have(self, fingerprint: str) -> bool:
        """Whether it is worth to know the hash of the video's bytes."""
        return self._of_fingerprint(fingerprint).is_dir()

    def take(self, fingerprint: str, video_sha256: str, folder: Path) -> StageResult | None:
        """
        Put an entry's files into a folder; None where there is no such entry, or not whole.

        The caller hashes the files, which has to be done anyway, and calls `drop` where they are not what they were.
        """
        entry = self._of_fingerprint(fingerprint) / video_sha256
        try:
            result = _read(entry / _ENTRY)
            for artifact in result.artifacts:
                self._give(entry / artifact.name, folder / artifact.name)
            os.utime(entry)
        except FileNotFoundError:
            if not entry.is_dir():
                return None
            self.drop(fingerprint, video_sha256)
            return None
        except (OSError, ValueError) as exc:
            log.warning("an entry of the cache cannot be used", entry=str(entry), reason=str(exc))
            self.drop(fingerprint, video_sha256)
            return None
        return result

    def keep(self, fingerprint: str, video_sha256: str, result: StageResult, files: Path) -> None:
        """Remember a result whose files lie in `files`. An entry that is there already stays."""
        entry = self._of_fingerprint(fingerprint) / video_sha256
        if entry.is_dir() or sum(a.size for a in result.artifacts) > self._limit:
            return
        new = self._folder / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(mode=0o700, parents=True)
            for artifact in result.artifacts:
                link_or_copy(files / artifact.name, new / artifact.name)
            (new / _ENTRY).write_bytes(_written(result))
            entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            reach("cache.written")
            new.rename(entry)
            reach("cache.kept")
        except OSError as exc:
            if not entry.is_dir():  # else its twin was faster
                log.warning("a result could not be cached", reason=str(exc))
        else:
            self._make_room(_size_of(entry))
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def drop(self, fingerprint: str, video_sha256: str) -> None:
        """Forget one entry."""
        self._remove(self._of_fingerprint(fingerprint) / video_sha256)

    def forget(self, video_sha256: str) -> int:
        """Forget all that was made of a video; how many entries that were."""
        found = [entry for entry in self._entries() if entry.name == video_sha256]
        for entry in found:
            self._remove(entry)
        return len(found)

    @property
    def size_bytes(self) -> int:
        """Of all entries; files that results share are counted too."""
        return sum(_size_of(entry) for entry in self._entries())

    def _of_fingerprint(self, fingerprint: str) -> Path:
        return self._folder / fingerprint[:2] / fingerprint

    def _entries(self) -> Iterator[Path]:
        return self._folder.glob("[0-9a-f][0-9a-f]/*/*")

    def _make_room(self, added: int) -> None:
        with self._one_at_a_time:
            self._size = self.size_bytes if self._size is None else self._size + added
            if self._size > self._limit:
                self._evict()

    def _evict(self) -> None:
        oldest_first = sorted((_used_at(entry), _size_of(entry), entry) for entry in self._entries())
        size = sum(bytes_of for _, bytes_of, _ in oldest_first)
        for _, bytes_of, entry in oldest_first:
            if size <= self._limit * _KEEP_SHARE:
                break
            self._remove(entry)
            size -= bytes_of
        self._size = size

    def _remove(self, entry: Path) -> None:
        gone = self._folder / f"{_GONE}{secrets.token_hex(8)}"
        with suppress(OSError):
            entry.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            entry.parent.rmdir()
            entry.parent.parent.rmdir()


def _written(result: StageResult) -> bytes:
    body = msgspec.json.encode(msgspec.structs.replace(result, usage=None))
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _read(file: Path) -> StageResult:
    """Raises OSError, ValueError (msgspec's errors are that too)."""
    digest, _, body = file.read_bytes().partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("it is not what was written")
    return msgspec.json.decode(body, type=StageResult)


def _size_of(entry: Path) -> int:
    with suppress(OSError), os.scandir(entry) as files:
        return sum(file.stat().st_size for file in files)
    return 0


def _used_at(entry: Path) -> float:
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0
