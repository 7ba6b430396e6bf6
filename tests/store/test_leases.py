"""Who holds a job may write about it, nobody else, and only for as long as it gives signs of life."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.sample_jobs import Clock, new_job, result
from tests.store.working import claimed, complete
from videoannotator.errors import LeaseLost
from videoannotator.jobs import (
    Claim,
    JobStatus,
    Progress,
    StageError,
    StageStatus,
)
from videoannotator.store import JobQuery
from videoannotator.store.sqlite import SqliteStore


@pytest.mark.parametrize(
    "write",
    [
        lambda store, claim: store.heartbeat(claim),
        lambda store, claim: store.start_stage(claim, "face_analysis"),
        lambda store, claim: store.note_progress(claim, "scene_detection", Progress(1, 2)),
        lambda store, claim: store.note_video_hash(claim, "0" * 64),
        lambda store, claim: store.log(claim, None, "info", "still here"),
        lambda store, claim: store.finish_stage(claim, "scene_detection", result("scene_detection")),
        lambda store, claim: store.fail_stage(claim, "scene_detection", StageError("X", "x"), seconds=1.0),
        lambda store, claim: store.finish(claim),
        lambda store, claim: store.fail(claim, StageError("X", "x")),
        lambda store, claim: store.finish_cancelled(claim),
        lambda store, claim: store.give_back(claim),
    ],
)
@pytest.mark.parametrize("claimed_again", [True, False])
async def test_a_stale_worker_writes_nothing(
    store: SqliteStore, write: Callable[[SqliteStore, Claim], Any], claimed_again: bool
) -> None:
    """It was thought dead, the job was taken from it, and it comes back with a result."""
    stale = await claimed(store)
    await store.start_stage(stale, "scene_detection")
    await store.take_back()
    if claimed_again:
        fresh = await store.claim("another")
        assert fresh is not None
        await store.start_stage(fresh, "scene_detection")
    before, last = await store.get(stale.job.id), await store.last_seq()

    with pytest.raises(LeaseLost):
        await write(store, stale)

    assert await store.get(stale.job.id) == before
    assert await store.last_seq() == last


async def test_a_heartbeat_renews_the_lease_and_hears_of_a_cancellation(store: SqliteStore, clock: Clock) -> None:
    """A worker that lives keeps its job however long it takes."""
    claim = await claimed(store)
    clock.now += 29
    assert await store.heartbeat(claim) is False
    clock.now += 29
    assert await store.take_back(expired_only=True) == []
    await store.request_cancel(claim.job.id)

    assert await store.heartbeat(claim) is True


async def test_an_expired_lease_puts_the_job_back_and_keeps_completed_stages(store: SqliteStore, clock: Clock) -> None:
    """Nothing that was finished is done twice."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    await store.start_stage(claim, "face_analysis")
    clock.now += 31

    (job,) = await store.take_back(expired_only=True)

    assert (job.status, job.attempts, job.queue_position) == (JobStatus.PENDING, 1, 1)
    assert [stage.status for stage in job.stages] == [StageStatus.COMPLETED, StageStatus.PENDING]
    again = await store.claim("worker")
    assert again is not None
    assert await store.start_stage(again, "face_analysis") == 2


async def test_a_job_that_crashes_the_server_each_time_fails_in_the_end(store: SqliteStore) -> None:
    """One poisonous video must not keep a server from everything else for ever."""
    await claimed(store)
    await store.take_back(max_attempts=2)
    await store.claim("worker")

    (job,) = await store.take_back(max_attempts=2)

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "CRASHED_TOO_OFTEN"
    assert len(await store.job_events(job.id, "job.error")) == 1


async def test_a_job_given_back_has_lost_no_attempt(store: SqliteStore) -> None:
    """A server that is restarted ten times is no reason to give a job up."""
    await store.add(new_job())
    for _ in range(5):
        claim = await store.claim("worker")
        assert claim is not None
        await store.give_back(claim)

    (job,) = (await store.jobs(JobQuery())).jobs
    assert (job.status, job.attempts, job.started_at) == (JobStatus.PENDING, 0, None)
