"""
Annotations as a tidy table in CSV: one row per annotation, one column per variable.

Source: RFC 4180 with "\\n" at line ends, UTF-8 without a mark. Every table begins with the same columns: `onset` and
`duration` (seconds; 0 for what was seen in one frame), `timestamp`, `frame_number`, `track_id`. Empty means unknown.

Losses: types (all cells are text), landmarks, empty frames. A text that a spreadsheet would run as a formula gets a
`'` in front; `read_table` takes it away again. Carriage returns in a text become line ends.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from videoannotator.annotations import Build, Face, Person, Scene, Transition, Turn
from videoannotator.formats.document import pixels, seconds, share

Cell = str | int | float | None

_COMMON = ("onset", "duration", "timestamp", "frame_number", "track_id")
_TRAITS = (
    "identity", "pitch", "yaw", "roll", "right_eye_openness", "left_eye_openness", "mouth_openness", "age", "gender",
    "expression", "expression_score", "name", "name_similarity", "naming_method",
)  # fmt: skip
_RUNS_AS_FORMULA = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20", "'")
"""First characters; the four after the blanks are full-width, which spreadsheets of East Asia take for the same."""


def write_table(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_safe(cell) for cell in row] for row in rows)


def read_table(file: Path) -> list[dict[str, str]]:
    """The rows as text, by column, formulas as they were."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [{name: _unsafe(cell) for name, cell in row.items()} for row in csv.DictReader(lines)]


def write_scene_table(file: Path, scenes: Iterable[Scene]) -> None:
    write_table(
        file,
        (*_COMMON, "frame_end", "score", "begins_by", "transition_start", "transition_end", "label", "thumbnail"),
        (
            (
                seconds(s.start_time),
                seconds(s.duration),
                seconds(s.start_time),
                s.frame_start,
                None,
                s.frame_end,
                None if s.score is None else share(s.score),
                *_transition(s.transition),
                s.labels[0][0] if s.labels else None,
                s.thumbnail,
            )
            for s in scenes
        ),
    )


def _transition(transition: Transition | None) -> tuple[Cell, ...]:
    if transition is None:
        return None, None, None
    return transition.kind, seconds(transition.start_time), seconds(transition.end_time)


def write_face_table(file: Path, faces: Iterable[Face]) -> None:
    """Angles in degrees, age in years, openness as height over width; empty where unknown or withheld."""
    columns = (*_COMMON, "x", "y", "width", "height", "score", *_TRAITS)
    write_table(file, columns, ((*_box(face), *_traits(face)) for face in faces))


def write_person_table(
    file: Path, persons: Iterable[Person], builds: Mapping[int, Build], keypoint_names: Sequence[str]
) -> None:
    """Box, label, and for every keypoint `NAME_x`, `NAME_y` (pixels) and `NAME_score`."""
    points = [f"{name}_{part}" for name in keypoint_names for part in ("x", "y", "score")]
    columns = (*_COMMON, "x", "y", "width", "height", "score", "label", "label_confidence", *points)
    write_table(file, columns, (_person(person, builds.get(person.track_id or 0)) for person in persons))


def write_turn_table(file: Path, turns: Iterable[Turn]) -> None:
    write_table(
        file,
        (*_COMMON, "label", "score"),
        (
            (
                seconds(t.onset),
                seconds(t.duration),
                seconds(t.onset),
                None,
                None,
                t.label,
                None if t.score is None else share(t.score),
            )
            for t in turns
        ),
    )


def _box(find: Face | Person) -> tuple[Cell, ...]:
    at, box = seconds(find.sample.timestamp), find.bounding_box
    frame = (at, 0, at, find.sample.frame_number, find.track_id)
    return (*frame, pixels(box.x), pixels(box.y), pixels(box.width), pixels(box.height), share(find.score))


def _traits(face: Face) -> tuple[Cell, ...]:
    traits = face.traits
    pose = [None] * 3 if traits.head_pose is None else [round(v, 2) for v in msgspec.structs.astuple(traits.head_pose)]
    open_ = [None] * 3 if traits.openness is None else [share(v) for v in msgspec.structs.astuple(traits.openness)]
    expression = (traits.emotions[0][0], share(traits.emotions[0][1])) if traits.emotions else (None, None)
    found = face.recognised
    name = (found.name, share(max(0.0, found.similarity)), found.method) if found else (None, None, None)
    return (face.identity, *pose, *open_, traits.age, traits.gender, *expression, *name)


def _person(person: Person, build: Build | None) -> tuple[Cell, ...]:
    points = [cell for k in person.keypoints for cell in (pixels(k.x), pixels(k.y), share(k.score))]
    label = (build.label, share(build.confidence)) if build else (None, None)
    return (*_box(person), *label, *points)


def _safe(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r\n", "\n").replace("\r", "\n")  # csv does not quote a bare one, and readers end a row there
    return f"'{text}" if text.startswith(_RUNS_AS_FORMULA) else text


def _unsafe(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell
