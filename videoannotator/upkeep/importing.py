"""
Older results become completed jobs: the bytes as they are, and of their making only what is known, which is little.

Each video of the folder is one job with a stage for each of its files. A video file beside them, or in a folder that is
named, is looked at and hashed; without one the job has its name only. Importing the same folder again adds nothing.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePath

import msgspec

from videoannotator.artifacts import Artifacts, sha256
from videoannotator.errors import Refused, UnreadableVideo
from videoannotator.jobs import Artifact, NewJob, NewStage, Provenance, StageResult, Video, new_id
from videoannotator.store import JobQuery, Store
from videoannotator.upkeep import older_results
from videoannotator.upkeep.older_results import OlderFile, Reading
from videoannotator.upkeep.orphans import mark, unmark

TAG = "imported"
ENGINE = "imported"
UNKNOWN = "unknown"
LIMIT = "Imported: not made by this program. Its parameters, models and versions are not known, and nobody checked it."

Probe = Callable[[Path, str], Awaitable[Video]]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a folder."""

    jobs: tuple[tuple[str, str], ...]
    """Video and job."""

    known: tuple[str, ...]
    """Videos whose results are there already."""

    refused: tuple[tuple[str, str], ...]
    """File and reason."""


class Import:
    def __init__(self, store: Store, artifacts: Artifacts, probe: Probe) -> None:
        self._store = store
        self._artifacts = artifacts
        self._probe = probe

    async def run(self, folder: Path, *, videos: Path | None = None, tags: Sequence[str] = ()) -> Imported:
        """
        Import what is whole, and name what is not. `videos` is where the video files are, else `folder`.

        Raises:
            Refused: FILE_NOT_FOUND, TOO_MANY_FILES.
        """
        found, left = await asyncio.to_thread(older_results.find, folder)
        refused = [(str(path), why) for path, why in left]
        files = await asyncio.to_thread(_video_files, videos or folder)
        jobs, known = [], []
        for video in dict.fromkeys(file.video for file in found):
            readings, wrong = await asyncio.to_thread(_read_all, [file for file in found if file.video == video])
            refused += wrong
            if not readings:
                continue
            if await self._is_known(video, readings):
                known.append(video)
            else:
                jobs.append((video, await self._add(video, readings, files.get(video.casefold()), tags)))
        return Imported(jobs=tuple(jobs), known=tuple(known), refused=tuple(refused))

    async def _is_known(self, video: str, readings: dict[OlderFile, Reading]) -> bool:
        hashes = {await asyncio.to_thread(sha256, file.path) for file in readings}
        earlier = (await self._store.jobs(JobQuery(tag=TAG, text=video, limit=100))).jobs
        for job in earlier:
            if hashes <= {artifact.sha256 for artifact in await self._store.artifacts(job.id)}:
                return True
        return False

    async def _add(self, name: str, readings: dict[OlderFile, Reading], file: Path | None, tags: Sequence[str]) -> str:
        until = max(reading.until_seconds for reading in readings.values())
        video = await self._look(name, file, until)
        job_id = new_id("job")
        await asyncio.to_thread(mark, self._artifacts, job_id)
        results = {
            reading.output.name.partition(".")[0]: await asyncio.to_thread(self._bring, job_id, source, reading)
            for source, reading in readings.items()
        }
        job = NewJob(
            id=job_id,
            video=video,
            video_path=(file or Path(f"{name} (no video)")).absolute(),
            owns_video=False,
            stages=tuple(NewStage(pipeline, {}) for pipeline in results),
            tags=tuple(dict.fromkeys((TAG, *tags))),
        )
        added = await self._store.add_finished(job, results)
        await asyncio.to_thread(unmark, self._artifacts, job_id)
        await asyncio.to_thread(self._artifacts.write_manifest, added, await self._store.artifacts(job_id))
        return job_id

    async def _look(self, name: str, file: Path | None, until: float) -> Video:
        """A video that is not there, or cannot be read, is described by what its results say."""
        if file is not None:
            try:
                video = await self._probe(file, file.name)
                return msgspec.structs.replace(video, sha256=await asyncio.to_thread(sha256, file))
            except UnreadableVideo:
                pass
        return Video(filename=name, size_bytes=0, container=UNKNOWN, duration_seconds=until)

    def _bring(self, job_id: str, source: OlderFile, reading: Reading) -> StageResult:
        output = reading.output
        pipeline = output.name.partition(".")[0]
        shutil.copyfile(source.path, self._artifacts.begin(job_id, pipeline, 0) / output.name)
        (artifact,) = self._artifacts.seal(job_id, pipeline, 0, [output])
        self._artifacts.publish(job_id, pipeline, 0, [artifact])
        return _result(reading, artifact, source)


def _result(reading: Reading, artifact: Artifact, source: OlderFile) -> StageResult:
    provenance = Provenance(
        pipeline_version=UNKNOWN,
        engine=ENGINE,
        libraries={},
        device=UNKNOWN,
        environment=UNKNOWN,
        known_limits=(LIMIT,),
        warnings=(f"The file was called {PurePath(source.path).name}.",),
    )
    return StageResult(
        annotations=reading.annotations,
        artifacts=(artifact,),
        intervals=reading.intervals,
        provenance=provenance,
        seconds=0.0,
        cached=True,
    )


def _read_all(files: Sequence[OlderFile]) -> tuple[dict[OlderFile, Reading], list[tuple[str, str]]]:
    """Readings by file, one for each pipeline; and the files that are no results."""
    readings: dict[OlderFile, Reading] = {}
    refused: list[tuple[str, str]] = []
    for file in files:
        try:
            reading = older_results.read(file)
        except Refused as refusal:
            refused.append((str(file.path), refusal.message))
            continue
        pipeline = reading.output.name.partition(".")[0]
        if any(other.output.name.partition(".")[0] == pipeline for other in readings.values()):
            refused.append((str(file.path), f"a second {pipeline} of {file.video}"))
        else:
            readings[file] = reading
    return readings, refused


def _video_files(folder: Path) -> dict[str, Path]:
    """By name without its ending, in small letters; where two are alike, none: nobody could say which."""
    suffixes = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".wmv"}
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file() and not path.is_symlink():
            found.setdefault(path.stem.casefold(), []).append(path)
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}
