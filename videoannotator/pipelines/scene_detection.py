"""
Scenes: where they begin, and how.

Every frame is measured once (`scene_measures.py`), and from the measures follows everything else: hard cuts by
PySceneDetect's detectors (`scene_detectors.py`) and the structure of the picture (`scene_cuts.py`), fades and dissolves
(`scene_transitions.py`). Which time a frame has, and whether a scene is long enough, is decided here from presentation
timestamps. The measures are kept in chunks, so that an attempt that was interrupted is continued with the same result.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, count, pairwise
from statistics import median
from typing import Any, Literal, NamedTuple

import msgspec

from videoannotator.annotations import Scene, Transition
from videoannotator.formats.scenes import write_scenes
from videoannotator.formats.table import write_scene_table
from videoannotator.jobs import Interval, Ledger, Output
from videoannotator.media.frames import Conversion, Frames, Picture
from videoannotator.pipelines import scene_detectors
from videoannotator.pipelines.ahead import ahead
from videoannotator.pipelines.chunks import Chunks
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.scene_cuts import Boundary, Cuts
from videoannotator.pipelines.scene_labels import MODEL, Labels, words_of
from videoannotator.pipelines.scene_measures import Look, Measures, tiny
from videoannotator.pipelines.scene_thumbnails import Every, Thumbnail, of_scenes, picture, smaller, thumbnail
from videoannotator.pipelines.scene_transitions import Dissolves, Fades, together

OUTPUTS = (
    Output("scene_detection.json", "annotations", "application/json"),
    Output("scene_detection.csv", "table", "text/csv"),
)
FRAMES_AHEAD = 256
"""Small ones: a good 15 MB at the default size. Enough to decode on while the libraries are imported."""

PICTURES_AHEAD = 8
"""Full ones. Whoever makes them small does not keep the decoder waiting: a core less that rests, 6 % of the time."""

DECODER_THREADS = 4
"""At least: decoding is nearly all the work, and pictures wait for one another, so more threads than cores help."""

LABELLED_SIDE = 448
"""Pixels of the longer side: enough for 224 of the shorter in most videos."""

NO_RATE = 25.0
ROUNDING_SECONDS = 1e-6
"""Two timestamps that far apart are the same: a scene of exactly the least length is long enough."""


class Parameters(scene_detectors.Choice, frozen=True, kw_only=True):
    engine: str
    thumbnail_side: int
    labels: Literal["off", "clip"]
    label_words: str
    structure: bool
    fades: bool
    dissolves: bool
    fade_threshold: int
    fade_bias: float
    min_scene_length: float
    max_side: int

    @property
    def largest_thumbnail(self) -> int:
        """The longer side of the pictures that are kept; 0 for none."""
        return self.thumbnail_side if self.labels == "off" else max(LABELLED_SIDE, self.thumbnail_side)


Times = dict[int, float]
"""Timestamp by frame number, in order. Numbers of damaged frames are missing."""


def prepare() -> None:
    scene_detectors.prepare()


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    labels = _labels(stage, parameters)
    chunks = stage.chunks()
    found, times, ledger = _find(stage, parameters, chunks)
    scenes = scenes_between(found, times, parameters.min_scene_length, _end(stage, times))
    scenes = tuple(_with_thumbnails(stage, parameters, scenes, chunks, labels))
    write_scenes(stage.output_folder / "scene_detection.json", stage.video, scenes)
    write_scene_table(stage.output_folder / "scene_detection.csv", scenes)
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(scenes),
        outputs=OUTPUTS + tuple(Output(s.thumbnail, "image", "image/jpeg") for s in scenes if s.thumbnail),
        engine=parameters.engine,
        libraries=("scenedetect", "opencv-python-headless", "av", "numpy", *(labels.libraries if labels else ())),
        ledger=ledger,
        intervals=tuple(_interval(scene) for scene in scenes),
        models=(labels.used,) if labels else (),
    )


def _interval(scene: Scene) -> Interval:
    return Interval("scene", scene.start_time, scene.duration, scene.labels[0][0] if scene.labels else "")


def scenes_between(found: Sequence[Boundary], times: Times, min_length: float, end: float) -> tuple[Scene, ...]:
    """
    Scenes that tile the time from the first frame to `end`.

    A scene shorter than `min_length` seconds is merged with a neighbour: of two boundaries that are too close the one
    with the higher score stays, the earlier one of equals. A video shorter than `min_length` is one scene.
    """
    first, last = next(iter(times)), next(reversed(times))
    begins: dict[int, Boundary | None] = {first: None}
    begins |= {b.frame_number: b for b in _far_apart(found, times, min_length, end)}
    bounds = [(times[number], number) for number in sorted(begins)] + [(end, last + 1)]
    return tuple(
        Scene(start, until, number, number_until, *_begun_by(begins[number], times))
        for (start, number), (until, number_until) in pairwise(bounds)
    )


def _begun_by(boundary: Boundary | None, times: Times) -> tuple[float | None, Transition | None]:
    if boundary is None:
        return None, None
    first, end = boundary.first, boundary.end
    if boundary.kind == "cut":
        first = end = boundary.frame_number
    return boundary.score, Transition(boundary.kind, times[_on_a_frame(first, times)], times[_on_a_frame(end, times)])


def _far_apart(found: Sequence[Boundary], times: Times, min_length: float, end: float) -> list[Boundary]:
    least = max(min_length - ROUNDING_SECONDS, ROUNDING_SECONDS)
    kept: list[Boundary] = []
    taken = [next(iter(times.values())), end]
    for boundary in sorted(found, key=lambda b: (-b.score, b.frame_number)):
        at = times[boundary.frame_number]
        if all(abs(at - other) >= least for other in taken):
            kept.append(boundary)
            taken.append(at)
    return kept


class Kept(msgspec.Struct, frozen=True):
    """A stretch of the video, as far as it is needed again."""

    measures: Measures
    """Empty where nobody can go on from them."""

    thumbnails: list[Thumbnail]


class _Seen(NamedTuple):
    """A frame as it comes from the decoder's thread."""

    number: int
    timestamp: float
    image: Any
    """BGR, for the detector."""

    large: Any
    """BGR, for a thumbnail; None where none is taken of it."""


