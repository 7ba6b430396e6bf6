"""
People and their poses: COCO's 17 keypoints of each, and ids that stay with a person over time.

Two engines. MediaPipe's pose comes with its weights and sees one person, whoever is most prominent. RTMO, a one-stage
network on onnxruntime, sees all of them and needs its model.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from videoannotator.annotations import BoundingBox, Keypoint, Person, Sample
from videoannotator.formats.persons import KEYPOINTS, write_persons
from videoannotator.formats.table import write_person_table
from videoannotator.jobs import Interval, ModelUsed, Output, Video
from videoannotator.media.frames import Frame
from videoannotator.pipelines.build import METHOD, builds
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.looking import Find, Seen, look
from videoannotator.pipelines.mediapipe_import import without_pyplot
from videoannotator.pipelines.rtmo import Rtmo
from videoannotator.pipelines.tracks import load_tracker, tracked

OUTPUTS = (
    Output("person_tracking.json", "annotations", "application/json"),
    Output("person_tracking.csv", "table", "text/csv"),
)
FRAMES_AHEAD = 12
"""Decoded frames that wait, 1.5 MB each at the default size."""

BLAZEPOSE_OF_COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Which of MediaPipe's 33 landmarks is which of COCO's 17."""

MARGIN = 0.1
"""MediaPipe gives no box: that of the keypoints it sees, wider and higher by this share on each side."""

LEAST_KEYPOINTS = 3
"""Fewer that are seen make no person."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    model: str
    rate: float
    min_score: float
    min_keypoint_score: float
    max_gap: float
    min_track_duration: float
    max_side: int


class Finder(Protocol):
    """An engine at work."""

    libraries: tuple[str, ...]
    models: tuple[ModelUsed, ...]
    device: str

    def find(self, image: Any, sample: Sample) -> Sequence[Person]:
        """People of one RGB frame (height x width x 3), in its pixels."""

    def close(self) -> None:
        """Give back what would outlive the stage in a process that stays; nothing can be found after it."""


def prepare() -> None:
    """What every engine needs, half a second's worth; which engine it will be is not known yet."""
    load_tracker()


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    seen, finder = _look(stage, parameters)
    persons, tracks = tracked(
        seen.samples,
        seen.found,
        step_seconds=1 / min(parameters.rate, stage.video.frame_rate or parameters.rate),
        max_gap_seconds=parameters.max_gap,
        min_duration_seconds=parameters.min_track_duration,
        min_score=parameters.min_score,
    )
    of_track = builds(persons, parameters.min_keypoint_score)
    write_persons(
        stage.output_folder / "person_tracking.json",
        stage.video,
        persons,
        seen.samples,
        engine=parameters.engine,
        builds=of_track,
        build_method=METHOD,
        min_keypoint_score=parameters.min_keypoint_score,
        until_seconds=seen.until_seconds,
    )
    write_person_table(stage.output_folder / "person_tracking.csv", persons, of_track, KEYPOINTS)
    if seen.trouble:
        stage.keep_partial(OUTPUTS)
        raise seen.trouble
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(persons),
        outputs=OUTPUTS,
        engine=parameters.engine,
        libraries=(*finder.libraries, "supervision", "av", "numpy"),
        ledger=seen.ledger,
        intervals=tuple(Interval("person_track", t.onset, t.duration, f"person {t.id}", t.id) for t in tracks),
        models=finder.models,
        device=finder.device,
    )


def _look(stage: Stage, parameters: Parameters) -> tuple[Seen[Person], Finder]:
    made: list[Finder] = []

    def begin() -> Find[Person]:
        made.append(finder := _finder(stage, parameters))
        return lambda frame, sample: _in_video(finder.find(frame.image, sample), frame, stage.video)

    seen = look(
        stage,
        kind=Person,
        rate=parameters.rate,
        max_side=parameters.max_side,
        frames_ahead=FRAMES_AHEAD,
        finder=begin,
    )
    if seen.trouble is None:
        made[0].close()
    return seen, made[0]


def _finder(stage: Stage, parameters: Parameters) -> Finder:
    if parameters.engine == "mediapipe":
        return _MediapipePose(parameters)
    model = stage.model(parameters.model)
    assert model is not None, "the declaration says that the engine needs it"
    return Rtmo(model, min_score=parameters.min_score, threads=stage.threads)


class _MediapipePose:
    """MediaPipe's BlazePose (full), one person, each frame on its own: what was seen before pulls nothing along."""

    libraries: tuple[str, ...] = ("mediapipe",)
    device = "cpu"

    def __init__(self, parameters: Parameters) -> None:
        with without_pyplot():
            from mediapipe.python.solutions.pose import Pose

        self._min_keypoint_score = parameters.min_keypoint_score
        self._pose = Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=parameters.min_score)
        self.models = _bundled_models()

    def close(self) -> None:
        self._pose.close()

    def find(self, image: Any, sample: Sample) -> Sequence[Person]:
        import numpy

        landmarks = self._pose.process(numpy.ascontiguousarray(image)).pose_landmarks
        if landmarks is None:
            return ()
        height, width = image.shape[:2]
        points = [landmarks.landmark[number] for number in BLAZEPOSE_OF_COCO]
        keypoints = tuple(Keypoint(p.x * width, p.y * height, min(1.0, p.visibility)) for p in points)
        seen = [k for k in keypoints if k.score >= self._min_keypoint_score and 0 <= k.x < width and 0 <= k.y < height]
        if len(seen) < LEAST_KEYPOINTS:
            return ()
        return (Person(sample, _around(seen), sum(k.score for k in seen) / len(seen), keypoints),)


def _around(keypoints: Sequence[Keypoint]) -> BoundingBox:
    left, right = min(k.x for k in keypoints), max(k.x for k in keypoints)
    top, bottom = min(k.y for k in keypoints), max(k.y for k in keypoints)
    wider, higher = (right - left) * MARGIN, (bottom - top) * MARGIN
    return BoundingBox(left - wider, top - higher, right - left + 2 * wider, bottom - top + 2 * higher)


def _in_video(persons: Sequence[Person], frame: Frame, video: Video) -> tuple[Person, ...]:
    """In pixels of the video, boxes cut at its edges."""
    scale = video.width / frame.image.shape[1]
    return tuple(
        msgspec.structs.replace(
            person,
            bounding_box=person.bounding_box.scaled(scale, width=video.width, height=video.height),
            keypoints=tuple(Keypoint(k.x * scale, k.y * scale, k.score) for k in person.keypoints),
        )
        for person in persons
    )


def _bundled_models() -> tuple[ModelUsed, ...]:
    import mediapipe

    folder = Path(mediapipe.__file__).parent / "modules"
    files = (folder / "pose_detection/pose_detection.tflite", folder / "pose_landmark/pose_landmark_full.tflite")
    return tuple(ModelUsed(f.stem, hashlib.sha256(f.read_bytes()).hexdigest(), "Apache-2.0") for f in files)
