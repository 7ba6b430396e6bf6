"""
When a job will be over: from how long such stages took before, and from what is ahead of it.

The seconds of a stage are told by a line over the seconds of its video. A kind is a pipeline with just these
parameters, or the pipeline alone while there is nothing better. The line goes through the middle of the last stages of
its kind, so that one that began cold or ran into a backup does not bend it; at the same time it is learned how much
stages slow each other down. For kinds that have not run for long there is a line over all of them, which the database
keeps. Then the slots are filled with what is ahead, as the worker will do.
"""

import hashlib
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import msgspec

DECAY = 0.85
"""What each older stage counts of the one after it, in the line that the database keeps."""

LATEST = 16
"""Stages of a kind that the line of late goes through."""

LEAST_SECONDS = 0.01

_DRAGS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
_DOUBT = 0.01
"""A drag must explain the stages so much better than none: this times the drag."""

_ENOUGH_FOR_DRAG = 6
_SAME_LENGTH = 1.15


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


class Middle(msgspec.Struct, frozen=True):
    """A line that half of the stages lie above."""

    start: float
    slope: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> "Middle":
        """
        Of seconds of video and of work: the estimator of Theil and Sen, https://doi.org/10.1080/01621459.1968.10480934,
        pairs counting as much as they lie apart. Nothing takes less time for a longer video, or less than none.
        """
        lengths = [length for length, _ in points]
        if max(lengths) < _SAME_LENGTH * min(lengths) or min(lengths) == max(lengths):
            return cls.in_proportion(points)
        slope = max(0.0, _middle_slope(points))
        start = median(seconds - slope * length for length, seconds in points)
        return cls(start, slope) if start >= 0 else cls.in_proportion(points)

    @classmethod
    def in_proportion(cls, points: Sequence[tuple[float, float]]) -> "Middle":
        if min(length for length, _ in points) <= 0:
            return cls(median(seconds for _, seconds in points), 0.0)
        return cls(0.0, median(seconds / length for length, seconds in points))

    def seconds(self, video_seconds: float) -> float:
        return max(LEAST_SECONDS, self.start + self.slope * video_seconds)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that has a slot, or had one."""

    pipeline: str
    config: Mapping[str, Any]
    video_seconds: float
    began: float
    ended: float
    """Seconds since the epoch; now, where it still runs."""

    seconds: float | None = None
    """Of its work, where it is over and went well: then it tells of its kind."""


class Speeds(msgspec.Struct, frozen=True):
    """How long stages take alone, and what it costs them to have others beside them."""

    late: Mapping[str, Middle] = {}
    early: Mapping[str, Line] = {}
    drag: float = 0.0
    """With n others at work a stage takes 1 + n * drag times as long."""

    def seconds(self, pipeline: str, config: Mapping[str, Any], video_seconds: float) -> float | None:
        """Of its work, alone; None where nothing like it was seen."""
        for kind in kinds(pipeline, config):
            line = self.late.get(kind) or self.early.get(kind)
            if line is not None:
                return line.seconds(video_seconds)
        return None


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that is not over."""

    pipeline: str
    config: Mapping[str, Any]
    video_seconds: float
    progress: float = 0.0
    running_seconds: float | None = None
    """Since it began; None while it waits."""


class Left(msgspec.Struct, frozen=True):
    """Of a stage that is not over."""

    seconds: float
    """Of work, if it were alone."""

    runs: bool = False


