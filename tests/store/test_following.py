"""Following the events table: everything once, in order, whoever writes, however slow the follower."""

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sample_jobs import new_job
from videoannotator.errors import Conflict
from videoannotator.jobs import Event, Progress, StageError, new_id
from videoannotator.store.database import Database
from videoannotator.store.events import LOOK_SECONDS, Tail
from videoannotator.store.sqlite import SqliteStore
from videoannotator.store.trouble import DATABASE


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path) as store:
        yield store


async def heard(
    store: SqliteStore, until: int, *, after: int | None = None, pause: float = 0, **which: str
) -> list[int]:
    """Seqs up to `until`, by a follower that rests for `pause` seconds at every hundredth event."""
    seqs: list[int] = []
    async with aclosing(store.follow(after=after, **which)) as events:
        async for event in events:
            seqs.append(event.seq)
            if event.seq >= until:
                return seqs
            if pause and len(seqs) % 100 == 0:
                await asyncio.sleep(pause)
    return seqs


async def chatter(store: SqliteStore, jobs: int, lines: int) -> None:
    """So many jobs that each write so many log lines, all at once."""
    await store.add(*(new_job() for _ in range(jobs)))
    claims = [claim for _ in range(jobs) if (claim := await store.claim("worker")) is not None]

    async def write(number: int) -> None:
        for line in range(lines):
            await store.log(claims[number], None, "info", f"line {line}")

    await asyncio.gather(*(write(number) for number in range(jobs)))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    starts=st.lists(st.integers(0, 700), min_size=1, max_size=6),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.02]), min_size=6, max_size=6),
)
async def test_followers_miss_nothing_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, starts: list[int], pauses: list[float]
) -> None:
    """From any place, at any speed, while many write: what a browser that reconnects relies on."""
    async with SqliteStore.open(tmp_path_factory.mktemp("events")) as store:
        writing = asyncio.create_task(chatter(store, jobs=10, lines=80))
        following = [
            asyncio.create_task(heard(store, until=820, after=start, pause=pause))
            for start, pause in zip(starts, pauses, strict=False)
        ]
        await writing

        for start, task in zip(starts, following, strict=True):
            assert await asyncio.wait_for(task, 20) == list(range(start + 1, 821))


async def test_a_follower_that_fell_far_behind_catches_up_from_the_database(store: SqliteStore) -> None:
    """More happened meanwhile than is kept in memory."""
    slow = store.follow(after=0)
    await store.add(new_job())
    seqs = [(await anext(slow)).seq]
    await chatter(store, jobs=20, lines=500)
    last = await store.last_seq()
    assert last > 2 * 4096

    async with aclosing(slow):
        async for event in slow:
            seqs.append(event.seq)
            if event.seq == last:
                break

    assert seqs == list(range(1, last + 1))


async def test_a_follower_hears_only_of_its_job_or_batch(store: SqliteStore) -> None:
    """Live and in what it missed."""
    mine, other = await store.add(new_job(), new_job(), batch_name="Tuesday")
    (stranger,) = await store.add(new_job())
    await store.request_cancel(stranger.id)
    await store.request_cancel(mine.id)
    live = store.follow(job_id=mine.id)
    last = await store.last_seq()

    assert await heard(store, until=last, after=0, job_id=mine.id) == [1, 5]
    assert mine.batch_id is not None
    assert await heard(store, until=last, after=0, batch_id=mine.batch_id) == [1, 2, 5]
    await store.request_cancel(other.id)
    (retried,) = await store.add(new_job(batch_id=mine.batch_id))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(live), 0.05)
    await live.aclose()
    assert await heard(store, until=last + 2, after=last, batch_id=mine.batch_id) == [last + 1, last + 2]
    assert retried.batch_id == mine.batch_id


async def test_from_now_on_means_from_the_call(store: SqliteStore) -> None:
    """Whoever subscribes and then acts must hear of what it did, also if it listens only afterwards."""
    await store.add(new_job())
    events = store.follow()

    (job,) = await store.add(new_job())

    assert (await asyncio.wait_for(anext(events), 5)).job_id == job.id
    await events.aclose()


