"""Long work that is interrupted is continued, and its result is the same to the byte."""

import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import waiting
from tests.clips import Clips, ffmpeg
from tests.declared import declare
from tests.engine import submit
from tests.killing import files_of, killed_until_final
from tests.staging import Recorder, run
from videoannotator.artifacts import Artifacts
from videoannotator.jobs import Job, Ledger, StageStatus
from videoannotator.media.frames import Frames
from videoannotator.media.probe import probe
from videoannotator.pipelines.chunks import Chunks
from videoannotator.settings import Settings
from videoannotator.workspace import Workspace

STEPS = {"steps": 40, "step_seconds": 0.02}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        storage_dir=tmp_path / "storage",
        pipeline_dirs=(declare(tmp_path / "pipelines", "counts_in_chunks"),),
        min_free_bytes=1,
        retry_base_delay_seconds=0,
        crash_attempts=10_000,
        cache="off",
    )


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


until = partial(waiting.until, limit_seconds=30.0)


def results(settings: Settings, job: Job) -> Path:
    return settings.storage_dir / "results" / job.id


def counted(settings: Settings) -> list[str]:
    """What was really worked on, in all attempts."""
    return (settings.pipeline_dirs[0] / "pids.counted").read_text().split()


# Whole jobs


async def test_a_stage_that_is_killed_again_and_again_ends_with_the_same_bytes(settings: Settings, clip: Path) -> None:
    """Ten times by SIGKILL, at random moments: nothing is lost, nothing there twice, and next to nothing done twice."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "counts_in_chunks", **STEPS)
        ended, kills = await killed_until_final(workspace, job.id, kills=10, longest_wait=0.25, chance=random.Random(5))

    assert "full" == ended.outcome
    assert {"out.json": " ".join(map(str, range(40))).encode() + b" "} == files_of(results(settings, ended))
    assert ended.stages[0].attempts == 1 + ended.stages[0].failures
    assert 1 <= ended.stages[0].failures <= kills
    assert 40 <= len(counted(settings)) <= 40 + kills, "each kill costs at most the step it interrupted"


async def test_a_server_that_stops_goes_on_where_it_was(settings: Settings, clip: Path) -> None:
    """An update in the night must not cost what the night has done."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "counts_in_chunks", **STEPS)
        await until(workspace, job.id, lambda job: job.stages[0].progress > 0.3)
    before = len(counted(settings))
    async with Workspace.open(settings) as workspace:
        ended = await until(workspace, job.id, lambda job: job.status.is_final)

    assert "full" == ended.outcome
    assert 12 <= before < 40
    assert len(counted(settings)) <= 41


async def test_what_was_kept_goes_with_the_end_of_the_stage(settings: Settings, clip: Path) -> None:
    """Completed or cancelled: nothing but results may lie among the results."""
    async with Workspace.open(settings) as workspace:
        done = await submit(workspace, clip, "counts_in_chunks", steps=3)
        await until(workspace, done.id, lambda job: job.status.is_final)
        cancelled = await submit(workspace, clip, "counts_in_chunks", **STEPS)
        await until(workspace, cancelled.id, lambda job: job.stages[0].progress > 0)
        kept = list(results(settings, cancelled).glob(".chunks/*/*/*.chunk"))
        await workspace.cancel(cancelled.id)
        await until(workspace, cancelled.id, lambda job: job.status.is_final)

    assert kept
    assert ["manifest.json", "out.json"] == sorted(os.listdir(results(settings, done)))
    assert [] == os.listdir(results(settings, cancelled))


