"""Pipelines that declare themselves warm, in the whole engine: the same bytes, and every guard as before."""

from pathlib import Path

import msgspec
import pytest

from tests import waiting
from tests.clips import Clips
from tests.engine import submit
from tests.stages import is_alive
from tests.tiny_models import shelf_of
from videoannotator.jobs import Job, JobStatus
from videoannotator.settings import Settings
from videoannotator.workspace import Selection, Workspace

WITHOUT_A_DOWNLOAD = (
    "scene_detection",
    "voice_activity",
    pytest.param("face_analysis", marks=pytest.mark.slow),
    pytest.param("person_tracking", marks=pytest.mark.slow),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(storage_dir=tmp_path / "storage", min_free_bytes=1, cache="off", browser_copy=False)


async def run(workspace: Workspace, clip: Path, pipeline: str, **config: object) -> Job:
    job = await submit(workspace, clip, pipeline, **config)
    return await waiting.until_final(workspace, job.id, limit_seconds=30.0)


def files(settings: Settings, job: Job) -> dict[str, bytes]:
    folder = settings.storage_dir / "results" / job.id
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json"}


def logs(settings: Settings, job: Job) -> dict[str, str]:
    folder = settings.storage_dir / "logs" / job.id
    return {file.name: file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("pipeline", WITHOUT_A_DOWNLOAD)
async def test_a_warm_process_makes_the_same_bytes_as_a_new_one(
    settings: Settings, clips: Clips, sample: Path, pipeline: str
) -> None:
    """
    Another video in between: nothing of it may be in the next result, nor in its log. The process is the one that began
    while the workspace was opened, for what was known to come.
    """
    other = clips.path("h264.mp4")
    async with Workspace.open(settings, soon=Selection(pipelines=(pipeline,))) as workspace:
        await waiting.happens(lambda: workspace.runner.waiting_pids)
        expected = workspace.runner.waiting_pids
        cold = await run(workspace, sample, pipeline)
        between = await run(workspace, other, pipeline)
        warm = await run(workspace, sample, pipeline)
        family = workspace.runner.waiting_pids

    assert {JobStatus.COMPLETED} == {cold.status, between.status, warm.status}
    assert files(settings, cold) == files(settings, warm)
    assert not any(is_alive(pid) for pid in family)
    assert 1 == len(family), "one process served all three"
    assert expected == family
    assert other.name not in str(logs(settings, warm))


async def test_whisper_stays_loaded(settings: Settings, sample: Path, tmp_path: Path) -> None:
    """Its library starts a thread for progress bars that nobody sees: a process with a thread left over is not kept."""
    models = shelf_of(tmp_path / "models", "faster-whisper-tiny").folder
    async with Workspace.open(msgspec.structs.replace(settings, models_dir=models)) as workspace:
        cold = await run(workspace, sample, "speech_recognition", model="tiny", language="en")
        loaded = workspace.runner.waiting_pids
        warm = await run(workspace, sample, "speech_recognition", model="tiny", language="en")
        family = workspace.runner.waiting_pids

    assert {JobStatus.COMPLETED} == {cold.status, warm.status}
    assert files(settings, cold) == files(settings, warm)
    assert 1 == len(loaded)
    assert loaded == family
