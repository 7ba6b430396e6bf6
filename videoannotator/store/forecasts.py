"""What the forecast of a job needs: how fast its kinds of stages were, and what is ahead of it."""

import asyncio
import math
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from videoannotator.forecast import Ahead, Left, Line, Ran, Speeds, kinds, learn, left_of, seconds_until_over
from videoannotator.jobs import Job, JobStatus, StageStatus
from videoannotator.store.database import Database
from videoannotator.store.lanes import COUNTS, HEADS, KEPT_COUNTS, Standing
from videoannotator.store.rows import milliseconds

MOST_AHEAD = 400
"""Jobs ahead that are looked at one by one; if there are more, the others are taken to be like these."""

LATE_JOBS = 40
"""Ended jobs whose stages tell how fast things go now."""

LEARN_SECONDS = 1.0

_SPEEDS = "SELECT kind, weight, x, y, xx, xy FROM speeds"
_RAN = """
SELECT s.pipeline, s.config, coalesce(json_extract(j.video, '$.duration_seconds'), 0), s.started_at,
    coalesce(s.finished_at, :now), iif(s.status = 'completed', s.seconds, NULL)
FROM stages AS s JOIN jobs AS j ON j.seq = s.job
WHERE s.job IN (
    SELECT seq FROM (SELECT seq FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT :jobs)
    UNION ALL SELECT seq FROM jobs WHERE lease_until IS NOT NULL
) AND s.started_at IS NOT NULL AND NOT s.cached
ORDER BY coalesce(s.finished_at, :now)"""

