"""Whose turn it is: priorities that age, batches and keys that share, and places and times that come true."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest

from tests.sample_jobs import Clock, new_job, result
from videoannotator.forecast import Ahead, Left, Line, Middle, Ran, Speeds, learn, left_of, seconds_until_over
from videoannotator.jobs import Job, NewJob
from videoannotator.store.lanes import AGEING_SECONDS
from videoannotator.store.sqlite import SqliteStore


def named(name: str, *, owner: str = "", priority: int = 0) -> NewJob:
    return msgspec.structs.replace(new_job(), owner=owner, priority=priority, tags=(name,))


async def names_as_claimed(store: SqliteStore, number: int = 1000) -> list[str]:
    """Claim so many, one after the other, each over at once."""
    names: list[str] = []
    while len(names) < number and (claim := await store.claim("worker")) is not None:
        names.append(claim.job.tags[0])
        await store.request_cancel(claim.job.id)
        await store.finish_cancelled(claim)
    return names


async def test_keys_take_turns(store: SqliteStore) -> None:
    """Who submits a thousand videos does not hold up the colleague with one."""
    await store.add(*(named(f"many {n}", owner="greedy") for n in range(4)))
    await store.add(named("one", owner="modest"), named("two", owner="modest"))

    assert ["many 0", "one", "many 1", "two", "many 2", "many 3"] == await names_as_claimed(store)


async def test_batches_of_one_key_take_turns(store: SqliteStore) -> None:
    """The second batch begins before the first has ended; single jobs are a batch of their own."""
    await store.add(*(named(f"first {n}", owner="me") for n in range(3)), batch_name="first")
    await store.add(*(named(f"second {n}", owner="me") for n in range(2)), batch_name="second")
    await store.add(named("alone", owner="me"))

    names = await names_as_claimed(store)

    assert {"first 0", "second 0", "alone"} == set(names[:3])
    assert ["first 2"] == names[5:]


async def test_a_key_with_several_batches_gets_no_more_turns_than_one_with_one(store: SqliteStore) -> None:
    """Else cutting a batch into ten would be the way to the front."""
    for number in range(3):
        await store.add(*(named(f"a{number}", owner="a") for _ in range(4)), batch_name=f"a{number}")
    await store.add(*(named("b", owner="b") for _ in range(4)))

    names = await names_as_claimed(store, 8)

    assert 4 == names.count("b")


async def test_a_higher_priority_goes_first_and_a_lower_one_is_not_forgotten(store: SqliteStore, clock: Clock) -> None:
    """Each ten minutes of waiting are worth a level."""
    await store.add(named("low"))
    clock.now += 3 * AGEING_SECONDS + 1
    await store.add(*(named(f"high {n}", priority=2) for n in range(2)))

    assert ["low", "high 0", "high 1"] == await names_as_claimed(store)


async def test_a_large_batch_that_is_being_served_does_not_age_past_the_others(
    store: SqliteStore, clock: Clock
) -> None:
    """Its last job has waited for hours, but the batch has not."""
    await store.add(*(named(f"many {n}", owner="greedy") for n in range(6)))
    first = await names_as_claimed(store, 2)
    clock.now += AGEING_SECONDS - 1
    first += await names_as_claimed(store, 1)
    clock.now += AGEING_SECONDS - 1
    await store.add(named("one", owner="modest"))

    assert ["many 0", "many 1", "many 2"] == first
    assert ["one"] == await names_as_claimed(store, 1)


async def test_places_in_the_queue_come_true(store: SqliteStore) -> None:
    """Told before, and compared with the order of the claims: keys, batches, priorities, a paused batch."""
    added: list[Job] = []
    added += await store.add(*(named(f"a{n}", owner="a") for n in range(5)))
    added += await store.add(*(named(f"b{n}", owner="b") for n in range(2)))
    added += await store.add(*(named(f"c{n}", owner="c", priority=1) for n in range(2)))
    added += await store.add(*(named(f"ab{n}", owner="a") for n in range(3)), batch_name="of a")
    paused = await store.add(*(named(f"p{n}", owner="b") for n in range(2)), batch_name="paused")
    assert paused[0].batch_id is not None
    await store.pause_batch(paused[0].batch_id)
    await names_as_claimed(store, 3)
    waiting = [job for job in added if (await store.get(job.id)).queue_position is not None]
    told = {job.tags[0]: (await store.get(job.id)).queue_position for job in waiting}

    names = await names_as_claimed(store)

    assert {name: place for place, name in enumerate(names, 1)} == told
    assert (await store.get(paused[0].id)).queue_position is None


async def test_the_time_left_is_told_from_earlier_stages_of_the_kind(store: SqliteStore, clock: Clock) -> None:
    """Ten of them took 2 s and a quarter of the video's length; with two slots a third job waits for its turn."""
    for length in (10, 20, 30, 40, 50, 60, 70, 80, 90, 100):
        await _run(store, length, 2 + length / 4)
    first, second, third = [(await store.add(_of(length)))[0] for length in (40, 80, 20)]

    told = [(await store.get(job.id)).eta_seconds for job in (first, second, third)]

    # Two slots: 12 s and 22 s at once, then 7 s after the first.
    assert [12.0, 22.0, 19.0] == pytest.approx(told, rel=0.02)


async def test_without_anything_measured_no_time_is_made_up(store: SqliteStore) -> None:
    """A number without a ground is worse than none."""
    (job,) = await store.add(_of(40))

    assert (await store.get(job.id)).eta_seconds is None


def _of(length: float) -> NewJob:
    job = new_job()
    return msgspec.structs.replace(
        job, video=msgspec.structs.replace(job.video, duration_seconds=length), stages=job.stages[:1]
    )


