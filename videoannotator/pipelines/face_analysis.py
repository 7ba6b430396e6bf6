"""
Faces: where they are, which is which over time, and what they look like, as far as an engine can tell.

Two engines. MediaPipe comes with its weights; insightface needs a package for non-commercial research, and also gives
age, gender and who is who. Expressions are named by a network of their own, behind either of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy

from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.formats.coco import write_faces
from videoannotator.formats.table import write_face_table
from videoannotator.jobs import Interval, ModelFiles, ModelUsed, Named, Output
from videoannotator.media.frames import Frame
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.emotions import Emotions
from videoannotator.pipelines.faces_insightface import InsightFaces
from videoannotator.pipelines.faces_mediapipe import MediapipeFaces
from videoannotator.pipelines.identities import Vector, joined, people_of, with_identities
from videoannotator.pipelines.looking import Chunk, Find, Seen, look
from videoannotator.pipelines.roster import recognised, roster, with_names
from videoannotator.pipelines.tracks import Likeness, Track, load_tracker, tracked

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
    max_absence: float
    roster: str
    name_likeness: float
    name_margin: float
    min_trait_size: float
    min_trait_score: float
    max_gap: float
    min_track_duration: float
    min_track_score: float
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

    def close(self) -> None:
        """Give back what would outlive the stage in a process that stays; nothing can be found after it."""


def prepare() -> None:
    """What every engine needs, half a second's worth; which engine it will be is not known yet."""
    load_tracker()


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
        min_best_score=parameters.min_track_score if parameters.engine == "mediapipe" else 0.0,
        likeness=_likeness(seen, parameters),
    )
    faces = _with_people(faces, seen, parameters, engine.names)
    _write(stage, faces, seen, parameters, engine.finder.landmark_names)
    if seen.trouble:
        stage.keep_partial(OUTPUTS)
        raise seen.trouble
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(faces),
        outputs=OUTPUTS,
        engine=parameters.engine,
        libraries=(*engine.finder.libraries, "supervision", "av", "numpy"),
        ledger=seen.ledger,
        intervals=tuple(Interval("face_track", t.onset, t.duration, f"face {t.id}", t.id) for t in tracks),
        named=_named(faces, tracks),
        warnings=_withheld(faces, parameters),
        models=(*engine.finder.models, *((engine.emotions.used,) if engine.emotions else ())),
        device=engine.finder.device,
    )


def _write(stage: Stage, faces: list[Face], seen: Seen[Face], parameters: Parameters, names: tuple[str, ...]) -> None:
    write_faces(
        stage.output_folder / "face_analysis.json",
        stage.video,
        _whole(faces, seen.chunks()),
        seen.samples,
        engine=parameters.engine,
        landmark_names=names,
        until_seconds=seen.until_seconds,
    )
    write_face_table(stage.output_folder / "face_analysis.csv", faces)


def _likeness(seen: Seen[Face], parameters: Parameters) -> Likeness[Face] | None:
    if not _tells_people_apart(parameters):
        return None
    return Likeness(
        lambda runs: _vectors(runs, seen.chunks()),
        least=parameters.same_person,
        max_absence_seconds=parameters.max_absence,
    )


def _tells_people_apart(parameters: Parameters) -> bool:
    return parameters.identity or bool(parameters.roster)


def _vectors(runs: Sequence[Sequence[Face]], chunks: Iterator[Chunk[Face]]) -> list[Vector | None]:
    """Of each run the sum of its faces' vectors; None where none has any."""
    run_of = {_key(face): number for number, run in enumerate(runs) for face in run}
    sums: list[Vector | None] = [None] * len(runs)
    for chunk in chunks:
        for face in chunk.found:
            if face.embedding and (run := run_of.get(_key(face))) is not None:
                vector = numpy.asarray(face.embedding)
                sums[run] = vector if sums[run] is None else sums[run] + vector
    return sums


def _with_people(
    faces: list[Face], seen: Seen[Face], parameters: Parameters, names: dict[str, Vector] | None
) -> list[Face]:
    """Numbers of people where identity is asked for, and names where there is a roster."""
    if not _tells_people_apart(parameters):
        return faces
    people = people_of(_whole(faces, seen.chunks()))
    if parameters.identity:
        people = joined(people, parameters.same_person)
        faces = with_identities(faces, people)
    if names is None:
        return faces
    return with_names(faces, recognised(people, names, least=parameters.name_likeness, margin=parameters.name_margin))


