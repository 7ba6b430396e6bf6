"""The whole engine below HTTP: real store, real processes, real video; pipelines that behave and that do not."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec
import psutil
import pytest

from tests import waiting
from tests.clips import Clips
from tests.declared import declare
from tests.engine import submit
from tests.stages import is_alive
from videoannotator.errors import Conflict, InvalidConfig, NotFound, StorageTrouble
from videoannotator.jobs import Job, JobStatus, StageStatus
from videoannotator.settings import Settings
from videoannotator.workspace import Selection, Workspace

LIMIT_SECONDS = 30.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pipelines = declare(
        tmp_path / "pipelines",
        "behaves",
        "raises",
        "dies",
        "hangs",
        "ignores_sigterm",
        "family",
        "closes_its_mouth",
        "counts_runs",
    )
    return Settings(
        storage_dir=tmp_path / "storage", pipeline_dirs=(pipelines,), min_free_bytes=1, retry_base_delay_seconds=0
    )


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


until = partial(waiting.until, limit_seconds=LIMIT_SECONDS)
until_final = partial(waiting.until_final, limit_seconds=LIMIT_SECONDS)


async def until_at_work(workspace: Workspace, job_id: str) -> Job:
    """Its code runs: it has reported."""
    return await until(workspace, job_id, lambda job: any(stage.progress > 0 for stage in job.stages))


def stage_processes(settings: Settings) -> list[int]:
    """Living processes that stages have told of."""
    pids = settings.pipeline_dirs[0] / "pids"
    return [pid for pid in map(int, pids.read_text().split()) if is_alive(pid)] if pids.exists() else []


def results(settings: Settings, job: Job) -> list[str]:
    return sorted(os.listdir(settings.storage_dir / "results" / job.id))


async def test_nothing_is_made_ready_for_a_job_that_has_to_wait(settings, clip):
    """A process that loads its libraries takes the processor from the answer, and from the jobs before it."""
    one_job = msgspec.structs.replace(settings, max_concurrent_jobs=1, max_concurrent_stages=2)
    async with Workspace.open(one_job) as workspace:
        await workspace.consider(Selection(pipelines=("behaves",)))
        alone = births()
        job = await submit(workspace, clip, "hangs")
        await until_at_work(workspace, job.id)
        await workspace.consider(Selection(pipelines=("raises",)))
        behind_another = births()

    assert "birth for behaves" in alone
    assert "birth for raises" not in behind_another


def births() -> set[str]:
    """Of processes that are being made ready."""
    return {name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("birth for ")}


async def test_a_job_ends_with_its_artifacts_and_a_manifest_that_tells_the_truth(settings, clip):
    """Sizes, hashes, parameters, versions: what a reader of the result relies on."""
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "behaves")).id)

    manifest = json.loads((settings.storage_dir / "results" / job.id / "manifest.json").read_text())
    (entry,) = manifest["outputs"][clip.name]
    (stage,) = manifest["provenance"]["stages"]
    assert (JobStatus.COMPLETED, "full", None) == (job.status, job.outcome, job.error)
    assert ["manifest.json", "out.json"] == results(settings, job)
    assert ("out.json", 2) == (entry["path"], entry["size"])
    assert {"steps": 1, "step_seconds": 0} == {k: v for k, v in stage["parameters"].items() if k != "pids"}
    assert 10 == stage["ledger"]["decoded"]
    assert 64 == len(manifest["provenance"]["input"]["sha256"])


async def test_progress_comes_with_speed_and_time_left(settings, clip):
    """All measured: seconds of the video's timeline worked through, by the clock on the wall."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "behaves", steps=40, step_seconds=0.05)
        told = []
        async with aclosing(workspace.store.follow(after=0, job_id=job.id)) as events:
            async for event in events:
                if event.type == "job.update" and event.data.get("stage", {}).get("rate"):
                    told.append(event.data["stage"])
                if event.type == "job.complete":
                    break

    rates = [stage["rate"] for stage in told]
    progress = [stage["progress"] for stage in told]
    assert len(told) >= 5
    assert progress == sorted(progress)
    assert 1.0 == progress[-1]
    assert 0.0 == told[-1]["eta_seconds"]
    # 4 s of video in 40 steps of 0.05 s are at most twice real time.
    assert all(0.2 < rate < 2.1 for rate in rates)
    assert all(0 <= stage["eta_seconds"] < 20 for stage in told)


