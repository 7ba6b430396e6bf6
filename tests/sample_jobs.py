"""Jobs for tests of the store, in which nothing is ever opened, and its clock."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoannotator.jobs import (
    Artifact,
    Interval,
    NewJob,
    NewStage,
    Provenance,
    StageResult,
    Video,
    new_id,
)

PIPELINES = ("scene_detection", "face_analysis")


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def new_job(pipelines: Sequence[str] = PIPELINES, **fields: Any) -> NewJob:
    name = fields.pop("filename", "clip.mp4")
    defaults: dict[str, Any] = {
        "id": new_id("job"),
        "video": Video(filename=name, size_bytes=1000, container="mp4", duration_seconds=10.0, video_codec="h264"),
        "video_path": Path("videos") / name,
        "owns_video": True,
        "stages": tuple(NewStage(pipeline, {"rate": 5.0}) for pipeline in pipelines),
    }
    return NewJob(**(defaults | fields))


def result(pipeline: str, *, intervals: int = 2) -> StageResult:
    name = f"{pipeline}.json"
    return StageResult(
        annotations=intervals,
        artifacts=(
            Artifact(
                name=name,
                pipeline=pipeline,
                role="annotations",
                media_type="application/json",
                size=10,
                sha256="0" * 64,
            ),
        ),
        intervals=tuple(
            Interval("scene", float(number), 1.0, "scene", number) for number in reversed(range(intervals))
        ),
        provenance=Provenance(pipeline_version="1.0.0", engine="test", libraries={"numpy": "1.26.4"}),
        seconds=1.5,
    )
