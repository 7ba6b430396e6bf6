"""A disk that is full, a clock that jumps, a stage that stands still: what the job says, and that it goes on."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import waiting
from tests.clips import Clips
from tests.declared import declare
from tests.engine import submit
from tests.sample_jobs import PIPELINES, new_job, result
from tests.stages import is_alive
from videoannotator.jobs import JobStatus, StageError, StageStatus
from videoannotator.settings import Settings
from videoannotator.store.sqlite import SqliteStore
from videoannotator.workspace import Workspace

HOUR = 3600.0

until = partial(waiting.until, limit_seconds=40.0)


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root with the right to mount can make a disk that is full")
    yield folder
    subprocess.run(["umount", folder], check=True)


def settings_for(tmp_path: Path, storage: Path, **more: Any) -> Settings:
    pipelines = declare(tmp_path / "pipelines", "counts_in_chunks")
    chosen: dict[str, Any] = {"min_free_bytes": 0, "pause_free_bytes": 0, "retry_base_delay_seconds": 0.2}
    return Settings(storage_dir=storage, pipeline_dirs=(pipelines,), **(chosen | more))


def fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


async def test_a_disk_that_fills_while_a_stage_runs_costs_a_wait_and_no_result(
    tmp_path: Path, small_disk: Path, clip: Path
) -> None:
    """The server says what is wrong, and goes on by itself when there is room; nobody has to start anything again."""
    ballast = small_disk / "ballast"
    async with Workspace.open(settings_for(tmp_path, small_disk / "storage", retry_attempts=1000)) as workspace:
        job = await submit(workspace, clip, "counts_in_chunks", steps=20, step_seconds=0.05)
        await until(workspace, job.id, lambda job: job.stages[0].progress > 0)
        await asyncio.to_thread(fill, ballast)
        async with asyncio.timeout(20):
            await workspace.worker.in_trouble.wait()
        code = workspace.worker.trouble.code if workspace.worker.trouble else None
        ballast.unlink()
        ended = await until(workspace, job.id, lambda job: job.status.is_final)
        trouble = workspace.worker.trouble

    assert ("STORAGE_FULL", "full", None) == (code, ended.outcome, trouble)
    assert (
        b"".join(b"%d " % n for n in range(20))
        == (small_disk / "storage" / "results" / job.id / "out.json").read_bytes()
    )


@pytest.mark.slow
async def test_a_stage_that_stands_still_is_ended_and_tried_again(tmp_path: Path, clip: Path) -> None:
    """SIGSTOP stands for everything that hangs: a driver, a network drive, a dead lock."""
    settings = settings_for(tmp_path, tmp_path / "storage", stage_stall_seconds=4.0)
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "counts_in_chunks", steps=30, step_seconds=0.02)
        await until(workspace, job.id, lambda job: job.stages[0].progress > 0)
        pids = settings.pipeline_dirs[0] / "pids"
        stopped = int(pids.read_text().split()[0])
        os.kill(stopped, signal.SIGSTOP)
        ended = await until(workspace, job.id, lambda job: job.status.is_final)

    (stage,) = ended.stages
    assert (StageStatus.COMPLETED, 2) == (stage.status, stage.attempts)
    assert stage.last_error is not None
    assert "STAGE_STALLED" == stage.last_error.code
    assert not is_alive(stopped)


class Clock:
    """Seconds since the epoch, which jump."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -30 * 24 * HOUR], ids=["an hour back", "an hour on", "a month back"])
async def test_a_job_outlives_a_clock_that_jumps_between_any_two_steps(jump: float, tmp_path: Path) -> None:
    """Daylight saving done wrong, a first contact with a time server: no lease is lost, no row is impossible."""
    clock = Clock()
    async with SqliteStore.open(tmp_path, clock=clock, lease_seconds=30.0) as store:
        (first,) = await store.add(new_job())
        clock.now += jump
        claim = await store.claim("worker")
        assert claim is not None
        for pipeline in PIPELINES:
            clock.now += jump
            await store.start_stage(claim, pipeline)
            clock.now += jump
            error = StageError("STORAGE_FULL", "Full.")
            await store.put_back_stage(claim, pipeline, error, delay_seconds=1.0, eased=None)
            clock.now += jump
            await store.start_stage(claim, pipeline)
            assert await store.heartbeat(claim) is False
            clock.now += jump
            await store.finish_stage(claim, pipeline, result(pipeline))
        clock.now += jump
        ended = await store.finish(claim)
        (second,) = await store.add(new_job())
        assert (await store.claim("worker")) is not None
        await store.request_cancel(second.id)
        clock.now += jump
        taken = await store.take_back()

    assert (first.id, JobStatus.COMPLETED) == (ended.id, ended.status)
    assert [(second.id, JobStatus.CANCELLED)] == [(job.id, job.status) for job in taken]
