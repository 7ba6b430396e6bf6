"""A stage that ended badly is tried again where that may help, and only there."""

import asyncio
import sqlite3
import time
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.clips import Clips
from tests.declared import declare
from tests.engine import submit
from tests.waiting import until
from videoannotator.errors import ErrorKind, StageDied, StageFailed, StorageTrouble, VideoAnnotatorError, kind_of
from videoannotator.jobs import Job, JobStatus, Stage, StageError, StageStatus
from videoannotator.runner.failures import failed
from videoannotator.settings import Settings
from videoannotator.store.trouble import DATABASE
from videoannotator.work.retries import delay_seconds, next_attempt
from videoannotator.workspace import Selection, Workspace

DELAY = 0.1
PIPELINES = ("behaves", "dies", "dies_once", "fails_twice", "loses_the_gpu_once", "raises", "wants_a_smaller_batch")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        storage_dir=tmp_path / "storage",
        pipeline_dirs=(declare(tmp_path / "pipelines", *PIPELINES),),
        min_free_bytes=1,
        retry_base_delay_seconds=DELAY,
        retry_jitter=0.0,
    )


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


async def run(settings: Settings, clip: Path, *pipelines: str) -> tuple[Job, list[str]]:
    """The job when it is over, and the warnings in its log."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, *pipelines)
        ended = await until(workspace, job.id, lambda job: job.status.is_final)
        lines = await workspace.store.job_events(job.id, "job.log")
    return ended, [line.data["message"] for line in lines if line.data["level"] == "warning"]


def waits(job: Job) -> bool:
    return any(stage.retry_at is not None for stage in job.stages)


def attempts_of(settings: Settings) -> list[float]:
    """When each attempt began."""
    return [float(line) for line in (settings.pipeline_dirs[0] / "pids.attempts").read_text().split()]


async def test_a_failure_that_passes_costs_two_waits_and_not_the_result(settings: Settings, clip: Path) -> None:
    """A driver or a network drive that comes back must not cost the researcher a night; each wait is twice as long."""
    job, warnings = await run(settings, clip, "fails_twice")

    (stage,) = job.stages
    first, second, third = attempts_of(settings)
    assert (JobStatus.COMPLETED, "full", 3, 2) == (job.status, job.outcome, stage.attempts, stage.failures)
    assert stage.last_error == StageError("LICENCE_SERVER_SILENT", "The licence server does not answer.")
    assert stage.retry_at is None
    assert DELAY <= second - first
    assert 2 * DELAY <= third - second
    assert ["tried again in 0.1 s", "tried again in 0.2 s"] == [line[-21:-1] for line in warnings]


@pytest.mark.slow
async def test_attempts_are_bounded(settings: Settings, clip: Path) -> None:
    """After the last one the stage is failed with the reason, and the other stages keep their results."""
    job, _ = await run(msgspec.structs.replace(settings, retry_attempts=2), clip, "behaves", "fails_twice")

    stages = {stage.pipeline: stage for stage in job.stages}
    assert (JobStatus.COMPLETED, "partial", "LICENCE_SERVER_SILENT") == (job.status, job.outcome, job.error.code)
    assert (StageStatus.FAILED, 2) == (stages["fails_twice"].status, stages["fails_twice"].attempts)


@pytest.mark.parametrize(
    ("pipeline", "attempts", "outcome"),
    [("dies_once", 2, "full"), ("dies", 2, None), ("loses_the_gpu_once", 2, "full"), ("raises", 1, None)],
)
async def test_how_often_depends_on_what_ended_it(
    pipeline: str, attempts: int, outcome: str | None, settings: Settings, clip: Path
) -> None:
    """
    An accident gets a second chance, a poisonous video no third, and a bug would only be a bug again. No process is
    used twice: a CUDA context that has failed once fails for ever.
    """
    job, _ = await run(settings, clip, pipeline)

    pids = settings.pipeline_dirs[0] / "pids"
    processes = pids.read_text().split() if pids.exists() else []
    assert (attempts, outcome) == (job.stages[0].attempts, job.outcome)
    assert len(processes) == len(set(processes))


async def test_out_of_memory_is_tried_once_more_with_half_the_batch_and_says_so(settings: Settings, clip: Path) -> None:
    """The result is another than was asked for, if only a little: whoever reads it must be able to know."""
    job, warnings = await run(settings, clip, "wants_a_smaller_batch")

    (stage,) = job.stages
    assert (8, 4) == (stage.config["batch_size"], stage.used_config["batch_size"])
    assert stage.provenance is not None
    assert ("Made with batch_size 4 instead of 8, because memory ran out.",) == stage.provenance.warnings
    assert "It is tried again in 0.1 s with batch_size 4." in warnings[0]


@pytest.mark.slow
async def test_half_the_batch_is_tried_once_only(settings: Settings, clip: Path) -> None:
    """Halving on and on would end in a run of days."""
    async with Workspace.open(settings) as workspace:
        selection = Selection(
            pipelines=("wants_a_smaller_batch",), config={"wants_a_smaller_batch": {"batch_size": 32}}
        )
        (job,) = await workspace.submit(await workspace.admit(clip, clip.name, selection, owns_video=False))
        ended = await until(workspace, job.id, lambda job: job.status.is_final)

    assert (JobStatus.FAILED, "STAGE_OUT_OF_MEMORY", 2) == (ended.status, ended.error.code, ended.stages[0].attempts)


async def test_a_stage_that_waits_holds_no_slot_and_no_place(settings: Settings, clip: Path) -> None:
    """One broken drive must not stop the queue: with one slot and one place another job ends meanwhile."""
    narrow = msgspec.structs.replace(
        settings, max_concurrent_jobs=1, max_concurrent_stages=1, retry_base_delay_seconds=60.0
    )
    async with Workspace.open(narrow) as workspace:
        first = await submit(workspace, clip, "fails_twice")
        waiting = await until(workspace, first.id, waits)
        second = await submit(workspace, clip, "behaves")
        ended = await until(workspace, second.id, lambda job: job.status.is_final)
        still = await workspace.store.get(first.id)
        await workspace.cancel(first.id)
        cancelled = await until(workspace, first.id, lambda job: job.status.is_final)

    assert "full" == ended.outcome
    assert (JobStatus.RUNNING, StageStatus.PENDING, 1) == (
        still.status,
        still.stages[0].status,
        waiting.stages[0].attempts,
    )
    assert cancelled.stages[0].retry_at is None


async def test_the_wait_survives_a_restart(settings: Settings, clip: Path) -> None:
    """Neither begun at once, which would be a retry without the wait, nor begun anew."""
    slow = msgspec.structs.replace(settings, retry_base_delay_seconds=1.0)
    async with Workspace.open(slow) as workspace:
        job = await submit(workspace, clip, "fails_twice")
        before = await until(workspace, job.id, waits)
    async with Workspace.open(slow) as workspace:
        after = await until(workspace, job.id, lambda job: job.status is JobStatus.RUNNING)
        again = await until(workspace, job.id, lambda job: job.stages[0].attempts == 2)
        await workspace.cancel(job.id)
        await until(workspace, job.id, lambda job: job.status.is_final)

    (waiting,), (running,) = before.stages, again.stages
    assert waiting.retry_at == after.stages[0].retry_at
    assert waiting.retry_at is not None
    assert running.started_at is not None
    assert timedelta(0) <= running.started_at - waiting.retry_at < timedelta(seconds=10)


@pytest.mark.slow
async def test_a_clock_set_back_does_not_make_a_wait_of_an_hour(settings: Settings, clip: Path) -> None:
    """The time in the row may be far ahead of the clock; the longest wait is still the longest."""
    short = msgspec.structs.replace(settings, retry_base_delay_seconds=60.0, retry_max_delay_seconds=60.0)
    async with Workspace.open(short) as workspace:
        job = await submit(workspace, clip, "fails_twice")
        await until(workspace, job.id, waits)
    in_an_hour = round((time.time() + 3600) * 1000)
    with closing(sqlite3.connect(settings.storage_dir / DATABASE)) as connection, connection:
        connection.execute("UPDATE stages SET retry_at = ?", (in_an_hour,))

    async with Workspace.open(msgspec.structs.replace(short, retry_max_delay_seconds=0.1)) as workspace:
        ended = await until(workspace, job.id, lambda job: job.status.is_final)

    assert "full" == ended.outcome


async def test_events_say_when_it_goes_on(settings: Settings, clip: Path) -> None:
    """A display that shows "pending" without a time looks stuck."""
    async with Workspace.open(settings) as workspace:
        job = await submit(workspace, clip, "fails_twice")
        async with asyncio.timeout(20), aclosing(workspace.store.follow(after=0, job_id=job.id)) as events:
            told = await anext(e.data["stage"] async for e in events if "retry_at" in e.data.get("stage", {}))

    assert ("pending", 1) == (told["status"], told["attempts"])
    assert datetime.fromisoformat(told["retry_at"]) > datetime.now(UTC) - timedelta(seconds=10)


# The rules by themselves

STAGE = Stage(pipeline="p", config={})


def test_the_wait_doubles_up_to_the_longest_and_jitter_spreads_it() -> None:
    """A thousand stages that a full disk threw out must not all come back in the same second."""
    settings = Settings(retry_base_delay_seconds=5.0, retry_max_delay_seconds=60.0, retry_jitter=0.25)
    exact = msgspec.structs.replace(settings, retry_jitter=0.0)

    waits = [delay_seconds(2, settings) for _ in range(200)]

    assert [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] == [delay_seconds(n, exact) for n in range(6)]
    assert 60.0 == delay_seconds(10**9, exact)
    assert all(15.0 <= wait <= 25.0 for wait in waits)
    assert max(waits) - min(waits) > 5.0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StageDied("x"), ErrorKind.CRASH),
        (StorageTrouble("x", code="STORAGE_FULL"), ErrorKind.TEMPORARY),
        (StageFailed("x", code="FRAMES_LOST"), ErrorKind.PERMANENT),
        (StageFailed("x", code="THEIR_OWN", retryable=True), ErrorKind.TEMPORARY),
        (StageFailed("x", code="STAGE_OUT_OF_MEMORY"), ErrorKind.OUT_OF_MEMORY),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_every_code_has_a_kind(error: VideoAnnotatorError, kind: ErrorKind) -> None:
    """What is in no table would end the same again, unless the pipeline says otherwise."""
    assert kind is kind_of(error)


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (MemoryError(), "STAGE_OUT_OF_MEMORY"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "STAGE_OUT_OF_MEMORY"),
        (RuntimeError("CUDA failed with error out of memory"), "STAGE_OUT_OF_MEMORY"),
        (RuntimeError("CUDA error: device-side assert triggered"), "GPU_FAILED"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "GPU_FAILED"),
        (OSError(28, "No space left on device"), "STORAGE_FULL"),
        (OSError(5, "Input/output error"), "FILE_NOT_READ"),
        (FileNotFoundError(2, "No such file"), "STAGE_FAILED"),
        (ValueError("there is no CUDA error in a face"), "STAGE_FAILED"),
    ],
    ids=str,
)
def test_exceptions_of_libraries_are_told_by_their_words(exc: Exception, code: str) -> None:
    """No library may be imported to find out, and each says it in another way."""
    assert code == failed("p", exc).code


def test_without_a_batch_memory_gets_one_more_chance_as_it_is() -> None:
    """Another stage may have held what was missing."""
    from videoannotator.pipelines.catalogue import Catalogue

    scenes = Catalogue.load().get("scene_detection")
    error = StageFailed("x", code="STAGE_OUT_OF_MEMORY")

    retry = next_attempt(error, STAGE, scenes, Settings())

    assert retry is not None
    assert {} == retry.eased
    assert None is next_attempt(error, msgspec.structs.replace(STAGE, eased={}), scenes, Settings())