_WORK = """
SELECT id, coalesce(json_extract(video, '$.duration_seconds'), 0), (
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
    lane, before = rows[0]
    return _placed(connection, job, lane, before, now=now)


def placed_last(connection: sqlite3.Connection, job: Job, now: int) -> Job:
    """The same for a job that was queued just now, behind all others of its lane: as fast as if it were alone."""
    counts = dict(connection.execute(KEPT_COUNTS).fetchall())
    if len(counts) == 1 and job.batch_id is None:  # nobody to take turns with
        return msgspec.structs.replace(job, queue_position=sum(counts.values()))
    ((lane,),) = connection.execute("SELECT lane FROM jobs WHERE id = ?", (job.id,)).fetchall()
    return _placed(connection, job, lane, counts[lane] - 1, now=now)


def _placed(connection: sqlite3.Connection, job: Job, lane: str, before: int, *, now: int) -> Job:
    """`before`: how many of its lane are in front of it."""
    standing = Standing(connection.execute(HEADS).fetchall(), connection.execute(KEPT_COUNTS).fetchall(), now)
    ahead = standing.ahead(lane, before)
    return job if ahead is None else msgspec.structs.replace(job, queue_position=1 + sum(ahead.values()))


Running = Mapping[str, list[Left] | None]
"""What is left of each stage of the jobs that are worked on, in the order in which they were begun."""


class Forecasts:
    """Places in the queue and times left, of jobs that are read."""

    def __init__(self, database: Database, *, stage_slots: int, job_slots: int) -> None:
        self._database = database
        self._slots = {"stage_slots": stage_slots, "job_slots": job_slots}
        self._speeds: Speeds | None = None
        self._learned_at = -math.inf

    async def of(self, jobs: Sequence[Job], now: int) -> tuple[Job, ...]:
        """The same jobs; those that are not over say when they will be, and those that wait their place."""
        if all(job.status.is_final for job in jobs):
            return tuple(jobs)
        speeds = await self._speeds_now(now)
        rows = await self._database.read(_RUNNING)
        view = _View(speeds, now, _others(rows))
        before = {row[0]: view.of_row(row) for row in rows}
        standing = None
        told = []
        for job in jobs:
            if job.status is JobStatus.PENDING:
                standing = standing or await self._standing(now)
                told.append(await self._waiting(job, standing, before, view))
            elif job.status is JobStatus.RUNNING:
                told.append(msgspec.structs.replace(job, expected_seconds=self._of_running(job, before, view)))
            else:
                told.append(job)
        return tuple(told)

    async def _speeds_now(self, now: int) -> Speeds:
        """At most LEARN_SECONDS old."""
        if self._speeds is None or time.monotonic() - self._learned_at > LEARN_SECONDS:
            early = {row[0]: Line(*row[1:]) for row in await self._database.read(_SPEEDS)}
            rows = await self._database.read(_RAN, {"now": now, "jobs": LATE_JOBS})
            self._speeds = await asyncio.to_thread(learn, [_ran(row) for row in rows], early)
            self._learned_at = time.monotonic()
        return self._speeds

    async def _standing(self, now: int) -> Standing:
        return Standing(await self._database.read(HEADS), await self._database.read(COUNTS), now)

    def _of_running(self, job: Job, running: Running, view: "_View") -> float | None:
        """Who was begun before it asked for slots before it; who was begun later may have one all the same."""
        own = view.of_job(job)
        if own is None:
            return None
        ids = list(running)
        place = ids.index(job.id) if job.id in running else len(ids)
        earlier = [running[other] or () for other in ids[:place]]
        later = [[left for left in running[other] or () if left.runs] for other in ids[place + 1 :]]
        return self._until([*earlier, *later, own], view)

    async def _waiting(self, job: Job, standing: Standing, running: Running, view: "_View") -> Job:
        rows = await self._database.read(_BEFORE, (job.id,))
        if not rows:  # claimed a moment ago
            return msgspec.structs.replace(job, expected_seconds=self._of_running(job, running, view))
        ahead = standing.ahead(*rows[0])
        if ahead is None:
            return job
        position = 1 + sum(ahead.values())
        seconds = await self._until_over(job, ahead, running, view)
        return msgspec.structs.replace(job, queue_position=position, expected_seconds=seconds)

    async def _until_over(self, job: Job, ahead: dict[str, int], running: Running, view: "_View") -> float | None:
        before = list(running.values())
        room = MOST_AHEAD
        for lane, number in ahead.items():
            looked_at = min(number, room)
            room -= looked_at
            if looked_at:
                before += await self._first_in(lane, looked_at, view)
        own = view.of_job(job)
        if own is None or any(work is None for work in before):
            return None
        known = [work for work in before if work is not None]
        left_out = sum(ahead.values()) + len(running) - len(known)
        begins = self._until(known, view) if left_out > 0 else 0.0
        more = begins / len(known) * left_out if left_out > 0 and known else 0.0
        return self._until([*known, own], view) + more

    async def _first_in(self, lane: str, number: int, view: "_View") -> list[list[Left] | None]:
        """Of a page of jobs that wait in one lane, the one that is asked about first has most of the others ahead."""
        known = view.lanes.get(lane, [])
        if len(known) < number:
            known = [view.of_row(row) for row in await self._database.read(_IN_LANE, (lane, number))]
            view.lanes[lane] = known
        return known[:number]

    def _until(self, jobs: Sequence[Sequence[Left]], view: "_View") -> float:
        return seconds_until_over(jobs, **self._slots, drag=view.speeds.drag)


class _View(msgspec.Struct, frozen=True):
    """What is known at one moment."""

    speeds: Speeds
    now: int
    others: int
    """Stages at work beside any one that is."""

    lanes: dict[str, list[list[Left] | None]] = {}
    """What is left of the first jobs of a lane, as far as somebody wanted to know."""

    def of_row(self, row: Sequence[Any]) -> list[Left] | None:
        """What is left of each stage of a job; None where that cannot be told of one."""
        _, video_seconds, stages = row
        return self._of(
            Ahead(
                pipeline=stage.pipeline,
                config=stage.config,
                video_seconds=video_seconds,
                progress=stage.progress,
                running_seconds=self._since(stage.started_at),
            )
            for stage in _stages.decode(stages)
        )

    def of_job(self, job: Job) -> list[Left] | None:
        return self._of(
            Ahead(
                pipeline=stage.pipeline,
                config=stage.config,
                video_seconds=job.video.duration_seconds,
                progress=stage.progress,
                running_seconds=self._since(None if stage.started_at is None else milliseconds(stage.started_at)),
            )
            for stage in job.stages
            if stage.status in (StageStatus.PENDING, StageStatus.RUNNING)
        )

    def _of(self, ahead: Iterable[Ahead]) -> list[Left] | None:
        left = [left_of(stage, self.speeds, self.others) for stage in ahead]
        known = [one for one in left if one is not None]
        return known if len(known) == len(left) else None

    def _since(self, started_at: int | None) -> float | None:
        return None if started_at is None else max(0.0, (self.now - started_at) / 1000)


def _others(rows: Sequence[Sequence[Any]]) -> int:
    at_work = sum(stage.started_at is not None for row in rows for stage in _stages.decode(row[2]))
    return max(0, at_work - 1)


def _ran(row: Sequence[Any]) -> Ran:
    pipeline, config, video_seconds, began, ended, seconds = row
    return Ran(
        pipeline=pipeline,
        config=msgspec.json.decode(config),
        video_seconds=video_seconds,
        began=began / 1000,
        ended=ended / 1000,
        seconds=seconds,
    )
