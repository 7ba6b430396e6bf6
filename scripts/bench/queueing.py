"""
How fast the queue is: jobs that do nothing through the store alone, through a whole engine with a process for each
stage, and how soon an idle worker picks one up; once with an empty database, once with a million finished jobs in it.

The million are put in by SQL, in 20 to 70 s; `--finished 100000` makes do with fewer, and `--finished 0` leaves the
second half out. Rates through the store are also given by the processor's time, which depends less on what else the
machine does; beside the pick-up stands what this disk takes for one fdatasync, of which a pick-up waits for one.
Called `queue.py` this file would take the place of Python's own module of that name in all scripts beside it.
"""

import argparse
import asyncio
import json
import logging
import os
import sqlite3
import tempfile
import time
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import msgspec
import structlog
from rig import declare, make_clip, percentile, say

from tests.sample_jobs import new_job, result
from videoannotator.jobs import NewJob, NewStage, Video, new_id
from videoannotator.settings import Settings
from videoannotator.store.sqlite import SqliteStore
from videoannotator.workspace import Selection, Workspace

FINISHED = 1_000_000
JOBS = 4000
HANDS = 64
STAGE_JOBS = 120
PICKED_UP = 60


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=FINISHED)
    finished = parser.parse_args().finished
    with tempfile.TemporaryDirectory(prefix="videoannotator-bench-") as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", seconds=1)
        empty = asyncio.run(_figures(folder / "empty", folder, clip, "empty database"))
        if finished == 0:
            return
        full = folder / "full"
        asyncio.run(_make(full))
        began = time.perf_counter()
        _fill(full, finished)
        say(f"{finished} finished jobs put in", time.perf_counter() - began, "s")
        loaded = asyncio.run(_figures(full, folder, clip, f"{finished} finished jobs"))
        for figure in empty:
            ratio = loaded[figure] / empty[figure] if figure == "pick-up" else empty[figure] / loaded[figure]
            say(f"{figure}: times worse with {finished} finished jobs", ratio, "x", asked=2)


async def _figures(storage: Path, folder: Path, clip: Path, what: str) -> dict[str, float]:
    rate, cpu_rate = await _through_the_store(storage)
    say(f"no-op jobs through the store, {what}", rate, "jobs/s", asked=2000, at_least=True, per_cpu_second=cpu_rate)
    rates = {}
    for kind, warm_seconds in (("a new process", 0.0), ("a warm process", 60.0)):
        settings = Settings(
            storage_dir=storage,
            pipeline_dirs=(declare(folder / "pipelines", "behaves", warm=True),),
            warm_seconds=warm_seconds,
            cache="off",
            browser_copy=False,
            min_free_bytes=1,
            pause_free_bytes=0,
            max_concurrent_jobs=8,
        )
        async with Workspace.open(settings) as workspace:
            job = await workspace.admit(clip, clip.name, Selection(pipelines=("behaves",)), owns_video=False)
            rates[kind] = await _through_processes(workspace, job)
            say(f"jobs with a stage in {kind}, {what}", rates[kind], "jobs/s", asked=25, at_least=True)
            picked_up = [await _pick_up(workspace, job) for _ in range(PICKED_UP)]
    p95 = percentile(picked_up, 0.95) * 1e3
    synced = _seconds_of_sync(storage)
    more: dict[str, Any] = {
        "p50": round(percentile(picked_up, 0.5) * 1e3, 1),
        "fdatasync_p50": round(percentile(synced, 0.5) * 1e3, 1),
        "fdatasync_p95": round(percentile(synced, 0.95) * 1e3, 1),
    }
    say(f"pick-up of a job by an idle worker, p95, {what}", p95, "ms", asked=10, **more)
    return {"no-op jobs": rate, "jobs with a process": rates["a new process"], "pick-up": p95}


def _seconds_of_sync(storage: Path) -> list[float]:
    seconds = []
    with (storage / "synced").open("wb", buffering=0) as file:
        for _ in range(PICKED_UP):
            file.write(b"x" * 8192)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return seconds


async def _through_the_store(storage: Path) -> tuple[float, float]:
    """Enqueued, claimed, and over; many hands, as many requests and jobs would be at work. Jobs/s, by clock and CPU."""
    async with SqliteStore.open(storage) as store:
        left = iter(range(JOBS))

        async def hand() -> None:
            for _ in left:
                await store.add(new_job(()))
                claim = await store.claim("bench")
                assert claim is not None
                await store.finish(claim)

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(hand() for _ in range(HANDS)))
        return JOBS / (time.perf_counter() - began), round(JOBS / (time.process_time() - cpu))


async def _through_processes(workspace: Workspace, job: NewJob) -> float:
    last = await workspace.store.last_seq()
    began = time.perf_counter()
    await workspace.submit(*(_again(job) for _ in range(STAGE_JOBS)))
    over = 0
    async with aclosing(workspace.store.follow(after=last)) as events:
        async for event in events:
            assert event.type not in ("job.error", "job.cancelled"), event
            over += event.type == "job.complete"
            if over == STAGE_JOBS:
                return STAGE_JOBS / (time.perf_counter() - began)
    raise AssertionError("events never end")


async def _pick_up(workspace: Workspace, job: NewJob) -> float:
    """From the acknowledgement to `running`, of a job that finds the worker idle."""
    last = await workspace.store.last_seq()
    events = workspace.store.follow(after=last)
    async with aclosing(events):
        (added,) = await workspace.submit(_again(job))
        began = time.perf_counter()
        seconds = 0.0
        async for event in events:
            if event.job_id == added.id and event.data.get("status") == "running" and not seconds:
                seconds = time.perf_counter() - began
            if event.type == "job.complete":
                return seconds
    raise AssertionError("events never end")


def _again(job: NewJob) -> NewJob:
    return msgspec.structs.replace(job, id=new_id("job"))


async def _make(storage: Path) -> None:
    async with SqliteStore.open(storage):
        pass


def _fill(storage: Path, finished: int) -> None:
    """Finished jobs with one stage and three events each, as many as a lab makes in years."""
    video = msgspec.json.encode(
        Video(filename="clip.mp4", size_bytes=1000, container="mp4", duration_seconds=10.0, video_codec="h264")
    ).decode()
    stage, made = NewStage("scene_detection", {"rate": 5.0}), result("scene_detection").provenance
    numbers = f"WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {finished})"
    with closing(sqlite3.connect(storage / "videoannotator.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute(
            f"""{numbers} INSERT INTO jobs (id, status, priority, filename, video, video_path, owns_video, config,
                tags, created_at, attempts, lease_token, started_at, finished_at, outcome)
            SELECT printf('job_%026d', n), 'completed', 0, 'clip.mp4',
                json_set(?, '$.size_bytes', n, '$.sha256', printf('%064x', n)), 'clip.mp4', 0, '{{}}', '[]', n, 1, 1, n,
                n, 'full' FROM n""",
            (video,),
        )
        connection.execute(
            """INSERT INTO stages (job, pipeline, position, config, status, progress, started_at, finished_at,
                seconds, annotations, provenance, attempts)
            SELECT seq, ?, 0, ?, 'completed', 1, 1, 1, 1.0, 1, ?, 1 FROM jobs""",
            (stage.pipeline, json.dumps(stage.config), msgspec.json.encode(made).decode()),
        )
        connection.execute(
            """INSERT INTO events (type, job_id, at, data)
            SELECT kind.column1, id, created_at, '{}' FROM jobs, (VALUES ('job.update'), ('job.complete')) AS kind"""
        )
        connection.execute("COMMIT")


if __name__ == "__main__":
    main()