async def test_a_job_cancelled_before_it_began_again_leaves_nothing_either(settings: Settings, clip: Path) -> None:
    """It has no worker then that could clear up."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "counts_in_chunks", **STEPS)
        await until(workspace, job.id, lambda job: job.stages[0].progress > 0)
    async with Workspace.open(msgspec.structs.replace(settings, max_concurrent_jobs=0)) as workspace:
        before = list(results(settings, job).glob(".chunks/*/*/*.chunk"))
        await workspace.cancel(job.id)

    assert before
    assert [] == os.listdir(results(settings, job))


async def test_keeping_can_be_turned_off(settings: Settings, clip: Path) -> None:
    """`checkpoint_seconds = 0`: nothing is written, and the result is the same."""
    async with Workspace.open(msgspec.structs.replace(settings, checkpoint_seconds=0)) as workspace:
        job = await submit(workspace, clip, "counts_in_chunks", steps=5)
        ended = await until(workspace, job.id, lambda job: job.stages[0].status is StageStatus.COMPLETED)

    assert b"0 1 2 3 4 " == (results(settings, ended) / "out.json").read_bytes()


# Real pipelines


class Interrupted(Exception):
    """What stands for a kill where everything runs in the test's own process."""


class Impatient(Recorder):
    """Lets the work go on until so far on the timeline."""

    def __init__(self, until_seconds: float) -> None:
        super().__init__()
        self._until = until_seconds

    def progress(self, done_seconds: float) -> None:
        super().progress(done_seconds)
        if done_seconds >= self._until:
            raise Interrupted


def interrupted(
    pipeline: str, clip: Path, folder: Path, until: list[float], config: dict[str, Any], chunk_seconds: float = 1.0
) -> dict[str, bytes]:
    """The files of an attempt that continues several that were interrupted."""
    chunks, kept = folder / "chunks", 0
    for number, seconds in enumerate(until):
        with pytest.raises(Interrupted):
            run(
                pipeline, clip, folder / f"{number}", config, Impatient(seconds),
                chunks=chunks, chunk_seconds=chunk_seconds,
            )  # fmt: skip
        before, kept = kept, len(list(chunks.glob("*.chunk")))
        assert kept > before, "the attempt kept something new"
    return run(pipeline, clip, folder / "last", config, chunks=chunks, chunk_seconds=chunk_seconds).files


@pytest.mark.parametrize("landmarks", ["points", pytest.param("mesh", marks=pytest.mark.slow)])
def test_faces_of_a_continued_stage_are_those_of_one_go(landmarks: str, sample: Path, tmp_path: Path) -> None:
    """Ids, boxes, meshes, the account of frames: a reader cannot tell."""
    config = {"rate": 5.0, "detail": "whole", "landmarks": landmarks}

    in_one_go = run("face_analysis", sample, tmp_path / "whole", config)
    continued = interrupted("face_analysis", sample, tmp_path, [4.0, 7.0], config)

    assert in_one_go.files == continued
    assert b"track_id" in continued["face_analysis.json"]


@pytest.mark.parametrize("name", ["h264.mp4", "b_frames.mp4", "variable.mkv", "scratched.mp4", "half.mkv"])
def test_frames_from_the_middle_on_are_those_of_the_whole(name: str, clips: Clips) -> None:
    """With the same account, also where damage makes the decoder begin again with one thread."""
    path = clips.path(name)
    whole, all_of_them = frames_of(path, after=-1)
    for after in (0, 17, 60):
        ledger, rest = frames_of(path, after=after)

        assert whole == ledger
        assert [frame for frame in all_of_them if frame[0] > after] == rest


def frames_of(path: Path, *, after: int) -> tuple[Ledger, list[tuple[int, float, int, bytes]]]:
    with Frames(path, probe(path), rate=10.0, max_side=64, threads=3, after=after) as frames:
        found = [(f.number, f.timestamp, f.pts, f.image.tobytes()) for f in frames]
    return frames.ledger, found


