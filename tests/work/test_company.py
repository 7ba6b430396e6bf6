"""Which stages of a job share a decoder, and whole jobs whose stages do."""

import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests import waiting
from tests.clips import ffmpeg
from tests.staging import CATALOGUE, files_in
from videoannotator.jobs import Job, Stage, Video
from videoannotator.runner.process import Runner
from videoannotator.settings import Settings
from videoannotator.work.company import Company, company
from videoannotator.workspace import Selection, Workspace

LONG = Video(
    filename="clip.mp4",
    size_bytes=1,
    container="mp4",
    duration_seconds=60.0,
    width=1280,
    height=720,
    frame_rate=25.0,
    video_codec="h264",
)
LIMIT_SECONDS = 240.0
"""Stages work for a minute where the machine has other work."""

PIPELINES = ("face_analysis", "person_tracking", "scene_detection", "voice_activity")
READERS = ("scene_detection", "face_analysis", "person_tracking")


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    async with Runner.open(secrets.token_hex(8)) as opened:
        yield opened


async def told(runner: Runner, stages: Sequence[Stage], video: Video = LONG, **settings: Any) -> dict[str, str]:
    """What each stage is told that does not decode for itself alone."""
    chosen = Settings(**({"max_concurrent_stages": 4} | settings))
    said: dict[str, str] = {}
    async with company(stages, video, catalogue=CATALOGUE, settings=chosen, runner=runner) as together:
        for stage in stages:
            together.enter(stage.pipeline)
        for stage in stages:
            if (sharing := together.sharing(stage.pipeline, free_slots=0)) is not None:
                assert Path(sharing.address).parent.is_dir()
                said[stage.pipeline] = f"gives to {sharing.takers}" if sharing.gives else "takes"
    return said


async def test_the_quickest_reader_of_frames_decodes_for_as_many_as_have_a_slot(runner):
    """Who waits for a slot comes too late; who reads no frames has no part in it."""
    stages = [Stage(pipeline=name, config={}) for name in PIPELINES]
    with_speech = [stages[0], stages[3]]
    later = [msgspec.structs.replace(stages[0], retry_at=datetime.now(UTC)), *stages[1:]]

    assert {"scene_detection": "gives to 2", "face_analysis": "takes", "person_tracking": "takes"} == await told(
        runner, stages
    )
    assert {"scene_detection": "gives to 1", "face_analysis": "takes"} == await told(
        runner, stages, max_concurrent_stages=2
    )
    assert {"face_analysis": "gives to 1", "person_tracking": "takes"} == await told(runner, stages[:2])
    assert {"scene_detection": "gives to 1", "person_tracking": "takes"} == await told(runner, later)
    assert {} == await told(runner, stages, max_concurrent_stages=1)
    assert {} == await told(runner, stages, shared_frames_bytes=0)
    assert {} == await told(runner, with_speech)
    assert {} == await told(runner, stages, msgspec.structs.replace(LONG, duration_seconds=10.0))


def test_a_second_attempt_decodes_for_itself():
    """The others are far ahead by then."""
    together = Company(READERS, address=Path("/x/frames"), most_bytes=1000)

    first = together.sharing("face_analysis", free_slots=1)
    second = together.sharing("face_analysis", free_slots=1)

    assert first is not None
    assert second is None


def test_who_has_its_result_already_is_not_waited_for():
    """The next one decodes for the others then; one that is left over is alone."""
    together = Company(READERS, address=Path("/x/frames"), most_bytes=1000)

    together.withdraw("scene_detection")
    giver = together.sharing("face_analysis", free_slots=1)
    together.withdraw("person_tracking")

    assert giver is not None
    assert (True, 1) == (giver.gives, giver.takers)
    assert together.sharing("person_tracking", free_slots=1) is None


