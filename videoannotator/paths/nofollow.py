"""
Files in folders that others can write to: opened so that no link, however quickly it is swapped in, leads out.

Every name on the way is opened from the one before it, and none may be a link. What was opened is then used by its
descriptor, so that nothing is looked up a second time.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""A folder on the way; where the system can, without the right to list it."""


def open_inside(base: Path, parts: Sequence[str]) -> int:
    """
    A descriptor of what these names lead to from `base`, none of them a link; `base` itself may lie behind some. A FIFO
    does not block, and without names it is the folder itself.

    Raises:
        OSError: something on the way is missing, a link, or no folder.
        ValueError: a name holds a NUL.
    """
    here = os.open(base, _THROUGH)
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC if last else _THROUGH
        try:
            deeper = os.open(part, flags | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)
        here = deeper
    return here


def open_file(path: Path) -> int:
    """
    A descriptor of a regular file, reached from the root of the file system without one link: a path that was resolved
    once still leads to the same file, or to none.

    Raises:
        OSError: it is missing, a link is on the way (ELOOP, ENOTDIR), or it is no regular file (EINVAL).
    """
    whole = path.absolute()
    descriptor = open_inside(Path(whole.anchor), whole.parts[1:])
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "this is no regular file")
    return descriptor


def look_at(path: Path) -> os.stat_result:
    """What `open_file` would open. Raises what it raises."""
    descriptor = open_file(path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def are_plain(parts: Sequence[str]) -> bool:
    """Whether these are names of things below, and nothing else: no `..`, no separator in disguise."""
    return all(part not in ("", ".", "..") and not {"\0", "\\", "/"} & set(part) for part in parts)
