"""
A job's files: where they lie, and how they get there whole or not at all.

    videos/<job>/          the video, where the job owns it
    results/<job>/         artifacts and manifest.json; `.attempt-N/<pipeline>/` while a stage is at work;
                           `.chunks/<pipeline>/` what it has found so far, kept from one attempt to the next
    logs/<job>/            one file for each stage: what its process printed
    cache/                 results of stages for the next time, see `cache.py`
    uploads/*.part         on their way in

A stage writes into a folder of its own attempt. Its files are hashed and on disk before the store is told, and moved to
their place after; a crash between the two is mended by `settle`. All functions block: call them in a thread.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from videoannotator.errors import NotFound, StorageTrouble
from videoannotator.faults import reach
from videoannotator.formats.viewer import shown_together
from videoannotator.jobs import Artifact, Job, NewJob, Output, Stage, StageStatus
from videoannotator.paths.nofollow import open_file

MANIFEST = "manifest.json"
_CHUNKS = ".chunks"
_BLOCK = 1 << 20
_FICLONE = 0x40049409
"""Of ioctl(2) on Linux: share the blocks of another file. Other systems answer with an error."""
VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"),
        *(".ts", ".webm", ".wmv", ".flac", ".m4a", ".mp3", ".ogg", ".wav"),
    )
)
"""Endings that files with pictures or sound have."""


class Artifacts:
    def __init__(self, root: Path) -> None:
        self._root = root = root.resolve()  # once: what is served from here is opened without following links
        self.uploads = root / "uploads"
        self.cache = root / "cache"
        self.lost = root / "lost"
        """What another database than the present one knew; see `upkeep/orphans.py`."""

        self.marks = root / "unsettled"

    def prepare(self) -> None:
        """Make the folders, and clear away uploads that an earlier life never finished."""
        for folder in ("uploads", "videos", "results", "logs"):
            (self._root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in self.uploads.glob("*.part"):
            part.unlink(missing_ok=True)

    def results(self, job_id: str) -> Path:
        return self._root / "results" / job_id

    def video_folder(self, job_id: str) -> Path:
        return self._root / "videos" / job_id

    def log(self, job_id: str, pipeline: str) -> Path:
        return self._root / "logs" / job_id / f"{pipeline}.log"

    def job_ids(self) -> set[str]:
        """Every job that files lie here for."""
        found: set[str] = set()
        for kind in ("videos", "results", "logs"):
            with os.scandir(self._root / kind) as entries:
                found |= {entry.name for entry in entries if entry.is_dir()}
        return found

    def files(self, job_id: str) -> list[tuple[Literal["video", "result", "log"], Path]]:
        """Every file that lies here for a job, links left alone."""
        kinds: tuple[Literal["video", "result", "log"], ...] = ("video", "result", "log")
        found = [(kind, file) for kind in kinds for file in (self._root / f"{kind}s" / job_id).rglob("*")]
        return [(kind, file) for kind, file in sorted(found) if file.is_file() and not file.is_symlink()]

    def size(self, job_id: str) -> int:
        """Bytes that lie here for a job."""
        return sum(file.lstat().st_size for _, file in self.files(job_id))

    def begin(self, job_id: str, pipeline: str, token: int) -> Path:
        """An empty folder for one attempt at a stage; also the folder of its log. Raises StorageTrouble."""
        folder = self._attempt(job_id, pipeline, token)
        try:
            self.log(job_id, pipeline).parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
        except OSError as exc:
            raise storage_trouble(exc, folder) from exc
        return folder

    def chunks(self, job_id: str, pipeline: str, work: str) -> Path:
        """
        Where attempts at this very work keep what they have found, made by who first does; other work's is removed.
        """
        folder = self.results(job_id) / _CHUNKS / pipeline
        for other in folder.glob("*"):
            if other.name != work:
                shutil.rmtree(other, ignore_errors=True)
        return folder / work

    def drop_chunks(self, job_id: str, pipeline: str | None = None) -> None:
        """Nobody goes on with this stage, or with any of the job."""
        folder = self.results(job_id) / _CHUNKS
        if pipeline is not None:
            shutil.rmtree(folder / pipeline, ignore_errors=True)
        if pipeline is None or (folder.is_dir() and not any(folder.iterdir())):
            shutil.rmtree(folder, ignore_errors=True)

    def seal(self, job_id: str, pipeline: str, token: int, outputs: Iterable[Output]) -> tuple[Artifact, ...]:
        """
        Hash what the attempt wrote and have it on disk for good; it is not yet in its place.

        Raises:
            StorageTrouble: the disk is full, or cannot be written.
        """
        folder = self._attempt(job_id, pipeline, token)
        try:
            sealed = tuple(_seal(folder / output.name, pipeline, output) for output in outputs)
            _sync(folder)
        except OSError as exc:
            raise storage_trouble(exc, folder) from exc
        return sealed

    def kept(self, job_id: str, pipeline: str, token: int, outputs: Iterable[Output]) -> tuple[Output, ...]:
        """Of these outputs the partial ones that an attempt left as plain files when it broke off."""
        folder = self._attempt(job_id, pipeline, token)
        return tuple(output.partial for output in outputs if _is_plain(folder / output.partial.name))

    def publish(self, job_id: str, pipeline: str, token: int, artifacts: Iterable[Artifact]) -> None:
        """Move sealed files to their place. Call after the store has accepted the stage's completion."""
        folder, results = self._attempt(job_id, pipeline, token), self.results(job_id)
        for artifact in artifacts:
            (folder / artifact.name).replace(results / artifact.name)
            reach("artifact.moved")
        _sync(results)
        self.abandon(job_id, pipeline, token)

    def abandon(self, job_id: str, pipeline: str, token: int) -> None:
        """Remove what an attempt left."""
        folder = self._attempt(job_id, pipeline, token)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not empty while another stage is at work, or gone by another that ended just now
            folder.parent.rmdir()

    def settle(self, job_id: str, artifacts: Iterable[Artifact]) -> None:
        """
        After a crash: finish moving what the store already knows, and remove all other attempts, at results and at the
        manifest.

        Raises:
            StorageTrouble: RESULT_MISSING, a file that the store knows is nowhere.
        """
        results = self.results(job_id)
        for artifact in artifacts:
            if not (results / artifact.name).is_file():
                self._recover(results, artifact)
        for attempt in results.glob(".attempt-*"):
            shutil.rmtree(attempt, ignore_errors=True)
        for half_written in results.glob(f".{MANIFEST}-*"):
            half_written.unlink(missing_ok=True)

    def carry_over(self, finished: str, job_id: str, artifacts: Iterable[Artifact]) -> None:
        """Give a new job the files of an earlier one, without copying where the file system can link."""
        self.results(job_id).mkdir(parents=True, exist_ok=True)
        for artifact in artifacts:
            link_or_copy(self.results(finished) / artifact.name, self.results(job_id) / artifact.name)

    def write_manifest(self, job: Job, artifacts: Sequence[Artifact]) -> None:
        """Raises StorageTrouble."""
        folder = self.results(job.id)
        content = msgspec.json.format(msgspec.json.encode(manifest(job, artifacts)), indent=2)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / MANIFEST, content)
        except OSError as exc:
            raise storage_trouble(exc, folder) from exc

    def find(self, job: Job, artifacts: Iterable[Artifact], name: str) -> Path:
        """Raises NotFound (ARTIFACT_NOT_FOUND) for every name that is not the manifest's or in it."""
        known = {a.name for a in artifacts} | {MANIFEST}
        file = self.results(job.id) / name
        if name not in known or not file.is_file():
            raise NotFound.of("artifact", name, f"GET /api/v1/jobs/{job.id}/manifest lists them.")
        return file

    def remove(self, job_id: str) -> None:
        for folder in (self.video_folder(job_id), self.results(job_id), self._root / "logs" / job_id):
            shutil.rmtree(folder, ignore_errors=True)

    def _attempt(self, job_id: str, pipeline: str, token: int) -> Path:
        return self.results(job_id) / f".attempt-{token}" / pipeline

    def _recover(self, results: Path, artifact: Artifact) -> None:
        for left in results.glob(f".attempt-*/{artifact.pipeline}/{artifact.name}"):
            if sha256(left) == artifact.sha256:
                left.replace(results / artifact.name)
                _sync(results)
                return
        message = f"{artifact.name} was finished and is gone from {results}."
        raise StorageTrouble(message, hint="Retry the job from scratch.", code="RESULT_MISSING")


