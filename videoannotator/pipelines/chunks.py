"""
Pieces of a stage's work that outlive its process, so that who is killed after an hour goes on from there.

A chunk is one file, `000000.chunk` and so on: the SHA-256 of the content, then the content. It appears by a rename.
What a crash left half-written, or a disk has damaged, is not taken, nor what comes after it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DIGEST_BYTES = 32


class Chunks:
    """In the order they were kept, those of earlier attempts first. Only one process may use a folder at a time."""

    def __init__(self, folder: Path | None, seconds: float) -> None:
        """Without a folder they are held in memory, and go with it."""
        self.seconds = seconds
        """How much of the video's timeline one of them should hold."""

        self._folder = folder
        self._held: list[bytes] = []
        self._count = 0 if folder is None else self._find(folder)
        self.earlier = self._count
        """How many an earlier attempt left."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        """All that are kept by now, one in memory at a time. Raises OSError."""
        for number in range(self._count):
            yield self[number]

    def __getitem__(self, number: int) -> bytes:
        """Raises OSError, IndexError."""
        if self._folder is None:
            return self._held[number]
        return _file(self._folder, range(self._count)[number]).read_bytes()[_DIGEST_BYTES:]

    def keep(self, content: bytes) -> None:
        """After it, this much need not be done again. Raises OSError."""
        if self._folder is None:
            self._held.append(content)
        else:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._folder / "new"
            new.write_bytes(hashlib.sha256(content).digest() + content)
            new.replace(_file(self._folder, self._count))
        self._count += 1

    def _find(self, folder: Path) -> int:
        """How many are whole, without a gap; the others are removed."""
        whole = 0
        while _is_whole(_file(folder, whole)):
            whole += 1
        with suppress(FileNotFoundError):
            for left in set(folder.iterdir()) - {_file(folder, number) for number in range(whole)}:
                left.unlink()
        return whole


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.chunk"


def _is_whole(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]