@pytest.mark.parametrize("detector", ["adaptive", "histogram"])
@pytest.mark.parametrize("name", ["cuts.mp4", "fades.mp4"])
def test_scenes_of_a_continued_stage_are_those_of_one_go(
    detector: str, name: str, clips: Clips, tmp_path: Path
) -> None:
    """Chunks of 25 frames end where there is a cut: the last frame of an earlier attempt must be looked at again."""
    config = {"detector": detector}

    in_one_go = run("scene_detection", clips.path(name), tmp_path / "whole", config)
    continued = interrupted("scene_detection", clips.path(name), tmp_path, [2.1, 4.3], config, 0.96)

    assert in_one_go.files == continued


def test_voice_of_a_continued_stage_is_that_of_one_go(tmp_path: Path) -> None:
    """The network remembers what it has heard: its state goes along."""
    clip = tmp_path / "talk.mp4"
    voice = "aevalsrc='(0.4+0.4*sin(2*PI*3*t))*sin(2*PI*(180+40*sin(2*PI*2*t))*t)':s=16000:d=130"
    ffmpeg("-f", "lavfi", "-i", voice, "-f", "lavfi", "-i", "color=s=32x32:r=1:d=130", "-c:a", "aac", clip)

    in_one_go = run("voice_activity", clip, tmp_path / "whole", {"threshold": 0.05})
    continued = interrupted("voice_activity", clip, tmp_path, [65.0], {"threshold": 0.05})

    assert in_one_go.files == continued


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["face_analysis", "voice_activity", "scene_detection"])
async def test_real_stages_killed_at_random_moments_give_the_same_bytes(
    pipeline: str, settings: Settings, sample: Path
) -> None:
    """The same with real processes; `scripts/soak.py kills` does it a hundred times."""
    often = msgspec.structs.replace(settings, checkpoint_seconds=0.5)
    async with Workspace.open(often) as workspace:
        undisturbed = await submit(workspace, sample, pipeline)
        await until(workspace, undisturbed.id, lambda job: job.status.is_final)
        job = await submit(workspace, sample, pipeline)
        ended, _ = await killed_until_final(workspace, job.id, kills=6, longest_wait=4.0, chance=random.Random(1))

    assert "full" == ended.outcome
    assert files_of(results(often, undisturbed)) == files_of(results(often, ended))


# The folder by itself


def test_what_was_kept_is_there_for_the_next_attempt(tmp_path: Path) -> None:
    """In the order it was kept."""
    first = Chunks(tmp_path / "chunks", 60.0)
    first.keep(b"one")
    first.keep(b"two")

    again = Chunks(tmp_path / "chunks", 60.0)
    again.keep(b"three")

    assert (0, 2, 3) == (first.earlier, again.earlier, len(again))
    assert [b"one", b"two", b"three"] == list(again)
    assert b"three" == again[-1]


def test_a_damaged_chunk_is_not_taken_nor_what_follows_it(tmp_path: Path) -> None:
    """A power cut leaves files of the right size full of zeros; and a gap cannot be continued from."""
    chunks = Chunks(tmp_path, 60.0)
    for content in (b"one", b"two", b"three"):
        chunks.keep(content)
    damaged = tmp_path / "000001.chunk"
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    (tmp_path / "new").write_bytes(b"half")

    again = Chunks(tmp_path, 60.0)

    assert [b"one"] == list(again)
    assert ["000000.chunk"] == os.listdir(tmp_path)


def test_without_a_folder_they_are_held_in_memory() -> None:
    """So that a pipeline need not ask."""
    chunks = Chunks(None, 60.0)
    chunks.keep(b"one")

    assert ([b"one"], 0, 1) == (list(chunks), chunks.earlier, len(chunks))


def test_chunks_of_other_work_are_removed(tmp_path: Path) -> None:
    """Half the batch, another version, another file: what was found before does not count."""
    artifacts = Artifacts(tmp_path)
    Chunks(artifacts.chunks("job_1", "p", "work-1"), 60.0).keep(b"one")

    again = Chunks(artifacts.chunks("job_1", "p", "work-2"), 60.0)

    assert 0 == len(again)
    assert [] == list((artifacts.results("job_1") / ".chunks").rglob("*.chunk"))
