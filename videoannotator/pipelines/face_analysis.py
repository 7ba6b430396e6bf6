"""
Faces, by mediapipe's detectors with the weights inside its wheel, and tracks of them over time.

Both networks see a picture of 128 or 192 pixels, so a face is found only if it fills a good part of what is looked at.
Therefore the frame is looked at as a whole and again in overlapping squares: on real faces of a tenth of the frame's
width that raised the recall from 0.3 to 1.0.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.formats.coco import write_faces
from videoannotator.formats.table import write_face_table
from videoannotator.jobs import Interval, Ledger, ModelUsed, Output, Video
from videoannotator.media.frames import Frame, Frames
from videoannotator.pipelines.ahead import ahead
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.mediapipe_import import without_pyplot
from videoannotator.pipelines.tracks import overlap, tracked

OUTPUTS = (
    Output("face_analysis.json", "annotations", "application/json"),
    Output("face_analysis.csv", "table", "text/csv"),
)
FRAMES_AHEAD = 12
"""Decoded frames that wait, 1.5 MB each at the default size."""

SAME_FACE = 0.3
"""Overlap (IoU) from which two finds in one frame are one face."""

LANDMARKS = ("right_eye", "left_eye", "nose_tip", "mouth_center", "right_ear_tragion", "left_ear_tragion")
"""The detector's own, in its order; right and left are those of the person."""

MESH_POINTS = 478

DETECTORS = {
    "short_range": "face_detection_short_range.tflite",
    "full_range": "face_detection_full_range_sparse.tflite",
}


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    model: Literal["short_range", "full_range"]
    detail: Literal["whole", "squares", "small_squares"]
    rate: float
    min_score: float
    min_face_size: float
    landmarks: Literal["none", "points", "mesh"]
    max_gap: float
    min_track_duration: float
    max_side: int


class Region(msgspec.Struct, frozen=True):
    """Pixels of the picture that is looked at."""

    x: int
    y: int
    width: int
    height: int


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    samples, found, ledger = _look(stage, parameters)
    faces, tracks = tracked(
        samples,
        found,
        step_seconds=1 / min(parameters.rate, stage.video.frame_rate or parameters.rate),
        max_gap_seconds=parameters.max_gap,
        min_duration_seconds=parameters.min_track_duration,
        min_score=parameters.min_score,
    )
    names = _landmark_names(parameters)
    folder = stage.output_folder
    write_faces(
        folder / "face_analysis.json", stage.video, faces, samples, engine=parameters.engine, landmark_names=names
    )
    write_face_table(folder / "face_analysis.csv", faces)
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(faces),
        outputs=OUTPUTS,
        engine=parameters.engine,
        libraries=("mediapipe", "supervision", "av", "numpy"),
        ledger=ledger,
        intervals=tuple(Interval("face_track", t.onset, t.duration, f"face {t.id}", t.id) for t in tracks),
        models=_models_used(parameters),
    )


