"""What machine, server and stages use: sampled truthfully, and a nearly full disk pauses the queue."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from threading import Barrier, Lock

import psutil
import pytest

from tests import waiting
from tests.declared import declare
from tests.engine import submit
from tests.server import serving
from videoannotator.jobs import JobStatus
from videoannotator.machine.resources import AtWork, Resources, Sample
from videoannotator.settings import Settings
from videoannotator.work.gate import Gate
from videoannotator.workspace import Workspace

until = partial(waiting.until, limit_seconds=30.0)
until_final = partial(waiting.until_final, limit_seconds=30.0)

BURNS = """
held = bytearray(50 * 2**20)
held[::1000] = bytes(len(held[::1000]))
print(flush=True)
while True: pass
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    declared = declare(tmp_path / "pipelines", "behaves", "computes", "eats_memory")
    return Settings(storage_dir=tmp_path / "storage", pipeline_dirs=(declared,), min_free_bytes=1)


@pytest.fixture
def clip(clips) -> Path:
    return clips.path("h264.mp4")


async def test_a_sample_says_what_the_system_says(tmp_path):
    """A figure that nobody can trust is worse than none."""
    async with Resources.open(tmp_path, every_seconds=0.05) as resources:
        first = resources.latest
        later = []
        resources.tell(later.append)
        async with asyncio.timeout(10):
            while len(later) < 3:
                await asyncio.sleep(0.01)

    free = psutil.disk_usage(str(tmp_path)).free
    assert first is not None
    assert first.memory_total_bytes == psutil.virtual_memory().total
    assert abs(first.disk_free_bytes - free) < max(2**30, free / 10)
    assert first.server_memory_bytes > 10 * 2**20
    assert all(0 <= sample.cpu_share <= 1 for sample in later)
    assert later[-1].at > first.at
    assert later[-1].server_cpu_seconds >= first.server_cpu_seconds > 0


def test_what_burns_is_seen_by_whoever_looks_and_told_of_its_stage(tmp_path):
    """Samples are taken in threads that vary, and a stage is all of its processes: here a shell and what it started."""
    command = ["sh", "-c", f"{sys.executable} -c '{BURNS}' & wait"]
    stage = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0)
    at_work = (AtWork(pid=stage.pid, job_id="job_1", pipeline="burns"),)
    resources, all_are_there, one_at_a_time = Resources(tmp_path), Barrier(4), Lock()

    def look() -> Sample:
        all_are_there.wait(10)  # so that each look is another thread's
        with one_at_a_time:
            time.sleep(0.1)
            return resources.sample(at_work, gpus=False)

    with stage, ThreadPoolExecutor(4) as threads:
        try:
            assert stage.stdout is not None
            stage.stdout.readline()
            samples = [looking.result() for looking in [threads.submit(look) for _ in range(4)]]
        finally:
            os.killpg(stage.pid, signal.SIGKILL)

    samples.sort(key=lambda sample: sample.at)
    assert all(sample.cpu_share > 0 for sample in samples)
    assert ("job_1", "burns") == (samples[-1].stages[0].job_id, samples[-1].stages[0].pipeline)
    assert samples[-1].stages[0].memory_bytes > 50 * 2**20
    assert 0 < max(sample.stages[0].cpu_cores for sample in samples) < 1.5
    assert 0 == samples[0].server_cpu_cores


async def test_a_stage_says_how_much_memory_and_processor_time_it_took(settings, clip):
    """In its row, in its events, and not in its artifacts, which must be the same bytes again."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "computes", steps=10, step_seconds=0.05)
        told = []
        async with aclosing(workspace.store.follow(after=0, job_id=job.id)) as events:
            async for event in events:
                if event.type == "job.update":
                    told.append(event.data.get("stage", {}))
                if event.type == "job.complete":
                    break
        (stage,) = (await workspace.store.get(job.id)).stages

    assert stage.usage is not None
    assert 10 * 2**20 < stage.usage.peak_memory_bytes < 2**30
    assert 0.45 < stage.usage.cpu_seconds < 5
    assert [t for t in told if t.get("status") == "running" and t.get("peak_memory_bytes")]
    assert stage.usage.peak_memory_bytes == told[-1]["peak_memory_bytes"]


async def test_a_stage_that_was_ended_for_its_memory_says_how_much_it_had(settings, clip, tmp_path):
    """The number that tells which limit would have been enough."""
    limit = 200 * 2**20
    given = {name: getattr(settings, name) for name in settings.__struct_fields__} | {"stage_memory_bytes": limit}

    async with Workspace.open(Settings(**given)) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "eats_memory")).id)

    (stage,) = job.stages
    assert "STAGE_OUT_OF_MEMORY" == stage.error.code
    assert stage.usage.peak_memory_bytes > limit


def test_the_gate_closes_when_little_is_free_and_opens_with_a_margin():
    """Without the margin a queue at the limit would stop and go."""
    gate = Gate(1000)

    states = []
    for free in (2000, 999, 1050, 1100, 0, 5000):
        gate.note_free(free)
        states.append(gate.is_open)

    assert [True, False, False, True, False, True] == states


def test_a_gate_that_was_closed_for_good_stays_closed():
    """Space that comes back while the server stops must not begin anything."""
    gate = Gate(1000)
    gate.note_free(0)
    gate.close()

    gate.note_free(5000)

    assert not gate.is_open


async def test_a_nearly_full_disk_pauses_the_queue_and_space_lets_it_go_on(clip, tmp_path):
    """Before anything breaks: jobs wait instead of failing, nobody has to start them again, and it can be seen."""
    limit = psutil.disk_usage(str(tmp_path)).free - 2**30
    hog = tmp_path / "hog"
    with hog.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2**31)
    async with serving(tmp_path, pause_free_bytes=limit) as server:
        job = await server.submit(clip)
        health = (await server.http.get("/api/v1/system/health")).json()
        await asyncio.sleep(1.2)  # longer than the worker waits before it looks again
        paused = await server.job(job["id"])

        hog.unlink()
        ended = await server.ended(job["id"])
        after = (await server.http.get("/api/v1/system/health")).json()

    assert ("pending", 0) == (paused["status"], paused["attempts"])
    assert ("degraded", "paused") == (health["status"], health["worker_info"]["worker_status"])
    assert "MiB are free" in health["diagnostics"]["storage"]["message"]
    assert str(tmp_path) not in str(health)
    assert "completed" == ended["status"]
    assert ("healthy", "idle") == (after["status"], after["worker_info"]["worker_status"])


async def test_a_stage_that_has_begun_goes_on_while_the_queue_is_paused(settings, clip):
    """The space that is kept is kept for it."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "behaves", steps=20, step_seconds=0.05)
        await until(workspace, job.id, lambda job: job.stages[0].progress > 0)

        workspace.worker.gate.note_free(0)
        ended = await until_final(workspace, job.id)

    assert JobStatus.COMPLETED is ended.status
    assert os.path.exists(settings.storage_dir / "results" / job.id / "out.json")