async def test_a_stage_that_fails_leaves_the_others_their_results(settings, clip):
    """One bad pipeline must not cost the researcher the rest; the job says what is missing and why."""
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "behaves", "raises", "dies")).id)

    assert (JobStatus.COMPLETED, "partial") == (job.status, job.outcome)
    assert [StageStatus.COMPLETED, StageStatus.FAILED, StageStatus.FAILED] == [
        {stage.pipeline: stage for stage in job.stages}[name].status for name in ("behaves", "raises", "dies")
    ]
    assert job.error is not None
    assert "raises" in job.error.message
    assert "SIGKILL" in job.error.message


async def test_of_two_stages_that_make_a_file_of_one_name_the_second_fails_alone(settings, clip):
    """Pipelines of a lab's own may do so. It costs neither the first one's file nor the job, and is said."""
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "behaves", "counts_runs")).id)

    assert (JobStatus.COMPLETED, "partial") == (job.status, job.outcome)
    assert {StageStatus.COMPLETED, StageStatus.FAILED} == {stage.status for stage in job.stages}
    assert ["ARTIFACT_EXISTS"] == [stage.error.code for stage in job.stages if stage.error]
    assert "'out.json' already" in job.error.message
    assert {"manifest.json", "out.json"} == set(results(settings, job))


async def test_a_job_without_any_result_is_failed_not_completed(settings, clip):
    """ "Completed" with nothing in it is the lie that other tools tell."""
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "raises")).id)
        following = await until_final(workspace, (await submit(workspace, clip, "behaves")).id)

    assert JobStatus.FAILED == job.status
    assert [] == results(settings, job)
    assert JobStatus.COMPLETED == following.status


async def test_stages_of_one_job_run_side_by_side(settings, clip):
    """Two stages on two slots take as long as one."""
    wide = msgspec.structs.replace(settings, max_concurrent_stages=2)
    async with Workspace.open(wide) as workspace:
        job = await submit(workspace, clip, "hangs", "ignores_sigterm")
        both = await until(workspace, job.id, lambda job: all(s.status is StageStatus.RUNNING for s in job.stages))
        await workspace.cancel(job.id)
        await until_final(workspace, job.id)

    assert 2 == len(both.stages)


async def test_stages_wait_for_a_slot(settings, clip):
    """A laptop with one slot must not be given three processes."""
    narrow = msgspec.structs.replace(settings, max_concurrent_stages=1)
    async with Workspace.open(narrow) as workspace:
        first = await submit(workspace, clip, "hangs")
        await until_at_work(workspace, first.id)
        second = await submit(workspace, clip, "behaves")
        claimed = await until(workspace, second.id, lambda job: job.status is JobStatus.RUNNING)
        await workspace.cancel(first.id)
        ended = await until_final(workspace, second.id)

    assert StageStatus.PENDING == claimed.stages[0].status
    assert "full" == ended.outcome


@pytest.mark.parametrize(("pipeline", "limit"), [("hangs", 1.0), ("ignores_sigterm", 2.5), ("family", 2.5)])
async def test_cancelling_ends_every_process_and_then_the_job(pipeline, limit, settings, clip):
    """Cancelled means that nothing runs any more, children in sessions of their own included."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, pipeline)
        await until_at_work(workspace, job.id)

        asked = await workspace.cancel(job.id)
        ended = await until_final(workspace, job.id)
        left = stage_processes(settings)

    assert (JobStatus.CANCELLING, JobStatus.CANCELLED) == (asked.status, ended.status)
    assert [] == left
    assert ended.stopped_after_seconds is not None
    assert ended.stopped_after_seconds < limit
    assert [] == results(settings, ended)


async def test_cancelling_is_noticed_at_once_while_many_jobs_run(settings, clip):
    """The bell is heard by every job's watch, not by the first that comes."""
    wide = msgspec.structs.replace(settings, max_concurrent_stages=4)
    async with Workspace.open(wide) as workspace:
        jobs = [await submit(workspace, clip, "hangs") for _ in range(4)]
        for job in jobs:
            await until_at_work(workspace, job.id)

        seconds = []
        for job in jobs:
            await workspace.cancel(job.id)
            ended = await until_final(workspace, job.id)
            seconds.append(ended.stopped_after_seconds or 0.0)

    assert max(seconds) < 0.5


