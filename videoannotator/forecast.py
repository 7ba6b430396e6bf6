"""
When a job will be over: from how long such stages took before, and from what is ahead of it.

The seconds of a stage are told by a line over the seconds of its video, fitted to all stages of its kind that have
ended, recent ones counting more. A kind is a pipeline with just these parameters, or the pipeline alone while there is
nothing better. Then the slots are filled one stage after the other, as the worker will do.
"""

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

DECAY = 0.85
"""What each older stage counts of the one after it: the last ten make up most of the line."""

LEAST_SECONDS = 0.01


class Line(msgspec.Struct, frozen=True):
    """Weighted sums over stages: x seconds of video took y seconds."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def with_stage(self, video_seconds: float, seconds: float) -> "Line":
        return Line(
            self.weight * DECAY + 1,
            self.x * DECAY + video_seconds,
            self.y * DECAY + seconds,
            self.xx * DECAY + video_seconds * video_seconds,
            self.xy * DECAY + video_seconds * seconds,
        )

    def seconds(self, video_seconds: float) -> float:
        """
        For a video of this length. Where all videos were of nearly one length, time is taken to grow with the length.
        """
        spread = self.weight * self.xx - self.x * self.x
        if self.weight < 2 or spread < 0.01 * self.x * self.x:
            return max(LEAST_SECONDS, self.y * video_seconds / self.x if self.x > 0 else self.y / self.weight)
        slope = max(0.0, (self.weight * self.xy - self.x * self.y) / spread)
        start = max(0.0, (self.y - slope * self.x) / self.weight)
        return max(LEAST_SECONDS, start + slope * video_seconds)


Speeds = Mapping[str, Line]
"""By kind."""


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that is not over."""

    pipeline: str
    config: dict[str, Any]
    video_seconds: float
    progress: float = 0.0
    running_seconds: float | None = None
    """Since it began; None while it waits."""


def kinds(pipeline: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The exact kind, then the rough one."""
    written = msgspec.json.encode(config, order="sorted")
    return f"{pipeline} {hashlib.sha256(written).hexdigest()[:16]}", pipeline


def seconds_left(stage: Ahead, speeds: Speeds) -> float | None:
    """None where neither earlier stages nor its own progress tell."""
    line = next((speeds[kind] for kind in kinds(stage.pipeline, stage.config) if kind in speeds), None)
    expected = None if line is None else line.seconds(stage.video_seconds)
    if stage.running_seconds is None:
        return expected
    measured = None
    if stage.progress > 0:
        measured = stage.running_seconds * (1 - stage.progress) / stage.progress
    by_then = None if expected is None else max(0.0, expected - stage.running_seconds)
    if measured is None or by_then is None:
        return by_then if measured is None else measured
    # The further it is, the more its own pace says.
    return by_then * (1 - stage.progress) + measured * stage.progress


def seconds_until_over(jobs: Sequence[Sequence[float]], *, stage_slots: int, job_slots: int) -> float:
    """
    Until the last of these jobs is over, all stages of which take so many seconds. Jobs are begun in this order, so
    many at once, and their stages take slots in this order too.
    """
    slots = [0.0] * stage_slots
    held: list[float] = []
    over = 0.0
    for stages in jobs:
        begins = heapq.heappop(held) if len(held) >= job_slots else 0.0
        over = begins
        for seconds in stages:
            free = max(begins, heapq.heappop(slots))
            heapq.heappush(slots, free + seconds)
            over = max(over, free + seconds)
        heapq.heappush(held, over)
    return over
