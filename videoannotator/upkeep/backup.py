"""
A storage directory copied to another place and back, whole or not at all.

A backup is a folder: `backup.json` (every file with its size and SHA-256), the database as it was at one moment, and
the files that this database knows. It is made under another name (`TARGET.part`) and gets its own when it is complete
and verified; begun again after an interruption it keeps what is there already. It can be made while a server works:
what a job has finished never changes, and a job that was removed meanwhile is left out. All functions block.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import msgspec

from videoannotator import __version__
from videoannotator.artifacts import sha256, storage_trouble, write_whole
from videoannotator.errors import Refused, StorageTrouble
from videoannotator.store import copies
from videoannotator.store.trouble import DATABASE

INDEX = "backup.json"
FORMAT = 1

_BLOCK = 1 << 20
_PATIENCE_SECONDS = 2.0
"""A result is moved to its place just after the database knows it: so long it may be missing."""


class SavedFile(msgspec.Struct, frozen=True):
    path: str
    """Relative to the backup's folder, and to the storage directory."""

    size: int
    sha256: str


class Index(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    program: str
    schema: int
    made_at: datetime
    jobs: int
    videos_elsewhere: int
    """Jobs whose video lies outside of the storage directory: it is not in the backup."""

    files: tuple[SavedFile, ...]
    missing: tuple[str, ...] = ()
    """Files that the database knows and that were not there."""

    damaged: tuple[str, ...] = ()
    """Files whose bytes were not those that the database knows; they are in the backup as they were found."""


def back_up(folder: Path, target: Path, tell: Callable[[str], None] = lambda _: None) -> Index:
    """
    `tell` hears of each file, by its path.

    Raises:
        Refused: TARGET_EXISTS.
        StorageTrouble: no database there, a damaged or newer one, no space.
    """
    if target.exists():
        message = f"{target} is there already."
        raise Refused(
            message, hint="Name a place that does not exist yet; one folder for each backup.", code="TARGET_EXISTS"
        )
    part = target.with_name(f"{target.name}.part")
    try:
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        index = _Backup(folder, part, tell).make()
        _remove_strangers(part, index)
        write_whole(part / INDEX, msgspec.json.format(msgspec.json.encode(index), indent=1))
        part.rename(target)
    except OSError as exc:
        raise storage_trouble(exc, target) from exc
    return index


def restore(source: Path, folder: Path, tell: Callable[[str], None] = lambda _: None) -> Index:
    """
    Make a storage directory of a backup. Everything is verified before the directory is there.

    Raises:
        Refused: NOT_A_BACKUP, BACKUP_DAMAGED, STORAGE_NOT_EMPTY.
        StorageTrouble: DATABASE_TOO_NEW, no space.
    """
    index = read_index(source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "Move it away, or name another directory with --storage-dir."
        raise Refused(
            f"{folder} is not empty; a backup is restored into an empty place.", hint=hint, code="STORAGE_NOT_EMPTY"
        )
    copies.require_known_version(source / DATABASE)
    part = folder.with_name(f"{folder.name}.restoring")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700, parents=True)
        for saved in index.files:
            tell(saved.path)
            _copy_verified(source / saved.path, part / saved.path, saved)
        copies.move_videos(part / DATABASE, folder.resolve())
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except OSError as exc:
        raise storage_trouble(exc, folder) from exc
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return index


def read_index(source: Path) -> Index:
    """Raises Refused (NOT_A_BACKUP), also where a path in it leads elsewhere."""
    try:
        index = msgspec.json.decode((source / INDEX).read_bytes(), type=Index)
    except (OSError, msgspec.DecodeError) as exc:
        hint = "Name the folder that `videoannotator backup` made."
        raise Refused(f"{source} is no complete backup.", hint=hint, code="NOT_A_BACKUP") from exc
    if index.format != FORMAT:
        raise Refused(f"{source} has a form that a newer program made.", hint="Use that one.", code="NOT_A_BACKUP")
    for saved in index.files:
        path = PurePosixPath(saved.path)
        if path.is_absolute() or ".." in path.parts or (source / path).is_symlink():
            raise Refused(f"{source} names a file outside of itself: {saved.path}.", code="NOT_A_BACKUP")
    return index


class _Backup:
    def __init__(self, folder: Path, part: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._part = part
        self._tell = tell
        self._missing: list[copies.KnownFile] = []
        self._damaged: list[str] = []

    def make(self) -> Index:
        database = self._part / DATABASE
        database.unlink(missing_ok=True)
        schema = copies.copy_database(self._folder, database)
        saved = [*self._known(database), *self._others(copies.job_ids(database))]
        removed = self._removed_meanwhile()
        copies.leave_out(database, removed)
        saved = [file for file in saved if not _is_of(file.path, removed)]
        size, digest = database.stat().st_size, sha256(database)
        return Index(
            format=FORMAT,
            program=__version__,
            schema=schema,
            made_at=datetime.now(UTC),
            jobs=len(copies.job_ids(database)),
            videos_elsewhere=copies.videos_elsewhere(database),
            files=(SavedFile(DATABASE, size, digest), *saved),
            missing=tuple(file.path for file in self._missing if file.job_id not in removed),
            damaged=tuple(self._damaged),
        )

    def _known(self, database: Path) -> Iterator[SavedFile]:
        """What the database knows by name, and mostly by content."""
        for known in copies.known_files(database):
            source = self._find(known)
            saved = None if source is None else self._save(source, known.path, known.sha256)
            if saved is None:
                self._missing.append(known)
                continue
            if known.sha256 not in (None, saved.sha256):
                self._damaged.append(known.path)
            yield saved

    def _others(self, job_ids: tuple[str, ...]) -> Iterator[SavedFile]:
        """Manifests, logs and receipts: small, and known to nobody."""
        names = [f"results/{job_id}/manifest.json" for job_id in job_ids]
        folders = [self._folder / "logs" / job_id for job_id in job_ids] + [self._folder / "receipts"]
        logs = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
        for path in (*names, *(file.relative_to(self._folder).as_posix() for file in logs)):
            source = self._folder / path
            if source.is_file() and not source.is_symlink() and (saved := self._save(source, path, None)):
                yield saved

    def _find(self, known: copies.KnownFile) -> Path | None:
        """None where it is nowhere, also after a moment."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while not (source := self._folder / known.path).is_file():
            if time.monotonic() > until or not copies.living(self._folder, [known.job_id]):
                return None
            time.sleep(0.1)
        return source

    def _save(self, source: Path, path: str, expected: str | None) -> SavedFile | None:
        """None where it has just been removed."""
        self._tell(path)
        try:
            return self._saved(source, path, expected)
        except FileNotFoundError:
            if source.exists():
                raise
            return None

    def _saved(self, source: Path, path: str, expected: str | None) -> SavedFile:
        target = self._part / path
        if expected is not None and target.is_file() and target.stat().st_size == source.stat().st_size:
            there = sha256(target)
            if there == expected:  # from a backup that was interrupted
                return SavedFile(path, target.stat().st_size, there)
        digest = _copy(source, target)
        return SavedFile(path, target.stat().st_size, digest)

    def _removed_meanwhile(self) -> tuple[str, ...]:
        gone = {file.job_id for file in self._missing}
        return tuple(sorted(gone - copies.living(self._folder, sorted(gone))))


def _copy(source: Path, target: Path) -> str:
    """Copy, bring to disk, read again; the SHA-256 of what was read. Raises OSError where the copy differs."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as written:
        while block := read.read(_BLOCK):
            digest.update(block)
            written.write(block)
        written.flush()
        os.fsync(written.fileno())
    if sha256(target) != digest.hexdigest():
        raise OSError(5, f"what was written to {target} is not what was read")
    return digest.hexdigest()


def _copy_verified(source: Path, target: Path, saved: SavedFile) -> None:
    if not source.is_file():
        raise Refused(f"The backup lacks {saved.path}.", hint="Use another backup.", code="BACKUP_DAMAGED")
    if _copy(source, target) != saved.sha256:
        message = f"{saved.path} in the backup is not what was saved."
        raise Refused(message, hint="Use another backup; nothing was restored.", code="BACKUP_DAMAGED")


def _is_of(path: str, job_ids: tuple[str, ...]) -> bool:
    return any(part in job_ids for part in PurePosixPath(path).parts)


def _remove_strangers(part: Path, index: Index) -> None:
    """What an interrupted attempt left that this one does not have."""
    known = {saved.path for saved in index.files}
    for file in [file for file in part.rglob("*") if file.is_file()]:
        if file.relative_to(part).as_posix() not in known:
            file.unlink()
    for folder in sorted((f for f in part.rglob("*") if f.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def trouble_of(index: Index) -> StorageTrouble | None:
    """What was wrong with the storage directory that was saved."""
    if not index.missing and not index.damaged:
        return None
    what = [f"{len(index.missing)} files were missing"] if index.missing else []
    what += [f"{len(index.damaged)} files were not what they were"] if index.damaged else []
    return StorageTrouble(
        f"The backup is complete, but {' and '.join(what)}.", hint=f"{INDEX} names them.", code="SAVED_WITH_GAPS"
    )