def test_nobody_waits_for_a_stage_that_waits_for_its_slot():
    """On a busy machine each would hold its own slot for nothing; who has one, or finds one free, comes at once."""
    takers = {}
    for free_slots, here in ((0, ()), (1, ()), (0, ("face_analysis",)), (5, ("face_analysis",))):
        together = Company(READERS, address=Path("/x/frames"), most_bytes=1000)
        for name in ("scene_detection", *here):
            together.enter(name)
        giver = together.sharing("scene_detection", free_slots=free_slots)
        takers[free_slots, here] = giver.takers if giver else 0
    late = Company(READERS, address=Path("/x/frames"), most_bytes=1000)
    late.enter("face_analysis")

    assert [0, 1, 1, 2] == list(takers.values())
    assert late.sharing("face_analysis", free_slots=0) is None


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = tmp_path_factory.mktemp("long") / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=24", "-c:v", "libx264", "-preset", "ultrafast", clip)
    return clip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(storage_dir=tmp_path / "storage", cache="off", max_concurrent_stages=2, retry_base_delay_seconds=0)


FEW = {"face_analysis": {"rate": 5.0, "detail": "whole"}, "scene_detection": {}}


async def begin(workspace: Workspace, clip: Path) -> Job:
    selection = Selection(pipelines=tuple(FEW), config=FEW)
    (job,) = await workspace.submit(await workspace.admit(clip, clip.name, selection, owns_video=False))
    return job


until = partial(waiting.until, limit_seconds=LIMIT_SECONDS)
until_final = partial(waiting.until_final, limit_seconds=LIMIT_SECONDS)


async def until_at_work(workspace: Workspace, job_id: str, pipeline: str) -> None:
    await until(workspace, job_id, lambda job: any(s.pipeline == pipeline and s.progress > 0.05 for s in job.stages))


def process_of(settings: Settings, pipeline: str) -> psutil.Process:
    """The process of a running stage: it writes to the log that is named after it."""
    for process in psutil.Process().children(recursive=True):
        with suppress(OSError):
            if Path(os.readlink(f"/proc/{process.pid}/fd/2")).name.startswith(pipeline):
                return process
    raise LookupError(pipeline)


def meeting_places() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("videoannotator-*/frames"))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [None, "scene_detection", "face_analysis"])
async def test_jobs_whose_stages_share_give_the_same_files(killed, long_clip, settings):
    """Also where one of the stages is killed half-way: it is tried again, and the other one does not notice."""
    alone = msgspec.structs.replace(settings, shared_frames_bytes=0, storage_dir=settings.storage_dir / "alone")

    async with Workspace.open(alone) as workspace:
        expected = await until_final(workspace, (await begin(workspace, long_clip)).id)
    async with Workspace.open(settings) as workspace:
        job = await begin(workspace, long_clip)
        if killed:
            await until_at_work(workspace, job.id, killed)
            process_of(settings, killed).send_signal(signal.SIGKILL)
        ended = await until_final(workspace, job.id)

    assert ("completed", "full") == (ended.status, ended.outcome)
    assert {name: int(name == killed) for name in FEW} == {stage.pipeline: stage.failures for stage in ended.stages}
    assert results_of(alone, expected) == results_of(settings, ended)
    assert [s.provenance.ledger for s in expected.stages] == [s.provenance.ledger for s in ended.stages]


@pytest.mark.slow
async def test_a_cancelled_job_leaves_nothing_of_what_its_stages_shared(long_clip, settings):
    """Neither processes nor the place where they met."""
    before = meeting_places()

    async with Workspace.open(settings) as workspace:
        job = await begin(workspace, long_clip)
        await until_at_work(workspace, job.id, "scene_detection")
        process = process_of(settings, "scene_detection")
        await workspace.cancel(job.id)
        ended = await until_final(workspace, job.id)

        assert "cancelled" == ended.status
        assert not process.is_running()
        assert before == meeting_places()


def results_of(settings: Settings, job: Job) -> dict[str, bytes]:
    found = files_in(settings.storage_dir / "results" / job.id)
    return {name: content for name, content in found.items() if name != "manifest.json"}