async def test_a_place_beyond_the_end_waits_for_it(store: SqliteStore) -> None:
    """A Last-Event-ID of another database, or a made up one, is no error here and no flood."""
    follower = asyncio.create_task(heard(store, until=3, after=2))
    never = asyncio.create_task(heard(store, until=1, after=2**70))

    await store.add(new_job(), new_job(), new_job())

    assert await asyncio.wait_for(follower, 5) == [3]
    assert await heard(store, until=3, after=-5) == [1, 2, 3]
    assert not never.done()
    never.cancel()
    await asyncio.gather(never, return_exceptions=True)


async def test_an_event_whose_bell_was_lost_is_found_by_looking(store: SqliteStore, tmp_path: Path) -> None:
    """Here another process wrote it; hints may be lost, the database may not."""
    (job,) = await store.add(new_job())
    follower = asyncio.create_task(heard(store, until=2, after=1))

    def write() -> None:
        with closing(sqlite3.connect(tmp_path / DATABASE)) as other, other:
            other.execute("PRAGMA wal_autocheckpoint = 0")
            other.execute("INSERT INTO events (type, job_id, at, data) VALUES ('job.log', ?, 0, '{}')", (job.id,))

    await asyncio.to_thread(write)

    assert await asyncio.wait_for(follower, 5) == [2]


async def test_a_long_replay_does_not_freeze_the_loop(store: SqliteStore) -> None:
    """A stream that yields without really waiting would stop every other request until it has caught up."""
    await chatter(store, jobs=4, lines=200)
    last = await store.last_seq()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    await heard(store, until=last, after=0)
    turning.cancel()

    assert turns > last / 2


async def test_five_hundred_followers_hear_everything(store: SqliteStore) -> None:
    """A class of students with the page open; the database is read once for all of them."""
    followers = [asyncio.create_task(heard(store, until=208, after=0)) for _ in range(500)]

    await chatter(store, jobs=4, lines=50)

    for follower in followers:
        assert await asyncio.wait_for(follower, 30) == list(range(1, 209))


class Counted(Database):
    """A database that counts how often events are read from it."""

    reads = 0

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        self.reads += "FROM events" in sql
        return await super().read(sql, parameters)


async def test_what_was_just_written_is_heard_without_being_read(tmp_path: Path) -> None:
    """Each report of a stage, on its way to whoever watches: one trip to the disk and back less."""
    async with Counted.open(tmp_path) as database, Tail.open(database) as tail:
        store, began, twin = SqliteStore(database, tail, time.time, 30.0), time.monotonic(), new_id("job")

        await chatter(store, jobs=4, lines=50)
        adding = (store.add(new_job(id=job_id)) for job_id in (twin, new_id("job"), twin))
        refused = await asyncio.gather(*adding, return_exceptions=True)

        last = await store.last_seq()
        assert 1 == sum(isinstance(answer, Conflict) for answer in refused)
        assert await asyncio.wait_for(heard(store, until=last, after=0), 5) == list(range(1, last + 1))
        assert database.reads <= 1 + (time.monotonic() - began) / LOOK_SECONDS


async def test_hundreds_of_events_at_once_are_read(tmp_path: Path) -> None:
    """A batch of a thousand is not handed round in memory, and nothing of it is missed."""
    async with SqliteStore.open(tmp_path) as store:
        await store.add(new_job())
        following = asyncio.create_task(heard(store, until=702, after=1))

        await store.add(*(new_job(()) for _ in range(700)))
        await store.add(new_job())

        assert await asyncio.wait_for(following, 20) == list(range(2, 703))


class Sluggish(Database):
    """A database whose answers arrive late and in another order than they were asked for."""

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        rows = await super().read(sql, parameters)
        await asyncio.sleep(random.choice([0, 0, 0.002, 0.01]))
        return rows


async def test_answers_that_arrive_late_make_no_gap(tmp_path: Path) -> None:
    """Between a page and the live events there is a seam: what is written while the page is on its way."""
    random.seed(3)
    async with Sluggish.open(tmp_path) as database, Tail.open(database) as tail:
        store = SqliteStore(database, tail, time.time, 30.0)
        await chatter(store, jobs=4, lines=20)
        async with Tail.open(database) as second:
            late = SqliteStore(database, second, time.time, 30.0)
            following = [asyncio.create_task(heard(late, until=288, after=place % 80)) for place in range(60)]
            await chatter(store, jobs=4, lines=46)
            last = await store.last_seq()
            assert last == 288 - 8

            await store.add(*(new_job() for _ in range(8)))

            for place, task in enumerate(following):
                assert await asyncio.wait_for(task, 20) == list(range(place % 80 + 1, 289))


