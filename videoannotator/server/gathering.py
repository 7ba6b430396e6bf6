"""Which videos of a dataset a batch means: a pattern over the files below its directory, links left alone."""

import os
from fnmatch import fnmatchcase
from pathlib import Path

from videoannotator.errors import Refused

MOST_VIDEOS = 100_000

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".webm", ".wmv",
})
# fmt: on


def videos_below(base: Path, *, pattern: str | None, recursive: bool) -> tuple[str, ...]:
    """
    Paths relative to `base`, with `/` between their parts, in the order of their names. Without a pattern every file
    whose name ends as videos' names do; with one, every file whose name, or whose relative path, it matches. Hidden
    files and folders are left out. Blocks.

    Raises:
        Refused: TOO_MANY_VIDEOS.
    """
    found: list[str] = []
    for folder, folders, names in os.walk(base, followlinks=False):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        here = Path(folder).relative_to(base)
        paths = ((here / name).as_posix() for name in names if not name.startswith("."))
        found += (path for path in paths if _is_meant(path, pattern))
        if len(found) > MOST_VIDEOS:
            hint = "Submit folder by folder."
            raise Refused(f"A batch has up to {MOST_VIDEOS} videos.", hint=hint, code="TOO_MANY_VIDEOS")
    return tuple(sorted(found))


def _is_meant(path: str, pattern: str | None) -> bool:
    name = path.rpartition("/")[2]
    if pattern is None:
        return Path(name).suffix.lower() in VIDEO_SUFFIXES
    return fnmatchcase(name, pattern) or fnmatchcase(path, pattern)
