"""
One process per storage directory.

The lock is the kernel's: it goes with its holder, kill -9 included, so a lock file that lies around means nothing. No
child inherits it (the descriptor closes on exec).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videoannotator.errors import StorageTrouble
from videoannotator.store.trouble import of_system

LOCK = "videoannotator.lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """
    Hold the directory, which is made if it does not exist.

    Raises:
        StorageTrouble: STORAGE_IN_USE, STORAGE_NOT_WRITABLE, STORAGE_FULL.
    """
    descriptor = _open(folder)
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise of_system(folder, exc) from exc


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise _in_use(descriptor, folder) from exc
    except OSError as exc:
        raise of_system(folder, exc) from exc
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as exc:
        raise of_system(folder, exc) from exc


def _in_use(descriptor: int, folder: Path) -> StorageTrouble:
    pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    holder = f" (process {pid})" if pid.isdecimal() else ""
    return StorageTrouble(
        f"The storage directory {folder} is in use by another VideoAnnotator{holder}.",
        hint="Stop that one, talk to it over HTTP, or choose another directory (VIDEOANNOTATOR_STORAGE_DIR).",
        code="STORAGE_IN_USE",
    )