async def test_followers_end_when_the_store_closes(tmp_path: Path) -> None:
    """An open stream must not keep a server from stopping."""
    async with SqliteStore.open(tmp_path) as store:
        follower = asyncio.create_task(heard(store, until=1))
        await asyncio.sleep(0)

    assert await asyncio.wait_for(follower, 0.5) == []


async def test_a_job_that_has_ended_keeps_first_and_last_progress_and_everything_else(store: SqliteStore) -> None:
    """An hour of one stage would else be 10 MB for ever; what happened is still told, in order and once."""
    (job, other) = await store.add(new_job(), new_job())
    claim, neighbour = await store.claim("worker"), await store.claim("worker")
    assert claim is not None
    assert neighbour is not None
    pipeline = job.stages[0].pipeline
    for held in (claim, neighbour):
        await store.start_stage(held, pipeline)
        for second in range(1, 41):
            await store.note_progress(held, pipeline, Progress(float(second), 50.0))
            if second == 20:
                await store.log(held, pipeline, "info", "half way")
    await store.thin_progress(job.id)
    untouched = [event.seq for event in await told_until(store, await store.last_seq()) if event.job_id == job.id]
    live = store.follow(after=untouched[3], job_id=job.id)
    await store.fail(claim, StageError("TEST", "It ends."))

    await store.thin_progress(job.id)

    last = await store.last_seq()
    told = [event for event in await told_until(store, last) if event.job_id == job.id]
    updates = [event for event in told if event.type == "job.update" and "stage" in event.data]
    reports = [e.data["stage"]["progress"] for e in updates if e.data["stage"]["status"] == "running"]
    assert len(untouched) == 44
    assert reports == [0.0, 0.8]
    others = [event.type for event in told if event not in updates]
    assert others == ["job.update", "job.update", "job.log", "job.error"]
    assert [event.data["message"] for event in told if event.type == "job.log"] == ["half way"]
    assert len([event for event in await told_until(store, last) if event.job_id == other.id]) == 44
    assert [(await anext(live)).seq for _ in range(5)] == untouched[4:9]
    await live.aclose()


@pytest.mark.slow
async def test_thinning_takes_slices(store: SqliteStore) -> None:
    """More than one slice's worth: no other write may wait for all of it."""
    (job,) = await store.add(new_job())
    claim = await store.claim("worker")
    assert claim is not None
    pipeline = job.stages[0].pipeline
    await store.start_stage(claim, pipeline)
    reports = (store.note_progress(claim, pipeline, Progress(n / 100, 50.0)) for n in range(1, 4501))
    await asyncio.gather(*reports)
    await store.fail(claim, StageError("TEST", "It ends."))

    await store.thin_progress(job.id)

    told = await told_until(store, await store.last_seq())
    assert [e.data["stage"]["progress"] for e in told if "stage" in e.data] == [0.0, 0.9]


async def told_until(store: SqliteStore, last: int) -> list[Event]:
    """All there is in the database, whatever is in memory."""
    events: list[Event] = []
    async with Tail.open(store._database) as fresh, aclosing(fresh.follow(0, None, None)) as following:
        async for event in following:
            events.append(event)
            if event.seq == last:
                return events
    return events


async def test_a_follower_of_a_quiet_job_hears_that_it_is_quiet_while_others_are_loud(store: SqliteStore) -> None:
    """Else its line would look dead, and a proxy would close it."""
    (quiet,) = await store.add(new_job())
    await store.claim("somebody who says nothing")
    talking = asyncio.create_task(chatter(store, jobs=2, lines=300))
    batches = store.follow_together(job_id=quiet.id, after=await store.last_seq(), pause_seconds=0.05)

    async with aclosing(batches), asyncio.timeout(10):
        heard_nothing = [await anext(batches) for _ in range(2)]

    await talking
    assert [batch.events for batch in heard_nothing] == [(), ()]
