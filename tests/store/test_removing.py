"""What is removed is gone to the last row; what is done again takes over what was done."""

import asyncio
from pathlib import Path

import pytest

from tests.sample_jobs import new_job
from tests.store.working import claimed, complete, fail, steps_of
from videoannotator.batches import BatchPlan
from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import (
    JobStatus,
    NewStage,
    StageError,
    StageStatus,
)
from videoannotator.store import JobQuery, batches, keeping
from videoannotator.store.database import writing_connection
from videoannotator.store.sqlite import SqliteStore


async def test_a_removed_job_leaves_nothing(store: SqliteStore) -> None:
    """Rows are personal data: what hangs on the job goes with it, a long history of events too."""
    claim = await claimed(store, tags=("home",))
    await asyncio.gather(*(store.log(claim, None, "info", str(n)) for n in range(4500)))
    await complete(store, claim, "scene_detection")
    await store.fail(claim, StageError("X", "x"))
    (other,) = await store.add(new_job())

    await store.remove(claim.job.id)

    with pytest.raises(NotFound):
        await store.get(claim.job.id)
    for table in ("jobs", "events"):
        assert await store._database.read(f"SELECT count(*) FROM {table}") == [(1,)]
    for table in ("artifacts", "annotations", "job_tags"):
        assert await store._database.read(f"SELECT count(*) FROM {table}") == [(0,)]
    assert (await store.get(other.id)).status is JobStatus.PENDING


async def test_a_running_job_cannot_be_removed(store: SqliteStore) -> None:
    """Its worker would go on writing into nowhere."""
    claim = await claimed(store)

    with pytest.raises(Conflict) as refused:
        await store.remove(claim.job.id)

    assert refused.value.code == "JOB_STILL_RUNNING"
    (pending,) = await store.add(new_job())
    await store.remove(pending.id)
    assert (await store.jobs(JobQuery())).total == 1


async def test_a_retry_takes_over_what_was_completed(store: SqliteStore) -> None:
    """With artifacts and intervals, in the transaction that queues it: a worker can never see it half made."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    await fail(store, claim, "face_analysis")
    old = await store.finish(claim)
    stages = tuple(NewStage(s.pipeline, s.config, carried_over=s.pipeline == "scene_detection") for s in old.stages)

    (new,) = await store.add(new_job(stages=stages, retry_of=old.id))

    assert new.retry_of == old.id
    assert [stage.status for stage in new.stages] == [StageStatus.COMPLETED, StageStatus.PENDING]
    assert new.stages[0].provenance == old.stages[0].provenance
    assert await store.artifacts(new.id) == await store.artifacts(old.id)
    assert await store.intervals(new.id) == await store.intervals(old.id)


async def test_only_completed_stages_are_taken_over(store: SqliteStore) -> None:
    """And a job that cannot take them over is not queued."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    await fail(store, claim, "face_analysis")
    old = await store.finish(claim)
    stages = tuple(NewStage(stage.pipeline, stage.config, carried_over=True) for stage in old.stages)

    with pytest.raises(Conflict) as refused:
        await store.add(new_job(stages=stages, retry_of=old.id))

    assert refused.value.code == "STAGE_NOT_COMPLETED"
    assert (await store.jobs(JobQuery())).total == 1


def test_to_forget_two_hundred_names_goes_through_a_batch_once(tmp_path: Path) -> None:
    """All other writes wait for it: of 1,000 participants' videos in a batch of 100,000 it took four seconds."""
    with writing_connection(tmp_path) as connection:
        batch_id = batches.add(connection, "pilot", BatchPlan(), [f"{n}.mp4" for n in range(1000)], now=1)
        connection.execute("UPDATE batch_inputs SET state = 'queued', job_id = 'job_' || position")

        one = steps_of(connection, lambda: keeping.forget_names(connection, ["job_0"]))
        many = steps_of(connection, lambda: keeping.forget_names(connection, [f"job_{n}" for n in range(200)]))
        keeping.forget_names(connection, ["job_7", "job_8"])
        left = connection.execute(
            "SELECT position FROM batch_inputs WHERE batch_id = ? AND video = '(erased)'", (batch_id,)
        ).fetchall()

    assert many < 5 * one
    assert [(7,), (8,)] == left
