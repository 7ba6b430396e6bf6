"""The place in the queue that is told at submission: the true one, and told as fast however many wait."""

import random
import sqlite3
from pathlib import Path

import msgspec
import pytest

from tests.sample_jobs import new_job
from tests.store.working import steps_of
from videoannotator.errors import Conflict
from videoannotator.jobs import Job, JobStatus
from videoannotator.store import queue
from videoannotator.store.database import writing_connection
from videoannotator.store.sqlite import SqliteStore


async def test_the_place_told_at_submission_is_the_one_told_when_asked(store: SqliteStore) -> None:
    """Whatever happened before: jobs claimed, given back, cancelled, removed, refused in the middle of a batch."""
    chance, waiting = random.Random(5), []
    batch = (await store.add(new_job(), batch_name="pilot"))[0].batch_id
    for number in range(80):
        job = new_job(owner=chance.choice(("", "a", "b")), priority=chance.choice((0, 0, 1)))
        batch_id = batch if chance.random() < 0.3 else None
        (added,) = await store.add(msgspec.structs.replace(job, batch_id=batch_id))
        assert added.queue_position == (await store.get(added.id)).queue_position, number
        waiting.append(added)
        await _disturb(store, chance, waiting)


async def _disturb(store: SqliteStore, chance: random.Random, waiting: list[Job]) -> None:
    match chance.randrange(6):
        case 0:
            claim = await store.claim("worker")
            assert claim is not None
            if chance.random() < 0.5:
                await store.give_back(claim)
            else:
                await store.request_cancel(claim.job.id)
                await store.finish_cancelled(claim)
        case 1:
            job = waiting.pop(chance.randrange(len(waiting)))
            if (await store.get(job.id)).status is JobStatus.PENDING:
                await store.request_cancel(job.id)
            await store.remove(job.id)
        case 2:
            with pytest.raises(Conflict):  # all or none: the first of them is taken back out
                await store.add(new_job(), new_job(id=waiting[-1].id))
        case _:
            return


def test_queueing_a_job_costs_the_same_behind_two_thousand(tmp_path: Path) -> None:
    """A batch of 100,000 videos would take longer and longer for each of them. Counted in SQLite's own steps."""
    with writing_connection(tmp_path) as connection:
        fill(connection, 1)
        few = [steps(connection) for _ in range(5)]
        fill(connection, 2000)
        many = [steps(connection) for _ in range(5)]

    assert max(many) < 1.5 * max(few)


def fill(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("BEGIN")
    queue.add(connection, [new_job(("scene_detection",)) for _ in range(number)], None, None, now=1)
    connection.execute("COMMIT")


def steps(connection: sqlite3.Connection) -> int:
    """Of one submission, by a key of its own so that turns are taken."""
    job = new_job(("scene_detection",), owner="me")
    return steps_of(connection, lambda: queue.add(connection, [job], None, None, now=1))