async def test_a_finished_job_cannot_be_cancelled(settings, clip):
    """Final states never change."""
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "behaves")).id)

        with pytest.raises(Conflict) as refusal:
            await workspace.cancel(job.id)

    assert "JOB_ALREADY_FINISHED" == refusal.value.code


async def test_a_stopping_server_puts_its_jobs_back_and_the_next_one_finishes_them(settings, clip):
    """Without counting the attempt, and without repeating the stage that was done."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "behaves", "hangs")
        await until(workspace, job.id, lambda job: any(s.status is StageStatus.COMPLETED for s in job.stages))
        await until(workspace, job.id, lambda job: any(s.progress > 0 for s in job.stages if s.pipeline == "hangs"))
    left = stage_processes(settings)

    async with Workspace.open(settings) as workspace:
        again = await until(workspace, job.id, lambda job: job.status is JobStatus.RUNNING)
        stages = {stage.pipeline: stage for stage in again.stages}
        await workspace.cancel(job.id)
        await until_final(workspace, job.id)

    assert [] == left
    assert 1 == again.attempts
    assert (StageStatus.COMPLETED, 1) == (stages["behaves"].status, stages["behaves"].attempts)


async def test_a_retry_is_a_new_job_that_keeps_what_was_finished(settings, clip):
    """The old job stays as it ended; the new one repeats only what failed."""
    async with Workspace.open(settings) as workspace:
        old = await until_final(workspace, (await submit(workspace, clip, "behaves", "raises")).id)

        new = await workspace.retry(old.id)
        ended = await until_final(workspace, new.id)
        unchanged = await workspace.store.get(old.id)
        await workspace.delete(old.id)

    stages = {stage.pipeline: stage for stage in ended.stages}
    assert old.id == ended.retry_of
    assert old == unchanged
    assert ("partial", 1) == (ended.outcome, stages["raises"].attempts)
    assert stages["behaves"].finished_at == {s.pipeline: s for s in old.stages}["behaves"].finished_at
    assert ["manifest.json", "out.json"] == results(settings, ended)


async def test_a_job_with_nothing_left_to_do_is_not_retried_unless_from_scratch(settings, clip):
    """A second click must not compute an hour again."""
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, clip, "behaves")).id)

        with pytest.raises(Conflict) as refusal:
            await workspace.retry(job.id)
        again = await until_final(workspace, (await workspace.retry(job.id, from_scratch=True)).id)

    assert "JOB_SUCCEEDED" == refusal.value.code
    assert "full" == again.outcome


async def test_deleting_a_running_job_ends_it_first_and_it_does_not_come_back(settings, clip):
    """Rows, results and logs are gone, also after a restart."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "family")
        await until_at_work(workspace, job.id)

        await workspace.delete(job.id)
        left = stage_processes(settings)

        with pytest.raises(NotFound):
            await workspace.store.get(job.id)
    async with Workspace.open(settings) as workspace:
        with pytest.raises(NotFound):
            await workspace.store.get(job.id)
    assert [] == left
    assert [] == [str(path) for path in settings.storage_dir.rglob(f"*{job.id}*")]
    assert clip.exists()


async def test_a_file_without_a_picture_skips_what_looks_and_says_so(settings, clips):
    """The voices of a recorder's file are worth having; no scenes at all would be a lie."""
    heard = clips.path("sound.wav")
    async with Workspace.open(settings) as workspace:
        job = await until_final(workspace, (await submit(workspace, heard, "behaves", "voice_activity")).id)
        with pytest.raises(InvalidConfig) as refusal:
            await submit(workspace, heard, "behaves")

    assert ("partial", "NO_VIDEO") == (job.outcome, {s.pipeline: s for s in job.stages}["behaves"].error.code)
    assert job.error is not None
    assert "no picture" in job.error.message
    assert "NO_VIDEO" == refusal.value.code


async def test_everything_wrong_with_a_request_is_said_at_once_and_nothing_is_queued(settings, clip):
    """One round of corrections, not five."""
    selection = Selection(
        pipelines=("scene_detection", "mind_reading"),
        config={"scene_detection": {"detector": "guess", "speed": 1}, "behaves": {"steps": 1}},
    )
    async with Workspace.open(settings) as workspace:
        with pytest.raises(InvalidConfig) as refusal:
            await workspace.admit(clip, clip.name, selection, owns_video=False)
        counts = await workspace.store.counts()

    codes = {problem.field: problem.code for problem in refusal.value.problems}
    assert {
        "selected_pipelines": "PIPELINE_NOT_FOUND",
        "scene_detection.detector": "NOT_A_CHOICE",
        "scene_detection.speed": "UNKNOWN_PARAMETER",
        "behaves": "NOT_SELECTED",
    } == codes
    assert 0 == sum(counts.values())


