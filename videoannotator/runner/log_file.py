"""The log of one stage: its processes write to it directly, and the server keeps it from filling the disk."""

import os
import threading
from pathlib import Path

from videoannotator.errors import StorageTrouble


class LogFile:
    """
    Appended to, made for its owner only, never through a link, and at most `limit_bytes` long after each `cut`.

    `cut` keeps the beginning and the end, which say the most, with a sentence between them that it was cut.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._one_at_a_time = threading.Lock()
        self._closed = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            code = "LOG_NOT_WRITABLE"
            raise StorageTrouble(f"The log {path} cannot be written: {exc.strerror}.", code=code) from exc

    def cut(self) -> None:
        """
        What is written by others just then may be lost with the middle. Blocks for as long as a few MiB take.

        May be called in a thread that nobody waits for any more: it does nothing once the file is closed, whose
        descriptor may be another file's by then.
        """
        with self._one_at_a_time:
            if not self._closed:
                self._cut()

    def close(self) -> None:
        with self._one_at_a_time:
            self._closed = True
            os.close(self.fd)

    def _cut(self) -> None:
        size = os.fstat(self.fd).st_size
        if size <= self._limit:
            return
        most = f"{self._limit / 2**20:.1f} MiB"
        sentence = f"\n[videoannotator] Cut here: this log was longer than the {most} it may have.\n".encode()
        room = max(0, self._limit - len(sentence))
        tail_bytes = room // 4
        tail = os.pread(self.fd, tail_bytes, size - tail_bytes)
        # Half of the room stays free, so that a stage that goes on at this pace is not cut at every look.
        os.ftruncate(self.fd, room // 4)
        os.write(self.fd, sentence[: self._limit] + tail)
