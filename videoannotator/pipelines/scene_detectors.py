"""
PySceneDetect's detectors in two steps: what they compute of a frame, and what they conclude from it.

The conclusions are theirs, drawn by their own code from numbers that were kept. They see positions in decode order and
no times, because PySceneDetect counts seconds from the stream's own start and guesses frame numbers from the average
frame rate. Nor do they enforce a length: that is done afterwards, by presentation timestamps.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from videoannotator.pipelines.scene_measures import Look

DetectorName = Literal["adaptive", "content", "hash", "histogram", "threshold"]

NO_RATE = 25.0
"""PySceneDetect wants a frame rate with every position. With frame numbers only it computes nothing from it."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A detector and its settings."""

    detector: DetectorName
    adaptive_threshold: float
    adaptive_window: int
    adaptive_min_content: float
    content_threshold: float
    hash_threshold: float
    histogram_threshold: float

    @property
    def threshold(self) -> float:
        """What its statistic is compared with."""
        match self.detector:
            case "adaptive":
                return self.adaptive_min_content
            case "content":
                return self.content_threshold
            case "hash":
                return self.hash_threshold
            case "histogram":
                return self.histogram_threshold
            case "threshold":
                return 0.0

    @property
    def lag(self) -> int:
        """Frames it looks ahead."""
        return self.adaptive_window if self.detector == "adaptive" else 0


Statistic = Callable[[int, Any], tuple[float, bool]]
"""Of a frame's number and BGR picture, compared with the picture before; and whether a scene is told to begin there."""


def statistic(choice: Choice) -> Statistic:
    """What the first step computes; to be called with every frame in order."""
    _load()
    match choice.detector:
        case "adaptive" | "content":
            content = Content()
            return lambda _, image: (content.change(image), False)
        case "hash":
            return _Pairwise("HashDetector", choice.hash_threshold)
        case "histogram":
            return _Pairwise("HistogramDetector", choice.histogram_threshold)
        case "threshold":
            return lambda *_: (0.0, False)


class Content:
    """The numbers of `ContentDetector` with its default weights, to the last bit, in 40 % of the time."""

    def __init__(self) -> None:
        self._before: Any = None

    def change(self, image: Any) -> float:
        """
        How much the colours differ from those of the picture before, 0 for the first.

        PySceneDetect sums whole numbers too, but in wider copies, channel by channel.
        """
        import cv2

        colours = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        before, self._before = self._before, colours
        if before is None:
            return 0.0
        hue, saturation, brightness, _ = cv2.sumElems(cv2.absdiff(colours, before))
        height, width, _ = colours.shape
        pixels = float(height * width)
        return float((hue / pixels + saturation / pixels + brightness / pixels) / 3.0)


class Scores:
    """`AdaptiveDetector` or `ContentDetector`, told the numbers of frames instead of their pictures."""

    def __init__(self, choice: Choice) -> None:
        self._position = _positions()
        from scenedetect import detectors

        self._now = 0.0
        if choice.detector == "adaptive":
            self._detector: Any = detectors.AdaptiveDetector(
                choice.adaptive_threshold,
                min_scene_len=0,
                window_width=choice.adaptive_window,
                min_content_val=choice.adaptive_min_content,
            )
        else:
            self._detector = detectors.ContentDetector(choice.content_threshold, min_scene_len=0)
        self._detector._calculate_frame_score = lambda *_: self._now

    def numbers(self, look: Look) -> Sequence[int]:
        self._now = look.statistic
        return [cut.frame_num for cut in self._detector.process_frame(self._position(look.number), None)]


class Told:
    """A detector that has drawn its conclusion already, from two frames."""

    def numbers(self, look: Look) -> Sequence[int]:
        return (look.number,) if look.is_told else ()


class Darkness:
    """`ThresholdDetector`, told how bright frames are; a fade's frame is told when it is bright again."""

    def __init__(self, threshold: int, bias: float) -> None:
        self._position = _positions()
        from scenedetect import detectors

        self._detector = detectors.ThresholdDetector(threshold, min_scene_len=0, fade_bias=bias)
        self._detector.stats_manager = self
        self._now = 0.0

    def numbers(self, look: Look) -> Sequence[int]:
        self._now = look.brightness
        return [cut.frame_num for cut in self._detector.process_frame(self._position(look.number), None)]

    def metrics_exist(self, timecode: Any, names: Sequence[str]) -> bool:
        """PySceneDetect asks its StatsManager, whose place this takes, before it looks at a picture."""
        return True

    def get_metrics(self, timecode: Any, names: Sequence[str]) -> Sequence[float]:
        return (self._now,)


class _Pairwise:
    """A detector that concludes from a frame and the one before, at once."""

    def __init__(self, name: str, threshold: float) -> None:
        from scenedetect import detectors

        self._position = _positions()
        self._detector = getattr(detectors, name)(threshold, min_scene_len=0)
        self._detector.stats_manager = self
        self._now = 0.0

    def __call__(self, number: int, image: Any) -> tuple[float, bool]:
        self._now = 0.0
        found = self._detector.process_frame(self._position(number), image)
        return self._now, bool(found)

    def set_metrics(self, timecode: Any, metrics: dict[str, float]) -> None:
        """Of histograms it tells how much they have in common."""
        for name, value in metrics.items():
            self._now = float(1.0 - value if name.startswith("hist_diff") else value)


def _positions() -> Callable[[int], Any]:
    """Of frames, as PySceneDetect has them. The rate is taken from another one: to work it out takes 20 us."""
    position = _load()
    first = position(0, fps=NO_RATE)
    return lambda number: position(number, fps=first)


def _load() -> Any:
    """Import and set up what detects; PySceneDetect's class for a frame's position."""
    _leave_out_what_is_around("scenedetect")
    import cv2

    with _without("tqdm"):  # progress bars, and asyncio with them: 20 ms
        import scenedetect.detectors  # noqa: F401  (what takes the time)
    from scenedetect.common import FrameTimecode

    # The frames are small: more threads cost more than they bring, and the decoder wants the other core.
    cv2.setNumThreads(1)
    return FrameTimecode


def prepare() -> None:
    """Import what takes long."""
    _load()


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Who asks for a package that is not loaded yet is told that there is none."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


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
