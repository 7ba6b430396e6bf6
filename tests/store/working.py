"""What a worker does with the jobs of a store."""

from typing import Any

from tests.sample_jobs import new_job, result
from videoannotator.jobs import Claim, Event, StageError
from videoannotator.store.sqlite import SqliteStore


async def claimed(store: SqliteStore, **fields: Any) -> Claim:
    await store.add(new_job(**fields))
    claim = await store.claim("worker")
    assert claim is not None
    return claim


async def complete(store: SqliteStore, claim: Claim, pipeline: str) -> None:
    await store.start_stage(claim, pipeline)
    await store.finish_stage(claim, pipeline, result(pipeline))


async def fail(store: SqliteStore, claim: Claim, pipeline: str, message: str = "It broke") -> None:
    await store.start_stage(claim, pipeline)
    await store.fail_stage(claim, pipeline, StageError("STAGE_FAILED", message), seconds=1.0)


async def events_of(store: SqliteStore, job_id: str) -> list[Event]:
    """All there are by now."""
    found: list[Event] = []
    last = await store.last_seq()
    async for event in store.follow(after=0):
        if event.job_id == job_id:
            found.append(event)
        if event.seq == last:
            break
    return found
