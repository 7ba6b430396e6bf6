"""
Paths that callers name, inside the directories that an operator opened to them.

A path is taken apart once and then walked from its root by descriptors, each folder opened from the one before and none
of them a link: nothing that is swapped in between leads out. The root itself is the operator's and may be a link.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import msgspec

from videoannotator.errors import Refused

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Place(msgspec.Struct, frozen=True):
    """A path inside a root: `parts` are plain names, none of them `..`."""

    root: Path
    parts: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.root.joinpath(*self.parts)


def place_in(path: str | Path, roots: Sequence[Path], *, never: Path) -> Place:
    """
    Where a path lies, by its words alone: nothing is opened. `never` is a directory that no root opens.

    Raises:
        Refused: PATH_NOT_ALLOWED.
    """
    text = str(path)
    parts = PurePosixPath(text).parts
    if not text.startswith("/") or "\0" in text or ".." in parts:
        raise _outside("The path must be absolute, without '..'.")
    for root in roots:
        for spelling in dict.fromkeys((root, root.resolve())):
            if PurePosixPath(text).is_relative_to(spelling) and not _lies_in(spelling, never, parts):
                return Place(spelling, parts[len(spelling.parts) :])
    raise _outside("This path lies in none of the directories that results may be written to.")


@contextmanager
def folder_in(place: Place, *, make: bool) -> Iterator[int]:
    """
    A descriptor of the folder at a place; with `make` its missing parts are made.

    Raises:
        OSError: a part is missing, a link, or no folder.
    """
    here = os.open(place.root, _FOLDER)
    try:
        for part in place.parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            deeper = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = deeper
        yield here
    finally:
        os.close(here)


def refuse_unusable(place: Place, *, file: bool) -> None:
    """
    What can be seen of a place today: that no part of it is a link, or in the way. Blocks.

    Raises:
        Refused: PATH_NOT_ALLOWED.
    """
    here = place.root
    for number, part in enumerate(place.parts):
        here = here / part
        try:
            mode = here.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _outside(f"The path cannot be used: {exc.strerror}.") from exc
        if not (stat.S_ISREG(mode) if file and number == len(place.parts) - 1 else stat.S_ISDIR(mode)):
            raise _outside("A part of this path is a link, or something else is in its place.")


def _lies_in(root: Path, never: Path, parts: tuple[str, ...]) -> bool:
    whole = root.resolve().joinpath(*parts[len(root.parts) :])
    return whole.is_relative_to(never.resolve())


def _outside(message: str) -> Refused:
    hint = "The operator names directories in VIDEOANNOTATOR_OUTPUT_ROOTS."
    return Refused(message, hint=hint, code="PATH_NOT_ALLOWED")
