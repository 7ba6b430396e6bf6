"""Jobs are added whole, found again by what was asked, and claimed in turn."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.sample_jobs import PIPELINES, Clock, new_job
from tests.store.working import complete
from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import (
    Errands,
    JobStatus,
    NewStage,
    StageError,
)
from videoannotator.store import JobQuery
from videoannotator.store.sqlite import SqliteStore


async def test_an_added_job_reads_back_as_it_was_given(store: SqliteStore, clock: Clock) -> None:
    """What the caller asked for decides what runs, so nothing of it may change on the way."""
    new = new_job(
        tags=("pilot", "home"),
        priority=3,
        config={"face_analysis": {"rate": 2.5, "names": ["a", "b"]}},
        preset="quick",
        preset_content={"version": "1"},
    )

    (job,) = await store.add(new)

    assert await store.get(new.id) == job
    assert (job.id, job.video, job.video_path, job.owns_video) == (new.id, new.video, new.video_path, True)
    assert (job.tags, job.priority, job.config) == (new.tags, 3, new.config)
    assert (job.preset, job.preset_content) == ("quick", {"version": "1"})
    assert [(stage.pipeline, stage.config) for stage in job.stages] == [(s.pipeline, s.config) for s in new.stages]
    assert job.status is JobStatus.PENDING
    assert job.queue_position == 1
    assert job.created_at == datetime.fromtimestamp(clock.now, UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pipelines": ()},
        {"stages": (NewStage("voice_activity", {"rate": 1}, StageError("NO_AUDIO", "It has no sound.")),)},
        {"owner": "key_1", "cache": False, "priority": -2, "tags": ("a", "a", "\u00e9")},
        {"errands": Errands(video_url="https://x.org/a.mp4", callback_url="https://x.org/", db_location=Path("/x.db"))},
    ],
    ids=["plain", "nothing to do", "skipped", "of an owner", "with errands"],
)
async def test_what_a_verb_answers_is_what_is_read_afterwards(store: SqliteStore, fields: dict[str, Any]) -> None:
    """Verbs answer without reading again what they have just written; two truths about a job would be none."""
    await store.add(new_job(), new_job(owner="another"))
    (added,) = await store.add(new_job(**({"pipelines": PIPELINES} | fields)))
    read = [await store.get(added.id)]
    while (claim := await store.claim("worker")) is not None and claim.job.id != added.id:
        pass
    assert claim is not None
    read.append(await store.get(added.id))
    for stage in claim.job.stages:
        if not stage.status.is_final:
            await complete(store, claim, stage.pipeline)
    ended = await store.finish(claim)
    read.append(await store.get(added.id))

    untold = [msgspec.structs.replace(job, expected_seconds=None) for job in read]
    assert [added, claim.job, ended] == untold
    assert added.queue_position in (2, 3)


async def test_jobs_are_added_all_or_none(store: SqliteStore) -> None:
    """Half a batch would be worse than none: nobody would know which half."""
    first = new_job()

    with pytest.raises(Conflict) as refused:
        await store.add(first, new_job(), first, batch_name="Tuesday")

    assert refused.value.code == "JOB_EXISTS"
    assert (await store.jobs(JobQuery())).total == 0
    assert await store.batches() == ()
    assert await store.last_seq() == 0


async def test_a_batch_counts_its_jobs_by_state(store: SqliteStore) -> None:
    """States without a job are there too, so that nobody has to guess at a missing key."""
    jobs = await store.add(new_job(), new_job(), batch_name="Tuesday")
    await store.request_cancel(jobs[0].id)
    await store.add(new_job())

    batch_id = jobs[0].batch_id
    assert batch_id is not None
    batch = await store.batch(batch_id)

    assert batch.name == "Tuesday"
    assert batch.counts == dict.fromkeys(JobStatus, 0) | {JobStatus.PENDING: 1, JobStatus.CANCELLED: 1}
    assert await store.batches() == (batch,)
    assert (await store.jobs(JobQuery(batch_id=batch.id))).total == 2
    (more,) = await store.add(new_job(batch_id=batch.id))
    assert more.batch_id == batch.id


async def test_what_is_not_there_is_not_found(store: SqliteStore) -> None:
    """Each with the code that the API promises."""
    asked: list[tuple[Any, str]] = [
        (store.get("job_x"), "JOB_NOT_FOUND"),
        (store.request_cancel("job_x"), "JOB_NOT_FOUND"),
        (store.remove("job_x"), "JOB_NOT_FOUND"),
        (store.batch("batch_x"), "BATCH_NOT_FOUND"),
        (store.add(new_job(batch_id="batch_x")), "BATCH_NOT_FOUND"),
        (store.dataset("ds_x"), "DATASET_NOT_FOUND"),
        (store.remove_dataset("ds_x"), "DATASET_NOT_FOUND"),
        (store.remove_preset("x"), "PRESET_NOT_FOUND"),
        (store.revoke_token("x"), "TOKEN_NOT_FOUND"),
    ]
    for verb, code in asked:
        with pytest.raises(NotFound) as missing:
            await verb
        assert missing.value.code == code


async def test_a_page_is_newest_first_and_knows_the_total(store: SqliteStore) -> None:
    """Also beyond the end, where a client lands after deletions."""
    jobs = await store.add(*(new_job() for _ in range(5)))
    ids = [job.id for job in jobs]

    assert [job.id for job in (await store.jobs(JobQuery(limit=2))).jobs] == [ids[4], ids[3]]
    assert [job.id for job in (await store.jobs(JobQuery(limit=2, offset=2, oldest_first=True))).jobs] == ids[2:4]
    beyond = await store.jobs(JobQuery(limit=2, offset=50))
    assert (beyond.jobs, beyond.total) == ((), 5)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (JobQuery(tag="home"), {"a.mp4", "b_1.mp4"}),
        (JobQuery(tag="hom"), set()),
        (JobQuery(text="B_1"), {"b_1.mp4"}),
        (JobQuery(text="_"), {"b_1.mp4"}),
        (JobQuery(text="%"), {"100%.mp4"}),
        (JobQuery(text="'; DROP TABLE jobs; --"), set()),
        (JobQuery(status=JobStatus.CANCELLED), {"a.mp4"}),
        (JobQuery(created_after=1_700_000_005.0), {"b_1.mp4", "100%.mp4"}),
        (JobQuery(created_before=1_700_000_005.0), {"a.mp4"}),
        (JobQuery(created_after=1_700_000_005.0, tag="home", text="mp4"), {"b_1.mp4"}),
    ],
)
async def test_a_query_finds_what_it_says(store: SqliteStore, clock: Clock, query: JobQuery, found: set[str]) -> None:
    """What a user types is text to look for, never a pattern and never SQL."""
    (first,) = await store.add(new_job(filename="a.mp4", tags=("home", "lab")))
    await store.request_cancel(first.id)
    clock.now += 10
    await store.add(new_job(filename="b_1.mp4", tags=("home",)), new_job(filename="100%.mp4"))

    page = await store.jobs(query)

    assert {job.video.filename for job in page.jobs} == found
    assert page.total == len(found)


async def test_the_queue_is_worked_off_by_priority_then_age(store: SqliteStore) -> None:
    """And the positions that users see are the order in which jobs are claimed, on a page and alone."""
    jobs = await store.add(*(new_job(priority=priority) for priority in (0, 1, 0, 1, 5)))
    page = (await store.jobs(JobQuery())).jobs
    told = {job.queue_position: job.id for job in page}
    alone = {(await store.get(job.id)).queue_position: job.id for job in jobs}

    claimed = [claim.job.id for _ in jobs if (claim := await store.claim("worker")) is not None]

    assert claimed == [jobs[n].id for n in (4, 1, 3, 0, 2)]
    assert told == alone == dict(enumerate(claimed, start=1))
    assert await store.claim("worker") is None
    assert all(job.queue_position is None for job in (await store.jobs(JobQuery())).jobs)


async def test_claiming_looks_at_one_row_however_many_wait_or_have_ended(store: SqliteStore) -> None:
    """SQLite once chose another index and sorted the whole queue for each claim; the plan is pinned here."""
    from videoannotator.store import lanes

    plan = await store._database.read(f"EXPLAIN QUERY PLAN {lanes.HEADS}")

    steps = [step for *_, step in plan]
    assert any("jobs_waiting" in step for step in steps)
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN jobs") for step in steps)


async def test_what_is_asked_all_the_time_looks_at_no_job_that_is_over(store: SqliteStore) -> None:
    """With a million of them two of these took a second, each time; SQLite does not guess the better way by itself."""
    from videoannotator.store import errands, forecasts, queue

    asked = {"due": (errands.DUE, (0, 1)), "leased": (queue.LEASED, (None, None)), "running": (forecasts._RUNNING, ())}
    steps = {
        name: [step for *_, step in await store._database.read(f"EXPLAIN QUERY PLAN {sql}", values)]
        for name, (sql, values) in asked.items()
    }

    assert "callbacks USING INDEX callbacks_waiting" in steps["due"][0]
    assert "jobs USING INTEGER PRIMARY KEY" in steps["due"][1]
    assert "jobs USING INDEX jobs_leased" in steps["leased"][0]
    assert "jobs USING INDEX jobs_leased" in steps["running"][0]