async def test_too_little_space_is_refused_before_anything_is_queued(settings, clip):
    """Half a result in the night is worse than a refusal in the evening."""
    greedy = msgspec.structs.replace(settings, min_free_bytes=1 << 60)
    async with Workspace.open(greedy) as workspace:
        with pytest.raises(StorageTrouble) as refusal:
            await submit(workspace, clip, "behaves")

    assert "STORAGE_FULL" == refusal.value.code


async def test_a_second_workspace_on_the_same_directory_is_refused(settings):
    """Two workers on one database would kill each other's stages."""
    async with Workspace.open(settings):
        with pytest.raises(StorageTrouble) as refusal:
            async with Workspace.open(settings):
                pass

    assert "STORAGE_IN_USE" == refusal.value.code


_LIFE = """
import asyncio, sys
from pathlib import Path
from videoannotator.settings import Settings
from videoannotator.workspace import Selection, Workspace

async def main():
    settings = Settings(storage_dir=Path(sys.argv[1]), pipeline_dirs=(Path(sys.argv[2]),), min_free_bytes=1)
    async with Workspace.open(settings) as workspace:
        selection = Selection(pipelines=tuple(sys.argv[4].split(",")))
        video = Path(sys.argv[3])
        (job,) = await workspace.submit(await workspace.admit(video, video.name, selection, owns_video=False))
        print(job.id, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def live(settings: Settings, clip: Path, pipelines: str) -> tuple[subprocess.Popen[str], str]:
    """Another process with a workspace, and the job it queued."""
    arguments = [str(settings.storage_dir), str(settings.pipeline_dirs[0]), str(clip), pipelines]
    process = subprocess.Popen([sys.executable, "-c", _LIFE, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def wait_for(holds: Callable[[], object], limit: float) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < limit, "not so in time"
        time.sleep(0.005)
    return time.monotonic() - began


async def test_after_kill_9_nothing_runs_on_and_the_job_finishes_by_itself(settings, clip):
    """The acknowledged job is there, its finished stage is not repeated, and no process of the old life is left."""
    process, job_id = live(settings, clip, "behaves,family")
    try:
        database = settings.storage_dir / "videoannotator.sqlite"
        wait_for(lambda: len(stage_processes(settings)) == 4 and _completed(database), 20)
        guardian = [child.pid for child in psutil.Process(process.pid).children()]
        process.send_signal(signal.SIGKILL)
        gone = wait_for(lambda: not stage_processes(settings) and not any(map(is_alive, guardian)), 5)
    finally:
        process.kill()
        process.communicate()

    async with Workspace.open(settings) as workspace:
        again = await until(workspace, job_id, lambda job: job.status is JobStatus.RUNNING)
        stages = {stage.pipeline: stage for stage in again.stages}
        await workspace.cancel(job_id)
        await until_final(workspace, job_id)

    assert gone < 1.0
    assert 2 == again.attempts
    assert (StageStatus.COMPLETED, 1) == (stages["behaves"].status, stages["behaves"].attempts)


def _completed(database: Path) -> bool:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        (number,) = connection.execute("SELECT count(*) FROM stages WHERE status = 'completed'").fetchone()
    connection.close()
    return bool(number)


@pytest.mark.slow
async def test_a_video_that_kills_the_server_each_time_does_not_loop(settings, clip):
    """After `max_attempts` crashes the job fails and says why; the queue goes on."""
    process, job_id = live(settings, clip, "family")
    for _ in range(settings.max_attempts):
        wait_for(lambda: stage_processes(settings), 20)
        process.kill()
        process.communicate()
        wait_for(lambda: not stage_processes(settings), 5)
        (settings.pipeline_dirs[0] / "pids").unlink()
        process, _ = live(settings, clip, "behaves")
    process.kill()
    process.communicate()

    async with Workspace.open(settings) as workspace:
        job = await workspace.store.get(job_id)

    assert (JobStatus.FAILED, "CRASHED_TOO_OFTEN") == (job.status, job.error.code if job.error else None)
