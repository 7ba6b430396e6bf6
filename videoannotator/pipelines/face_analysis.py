"""
Faces: where they are, which is which over time, and what they look like, as far as an engine can tell.

Two engines. MediaPipe comes with its weights; insightface needs a package for non-commercial research, and also gives
age, gender and who is who. Expressions are named by a network of their own, behind either of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import msgspec

from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.formats.coco import write_faces
from videoannotator.formats.table import write_face_table
from videoannotator.jobs import Interval, ModelFiles, ModelUsed, Output
from videoannotator.media.frames import Frame
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.emotions import Emotions
from videoannotator.pipelines.faces_insightface import InsightFaces
from videoannotator.pipelines.faces_mediapipe import MediapipeFaces
from videoannotator.pipelines.identities import with_identities
from videoannotator.pipelines.looking import Chunk, Find, Seen, look
from videoannotator.pipelines.tracks import tracked

OUTPUTS = (
    Output("face_analysis.json", "annotations", "application/json"),
    Output("face_analysis.csv", "table", "text/csv"),
)
FRAMES_AHEAD = 12
"""Decoded frames that wait, 1.5 MB each at the default size."""

EMOTIONS = "hsemotion-enet-b0"


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: Literal["mediapipe", "insightface"]
    model: Literal["short_range", "full_range"]
    package: str
    detail: Literal["whole", "squares", "small_squares"]
    rate: float
    min_score: float
    min_face_size: float
    landmarks: Literal["none", "points", "mesh", "contour"]
    head_pose: bool
    age_gender: bool
    emotion: bool
    identity: bool
    same_person: float
    min_trait_size: float
    min_trait_score: float
    max_gap: float
    min_track_duration: float
    max_side: int


class Finder(Protocol):
    """An engine at work."""

    libraries: tuple[str, ...]
    models: tuple[ModelUsed, ...]
    device: str
    landmark_names: tuple[str, ...]

    def find(self, image: Any, sample: Sample, min_size: float) -> list[Face]:
        """
        Faces of one RGB picture (height x width x 3), the surest first, in its pixels; none whose box is narrower or
        lower than `min_size` pixels.
        """


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    seen, engine = _look_at_all(stage, parameters)
    faces, tracks = tracked(
        seen.samples,
        seen.found,
        step_seconds=1 / min(parameters.rate, stage.video.frame_rate or parameters.rate),
        max_gap_seconds=parameters.max_gap,
        min_duration_seconds=parameters.min_track_duration,
        min_score=parameters.min_score,
    )
    if parameters.identity:
        faces = with_identities(faces, parameters.same_person)
    _write(stage, faces, seen, parameters, engine.finder.landmark_names)
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(faces),
        outputs=OUTPUTS,
        engine=parameters.engine,
        libraries=(*engine.finder.libraries, "supervision", "av", "numpy"),
        ledger=seen.ledger,
        intervals=tuple(Interval("face_track", t.onset, t.duration, f"face {t.id}", t.id) for t in tracks),
        models=(*engine.finder.models, *((engine.emotions.used,) if engine.emotions else ())),
        device=engine.finder.device,
    )


def _write(stage: Stage, faces: list[Face], seen: Seen[Face], parameters: Parameters, names: tuple[str, ...]) -> None:
    write_faces(
        stage.output_folder / "face_analysis.json",
        stage.video,
        _with_landmarks(faces, seen.chunks()),
        seen.samples,
        engine=parameters.engine,
        landmark_names=names,
    )
    write_face_table(stage.output_folder / "face_analysis.csv", faces)


def _with_landmarks(faces: Iterable[Face], chunks: Iterator[Chunk[Face]]) -> Iterator[Face]:
    """Faces in the order of time, with the landmarks that were left on disk meanwhile: a mesh is 9 kB."""
    known: dict[tuple[int, BoundingBox], tuple[tuple[float, float], ...]] = {}
    last = -1
    for face in faces:
        while face.sample.frame_number > last:
            chunk = next(chunks)
            last = chunk.samples[-1].frame_number
            known = {(f.sample.frame_number, f.bounding_box): f.landmarks for f in chunk.found}
        landmarks = known[face.sample.frame_number, face.bounding_box]
        yield msgspec.structs.replace(face, landmarks=landmarks)


def _look_at_all(stage: Stage, parameters: Parameters) -> tuple[Seen[Face], "_Look"]:
    made: list[_Look] = []

    def begin() -> Find[Face]:
        made.append(_Look(stage, parameters))
        return made[0].at

    seen = look(
        stage,
        kind=Face,
        rate=parameters.rate,
        max_side=parameters.max_side,
        frames_ahead=FRAMES_AHEAD,
        finder=begin,
        lighter=lambda face: msgspec.structs.replace(face, landmarks=()),
    )
    return seen, made[0]


class _Look:
    """The engine, and what is asked of it, in pixels of the video."""

    def __init__(self, stage: Stage, parameters: Parameters) -> None:
        self._parameters, self._video = parameters, stage.video
        self.finder = _finder(stage, parameters)
        self.emotions = Emotions(_model(stage, EMOTIONS), threads=stage.threads) if parameters.emotion else None

    def at(self, frame: Frame, sample: Sample) -> list[Face]:
        scale = self._video.width / frame.image.shape[1]
        found = self.finder.find(frame.image, sample, self._parameters.min_face_size / scale)
        return [self._in_video(self._as_far_as_sure(face, frame.image, scale), scale) for face in found]

    def _as_far_as_sure(self, face: Face, image: Any, scale: float) -> Face:
        """Without age, gender and expression where the face is too small or too doubtful for them."""
        size = min(face.bounding_box.width, face.bounding_box.height) * scale
        traits = face.traits
        if size < self._parameters.min_trait_size or face.score < self._parameters.min_trait_score:
            traits = msgspec.structs.replace(traits, age=None, gender=None)
        elif self.emotions:
            traits = msgspec.structs.replace(traits, emotions=self.emotions.of(image, face.bounding_box))
        return msgspec.structs.replace(face, traits=traits)

    def _in_video(self, face: Face, scale: float) -> Face:
        """The box is cut at the picture's edges."""
        box = face.bounding_box
        left, top = max(0.0, box.x * scale), max(0.0, box.y * scale)
        right = min(float(self._video.width), (box.x + box.width) * scale)
        bottom = min(float(self._video.height), (box.y + box.height) * scale)
        return msgspec.structs.replace(
            face,
            bounding_box=BoundingBox(left, top, right - left, bottom - top),
            landmarks=tuple((x * scale, y * scale) for x, y in face.landmarks),
        )


def _finder(stage: Stage, parameters: Parameters) -> Finder:
    p = parameters
    if p.engine == "mediapipe":
        return MediapipeFaces(
            model=p.model, detail=p.detail, landmarks=p.landmarks, measures=p.head_pose, min_score=p.min_score
        )
    return InsightFaces(
        _model(stage, p.package),
        landmarks=p.landmarks,
        measures=p.head_pose,
        age_gender=p.age_gender,
        identity=p.identity,
        min_score=p.min_score,
        threads=stage.threads,
    )


def _model(stage: Stage, name: str) -> ModelFiles:
    model = stage.model(name)
    assert model is not None, f"the declaration says that {name} is needed"
    return model
