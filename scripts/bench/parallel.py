"""
How well stages run side by side: a job with four stages against its longest stage, and twenty jobs against the slots
they have. The stages sleep, so that it is the engine that is measured and not the cores of the machine.
"""

import asyncio
import logging
import random
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import msgspec
import structlog
from rig import declare, make_clip, percentile, say

from videoannotator.jobs import Job, NewJob, NewStage, new_id
from videoannotator.settings import Settings
from videoannotator.workspace import Selection, Workspace

NAMES = ("one", "two", "three", "four")
SLOTS = 4
SECONDS = 3.0
ROUNDS = 5
JOBS = 20


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="videoannotator-bench-") as name:
        asyncio.run(_measure(Path(name)))


async def _measure(folder: Path) -> None:
    clip = make_clip(folder / "clip.mp4", seconds=1)
    settings = Settings(
        storage_dir=folder / "storage",
        pipeline_dirs=(_declare(folder / "pipelines"),),
        max_concurrent_stages=SLOTS,
        cache="off",
        browser_copy=False,
        min_free_bytes=1,
        pause_free_bytes=0,
    )
    async with Workspace.open(settings) as workspace:
        job = await workspace.admit(clip, clip.name, Selection(pipelines=NAMES), owns_video=False)
        ratios = [await _side_by_side(workspace, job) for _ in range(ROUNDS)]
        say("a job with four stages, against its longest stage, p50", percentile(ratios, 0.5), "x", asked=1.15)
        busy, begun_again = await _busy(workspace, job)
        say(f"{JOBS} jobs: share of the time in which a slot is taken", busy, "", asked=0.9, at_least=True)
        say("from the end of a stage to the next one in its slot, p50", begun_again * 1e3, "ms")


_CODE = """\
import sys

sys.path.append({top!r})

from tests.misbehaving import behaves
from videoannotator.jobs import Output


def run(stage):
    behaves.run(stage)
    (stage.output_folder / "out.json").rename(stage.output_folder / "{name}.json")
    return behaves.result(outputs=(Output("{name}.json", "annotations", "application/json"),))
"""


def _declare(folder: Path) -> Path:
    """One pipeline under four names."""
    form = (declare(folder, "behaves", warm=True) / "behaves.yaml").read_text()
    for name in NAMES:
        (folder / f"{name}.py").write_text(_CODE.format(top=str(Path(__file__).parents[2]), name=name))
        (folder / f"{name}.yaml").write_text(
            form.replace("name: behaves", f"name: {name}").replace("out.json", f"{name}.json")
        )
    return folder


async def _side_by_side(workspace: Workspace, job: NewJob) -> float:
    """From the submission to the end, over the longest stage's own work."""
    began = time.perf_counter()
    await _run(workspace, [_with_seconds(job, [SECONDS, SECONDS / 2, SECONDS / 3, SECONDS / 4])])
    return (time.perf_counter() - began) / SECONDS


async def _busy(workspace: Workspace, job: NewJob) -> tuple[float, float]:
    """Share of slot time between a stage's row saying `running` and its end, while there is work for all slots."""
    chance = random.Random(1)
    jobs = [_with_seconds(job, [chance.uniform(0.3, 1.2) for _ in NAMES]) for _ in range(JOBS)]
    over = await _run(workspace, jobs)
    spans = sorted(
        (stage.started_at.timestamp(), stage.finished_at.timestamp())
        for one in over
        for stage in one.stages
        if stage.started_at and stage.finished_at
    )
    begin, end = spans[0][0], spans[-SLOTS][1]
    taken = sum(max(0.0, min(until, end) - since) for since, until in spans)
    ends = sorted(until for _, until in spans)
    gaps = [since - before for (since, _), before in zip(spans[SLOTS:], ends, strict=False)]
    return taken / (SLOTS * (end - begin)), percentile(gaps, 0.5)


async def _run(workspace: Workspace, jobs: list[NewJob]) -> list[Job]:
    last = await workspace.store.last_seq()
    await workspace.submit(*jobs)
    left = {job.id for job in jobs}
    async with aclosing(workspace.store.follow(after=last)) as events:
        async for event in events:
            assert event.type not in ("job.error", "job.cancelled"), event
            if event.type == "job.complete":
                left.discard(event.job_id or "")
            if not left:
                break
    return [await workspace.store.get(job.id) for job in jobs]


def _with_seconds(job: NewJob, seconds: list[float]) -> NewJob:
    stages = tuple(
        NewStage(stage.pipeline, stage.config | {"steps": 10, "step_seconds": length / 10})
        for stage, length in zip(job.stages, seconds, strict=True)
    )
    return msgspec.structs.replace(job, id=new_id("job"), stages=stages)


if __name__ == "__main__":
    main()
