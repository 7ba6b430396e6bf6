"""
Scenes, by PySceneDetect's detectors.

The detectors are fed frame by frame with our own frames. They see positions in decode order and no times, because
PySceneDetect counts seconds from the stream's own start and guesses frame numbers from the average frame rate; which
time a frame has, and whether a scene is long enough, is decided here from presentation timestamps.
"""

import importlib.util
import sys
from collections.abc import Sequence
from itertools import count, pairwise
from statistics import median
from typing import Any, Literal

import msgspec

from videoannotator.annotations import Scene
from videoannotator.formats.scenes import write_scenes
from videoannotator.formats.table import write_scene_table
from videoannotator.jobs import Interval, Ledger, Output
from videoannotator.media.frames import Frame, Frames
from videoannotator.pipelines.ahead import ahead
from videoannotator.pipelines.contract import Result, Stage

OUTPUTS = (
    Output("scene_detection.json", "annotations", "application/json"),
    Output("scene_detection.csv", "table", "text/csv"),
)
FRAMES_AHEAD = 256
"""Small ones: a good 15 MB at the default size. Enough to decode on while the libraries are imported."""

DECODER_THREADS = 4
"""At least: decoding is nearly all the work, and pictures wait for one another, so more threads than cores help."""

NO_RATE = 25.0
"""PySceneDetect wants a frame rate with every position. With frame numbers only it computes nothing from it."""

FRAMES_BACK = 64
"""More than any detector looks back to tell a cut."""

ROUNDING_SECONDS = 1e-6
"""Two timestamps that far apart are the same: a scene of exactly the least length is long enough."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    detector: Literal["adaptive", "content", "hash", "histogram", "threshold"]
    adaptive_threshold: float
    adaptive_window: int
    adaptive_min_content: float
    content_threshold: float
    hash_threshold: float
    histogram_threshold: float
    fade_threshold: float
    fade_bias: float
    min_scene_length: float
    max_side: int


class Cut(msgspec.Struct, frozen=True):
    frame_number: int
    """The first frame of the scene it begins."""

    score: float | None
    """How far the detector's statistic is beyond its threshold: 0.5 at the threshold, towards 1 with distance."""


Times = dict[int, float]
"""Timestamp by frame number, in order. Numbers of damaged frames are missing."""


def prepare() -> None:
    _load_detectors()


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    cuts, times, ledger = _find_cuts(stage, parameters)
    scenes = scenes_between(cuts, times, parameters.min_scene_length, _end(stage, times))
    write_scenes(stage.output_folder / "scene_detection.json", stage.video, scenes)
    write_scene_table(stage.output_folder / "scene_detection.csv", scenes)
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(scenes),
        outputs=OUTPUTS,
        engine=parameters.engine,
        libraries=("scenedetect", "opencv-python-headless", "av", "numpy"),
        ledger=ledger,
        intervals=tuple(Interval("scene", scene.start_time, scene.duration) for scene in scenes),
    )


def scenes_between(cuts: Sequence[Cut], times: Times, min_length: float, end: float) -> tuple[Scene, ...]:
    """
    Scenes that tile the time from the first frame to `end`.

    A scene shorter than `min_length` seconds is merged with a neighbour: of two cuts that are too close the one with
    the higher score stays, the earlier one of equals. A video shorter than `min_length` is one scene.
    """
    first, last = next(iter(times)), next(reversed(times))
    scores = {first: None} | {c.frame_number: c.score for c in _far_apart(cuts, times, min_length, end)}
    bounds = [(times[number], number) for number in sorted(scores)] + [(end, last + 1)]
    return tuple(
        Scene(start, until, number, number_until, scores[number])
        for (start, number), (until, number_until) in pairwise(bounds)
    )


def _far_apart(cuts: Sequence[Cut], times: Times, min_length: float, end: float) -> list[Cut]:
    least = max(min_length - ROUNDING_SECONDS, ROUNDING_SECONDS)
    kept: list[Cut] = []
    taken = [next(iter(times.values())), end]
    for cut in sorted(cuts, key=lambda c: (-(c.score or 0.0), c.frame_number)):
        at = times[cut.frame_number]
        if all(abs(at - other) >= least for other in taken):
            kept.append(cut)
            taken.append(at)
    return kept


def _find_cuts(stage: Stage, parameters: Parameters) -> tuple[list[Cut], Times, Ledger]:
    cuts: list[Cut] = []
    times: Times = {}
    with Frames(
        stage.video_path,
        stage.video,
        rate=None,
        pixel_format="bgr24",
        max_side=parameters.max_side,
        threads=max(DECODER_THREADS, stage.threads),
    ) as frames:
        with ahead(frames, FRAMES_AHEAD) as coming:
            cutter = _Cutter(parameters)
            for frame in coming:
                times[frame.number] = frame.timestamp
                cuts += cutter.look(frame)
                stage.report.progress(frame.timestamp)
        frames.check(stage.max_lost_frames)
    return [_on_a_frame(cut, times) for cut in cuts], times, frames.ledger


def _on_a_frame(cut: Cut, times: Times) -> Cut:
    """The middle of a fade may fall on a damaged frame: the next good one begins the scene then."""
    number = next(n for n in count(cut.frame_number) if n in times)
    return Cut(number, cut.score)


def _end(stage: Stage, times: Times) -> float:
    """The last frame stays for as long as frames usually do, or until the file ends."""
    at = list(times.values())
    steps = [later - earlier for earlier, later in pairwise(at)]
    usual = median(steps) if steps else 1 / (stage.video.frame_rate or NO_RATE)
    return max(at[-1] + usual, stage.video.duration_seconds)


class _Cutter:
    """One of PySceneDetect's detectors, asked in frame numbers. It enforces no length: that is done afterwards."""

    def __init__(self, parameters: Parameters) -> None:
        self._position = _load_detectors()
        self._detector, self._threshold = _detector(parameters)
        self._statistics = _Statistics()
        if parameters.detector in ("hash", "histogram"):
            self._detector.stats_manager = self._statistics

    def look(self, frame: Frame) -> Sequence[Cut]:
        """Cuts found now that the next frame, in order, is known; they may lie some frames back."""
        found = self._detector.process_frame(self._position(frame.number, fps=NO_RATE), frame.image)
        if (content := getattr(self._detector, "_frame_score", None)) is not None:
            self._statistics.keep(frame.number, float(content))
        return [Cut(cut.frame_num, self._score(cut.frame_num)) for cut in found]

    def _score(self, frame_number: int) -> float | None:
        statistic = self._statistics.recent.get(frame_number)
        if statistic is None:
            return None
        return statistic / (statistic + self._threshold) if statistic > 0 else 0.0


class _Statistics:
    """Takes the place of PySceneDetect's StatsManager: with the real one ContentDetector computes edges nobody uses."""

    def __init__(self) -> None:
        self.recent: dict[int, float] = {}

    def keep(self, frame_number: int, value: float) -> None:
        self.recent[frame_number] = value
        self.recent.pop(frame_number - FRAMES_BACK, None)

    def set_metrics(self, timecode: Any, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.keep(timecode.frame_num, float(1.0 - value if name.startswith("hist_diff") else value))


def _load_detectors() -> Any:
    """Import and set up what detects; PySceneDetect's class for a frame's position."""
    _leave_out_what_is_around("scenedetect")
    import cv2
    import scenedetect.detectors  # noqa: F401  (what takes the time)
    from scenedetect.common import FrameTimecode

    # The frames are small: more threads cost more than they bring, and the decoder wants the other core.
    cv2.setNumThreads(1)
    return FrameTimecode


def faster(detector: type) -> type:
    """The same detector; one that compares colours does it in 40 % of the time."""
    return type(detector.__name__, (detector,), {"_calculate_frame_score": _content_score})


def _content_score(detector: Any, _: Any, image: Any) -> float:
    """
    How much the colours differ from those of the picture before: the same number as `ContentDetector` computes, to the
    last bit. It sums whole numbers too, but in wider copies, channel by channel.
    """
    import cv2

    colours = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    before, detector._last_frame = detector._last_frame, colours
    if before is None:
        return 0.0
    *sums, _ = cv2.sumElems(cv2.absdiff(colours, before))
    height, width, _ = colours.shape
    weights = detector._weights
    weighed = 0.0
    for total, weight in zip(sums, weights, strict=False):
        weighed += total / float(height * width) * weight  # not `sum`: Python 3.12's rounds better than theirs
    return float(weighed / sum(abs(weight) for weight in weights))


def _leave_out_what_is_around(package: str) -> None:
    """
    Afterwards modules of the package can be imported, and its `__init__` is not run.

    That of PySceneDetect loads readers and writers of videos and starts the `ffmpeg` it finds, for 0.1 s.
    """
    if package in sys.modules:
        return
    if (spec := importlib.util.find_spec(package)) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(spec)


def _detector(parameters: Parameters) -> tuple[Any, float]:
    """The detector, and the threshold its statistic is compared with."""
    from scenedetect import detectors

    p = parameters
    match p.detector:
        case "adaptive":
            settings = {"window_width": p.adaptive_window, "min_content_val": p.adaptive_min_content}
            made = faster(detectors.AdaptiveDetector)(p.adaptive_threshold, min_scene_len=0, **settings)
            return made, p.adaptive_min_content
        case "content":
            return faster(detectors.ContentDetector)(p.content_threshold, min_scene_len=0), p.content_threshold
        case "hash":
            return detectors.HashDetector(p.hash_threshold, min_scene_len=0), p.hash_threshold
        case "histogram":
            return detectors.HistogramDetector(p.histogram_threshold, min_scene_len=0), p.histogram_threshold
        case "threshold":
            return detectors.ThresholdDetector(p.fade_threshold, min_scene_len=0, fade_bias=p.fade_bias), 0.0