def stored_name(filename: str) -> str:
    """Of a video: ours, whatever its owner called it; the ending helps people who look into the folder."""
    suffix = PurePosixPath(filename).suffix.lower()
    return f"video{suffix}" if suffix in VIDEO_SUFFIXES else "video"


def manifest(job: Job, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """What a job's result says of itself (API.md). Paths are relative to the job's results; the order is fixed."""
    return {
        "job_id": job.id,
        "outputs": {job.video.filename: [_entry(a) for a in sorted(artifacts, key=lambda a: a.name)]},
        "viewer_hint": {"zip": f"/api/v1/jobs/{job.id}/artifacts", "files": [a.name for a in in_archive(artifacts)]},
        "provenance": {
            "input": msgspec.to_builtins(job.video),
            "preset": job.preset,
            "stages": [_account(stage) for stage in job.stages],
        },
    }


def in_archive(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Those that the ZIP for the Viewer holds: none that would hide another."""
    wanted = {artifact.name: artifact for artifact in artifacts if artifact.in_zip and artifact.name != MANIFEST}
    return tuple(wanted[name] for name in shown_together(wanted))


def video_path(job: Job | NewJob) -> Path:
    """
    Where to open a job's video, without following a link. Files of our own lie behind whatever links lead to the
    storage directory today; those of others are where they were when they were admitted, or gone.
    """
    return job.video_path.resolve() if job.owns_video else job.video_path


def sha256(file: Path, stop: threading.Event | None = None) -> str:
    """
    Hex digest of a file's bytes, reached without following a link.

    Raises:
        InterruptedError: `stop` was set while it was read.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(open_file(file), "rb", buffering=0) as bytes_of:  # noqa: PTH123 (a descriptor, no path)
        while block := bytes_of.read(_BLOCK):
            if stop is not None and stop.is_set():
                raise InterruptedError
            digest.update(block)
    return digest.hexdigest()


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that after a crash there is the old one or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
        reach("manifest.written")
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(file.parent)


def storage_trouble(exc: OSError, where: Path) -> StorageTrouble:
    """What a failed write means to the user: STORAGE_FULL or STORAGE_NOT_WRITABLE."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageTrouble(f"There is no space left in {where}.", hint="Free some and retry.", code="STORAGE_FULL")
    message = f"{where} cannot be written: {exc.strerror}."
    return StorageTrouble(message, hint="Choose another --storage-dir.", code="STORAGE_NOT_WRITABLE")


def clone_or_copy(source: Path, target: Path) -> None:
    """A file of its own, which shares its blocks with the source where the file system can (btrfs, XFS, ...)."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, _BLOCK)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _make(folder: Path) -> None:
    """Again where another stage, that has just ended, removed the folder above between two steps of this."""
    for _ in range(100):
        with suppress(FileNotFoundError, FileExistsError):
            folder.mkdir(parents=True)
            return
    folder.mkdir(parents=True)


def _seal(file: Path, pipeline: str, output: Output) -> Artifact:
    _sync(file)
    return Artifact(
        name=output.name,
        pipeline=pipeline,
        role=output.role,
        media_type=output.media_type,
        size=file.stat().st_size,
        sha256=sha256(file),
        in_zip=output.in_zip,
    )


def _is_plain(file: Path) -> bool:
    try:
        seen = file.lstat()
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(artifact: Artifact) -> dict[str, Any]:
    return {
        "type": artifact.media_type,
        "role": artifact.role,
        "path": artifact.name,
        "size": artifact.size,
        "sha256": artifact.sha256,
        "meta": {"pipeline": artifact.pipeline} | ({"partial": True} if artifact.is_partial else {}),
    }


def _account(stage: Stage) -> dict[str, Any]:
    account: dict[str, Any] = {"pipeline": stage.pipeline, "status": stage.status, "parameters": stage.used_config}
    if stage.status is StageStatus.COMPLETED:
        account |= {"seconds": stage.seconds, "annotations": stage.annotations, "cached": stage.cached}
    if stage.provenance is not None:
        account |= msgspec.to_builtins(stage.provenance)
    if stage.error is not None:
        account["error"] = msgspec.to_builtins(stage.error)
    return account
