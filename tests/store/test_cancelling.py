"""A cancelled job ends cancelled, whatever else happens to it, and says how long that took."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.sample_jobs import Clock, new_job
from tests.store.working import claimed, complete
from videoannotator.errors import Conflict
from videoannotator.jobs import (
    Claim,
    JobStatus,
    StageError,
    StageStatus,
)
from videoannotator.store.sqlite import SqliteStore


async def test_a_pending_job_is_cancelled_at_once(store: SqliteStore) -> None:
    """And asking twice is no error: the answer is the same."""
    (job,) = await store.add(new_job())

    cancelled = await store.request_cancel(job.id)

    assert (cancelled.status, cancelled.stopped_after_seconds) == (JobStatus.CANCELLED, 0.0)
    assert all(stage.status is StageStatus.CANCELLED for stage in cancelled.stages)
    assert await store.request_cancel(job.id) == cancelled
    assert await store.claim("worker") is None
    assert len(await store.job_events(job.id, "job.cancelled")) == 1


async def test_a_running_job_says_how_long_it_took_to_stop(store: SqliteStore, clock: Clock) -> None:
    """From the request until its worker says that everything is gone."""
    claim = await claimed(store)
    await complete(store, claim, "scene_detection")
    assert (await store.request_cancel(claim.job.id)).status is JobStatus.CANCELLING
    clock.now += 1.25
    with pytest.raises(Conflict) as refused:
        await store.finish(claim)

    job = await store.finish_cancelled(claim)

    assert refused.value.code == "JOB_BEING_CANCELLED"
    assert (job.status, job.stopped_after_seconds) == (JobStatus.CANCELLED, 1.25)
    assert [stage.status for stage in job.stages] == [StageStatus.COMPLETED, StageStatus.CANCELLED]
    (told,) = await store.job_events(job.id, "job.cancelled")
    assert told.data == {
        "job_id": job.id,
        "cancelled_at": "2023-11-14T22:13:21.250Z",
        "stopped_after_seconds": 1.25,
    }


@pytest.mark.parametrize(
    "ending",
    [
        lambda store, claim: store.give_back(claim),
        lambda store, claim: store.fail(claim, StageError("INTERNAL_ERROR", "A bug.")),
        lambda store, claim: store.take_back(),
    ],
)
async def test_a_job_being_cancelled_can_only_end_cancelled(
    store: SqliteStore, ending: Callable[[SqliteStore, Claim], Any]
) -> None:
    """Whatever comes between: the server stops, a bug, a crash."""
    claim = await claimed(store)
    await store.request_cancel(claim.job.id)

    await ending(store, claim)

    assert (await store.get(claim.job.id)).status is JobStatus.CANCELLED


async def test_a_finished_job_cannot_be_cancelled(store: SqliteStore) -> None:
    """Final states never change."""
    claim = await claimed(store)
    failed = await store.fail(claim, StageError("X", "x"))

    with pytest.raises(Conflict) as refused:
        await store.request_cancel(failed.id)

    assert refused.value.code == "JOB_ALREADY_FINISHED"
    assert await store.get(failed.id) == failed


async def test_the_bells_wake_all_who_wait_and_are_heard_later_too(store: SqliteStore) -> None:
    """The worker waits for one, the watches over all running jobs for the other, and not for each other's."""
    waiting = [asyncio.create_task(store.wait_for_work(0, 30)) for _ in range(2)]
    watching = [asyncio.create_task(store.wait_for_cancels(0, 30)) for _ in range(3)]
    await asyncio.sleep(0)

    (job,) = await store.add(new_job())
    heard = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert not any(watch.done() for watch in watching)

    await store.request_cancel(job.id)
    asked = await asyncio.wait_for(asyncio.gather(*watching), 5)
    await store.add(new_job())
    again = await asyncio.wait_for(store.wait_for_work(heard[0], 30), 5)
    assert ([1, 1], [1, 1, 1], 2) == (heard, asked, again)