async def _run(store: SqliteStore, length: float, seconds: float) -> None:
    (job,) = await store.add(_of(length))
    claim = await store.claim("worker")
    assert claim is not None
    await store.start_stage(claim, job.stages[0].pipeline)
    done = msgspec.structs.replace(result(job.stages[0].pipeline), seconds=seconds)
    await store.finish_stage(claim, job.stages[0].pipeline, done)
    await store.finish(claim)


@pytest.mark.parametrize(
    ("stages", "slots", "seconds"),
    [
        ([[5.0]], (2, 4), 5.0),
        ([[5.0], [5.0]], (2, 4), 5.0),
        ([[5.0], [3.0], [4.0]], (2, 4), 7.0),
        ([[5.0, 5.0, 5.0]], (2, 4), 10.0),
        ([[5.0], [5.0]], (2, 1), 10.0),
        ([[], [5.0]], (1, 1), 5.0),
    ],
)
def test_slots_are_filled_as_the_worker_fills_them(
    stages: Sequence[Sequence[float]], slots: tuple[int, int], seconds: float
) -> None:
    """Stages side by side as far as there are slots, jobs as far as there is room for jobs."""
    left = [[Left(one) for one in job] for job in stages]
    assert seconds == seconds_until_over(left, stage_slots=slots[0], job_slots=slots[1])


def test_stages_that_run_have_their_slots_and_slow_each_other_down() -> None:
    """A job begun later may hold the slot that an earlier one waits for; two that share a core take longer than one."""
    jobs = [[Left(4.0, runs=True), Left(2.0)], [Left(1.0, runs=True)], [Left(3.0)]]

    assert 4.0 == seconds_until_over(jobs[:2][::-1], stage_slots=2, job_slots=4)
    assert 6.0 == seconds_until_over(jobs, stage_slots=2, job_slots=4)
    # Two side by side go half as fast: 1 of each after 2 s, 2 after 6 s, 1 after 8 s, and the last of three alone.
    assert 10.0 == seconds_until_over(jobs, stage_slots=2, job_slots=4, drag=1.0)


def test_one_stage_that_began_cold_or_ran_into_a_backup_does_not_bend_the_line() -> None:
    """The middle of them is told, and no longer video takes less, or less than no, time."""
    points = [(length, 2 + length / 4) for length in (4.0, 8.0, 16.0, 30.0, 45.0)]

    for wild in ((4.0, 60.0), (45.0, 0.5)):
        line = Middle.through([*points, *points, wild])
        assert 7.0 == pytest.approx(line.seconds(20), rel=0.03)
    assert 6.0 == Middle.through([(10.0, 3.0), (10.5, 3.15)]).seconds(20), "of one length: in proportion"
    assert 5.0 == Middle.through([(0.0, 5.0)]).seconds(20), "pictures that lack a duration"
    assert Middle.through([(4.0, 9.0), (40.0, 1.0)]).seconds(1000) < 9


def test_it_is_learned_what_it_costs_to_have_others_beside() -> None:
    """Two cores that share their memory: what ran side by side took half as long again, and one alone will not."""
    ran = [*_side_by_side(0, 20, 1.5), *_side_by_side(100, 20, 1.5), _one(200, 20), _one(300, 8), _one(400, 40)]

    speeds = learn(ran, {})

    assert 0.5 == speeds.drag
    assert 20.0 == pytest.approx(speeds.seconds("works", {}, 20), rel=0.1)
    alone = Ahead(pipeline="works", config={}, video_seconds=20, progress=0.5, running_seconds=9)
    assert left_of(alone, speeds) == Left(pytest.approx(10, abs=0.6), runs=True)


def test_stages_that_cost_each_other_nothing_are_not_said_to() -> None:
    """A GPU, a service elsewhere, an idle machine."""
    ran = [*_side_by_side(0, 20, 1.0), *_side_by_side(100, 30, 1.0), _one(200, 20), _one(300, 8), _one(400, 40)]

    assert 0.0 == learn(ran, {}).drag


def test_what_has_not_run_of_late_is_told_from_the_line_that_was_kept() -> None:
    """A pipeline that a lab runs once a month."""
    kept = Line().with_stage(10, 30)

    assert 60 == learn([_one(0, 5)], {"seldom": kept}).seconds("seldom", {}, 20)
    assert Speeds().seconds("never", {}, 20) is None


def _one(began: float, length: float, times: float = 1.0) -> Ran:
    """Alone it takes as long as its video."""
    seconds = length * times
    return Ran(pipeline="works", config={}, video_seconds=length, began=began, ended=began + seconds, seconds=seconds)


def _side_by_side(began: float, length: float, times: float) -> list[Ran]:
    return [_one(began, length, times), _one(began, length, times)]


def test_a_line_forgets_what_is_long_ago() -> None:
    """A new graphics card, or a colleague who trains a network: soon the forecast knows."""
    line = Line()
    for _ in range(50):
        line = line.with_stage(60, 60)
    for _ in range(60):
        line = line.with_stage(60, 6)

    assert 6 == pytest.approx(line.seconds(60), rel=0.5)


@pytest.mark.slow
async def test_claiming_costs_the_same_with_many_that_wait(store: SqliteStore) -> None:
    """Twenty thousand waiting jobs in three lanes."""
    for number in range(10):
        await store.add(*(named("x", owner=str(number % 3)) for _ in range(2000)))

    began = time.perf_counter()
    for _ in range(20):
        assert await store.claim("worker") is not None
        await asyncio.sleep(0)
    seconds = (time.perf_counter() - began) / 20

    assert seconds < 0.02
