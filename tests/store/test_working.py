"""A worker's way through a job: stages, progress, logs, and the ending that they make."""

from datetime import UTC, datetime

import msgspec
import pytest

from tests.sample_jobs import PIPELINES, Clock, new_job, result
from tests.store.working import claimed, complete, events_of, fail
from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import (
    Artifact,
    Interval,
    JobStatus,
    NewStage,
    Progress,
    StageError,
    StageStatus,
)
from videoannotator.store.sqlite import SqliteStore


async def test_a_job_ends_full_when_every_stage_completed(store: SqliteStore, clock: Clock) -> None:
    """The usual way, and every event on it, in order, as the contract of the HTTP API lists them."""
    claim = await claimed(store)
    for pipeline in PIPELINES:
        await complete(store, claim, pipeline)
    clock.now += 4

    job = await store.finish(claim)

    assert (job.status, job.outcome, job.error, job.progress) == (JobStatus.COMPLETED, "full", None, 1.0)
    assert job.finished_at == datetime.fromtimestamp(clock.now, UTC)
    assert [stage.status for stage in job.stages] == [StageStatus.COMPLETED] * 2
    assert job.stages[0].provenance == result("scene_detection").provenance
    assert [a.name for a in await store.artifacts(job.id)] == ["face_analysis.json", "scene_detection.json"]
    told = await events_of(store, job.id)
    assert [event.type for event in told] == ["job.update"] * 6 + ["job.complete"]
    assert told[0].data["status"] == "pending"
    assert told[0].data["queue_position"] == 1
    assert told[1].data["status"] == "running"
    assert told[2].data["current_stage"] == "scene_detection"
    assert told[3].data["progress"] == 0.5
    assert told[3].data["stage"] == {"pipeline": "scene_detection", "status": "completed", "progress": 1.0}
    assert told[-1].data == {
        "job_id": job.id,
        "artifacts": ["face_analysis.json", "scene_detection.json"],
        "completion_time": "2023-11-14T22:13:24.000Z",
        "outcome": "full",
    }


async def test_a_job_is_partial_when_a_stage_failed_or_was_skipped(store: SqliteStore) -> None:
    """What there is can be used, and the error names what is missing, and why."""
    silent = NewStage("voice_activity", {}, skip_because=StageError("NO_AUDIO", "The video has no sound."))
    stages = (*new_job().stages, silent)
    claim = await claimed(store, stages=stages)
    await complete(store, claim, "scene_detection")
    await fail(store, claim, "face_analysis", "The model is missing")

    job = await store.finish(claim)

    assert (job.status, job.outcome) == (JobStatus.COMPLETED, "partial")
    assert job.error == StageError(
        "STAGES_FAILED",
        "face_analysis failed: The model is missing. voice_activity was skipped: The video has no sound.",
    )
    assert [stage.status for stage in job.stages] == [StageStatus.COMPLETED, StageStatus.FAILED, StageStatus.SKIPPED]


async def test_a_job_fails_when_no_stage_gave_a_result(store: SqliteStore) -> None:
    """A single reason keeps its code, so that a client can tell what to do."""
    claim = await claimed(store)
    for pipeline in PIPELINES:
        await fail(store, claim, pipeline)

    job = await store.finish(claim)

    assert (job.status, job.outcome) == (JobStatus.FAILED, None)
    assert job.error == StageError("STAGE_FAILED", "scene_detection failed: It broke. face_analysis failed: It broke.")
    (told,) = await store.job_events(job.id, "job.error")
    assert told.data == {
        "job_id": job.id,
        "error_message": "scene_detection failed: It broke. face_analysis failed: It broke.",
        "error_code": "STAGE_FAILED",
    }