def _find(stage: Stage, parameters: Parameters, chunks: Chunks) -> tuple[list[Boundary], Times, Ledger]:
    before_last, last = _reached(chunks)
    with (
        Frames(
            stage.video_path,
            stage.video,
            threads=max(DECODER_THREADS, stage.threads),
            after=before_last,
            passing=stage.report.progress,
            sharing=stage.sharing,
        ) as frames,
        ahead(frames.pictures(), PICTURES_AHEAD) as pictures,
        ahead(_seen(pictures, stage, parameters), FRAMES_AHEAD) as coming,
    ):
        finder, times = _Finder(parameters), Times()
        for look in chain(_kept(chunks), _keeping(coming, parameters, last, chunks, stage)):
            times[look.number] = look.timestamp
            finder.take(look)
        stage.report.log("debug", f"Frames were decoded {frames.company}.")
        frames.check(stage.max_lost_frames)
    return [_with_frame(boundary, times) for boundary in finder.end()], times, frames.ledger


def _reached(chunks: Chunks) -> tuple[int, int]:
    """
    The last frames that an earlier attempt has measured: the last but one, and the last.

    The last one is needed again, because the next is compared with it.
    """
    numbers = msgspec.msgpack.decode(chunks[-1], type=Kept).measures.numbers if len(chunks) else []
    return (numbers[-2] if len(numbers) > 1 else -1), (numbers[-1] if numbers else -1)


def _kept(chunks: Chunks) -> Iterator[Look]:
    """Of earlier attempts."""
    for number in range(chunks.earlier):
        yield from msgspec.msgpack.decode(chunks[number], type=Kept).measures.looks()


def _seen(pictures: Iterator[Picture], stage: Stage, parameters: Parameters) -> Iterator[_Seen]:
    small = Conversion(stage.video, "bgr24", parameters.max_side)
    large = Conversion(stage.video, "bgr24", parameters.largest_thumbnail)
    every = Every()
    for one in pictures:
        image, taken = small(one.decoded), None
        if parameters.largest_thumbnail and every.takes(one.timestamp):
            is_same = parameters.largest_thumbnail == parameters.max_side
            taken = image if is_same else large(one.decoded)
        yield _Seen(one.number, one.timestamp, image, taken)


