"""
Faces by mediapipe's detectors and its face mesh, with the weights inside its wheel.

Both detectors see a picture of 128 or 192 pixels, so a face is found only if it fills a good part of what is looked at.
Therefore the frame is looked at as a whole and again in overlapping squares: on real faces of a tenth of the frame's
width that raised the recall from 0.3 to 1.0.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from videoannotator.annotations import BoundingBox, Face, Sample, Traits
from videoannotator.jobs import ModelUsed
from videoannotator.pipelines.face_measures import head_pose, openness
from videoannotator.pipelines.mediapipe_import import without_pyplot
from videoannotator.pipelines.tracks import overlap

SAME_FACE = 0.3
"""Overlap (IoU) from which two finds in one frame are one face."""

POINTS = ("right_eye", "left_eye", "nose_tip", "mouth_center", "right_ear_tragion", "left_ear_tragion")
"""The detector's own, in its order; right and left are those of the person."""

MESH_POINTS = 478

DETECTORS = {
    "short_range": "face_detection_short_range.tflite",
    "full_range": "face_detection_full_range_sparse.tflite",
}


class Region(msgspec.Struct, frozen=True):
    """Pixels of the picture that is looked at."""

    x: int
    y: int
    width: int
    height: int


class MediapipeFaces:
    """The detector, and the face mesh where its points or what is measured on them are asked for."""

    libraries: tuple[str, ...] = ("mediapipe",)
    device = "cpu"

    def __init__(
        self,
        *,
        model: Literal["short_range", "full_range"],
        detail: str,
        landmarks: str,
        measures: bool,
        min_score: float,
    ) -> None:
        with without_pyplot():
            from mediapipe.python.solutions.face_detection import FaceDetection
            from mediapipe.python.solutions.face_mesh import FaceMesh

        self._detail, self._landmarks, self._measures, self._min_score = detail, landmarks, measures, min_score
        self._detector = FaceDetection(min_detection_confidence=min_score, model_selection=int(model == "full_range"))
        self._mesh = None
        if measures or landmarks == "mesh":
            self._mesh = FaceMesh(
                static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3
            )
        self.models = _models_used(model, mesh=self._mesh is not None)
        self.landmark_names = _landmark_names(landmarks)

    def close(self) -> None:
        self._detector.close()
        if self._mesh is not None:
            self._mesh.close()

    def find(self, image: Any, sample: Sample, min_size: float) -> list[Face]:
        """
        Faces of one RGB picture (height x width x 3), the surest first, in its pixels; none whose box is narrower or
        lower than `min_size` pixels.
        """
        height, width = image.shape[:2]
        seen = [face for region in regions(width, height, self._detail) for face in self._detect(image, region, sample)]
        large = [f for f in _distinct(seen) if min(f.bounding_box.width, f.bounding_box.height) >= min_size]
        return [self._with_mesh(image, face) for face in large] if self._mesh else large

    def _detect(self, image: Any, region: Region, sample: Sample) -> Iterator[Face]:
        for detection in self._detector.process(_crop(image, region)).detections or ():
            if (score := min(1.0, detection.score[0])) < self._min_score:
                continue
            box = detection.location_data.relative_bounding_box
            points = detection.location_data.relative_keypoints if self._landmarks == "points" else ()
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

    def _with_mesh(self, image: Any, face: Face) -> Face:
        """478 points, looked for in the face's box and half as much again; none where the network sees no face."""
        assert self._mesh is not None
        region = _around(face.bounding_box, image.shape[1], image.shape[0])
        if region.width < 2 or region.height < 2:
            return face
        meshes = self._mesh.process(_crop(image, region)).multi_face_landmarks
        if not meshes:
            return face
        points = meshes[0].landmark
        landmarks = _placed(points, region) if self._landmarks == "mesh" else face.landmarks
        if not self._measures:
            return msgspec.structs.replace(face, landmarks=landmarks)
        # z is in the unit of x: a share of the width that the network looked at
        mesh = [(p.x * region.width, p.y * region.height, p.z * region.width) for p in points]
        traits = Traits(head_pose=head_pose(mesh), openness=openness(mesh))
        return msgspec.structs.replace(face, landmarks=landmarks, traits=traits)


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


def _landmark_names(landmarks: str) -> tuple[str, ...]:
    match landmarks:
        case "points":
            return POINTS
        case "mesh":
            return tuple(f"mesh_{n}" for n in range(MESH_POINTS))
        case _:
            return ()


def _models_used(model: str, *, mesh: bool) -> tuple[ModelUsed, ...]:
    import mediapipe

    folder = Path(mediapipe.__file__).parent / "modules"
    files = [f"face_detection/{DETECTORS[model]}"]
    if mesh:
        files.append("face_landmark/face_landmark_with_attention.tflite")
    return tuple(
        ModelUsed(Path(file).stem, hashlib.sha256((folder / file).read_bytes()).hexdigest(), "Apache-2.0")
        for file in files
    )