async def test_a_job_cannot_be_finished_before_its_stages_are(store: SqliteStore) -> None:
    """A worker that forgot a stage must not make it look done."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")

    with pytest.raises(Conflict) as refused:
        await store.finish(claim)

    assert refused.value.code == "STAGES_NOT_FINISHED"
    assert "face_analysis" in str(refused.value)


async def test_a_job_that_fails_as_a_whole_keeps_what_was_completed(store: SqliteStore) -> None:
    """And each stage that gave nothing says why."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    error = StageError("INTERNAL_ERROR", "A bug of ours.")

    job = await store.fail(claim, error)

    assert (job.status, job.error) == (JobStatus.FAILED, error)
    assert [(stage.status, stage.error) for stage in job.stages] == [
        (StageStatus.COMPLETED, None),
        (StageStatus.FAILED, error),
    ]
    assert [a.name for a in await store.artifacts(job.id)] == ["scene_detection.json"]


async def test_progress_reaches_the_job_and_its_followers(store: SqliteStore) -> None:
    """With the rate and the time left, where the stage knows them; otherwise they are left out, not null."""
    claim = await claimed(store)
    await store.start_stage(claim, "scene_detection")

    await store.note_progress(claim, "scene_detection", Progress(5.0, 10.0, 2.0, 2.5))

    job = await store.get(claim.job.id)
    assert (job.progress, job.current_stage, job.stages[0].rate) == (0.25, "scene_detection", 2.0)
    told = (await events_of(store, job.id))[-1]
    assert told.data["progress_pct"] == 25.0
    assert "eta_seconds" not in told.data, "the other stage cannot say yet"
    assert told.data["stage"] == {
        "pipeline": "scene_detection",
        "status": "running",
        "progress": 0.5,
        "rate": 2.0,
        "eta_seconds": 2.5,
    }


async def test_late_progress_of_an_ended_stage_is_no_news(store: SqliteStore) -> None:
    """Reports travel beside the result and may arrive after it."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    last = await store.last_seq()

    await store.note_progress(claim, "scene_detection", Progress(1.0, 10.0))

    assert (await store.get(claim.job.id)).stages[0].progress == 1.0
    assert await store.last_seq() == last


async def test_a_stage_ends_once(store: SqliteStore) -> None:
    """A result that was published cannot become a failure."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")

    with pytest.raises(Conflict) as refused:
        await store.fail_stage(claim, "scene_detection", StageError("X", "Late."), seconds=1.0)

    assert refused.value.code == "STAGE_NOT_RUNNING"
    with pytest.raises(NotFound):
        await store.start_stage(claim, "no_such_pipeline")


async def test_the_index_over_annotations_is_ordered_by_onset(store: SqliteStore) -> None:
    """However the stage sent it."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")

    found = await store.intervals(claim.job.id)

    assert found == (Interval("scene", 0.0, 1.0, "scene", 0), Interval("scene", 1.0, 1.0, "scene", 1))


async def test_a_log_line_and_the_hash_of_the_video_are_kept(store: SqliteStore) -> None:
    """The hash is part of the video from then on."""
    claim = await claimed(store)

    await store.log(claim, "scene_detection", "warning", "Two frames are damaged.")
    await store.note_video_hash(claim, "ab" * 32)

    (told,) = await store.job_events(claim.job.id, "job.log")
    assert told.data | {"timestamp": ""} == {
        "job_id": claim.job.id,
        "level": "warning",
        "stage": "scene_detection",
        "message": "Two frames are damaged.",
        "timestamp": "",
    }
    assert (await store.get(claim.job.id)).video.sha256 == "ab" * 32


async def test_a_name_of_an_artifact_is_unique_in_its_job(store: SqliteStore) -> None:
    """The second would overwrite the first; the stage is not completed then."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    await store.start_stage(claim, "face_analysis")
    clash = msgspec.structs.replace(
        result("face_analysis"),
        artifacts=(
            Artifact(
                name="scene_detection.json",
                pipeline="face_analysis",
                role="table",
                media_type="text/csv",
                size=1,
                sha256="0" * 64,
            ),
        ),
    )

    with pytest.raises(Conflict) as refused:
        await store.finish_stage(claim, "face_analysis", clash)

    assert refused.value.code == "ARTIFACT_EXISTS"
    assert (await store.get(claim.job.id)).stages[1].status is StageStatus.RUNNING
