"""
Pictures of the user's that a stage compares with: a directory that a parameter names, one picture or a folder of
pictures for each name (`anna.jpg`, `anna/1.jpg`).

The directory is looked at when a job is submitted, hashed when its stage is about to begin, and each picture is read by
the stage only if it is still the same. It must lie in one of the directories that the operator opened, and no link is
followed, neither on the way nor in it.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath

import msgspec

from videoannotator.errors import Refused, StageFailed
from videoannotator.jobs import NamedPicture
from videoannotator.paths.nofollow import open_file, open_inside

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MOST_PICTURES = 1000
MOST_BYTES = 32 * 1024**2
"""Of one picture."""

LONGEST_NAME = 80
UNKNOWN = "unknown"
"""Who is nobody of those that are named; no name."""

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_BEGINNING = max(map(len, _BEGINNINGS))
_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class _Place(msgspec.Struct, frozen=True):
    """A directory: names below a root that may itself lie behind links."""

    root: Path
    parts: tuple[str, ...]


def refuse_outside(path: str, roots: Sequence[Path]) -> None:
    """
    By the words of the path alone: nothing is opened.

    Raises:
        Refused: PATH_NOT_ALLOWED.
    """
    _place(path, roots)


def look(path: str, roots: Sequence[Path]) -> tuple[str, ...]:
    """
    The names that the directory holds pictures of, in their order. Reads no more than how each picture begins.

    Raises:
        Refused: PATH_NOT_ALLOWED, or PICTURES_UNUSABLE: it cannot be read, is empty, or holds something else.
    """
    place = _place(path, roots)
    found = list(_files(place))
    for _, parts in found:
        with _opened(place, parts) as file:
            if not file.read(_BEGINNING).startswith(_BEGINNINGS):
                raise _unusable(f"{'/'.join(parts)!r} holds no picture.", "Save it again as JPEG or PNG.")
    return tuple(dict.fromkeys(name for name, _ in found))


def hashed(parameter: str, path: str, roots: Sequence[Path]) -> tuple[NamedPicture, ...]:
    """
    Every picture with its hash, in the order of names. Reads all of them.

    Raises:
        Refused: as `look`.
    """
    place = _place(path, roots)
    # The root may be behind a link; what is below it may not, and the stage walks the whole way.
    top = place.root.resolve().joinpath(*place.parts)
    return tuple(
        NamedPicture(parameter, name, "/".join(parts), str(top.joinpath(*parts)), _hash(place, parts))
        for name, parts in _files(place)
    )


def content(picture: NamedPicture) -> bytes:
    """
    What the file holds, if it holds what it did when the stage was to begin.

    Raises:
        StageFailed: PICTURE_CHANGED; another attempt takes it as it is then.
    """
    try:
        with open(open_file(Path(picture.path)), "rb") as file:  # noqa: PTH123 (a descriptor, no path)
            held = file.read(MOST_BYTES + 1)
    except OSError:
        held = b""
    if hashlib.sha256(held).hexdigest() != picture.sha256:
        message = f"{picture.file} was changed or removed while the job was about to begin."
        raise StageFailed(message, code="PICTURE_CHANGED", retryable=True)
    return held


def _place(path: str, roots: Sequence[Path]) -> _Place:
    parts = PurePosixPath(path).parts
    if not path.startswith("/") or "\0" in path or ".." in parts:
        raise _not_allowed("The path of a directory of pictures must be absolute, without '..'.")
    for root in roots:
        for spelling in dict.fromkeys((root, root.resolve())):
            if PurePosixPath(path).is_relative_to(spelling):
                return _Place(spelling, parts[len(spelling.parts) :])
    raise _not_allowed("The directory of pictures lies in none of the directories that are open to jobs.")


def _files(place: _Place) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of the person and parts of the path below the directory, in a fixed order."""
    try:
        folder = open_inside(place.root, place.parts)
        try:
            found = sorted(_pictures(folder))
        finally:
            os.close(folder)
    except OSError as exc:
        message = f"The directory of pictures cannot be read: {os.strerror(exc.errno or 0)}."
        raise _unusable(message, "Check the path. No link is followed.") from exc
    if not found:
        raise _unusable("The directory of pictures is empty.", "Put NAME.jpg into it, or a folder NAME with pictures.")
    if len(found) > MOST_PICTURES:
        raise _unusable(f"The directory holds {len(found)} pictures; {MOST_PICTURES} are allowed.", "")
    yield from found


def _pictures(folder: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry, seen in _entries(folder):
        if not stat.S_ISDIR(seen.st_mode):
            _refuse_unless_picture(entry, seen)
            yield _checked(PurePosixPath(entry).stem), (entry,)
            continue
        name, inner = _checked(entry), os.open(entry, _FOLDER, dir_fd=folder)
        try:
            for file, seen_inside in _entries(inner):
                _refuse_unless_picture(f"{entry}/{file}", seen_inside)
                yield name, (entry, file)
        finally:
            os.close(inner)


def _entries(folder: int) -> list[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        return [
            (entry.name, entry.stat(follow_symlinks=False))
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower() not in _LEFT_BY_SYSTEMS
        ]


def _refuse_unless_picture(file: str, seen: os.stat_result) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise _unusable(f"{file!r} is a link, a folder in a folder, or no file.", "Put the picture itself there.")
    if not file.lower().endswith(SUFFIXES):
        kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
        raise _unusable(f"{file!r} is no picture of a kind that is read here.", f"Use {kinds}, or move it away.")
    if not 0 < seen.st_size <= MOST_BYTES:
        raise _unusable(f"{file!r} has {seen.st_size} bytes.", f"A picture has 1 to {MOST_BYTES} bytes.")


def _checked(name: str) -> str:
    """Names go into files that others show: nothing that a page would take for its own."""
    if not name.isprintable() or len(name) > LONGEST_NAME or set(name) & set("<>&\"'\\") or name.casefold() == UNKNOWN:
        hint = f"A name has at most {LONGEST_NAME} printable characters, none of <>&\"'\\, and is not {UNKNOWN!r}."
        raise _unusable(f"{name!r} cannot be a name.", hint)
    return name


def _hash(place: _Place, parts: tuple[str, ...]) -> str:
    with _opened(place, parts) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(place: _Place, parts: tuple[str, ...]) -> Iterator[BufferedReader]:
    try:
        with open(open_inside(place.root, (*place.parts, *parts)), "rb") as file:  # noqa: PTH123 (a descriptor)
            yield file
    except OSError as exc:
        raise _unusable(f"{'/'.join(parts)!r} cannot be read: {exc.strerror}.", "Check who may read it.") from exc


def _not_allowed(message: str) -> Refused:
    return Refused(
        message, hint="The operator names directories in VIDEOANNOTATOR_DATA_ROOTS.", code="PATH_NOT_ALLOWED"
    )


def _unusable(message: str, hint: str) -> Refused:
    return Refused(message, hint=hint, code="PICTURES_UNUSABLE")
