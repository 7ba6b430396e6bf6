"""What the verbs of the store promise, on a real file."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.sample_jobs import PIPELINES, Clock, new_job, result
from videoannotator.errors import Conflict, LeaseLost, NotFound, StorageTrouble
from videoannotator.jobs import (
    Artifact,
    Claim,
    Dataset,
    Errands,
    Event,
    Interval,
    JobStatus,
    NewStage,
    Preset,
    Progress,
    StageError,
    StageStatus,
    Token,
    new_id,
)
from videoannotator.store import JobQuery
from videoannotator.store.sqlite import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path, clock=clock, lease_seconds=30.0) as store:
        yield store


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


# -- adding and listing


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


# -- a worker's way


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


# -- leases


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


# -- cancelling


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


# -- removing and doing again


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


# -- the small nouns


async def test_tokens_are_found_by_hash_and_revoked_for_good(store: SqliteStore, clock: Clock) -> None:
    """The first revocation is the one that counts."""
    made = datetime.fromtimestamp(clock.now, UTC)
    token = Token(id=new_id("tok"), name="laptop", scope="write", created_at=made, expires_at=made)
    await store.add_token(token, "hash-of-it")

    assert await store.token_by_hash("hash-of-it") == token
    assert await store.token_by_hash("another") is None
    await store.revoke_token(token.id)
    clock.now += 5
    await store.revoke_token(token.id)

    assert await store.tokens() == (msgspec.structs.replace(token, revoked_at=made),)


async def test_presets_are_stored_replaced_and_removed(store: SqliteStore) -> None:
    """Under the same name there is one, the last."""
    preset = Preset(name="mine", version="1", description="d", pipelines={"face_analysis": {"rate": 2.0}})
    newer = msgspec.structs.replace(preset, version="2")

    await store.put_preset(preset)
    await store.put_preset(newer)

    assert await store.presets() == (newer,)
    await store.remove_preset("mine")
    assert await store.presets() == ()


async def test_a_dataset_has_its_name_for_itself(store: SqliteStore, clock: Clock) -> None:
    """Two of one name could not be told apart."""
    made = datetime.fromtimestamp(clock.now, UTC)
    dataset = Dataset(id=new_id("ds"), name="pilot", base_path=Path("videos"), created_at=made)
    await store.add_dataset(dataset)

    with pytest.raises(Conflict) as refused:
        await store.add_dataset(msgspec.structs.replace(dataset, id=new_id("ds")))

    assert refused.value.code == "DATASET_EXISTS"
    assert await store.dataset(dataset.id) == dataset
    assert await store.datasets() == (dataset,)
    await store.remove_dataset(dataset.id)
    assert await store.datasets() == ()


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


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Rather than wait for ever for a thread that has gone."""
    async with SqliteStore.open(tmp_path) as store:
        pass

    with pytest.raises(StorageTrouble) as refused:
        await store.add(new_job())

    assert refused.value.code == "STORAGE_CLOSED"
