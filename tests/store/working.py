"""What a worker does with the jobs of a store."""

import sqlite3
from collections.abc import Callable
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


def steps_of(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """What it costs in tens of SQLite's own steps, whatever else the machine does; it is rolled back."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection.execute("BEGIN")
    connection.set_progress_handler(count, 10)
    work()
    connection.set_progress_handler(None, 0)
    connection.execute("ROLLBACK")
    return taken
