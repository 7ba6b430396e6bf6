"""
Faces by insightface's packages (buffalo): SCRFD detection, 5 or 106 landmarks, head pose, age, gender and a vector to
tell people apart. The packages are for non-commercial research, and were trained on pictures of adults for the most.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoannotator.annotations import BoundingBox, Face, HeadPose, Sample, Traits
from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelFiles, ModelUsed

POINTS = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner")
"""SCRFD's, in its order; right and left are those of the person."""

CONTOUR_POINTS = 106
DETECTOR_SIDE = 640
GENDERS = ("female", "male")


class InsightFaces:
    """A package, of which only those networks are loaded that are asked for."""

    libraries: tuple[str, ...] = ("insightface", "onnxruntime", "opencv-python-headless")

    def __init__(
        self,
        package: ModelFiles,
        *,
        landmarks: str,
        measures: bool,
        age_gender: bool,
        identity: bool,
        min_score: float,
        threads: int,
    ) -> None:
        import onnxruntime
        from insightface.app import FaceAnalysis

        self._landmarks = landmarks
        self._measures = measures
        wanted = {
            "detection": True,
            "landmark_2d_106": landmarks == "contour",
            "landmark_3d_68": measures,
            "genderage": age_gender,
            "recognition": identity,
        }
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        there = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
        modules = [task for task, on in wanted.items() if on]
        self._app = FaceAnalysis(
            name=str(_folder(package)), allowed_modules=modules, providers=providers, sess_options=options
        )
        if missing := sorted(set(modules) - set(self._app.models)):
            message = f"The model {package.name} has no network for {', '.join(missing)}."
            raise StageFailed(message, hint=f"Run: videoannotator models pull {package.name}", code="MODEL_DAMAGED")
        self.device = "cuda" if providers[0].startswith("CUDA") else "cpu"
        self._app.prepare(
            ctx_id=0 if self.device == "cuda" else -1, det_thresh=min_score, det_size=(DETECTOR_SIDE,) * 2
        )
        self.models: tuple[ModelUsed, ...] = (package.used,)
        self.landmark_names = _landmark_names(landmarks)

    def close(self) -> None:
        """The networks stay for the next stage."""

    def find(self, image: Any, sample: Sample, min_size: float) -> list[Face]:
        """As MediapipeFaces.find."""
        import numpy

        found = self._app.get(numpy.ascontiguousarray(image[:, :, ::-1]))
        faces = [self._face(face, sample) for face in found]
        large = [f for f in faces if min(f.bounding_box.width, f.bounding_box.height) >= min_size]
        return sorted(large, key=lambda f: -f.score)

    def _face(self, found: Any, sample: Sample) -> Face:
        left, top, right, bottom = (float(value) for value in found.bbox)
        return Face(
            sample,
            BoundingBox(left, top, right - left, bottom - top),
            min(1.0, float(found.det_score)),
            landmarks=self._points(found),
            traits=Traits(
                head_pose=_head_pose(found.pose) if self._measures else None,
                age=None if found.age is None else int(found.age),
                gender=None if found.gender is None else GENDERS[int(found.gender)],
            ),
            embedding=() if found.embedding is None else tuple(float(value) for value in found.normed_embedding),
        )

    def _points(self, found: Any) -> tuple[tuple[float, float], ...]:
        match self._landmarks:
            case "points":
                points: Sequence[Any] = found.kps
            case "contour":
                points = found.landmark_2d_106
            case _:
                return ()
        return tuple((float(point[0]), float(point[1])) for point in points)


def _folder(package: ModelFiles) -> Path:
    found = sorted(Path(package.path).rglob("det_*.onnx"))
    if not found:
        message = f"The model {package.name} holds no detector."
        raise StageFailed(message, hint=f"Run: videoannotator models pull {package.name}", code="MODEL_DAMAGED")
    return found[0].parent


def _head_pose(angles: Sequence[float]) -> HeadPose:
    """
    insightface gives pitch, yaw, roll in degrees, in the axes of its mean shape: x to the right, y down, z towards the
    camera. There a face that looks up has a positive pitch; yaw and roll have our signs.
    """
    pitch, yaw, roll = (float(angle) for angle in angles)
    return HeadPose(-pitch, yaw, roll)


def _landmark_names(landmarks: str) -> tuple[str, ...]:
    match landmarks:
        case "points":
            return POINTS
        case "contour":
            return tuple(f"contour_{n}" for n in range(CONTOUR_POINTS))
        case _:
            return ()
