"""A storage directory with very many jobs that are over, made through the store's own verbs."""

import asyncio
import time
from pathlib import Path

from videoannotator.jobs import Artifact, Interval, NewJob, NewStage, Provenance, StageResult, Video, new_id
from videoannotator.store.sqlite import SqliteStore

PIPELINES = ("scene_detection", "face_analysis")
_AT_ONCE = 200


def fill(storage: Path, jobs: int) -> float:
    """Seconds it took. Three of four jobs are completed, the rest cancelled; each has two stages."""
    storage.mkdir(mode=0o700, parents=True)
    began = time.perf_counter()
    asyncio.run(_fill(storage, jobs))
    return time.perf_counter() - began


async def _fill(storage: Path, jobs: int) -> None:
    async with SqliteStore.open(storage) as store:
        for first in range(0, jobs, _AT_ONCE):
            added = await store.add(*(_job(storage, number) for number in range(first, min(first + _AT_ONCE, jobs))))
            await asyncio.gather(*(store.request_cancel(job.id) for job in added[::4]))
            await asyncio.gather(*(_work(store) for _ in range(len(added) - len(added[::4]))))


async def _work(store: SqliteStore) -> None:
    claim = await store.claim("bench")
    assert claim is not None
    for pipeline in PIPELINES:
        await store.start_stage(claim, pipeline)
        await store.finish_stage(claim, pipeline, _result(pipeline))
    await store.finish(claim)


def _job(storage: Path, number: int) -> NewJob:
    job_id, name = new_id("job"), f"session_{number:05}.mp4"
    return NewJob(
        id=job_id,
        video=Video(filename=name, size_bytes=48_210_344, container="mp4", duration_seconds=182.4, video_codec="h264"),
        video_path=storage / "videos" / job_id / "video.mp4",
        owns_video=True,
        stages=tuple(NewStage(pipeline, {"rate": 5.0, "threshold": 0.5}) for pipeline in PIPELINES),
        config={"scene_detection": {"adaptive_threshold": 3.5}},
        tags=("pilot", f"family-{number % 50}"),
    )


def _result(pipeline: str) -> StageResult:
    name, sha256 = f"{pipeline}.json", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    made = Artifact(
        name=name, pipeline=pipeline, role="annotations", media_type="application/json", size=1, sha256=sha256
    )
    return StageResult(
        annotations=3,
        artifacts=(made,),
        intervals=tuple(Interval("scene", float(number), 1.0, "scene", number) for number in range(3)),
        provenance=Provenance(pipeline_version="1.0.0", engine="bench", libraries={"numpy": "1.26.4", "av": "18.0.0"}),
        seconds=12.5,
    )