def _named(faces: Iterable[Face], tracks: Iterable[Track]) -> tuple[Named, ...]:
    found = {face.track_id: face.recognised for face in faces if face.recognised}
    return tuple(
        Named(track_id=track.id, name=who.name, similarity=round(who.similarity, 4), method=who.method)
        for track in tracks
        if (who := found.get(track.id))
    )


def _is_sure(face: Face, parameters: Parameters) -> bool:
    """Whether it is large and clear enough to tell age, gender and expression."""
    size = min(face.bounding_box.width, face.bounding_box.height)
    return size >= parameters.min_trait_size and face.score >= parameters.min_trait_score


def _withheld(faces: Iterable[Face], parameters: Parameters) -> tuple[str, ...]:
    """Said in the manifest: what is missing in the files was left out, not forgotten."""
    if not (parameters.age_gender or parameters.emotion):
        return ()
    count = sum(not _is_sure(face, parameters) for face in faces)
    if not count:
        return ()
    limits = (
        f"narrower or lower than {parameters.min_trait_size:g} pixels or less sure than {parameters.min_trait_score:g}"
    )
    return (f"Age, gender and expression of {count} faces are withheld: they are {limits}.",)


def _key(face: Face) -> tuple[int, BoundingBox]:
    return face.sample.frame_number, face.bounding_box


def _whole(faces: Iterable[Face], chunks: Iterator[Chunk[Face]]) -> Iterator[Face]:
    """
    Faces in the order of time, with the landmarks and vectors that were left on disk meanwhile: 9 kB for a mesh, 4 kB
    and more for a vector.
    """
    known: dict[tuple[int, BoundingBox], Face] = {}
    last = -1
    for face in faces:
        while face.sample.frame_number > last:
            chunk = next(chunks)
            last = chunk.samples[-1].frame_number
            known = {_key(f): f for f in chunk.found}
        found = known[_key(face)]
        yield msgspec.structs.replace(face, landmarks=found.landmarks, embedding=found.embedding)


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
        lighter=lambda face: msgspec.structs.replace(face, landmarks=(), embedding=()),
    )
    if seen.trouble is None:
        made[0].finder.close()
    return seen, made[0]


class _Look:
    """The engine, and what is asked of it, in pixels of the video."""

    def __init__(self, stage: Stage, parameters: Parameters) -> None:
        self._parameters, self._video = parameters, stage.video
        self.finder = _finder(stage, parameters)
        self.emotions = Emotions(_model(stage, EMOTIONS), threads=stage.threads) if parameters.emotion else None
        self.names = roster(stage.pictures, self._faces_of_picture) if parameters.roster else None
        """A vector for each name of the roster; None without one."""

    def _faces_of_picture(self, image: Any) -> list[Face]:
        return self.finder.find(image, Sample(0, 0.0, 0), 0.0)

    def at(self, frame: Frame, sample: Sample) -> list[Face]:
        scale = self._video.width / frame.image.shape[1]
        found = self.finder.find(frame.image, sample, self._parameters.min_face_size / scale)
        return [self._as_far_as_sure(self._in_video(face, scale), frame.image, face.bounding_box) for face in found]

    def _as_far_as_sure(self, face: Face, image: Any, box_in_image: BoundingBox) -> Face:
        """Without age, gender and expression where the face is too small or too doubtful for them."""
        traits = face.traits
        if not _is_sure(face, self._parameters):
            traits = msgspec.structs.replace(traits, age=None, gender=None)
        elif self.emotions:
            traits = msgspec.structs.replace(traits, emotions=self.emotions.of(image, box_in_image))
        return msgspec.structs.replace(face, traits=traits)

    def _in_video(self, face: Face, scale: float) -> Face:
        """The box is cut at the picture's edges."""
        return msgspec.structs.replace(
            face,
            bounding_box=face.bounding_box.scaled(scale, width=self._video.width, height=self._video.height),
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
        identity=_tells_people_apart(p),
        min_score=p.min_score,
        threads=stage.threads,
    )


def _model(stage: Stage, name: str) -> ModelFiles:
    model = stage.model(name)
    assert model is not None, f"the declaration says that {name} is needed"
    return model
