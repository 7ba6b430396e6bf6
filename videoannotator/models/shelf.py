"""
The models on this disk.

    models/NAME/                 the files, and model.json: where they came from and what their checksums are
    models/.fetching/NAME/       what is on its way; it becomes models/NAME by one rename, when all of it is checked
    models/.verified/NAME.json   size, times and inode of each file when its checksum was last right

A file whose size, times and inode are those of its last check is taken to be unchanged; any other is read again before
it is used. So a changed byte is noticed at the next use, and a start costs no minutes of hashing.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from videoannotator.errors import Refused, StorageTrouble
from videoannotator.jobs import ModelFiles
from videoannotator.models.catalogue import Models

RECORD = "model.json"
State = Literal["ready", "unchecked", "damaged", "missing"]
"""`unchecked`: here, of the right size, and its files were touched since they were last read through."""

_BLOCK = 1 << 22
Stamp = tuple[int, int, int, int]


class Look(msgspec.Struct, frozen=True):
    """The last time that all files were read through."""

    stamps: dict[str, Stamp]
    intact: bool


class RecordedFile(msgspec.Struct, frozen=True):
    path: str
    size: int
    sha256: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What came, as it was when it came."""

    name: str
    origin: str
    """The hub's repository, the address, or `import`."""

    revision: str = ""
    """The commit on the hub."""

    checked_against: str = ""
    files: tuple[RecordedFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """Of the only file, or of a list of all of them as `sha256sum` prints it."""
        if len(self.files) == 1:
            return self.files[0].sha256
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


class Shelf:
    """The models of one folder. Every method may be called from any thread; those that read whole files say so."""

    def __init__(self, folder: Path, models: Models) -> None:
        self.folder = folder
        self.models = models
        self._looks: dict[str, Look] = {}

    def path(self, name: str) -> Path:
        return self.folder / name

    def state(self, name: str) -> State:
        """A quick look: no file is read through."""
        record = self.record(name)
        if record is None:
            return "damaged" if self.path(name).exists() else "missing"
        stamps = {file.path: _stamp(self.path(name) / file.path) for file in record.files}
        if any((stamp := stamps[file.path]) is None or stamp[0] != file.size for file in record.files):
            return "damaged"
        look = self._last_look(name)
        if look is None or look.stamps != stamps:
            return "unchecked"
        return "ready" if look.intact else "damaged"

    def record(self, name: str) -> Record | None:
        """What stands in model.json; None where there is none that can be read and fits the declaration."""
        try:
            record = msgspec.json.decode((self.path(name) / RECORD).read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None
        return None if self.models.get(name).lacks(file.path for file in record.files) else record

    def require(self, name: str) -> ModelFiles:
        """
        Where a model is, whole and unchanged. Reads it through where it was touched since the last time.

        Raises:
            Refused: MODEL_MISSING or MODEL_DAMAGED, with the command that helps.
        """
        model = self.models.get(name)
        match self.state(name):
            case "missing":
                raise Refused(f"The model {name} is not here.", hint=self.how_to_get(name), code="MODEL_MISSING")
            case "damaged":
                raise _damaged(name, "a file is missing or is not what was fetched")
            case "unchecked":
                self.verify(name)
            case "ready":
                pass
        record = self.record(name)
        if record is None:
            raise _damaged(name, "its record is gone")
        return ModelFiles(name, str(self.path(name)), record.sha256, model.licence)

    def verify(self, name: str) -> Record:
        """
        Read every file through and compare it with the record.

        Raises:
            Refused: MODEL_MISSING or MODEL_DAMAGED.
        """
        record = self.record(name)
        if record is None:
            if not self.path(name).exists():
                raise Refused(f"The model {name} is not here.", hint=self.how_to_get(name), code="MODEL_MISSING")
            raise _damaged(name, "it has no record of its files")
        stamps: dict[str, Stamp] = {}
        wrong = []
        for file in record.files:
            path = self.path(name) / file.path
            stamp = _stamp(path)
            if stamp is None:
                raise _damaged(name, f"{file.path} is missing")
            if stamp[0] != file.size or sha256(path) != file.sha256:
                wrong.append(file.path)
            stamps[file.path] = stamp
        self._remember(name, Look(stamps, not wrong))
        if wrong:
            raise _damaged(name, f"{', '.join(wrong)} is not what was fetched")
        return record

    def place(self, fetched: Path, record: Record) -> None:
        """
        Move a folder of checked files to its place, in one step; an earlier one there goes.

        Raises:
            StorageTrouble: it cannot be moved.
        """
        target, earlier = self.path(record.name), self.fetching(record.name).with_suffix(".earlier")
        try:
            (fetched / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
            for file in (RECORD, *(file.path for file in record.files)):
                _sync(fetched / file)
            shutil.rmtree(earlier, ignore_errors=True)
            if target.exists():
                target.rename(earlier)
            fetched.rename(target)
            _sync(self.folder)
            shutil.rmtree(earlier, ignore_errors=True)
        except OSError as exc:
            raise trouble(exc, self.folder) from exc
        stamps = {file.path: stamp for file in record.files if (stamp := _stamp(target / file.path))}
        self._remember(record.name, Look(stamps, intact=True))

    def remove(self, name: str) -> bool:
        """Whether there was anything to remove, what was half-fetched included."""
        self.models.get(name)
        places = (self.path(name), self.fetching(name), self.folder / ".verified" / f"{name}.json")
        found = [place for place in places if place.exists()]
        for place in found:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        self._looks.pop(name, None)
        return bool(found)

    def bring_in(self, source: Path, name: str) -> Record:
        """
        Copy a model from a folder: one that another shelf made (with its model.json), or the plain files.

        Raises:
            Refused: MODEL_INCOMPLETE or MODEL_DAMAGED; nothing was changed.
        """
        model = self.models.get(name)
        told = _told_by(source)
        paths = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
        wanted = [path for path in paths if path != RECORD and not path.startswith(".")]
        if lacks := model.lacks(wanted):
            message = f"{source} is not the model {name}: {lacks} is missing."
            raise Refused(message, hint=f"Its files are described at {model.page}", code="MODEL_INCOMPLETE")
        with self.fetching_alone(name) as folder:
            shutil.rmtree(folder, ignore_errors=True)
            for path in wanted:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / path, folder / path)
            files = tuple(recorded(folder, path) for path in wanted)
            known = {f.path: f.sha256 for f in model.files if f.sha256 and not f.unpack}
            known |= {f.path: f.sha256 for f in told.files} if told else {}
            if wrong := sorted(f.path for f in files if known.get(f.path, f.sha256) != f.sha256):
                shutil.rmtree(folder, ignore_errors=True)
                message = f"{', '.join(wrong)} in {source} is not what belongs to {name}."
                raise Refused(message, hint="Copy it again.", code="MODEL_DAMAGED")
            checked = "its model.json" if told else "declared checksums" if known else "nothing: recorded at import"
            origin, revision = (told.origin, told.revision) if told else ("import", "")
            record = Record(name=name, origin=origin, revision=revision, checked_against=checked, files=files)
            self.place(folder, record)
        return record

    def fetching(self, name: str) -> Path:
        return self.folder / ".fetching" / name

    @contextmanager
    def fetching_alone(self, name: str) -> Iterator[Path]:
        """The folder for what is on its way, while nobody else works on it; waits for whoever does."""
        folder = self.fetching(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise trouble(exc, self.folder) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
        finally:
            os.close(lock)

    def how_to_get(self, *names: str) -> str:
        """The command, and what has to be done before it for those that are gated."""
        command = f"Run: videoannotator models pull {' '.join(names)}"
        gated = [model for name in names if (model := self.models.get(name)).gated]
        if not gated:
            return command
        pages = ", ".join(model.page for model in gated)
        return f"Accept the conditions at {pages}, put a token of your account into HF_TOKEN, then {command.lower()}"

    def _last_look(self, name: str) -> Look | None:
        if name not in self._looks:
            with suppress(OSError, msgspec.MsgspecError):
                content = (self.folder / ".verified" / f"{name}.json").read_bytes()
                self._looks[name] = msgspec.json.decode(content, type=Look)
        return self._looks.get(name)

    def _remember(self, name: str, look: Look) -> None:
        self._looks[name] = look
        with suppress(OSError):  # a shelf that only others may write to is read through once for each process
            folder = self.folder / ".verified"
            folder.mkdir(exist_ok=True)
            part = folder / f".{name}-{os.getpid()}"
            part.write_bytes(msgspec.json.encode(look))
            part.replace(folder / f"{name}.json")


def recorded(folder: Path, path: str) -> RecordedFile:
    """Reads the file through."""
    return RecordedFile(path, (folder / path).stat().st_size, sha256(folder / path))


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def trouble(exc: OSError, where: Path) -> StorageTrouble:
    import errno

    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageTrouble(f"There is no space left in {where}.", hint="Free some.", code="STORAGE_FULL")
    message = f"{where} cannot be written: {exc.strerror}."
    return StorageTrouble(message, hint="Choose another models_dir.", code="STORAGE_NOT_WRITABLE")


def _told_by(source: Path) -> Record | None:
    try:
        return msgspec.json.decode((source / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def _damaged(name: str, why: str) -> Refused:
    hint = f"Run: videoannotator models pull {name}"
    return Refused(f"The model {name} is damaged: {why}.", hint=hint, code="MODEL_DAMAGED")


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
