"""What the forecast of a job needs: how fast its kinds of stages were, and what is ahead of it."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from videoannotator.forecast import Ahead, Line, Speeds, kinds, seconds_left, seconds_until_over
from videoannotator.jobs import Job, JobStatus, StageStatus
from videoannotator.store.database import Database
from videoannotator.store.lanes import COUNTS, HEADS, Standing

MOST_AHEAD = 400
"""Jobs ahead that are looked at one by one; if there are more, the others are taken to be like these."""

_WORK = """
SELECT seq, coalesce(json_extract(video, '$.duration_seconds'), 0), (
    SELECT json_group_array(json_object(
        'pipeline', pipeline, 'config', json(config), 'progress', progress, 'started_at', started_at
    )) FROM stages WHERE job = jobs.seq AND status IN ('pending', 'running')
) FROM jobs"""

_RUNNING = f"{_WORK} WHERE lease_until IS NOT NULL ORDER BY started_at, seq"
_IN_LANE = f"{_WORK} INDEXED BY jobs_waiting WHERE status = 'pending' AND lane = ? ORDER BY seq LIMIT ?"
_BEFORE = """
SELECT lane, (
    SELECT count(*) FROM jobs AS other INDEXED BY jobs_waiting
    WHERE other.status = 'pending' AND other.lane = jobs.lane AND other.seq < jobs.seq
) FROM jobs WHERE id = ? AND status = 'pending'"""


class _Stage(msgspec.Struct, frozen=True):
    pipeline: str
    config: dict[str, Any]
    progress: float
    started_at: int | None


_stages = msgspec.json.Decoder(list[_Stage])


def note(connection: sqlite3.Connection, job: Job, pipeline: str, seconds: float) -> None:
    """A stage has ended well after so many seconds of work, from its beginning to its end."""
    stage = next(stage for stage in job.stages if stage.pipeline == pipeline)
    for kind in kinds(pipeline, stage.config):
        rows = connection.execute("SELECT weight, x, y, xx, xy FROM speeds WHERE kind = ?", (kind,)).fetchall()
        line = (Line(*rows[0]) if rows else Line()).with_stage(job.video.duration_seconds, seconds)
        values = (kind, *msgspec.structs.astuple(line))
        connection.execute(
            "INSERT OR REPLACE INTO speeds (kind, weight, x, y, xx, xy) VALUES (?, ?, ?, ?, ?, ?)", values
        )


def placed(connection: sqlite3.Connection, job: Job, now: int) -> Job:
    """With its place in the queue, where it waits."""
    rows = connection.execute(_BEFORE, (job.id,)).fetchall()
    if not rows:
        return job
    standing = Standing(connection.execute(HEADS).fetchall(), connection.execute(COUNTS).fetchall(), now)
    ahead = standing.ahead(*rows[0])
    return job if ahead is None else msgspec.structs.replace(job, queue_position=1 + sum(ahead.values()))


class Forecasts:
    """Places in the queue and times left, of jobs that are read."""

    def __init__(self, database: Database, *, stage_slots: int, job_slots: int) -> None:
        self._database = database
        self._stage_slots = stage_slots
        self._job_slots = job_slots

    async def of(self, jobs: Sequence[Job], now: int) -> tuple[Job, ...]:
        """The same jobs; those that are not over say when they will be, and those that wait their place."""
        if all(job.status.is_final for job in jobs):
            return tuple(jobs)
        speeds = {row[0]: Line(*row[1:]) for row in await self._database.read(_SPEEDS)}
        running = [_work(row, speeds, now) for row in await self._database.read(_RUNNING)]
        standing = None
        told = []
        for job in jobs:
            if job.status is JobStatus.PENDING:
                standing = standing or await self._standing(now)
                told.append(await self._waiting(job, standing, running, speeds, now))
            elif job.status is JobStatus.RUNNING:
                told.append(msgspec.structs.replace(job, expected_seconds=_time_of_running(job, speeds, now)))
            else:
                told.append(job)
        return tuple(told)

    async def _standing(self, now: int) -> Standing:
        return Standing(await self._database.read(HEADS), await self._database.read(COUNTS), now)

    async def _waiting(
        self, job: Job, standing: Standing, running: list[list[float] | None], speeds: Speeds, now: int
    ) -> Job:
        rows = await self._database.read(_BEFORE, (job.id,))
        if not rows:  # claimed a moment ago
            return msgspec.structs.replace(job, expected_seconds=_time_of_running(job, speeds, now))
        ahead = standing.ahead(*rows[0])
        if ahead is None:
            return job
        position = 1 + sum(ahead.values())
        seconds = await self._until_over(job, ahead, running, speeds, now)
        return msgspec.structs.replace(job, queue_position=position, expected_seconds=seconds)

    async def _until_over(
        self, job: Job, ahead: dict[str, int], running: list[list[float] | None], speeds: Speeds, now: int
    ) -> float | None:
        before: list[list[float] | None] = list(running)
        room = MOST_AHEAD
        for lane, number in ahead.items():
            looked_at = min(number, room)
            room -= looked_at
            if looked_at:
                found = [_work(row, speeds, now) for row in await self._database.read(_IN_LANE, (lane, looked_at))]
                before += found
        own = _work_of(job, speeds, now)
        if own is None or any(work is None for work in before):
            return None
        known = [work for work in before if work is not None]
        slots = {"stage_slots": self._stage_slots, "job_slots": self._job_slots}
        left_out = sum(ahead.values()) + len(running) - len(known)
        begins = seconds_until_over(known, **slots) if left_out > 0 else 0.0
        more = begins / len(known) * left_out if left_out > 0 and known else 0.0
        return seconds_until_over([*known, own], **slots) + more


_SPEEDS = "SELECT kind, weight, x, y, xx, xy FROM speeds"


def _work(row: Sequence[Any], speeds: Speeds, now: int) -> list[float] | None:
    """Seconds left of each stage; None where one cannot be told."""
    _, video_seconds, stages = row
    return _seconds([_ahead(stage, video_seconds, now) for stage in _stages.decode(stages)], speeds)


def _work_of(job: Job, speeds: Speeds, now: int) -> list[float] | None:
    video_seconds = job.video.duration_seconds
    ahead = [
        Ahead(
            pipeline=stage.pipeline,
            config=stage.config,
            video_seconds=video_seconds,
            progress=stage.progress,
            running_seconds=None if stage.started_at is None else max(0.0, now / 1000 - stage.started_at.timestamp()),
        )
        for stage in job.stages
        if stage.status in (StageStatus.PENDING, StageStatus.RUNNING)
    ]
    return _seconds(ahead, speeds)


def _time_of_running(job: Job, speeds: Speeds, now: int) -> float | None:
    left = _work_of(job, speeds, now)
    return max(left) if left else None


def _ahead(stage: _Stage, video_seconds: float, now: int) -> Ahead:
    return Ahead(
        pipeline=stage.pipeline,
        config=stage.config,
        video_seconds=video_seconds,
        progress=stage.progress,
        running_seconds=None if stage.started_at is None else max(0.0, (now - stage.started_at) / 1000),
    )


def _seconds(stages: Sequence[Ahead], speeds: Speeds) -> list[float] | None:
    left = [seconds_left(stage, speeds) for stage in stages]
    known = [seconds for seconds in left if seconds is not None]
    return known if len(known) == len(left) else None
