"""Files in folders that others can write to: opened so that no link, however quickly it is swapped in, leads out."""

import os
from collections.abc import Sequence
from pathlib import Path


def open_inside(base: Path, parts: Sequence[str]) -> int:
    """
    A descriptor of the file that these names lead to from `base`; each is opened from the one before and none may be a
    link. A FIFO does not block.

    Raises:
        OSError: something on the way is missing, a link, or no folder.
        ValueError: a name holds a NUL.
    """
    here = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for position, part in enumerate(parts):
        kind = os.O_NONBLOCK if position == len(parts) - 1 else os.O_DIRECTORY
        try:
            deeper = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=here)
        finally:
            os.close(here)
        here = deeper
    return here


def are_plain(parts: Sequence[str]) -> bool:
    """Whether these are names of things below, and nothing else: no `..`, no separator in disguise."""
    return all(part not in ("", ".", "..") and not {"\0", "\\", "/"} & set(part) for part in parts)
