"""
A job's results in a directory of the caller's: `DIRECTORY/JOB_ID/`, there whole or not at all.

Files are copied (not linked: what people change there must not change here) into a hidden folder beside it, brought to
disk, and the folder is renamed. All functions block.
"""

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from videoannotator.errors import Undelivered
from videoannotator.paths.roots import Place, folder_in

_BLOCK = 1 << 20


def publish(files: Sequence[Path], place: Place, job_id: str, stop: threading.Event) -> None:
    """
    Raises:
        Undelivered: OUTPUT_NOT_WRITABLE; nothing of it is there.
        InterruptedError: `stop` was set; nothing of it is there.
    """
    try:
        with folder_in(place, make=True) as folder:
            _publish(files, folder, job_id, stop)
    except InterruptedError:
        raise
    except OSError as exc:
        raise _not_writable(exc) from exc


def _not_writable(exc: OSError) -> Undelivered:
    if exc.errno in (errno.ELOOP, errno.ENOTDIR):
        reason = "a part of the path is a link, or no folder"
    else:
        reason = exc.strerror or str(exc)
    message = f"The results could not be written to the output_directory: {reason}."
    return Undelivered(message, hint="They are in the server's own storage; retry when it is mended.")


def _publish(files: Sequence[Path], folder: int, job_id: str, stop: threading.Event) -> None:
    unfinished = f".{job_id}.part"
    shutil.rmtree(unfinished, ignore_errors=True, dir_fd=folder)
    try:
        os.mkdir(unfinished, 0o755, dir_fd=folder)
        inner = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            for file in files:
                _copy(file, inner, stop)
            os.fsync(inner)
        finally:
            os.close(inner)
        _replace(folder, unfinished, job_id)
        os.fsync(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True, dir_fd=folder)
        raise


def _copy(file: Path, folder: int, stop: threading.Event) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with file.open("rb") as source, os.fdopen(os.open(file.name, flags, 0o644, dir_fd=folder), "wb") as target:
        while block := source.read(_BLOCK):
            if stop.is_set():
                raise InterruptedError
            target.write(block)
        target.flush()
        os.fsync(target.fileno())


def _replace(folder: int, unfinished: str, name: str) -> None:
    """Over what the same job published before it was interrupted."""
    old = f".{name}.old"
    shutil.rmtree(old, ignore_errors=True, dir_fd=folder)
    with suppress(FileNotFoundError):
        os.rename(name, old, src_dir_fd=folder, dst_dir_fd=folder)
    os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    shutil.rmtree(old, ignore_errors=True, dir_fd=folder)