def kinds(pipeline: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The exact kind, then the rough one."""
    written = msgspec.json.encode(config, order="sorted")
    return f"{pipeline} {hashlib.sha256(written).hexdigest()[:16]}", pipeline


def learn(ran: Sequence[Ran], early: Mapping[str, Line]) -> Speeds:
    """From stages that ran of late, the latest last, and from the lines that were kept."""
    exact: dict[str, list[Ran]] = {}
    rough: dict[str, list[Ran]] = {}
    for one in ran:
        if one.seconds is not None:
            for stages, kind in zip((exact, rough), kinds(one.pipeline, one.config), strict=True):
                stages.setdefault(kind, []).append(one)
    points = {
        kind: [_Point(one.video_seconds, one.seconds or 0.0, _beside(one, ran)) for one in stages[-LATEST:]]
        for kind, stages in (rough | exact).items()
    }
    drag = _drag([points[kind] for kind in exact])
    return Speeds({kind: _alone(told, drag) for kind, told in points.items()}, early, drag)


def left_of(stage: Ahead, speeds: Speeds, others: int = 0) -> Left | None:
    """With so many others at work now. None where neither earlier stages nor its own progress tell."""
    expected = speeds.seconds(stage.pipeline, stage.config, stage.video_seconds)
    if stage.running_seconds is None:
        return None if expected is None else Left(expected)
    passed = stage.running_seconds / (1 + speeds.drag * others)
    by_then = None if expected is None else max(0.0, expected - passed)
    if stage.progress <= 0:
        return None if by_then is None else Left(by_then, runs=True)
    measured = passed * (1 - stage.progress) / stage.progress
    if by_then is None:
        return Left(measured, runs=True)
    # The further it is, the more its own pace says.
    return Left(by_then * (1 - stage.progress) + measured * stage.progress, runs=True)


def seconds_until_over(jobs: Sequence[Sequence[Left]], *, stage_slots: int, job_slots: int, drag: float = 0.0) -> float:
    """
    Until the last of these jobs is over. Jobs are begun in this order, so many at once; stages that run have their
    slots, the others take slots in this order too.
    """
    slots: list[tuple[float, int]] = []  # how much work each stage at work has done when one of them ends; whose it is
    waiting: deque[tuple[float, int]] = deque()
    open_stages, last = [len(stages) for stages in jobs], len(jobs) - 1
    passed, work, begun, held = 0.0, 0.0, 0, 0
    while True:
        while begun <= last and (held < job_slots or any(left.runs for left in jobs[begun])):
            for left in jobs[begun]:
                if left.runs:
                    heapq.heappush(slots, (work + left.seconds, begun))
                else:
                    waiting.append((left.seconds, begun))
            held += bool(jobs[begun])
            begun += 1
        while waiting and len(slots) < stage_slots:
            seconds, job = waiting.popleft()
            heapq.heappush(slots, (work + seconds, job))
        if not slots or (begun > last and not open_stages[last]):
            return passed
        at_work = len(slots)
        ends, job = heapq.heappop(slots)
        passed += (ends - work) * (1 + drag * (at_work - 1))
        work = ends
        open_stages[job] -= 1
        held -= not open_stages[job]


class _Point(NamedTuple):
    video_seconds: float
    seconds: float
    beside: float
    """Others at work meanwhile, on average."""


def _middle_slope(points: Sequence[tuple[float, float]]) -> float:
    slopes = sorted(
        ((later[1] - earlier[1]) / (later[0] - earlier[0]), abs(later[0] - earlier[0]))
        for place, later in enumerate(points)
        for earlier in points[:place]
        if later[0] != earlier[0]
    )
    half = sum(weight for _, weight in slopes) / 2
    for slope, weight in slopes:
        half -= weight
        if half <= 0:
            return slope
    return slopes[-1][0]


def _beside(one: Ran, ran: Sequence[Ran]) -> float:
    """How many others were at work during it, on average."""
    length = one.ended - one.began
    if length <= 0:
        return 0.0
    shared = sum(max(0.0, min(one.ended, other.ended) - max(one.began, other.began)) for other in ran)
    return max(0.0, shared / length - 1)


def _drag(told: Sequence[Sequence[_Point]]) -> float:
    """The one that leaves the least unexplained; none where the stages do not tell. They are given by kind."""
    if sum(map(len, told)) < _ENOUGH_FOR_DRAG:
        return 0.0

    def unexplained(drag: float) -> float:
        misses = []
        for points in told:
            line = _alone(points, drag)
            for point in points:
                expected = line.seconds(point.video_seconds) * (1 + drag * point.beside)
                misses.append(abs(point.seconds - expected) / max(point.seconds, expected))
        return sum(misses) / len(misses) + _DOUBT * drag

    return min(_DRAGS, key=unexplained)


def _alone(points: Sequence[_Point], drag: float) -> Middle:
    return Middle.through([(point.video_seconds, point.seconds / (1 + drag * point.beside)) for point in points])