def _keeping(
    coming: Iterator[_Seen], parameters: Parameters, last: int, chunks: Chunks, stage: Stage
) -> Iterator[Look]:
    """Looks at the frames behind number `last`."""
    statistic = scene_detectors.statistic(parameters)
    kept = Kept(Measures(), [])
    began: float | None = None
    for seen in coming:
        value, is_told = statistic(seen.number, seen.image)
        if seen.number <= last:
            continue
        look = Look(seen.number, seen.timestamp, value, is_told, *tiny(seen.image))
        yield look
        stage.report.progress(look.timestamp)
        if stage.chunks_folder is not None:
            kept.measures.add(look)
        if seen.large is not None:
            kept.thumbnails.append(thumbnail(seen.timestamp, seen.large))
        began = seen.timestamp if began is None else began
        if seen.timestamp - began >= chunks.seconds:
            chunks.keep(msgspec.msgpack.encode(kept))
            kept, began = Kept(Measures(), []), None
    if began is not None:
        chunks.keep(msgspec.msgpack.encode(kept))


def _labels(stage: Stage, parameters: Parameters) -> Labels | None:
    if parameters.labels == "off":
        return None
    model = stage.model(MODEL)
    assert model is not None, "the declaration says that labels need it"
    return Labels(model, words_of(parameters.label_words), threads=stage.threads)


def _with_thumbnails(
    stage: Stage, parameters: Parameters, scenes: Sequence[Scene], chunks: Chunks, labels: Labels | None
) -> Iterator[Scene]:
    """The scenes with what their pictures show; the pictures are written."""
    taken = (t for chunk in chunks for t in msgspec.msgpack.decode(chunk, type=Kept).thumbnails)
    for number, (scene, found) in enumerate(zip(scenes, of_scenes(scenes, taken), strict=True), start=1):
        if found is None:
            yield scene
            continue
        words = tuple(labels.of(picture(found)).items()) if labels else ()
        name = None
        if parameters.thumbnail_side:
            name = f"scene_{number:04d}.jpg"
            (stage.output_folder / name).write_bytes(smaller(found, parameters.thumbnail_side).jpeg)
        yield msgspec.structs.replace(scene, labels=words, thumbnail=name)


class _Finder:
    """Everything that finds boundaries, each looking at the same measures."""

    def __init__(self, parameters: Parameters) -> None:
        p = parameters
        self._cuts: Cuts | None = None
        if p.detector != "threshold":
            is_whole = p.detector in ("hash", "histogram")
            detector = scene_detectors.Told() if is_whole else scene_detectors.Scores(p)
            self._cuts = Cuts(detector, threshold=p.threshold, lag=p.lag, structure=p.structure)
        self._dissolves = Dissolves() if p.dissolves and self._cuts else None
        self._fades: Fades | None = None
        if p.fades or p.detector == "threshold":
            darkness = scene_detectors.Darkness(p.fade_threshold, p.fade_bias)
            self._fades = Fades(darkness, threshold=p.fade_threshold, ramps=p.detector != "threshold")
        self._found: list[Boundary] = []

    def take(self, look: Look) -> None:
        if self._cuts:
            self._found += self._cuts.take(look)
        if self._dissolves:
            self._dissolves.take(look)
        if self._fades:
            self._found += self._fades.take(look)

    def end(self) -> list[Boundary]:
        for finder in (self._cuts, self._dissolves, self._fades):
            if finder:
                self._found += finder.end()
        return together(self._found)


def _with_frame(boundary: Boundary, times: Times) -> Boundary:
    """The middle of a fade may fall on a damaged frame: the next good one begins the scene then."""
    return msgspec.structs.replace(boundary, frame_number=_on_a_frame(boundary.frame_number, times))


def _on_a_frame(number: int, times: Times) -> int:
    """The next good one; the last where none follows."""
    last = next(reversed(times))
    return next((n for n in count(number) if n in times), last) if number <= last else last


def _end(stage: Stage, times: Times) -> float:
    """The last frame stays for as long as frames usually do, or until the file ends."""
    at = list(times.values())
    steps = [later - earlier for earlier, later in pairwise(at)]
    usual = median(steps) if steps else 1 / (stage.video.frame_rate or NO_RATE)
    return max(at[-1] + usual, stage.video.duration_seconds)