def regions(width: int, height: int, detail: str) -> tuple[Region, ...]:
    """What is looked at: the whole picture, overlapping squares of its shorter side, and of half of that."""
    sides = {"whole": (), "squares": (1,), "small_squares": (1, 2)}[detail]
    found = [Region(0, 0, width, height)]
    for divisor in sides:
        side = max(1, min(width, height) // divisor)
        found += [Region(x, y, side, side) for y in _places(height, side) for x in _places(width, side)]
    return tuple(dict.fromkeys(found))


def _places(length: int, side: int) -> list[int]:
    """Where squares begin that cover `length` and overlap by a quarter at least."""
    steps = -(-(length - side) * 4 // (side * 3))
    return [(length - side) * n // steps for n in range(steps + 1)] if steps else [0]


def _look(stage: Stage, parameters: Parameters) -> tuple[list[Sample], dict[int, list[Face]], Ledger]:
    samples: list[Sample] = []
    found: dict[int, list[Face]] = {}
    with Frames(
        stage.video_path,
        stage.video,
        rate=parameters.rate,
        pixel_format="rgb24",
        max_side=parameters.max_side,
        threads=stage.threads,
    ) as frames:
        with ahead(frames, FRAMES_AHEAD) as coming:
            finder = _Finder(parameters, stage.video)
            for frame in coming:
                samples.append(Sample(frame.number, frame.timestamp, frame.pts))
                if faces := finder.find(frame, samples[-1]):
                    found[frame.number] = faces
                stage.report.progress(frame.timestamp)
        frames.check(stage.max_lost_frames)
    return samples, found, frames.ledger


class _Finder:
    """Mediapipe's face detector, and its face mesh where that is asked for."""

    def __init__(self, parameters: Parameters, video: Video) -> None:
        with without_pyplot():
            from mediapipe.python.solutions.face_detection import FaceDetection
            from mediapipe.python.solutions.face_mesh import FaceMesh

        self._parameters, self._video = parameters, video
        self._detector = FaceDetection(
            min_detection_confidence=parameters.min_score, model_selection=int(parameters.model == "full_range")
        )
        self._mesh = None
        if parameters.landmarks == "mesh":
            self._mesh = FaceMesh(
                static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3
            )

    def find(self, frame: Frame, sample: Sample) -> list[Face]:
        """Faces of one frame, the surest first, in pixels of the video."""
        height, width = frame.image.shape[:2]
        seen = [
            face
            for region in regions(width, height, self._parameters.detail)
            for face in self._detect(frame.image, region, sample)
        ]
        scale = self._video.width / width
        faces = []
        for face in _distinct(seen):
            if min(face.bounding_box.width, face.bounding_box.height) * scale < self._parameters.min_face_size:
                continue
            landmarks = self._mesh_of(frame.image, face) if self._mesh else face.landmarks
            faces.append(_in_video(msgspec.structs.replace(face, landmarks=landmarks), scale, self._video))
        return faces

    def _detect(self, image: Any, region: Region, sample: Sample) -> Iterator[Face]:
        for detection in self._detector.process(_crop(image, region)).detections or ():
            if (score := min(1.0, detection.score[0])) < self._parameters.min_score:
                continue
            box = detection.location_data.relative_bounding_box
            points = detection.location_data.relative_keypoints if self._parameters.landmarks == "points" else ()
            yield Face(
                sample,
                BoundingBox(
                    region.x + box.xmin * region.width,
                    region.y + box.ymin * region.height,
                    box.width * region.width,
                    box.height * region.height,
                ),
                score,
                landmarks=_placed(points, region),
            )

    def _mesh_of(self, image: Any, face: Face) -> tuple[tuple[float, float], ...]:
        """478 points of a face, looked for in its box and half as much again; none where the network sees no face."""
        assert self._mesh is not None
        region = _around(face.bounding_box, image.shape[1], image.shape[0])
        if region.width < 2 or region.height < 2:
            return ()
        meshes = self._mesh.process(_crop(image, region)).multi_face_landmarks
        return _placed(meshes[0].landmark, region) if meshes else ()


def _crop(image: Any, region: Region) -> Any:
    import numpy

    view = image[region.y : region.y + region.height, region.x : region.x + region.width]
    return numpy.ascontiguousarray(view)


def _placed(points: Sequence[Any], region: Region) -> tuple[tuple[float, float], ...]:
    return tuple((region.x + p.x * region.width, region.y + p.y * region.height) for p in points)


def _around(box: BoundingBox, width: int, height: int) -> Region:
    left, top = max(0, int(box.x - box.width / 4)), max(0, int(box.y - box.height / 4))
    right, bottom = min(width, int(box.x + box.width * 1.25)), min(height, int(box.y + box.height * 1.25))
    return Region(left, top, max(0, right - left), max(0, bottom - top))


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """One find for each face, the one with the highest score."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(overlap(face.bounding_box, other.bounding_box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _in_video(face: Face, scale: float, video: Video) -> Face:
    """In pixels of the video, the box cut at its edges."""
    box = face.bounding_box
    left, top = max(0.0, box.x * scale), max(0.0, box.y * scale)
    right = min(float(video.width), (box.x + box.width) * scale)
    bottom = min(float(video.height), (box.y + box.height) * scale)
    landmarks = tuple((x * scale, y * scale) for x, y in face.landmarks)
    return msgspec.structs.replace(
        face, bounding_box=BoundingBox(left, top, right - left, bottom - top), landmarks=landmarks
    )


def _landmark_names(parameters: Parameters) -> tuple[str, ...]:
    match parameters.landmarks:
        case "none":
            return ()
        case "points":
            return LANDMARKS
        case "mesh":
            return tuple(f"mesh_{n}" for n in range(MESH_POINTS))


def _models_used(parameters: Parameters) -> tuple[ModelUsed, ...]:
    import mediapipe

    folder = Path(mediapipe.__file__).parent / "modules"
    files = [f"face_detection/{DETECTORS[parameters.model]}"]
    if parameters.landmarks == "mesh":
        files.append("face_landmark/face_landmark_with_attention.tflite")
    return tuple(
        ModelUsed(Path(file).stem, hashlib.sha256((folder / file).read_bytes()).hexdigest(), "Apache-2.0")
        for file in files
    )
