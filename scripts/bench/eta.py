"""
Whether the time left comes true: after ten jobs of a kind, twenty jobs of many lengths are queued at once, then five
are run one by one. What each is told when it is submitted is held against when it is over, as seen from outside.

What other programs took of the processor stands beside: stages give way to them, so that the time of a stage is theirs
to decide, and a change of it between the first ten jobs and the others is an error of the forecast.
"""

import asyncio
import logging
import random
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import structlog
from rig import Others, declare, make_clip, percentile, say

from videoannotator.jobs import NewJob, new_id
from videoannotator.settings import Settings
from videoannotator.workspace import Selection, Workspace

LENGTHS = (4, 8, 16, 30, 45)
BEFORE = 10
JOBS = 20
ALONE = 5
PIPELINES = {"our own pipelines": ("scene_detection", "face_analysis"), "stages that sleep": ("sleeps",)}
_CODE = """\
import sys
import time

sys.path.append({top!r})

from tests.misbehaving import behaves


def run(stage):
    time.sleep(stage.video.duration_seconds / 10)
    return behaves.write(stage)
"""


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="videoannotator-bench-") as name:
        for what, pipelines in PIPELINES.items():
            asyncio.run(_measure(Path(name) / pipelines[0], what, pipelines))


async def _measure(folder: Path, what: str, pipelines: tuple[str, ...]) -> None:
    folder.mkdir()  # noqa: ASYNC240
    settings = Settings(
        storage_dir=folder / "storage",
        pipeline_dirs=(_declare(folder / "pipelines"),),
        cache="off",
        browser_copy=False,
        min_free_bytes=1,
        pause_free_bytes=0,
    )
    async with Workspace.open(settings) as workspace:
        jobs = [await _admitted(workspace, folder, seconds, pipelines) for seconds in LENGTHS]
        chance, others = random.Random(1), Others()
        await _run(workspace, [_again(chance.choice(jobs)) for _ in range(BEFORE)])
        before, others = others.share(), Others()
        errors = await _run(workspace, [_again(chance.choice(jobs)) for _ in range(JOBS)])
        _say(f"{what}, {JOBS} jobs in a queue", errors, before, others.share())
        others = Others()
        errors = [e for _ in range(ALONE) for e in await _run(workspace, [_again(chance.choice(jobs))])]
        _say(f"{what}, one job alone", errors, before, others.share())


def _say(what: str, errors: list[float], before: float, meanwhile: float) -> None:
    sizes = [abs(error) for error in errors]
    median, bias = percentile(sizes, 0.5), round(percentile(errors, 0.5), 3)
    taken: dict[str, Any] = {"others_before": round(before, 2), "others_meanwhile": round(meanwhile, 2)}
    say(f"time left as told at submission, {what}, median error", median, "", asked=0.2, bias=bias, **taken)
    say(f"time left as told at submission, {what}, p90 of the error", percentile(sizes, 0.9), "")


def _declare(folder: Path) -> Path:
    form = (declare(folder, "behaves", warm=True) / "behaves.yaml").read_text()
    (folder / "sleeps.yaml").write_text(form.replace("name: behaves", "name: sleeps"))
    (folder / "sleeps.py").write_text(_CODE.format(top=str(Path(__file__).parents[2])))
    return folder


async def _admitted(workspace: Workspace, folder: Path, seconds: int, pipelines: tuple[str, ...]) -> NewJob:
    clip = make_clip(folder / f"clip-{seconds}.mp4", seconds=seconds)
    return await workspace.admit(clip, clip.name, Selection(pipelines=pipelines), owns_video=False)


async def _run(workspace: Workspace, jobs: list[NewJob]) -> list[float]:
    """Submit them one after the other; the errors, as shares of what each then took; below 0 too early."""
    last = await workspace.store.last_seq()
    told: dict[str, tuple[float, float | None]] = {}
    for job in jobs:
        await workspace.submit(job)
        told[job.id] = (time.monotonic(), (await workspace.store.get(job.id)).eta_seconds)
    errors = []
    async with aclosing(workspace.store.follow(after=last)) as events:
        async for event in events:
            assert event.type not in ("job.error", "job.cancelled"), event
            if event.type == "job.complete" and event.job_id in told:
                began, eta = told.pop(event.job_id)
                took = time.monotonic() - began
                errors.append(-1.0 if eta is None else (eta - took) / took)
                if not told:
                    return errors
    raise AssertionError("events never end")


def _again(job: NewJob) -> NewJob:
    return msgspec.structs.replace(job, id=new_id("job"))


if __name__ == "__main__":
    main()
