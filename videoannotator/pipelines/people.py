"""
People: the faces and the persons of a video, found apart, put together.

Reads the files of face_analysis and person_tracking, a row at a time, and no picture.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from videoannotator.annotations import BoundingBox
from videoannotator.errors import StageFailed
from videoannotator.formats.document import read_rows
from videoannotator.formats.people import People, Seen, Together, write_people, write_people_table
from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.links import METHOD, FaceBox, Head
from videoannotator.pipelines.links import links as find_links

OUTPUTS = (
    Output("people.json", "annotations", "application/json"),
    Output("people.csv", "table", "text/csv"),
)
FACES, PERSONS = "face_analysis.json", "person_tracking.json"

_EYES_AND_NOSE = (0, 1, 2)
"""Of COCO's keypoints."""

HEADLESS = "neither eyes nor nose were ever seen"

_SEEN = 2
"""COCO's v, of a keypoint that is not only guessed."""


class _FaceRow(msgspec.Struct):
    bbox: tuple[float, float, float, float]
    timestamp: float
    track_id: int
    person_label: str | None = None


class _PersonRow(msgspec.Struct):
    keypoints: tuple[float, ...]
    timestamp: float
    track_id: int
    person_label: str


class _Span(msgspec.Struct):
    onset: float
    end: float
    label: str | None


def run(stage: Stage) -> Result:
    if missing := [name for name in (FACES, PERSONS) if name not in stage.earlier]:
        message = f"There is no {' and no '.join(missing)} in this job to put together."
        raise StageFailed(message, code="NOTHING_TO_LINK", hint="See why the other stage gave no result.")
    people = _people(stage.earlier[FACES], stage.earlier[PERSONS])
    write_people(stage.output_folder / "people.json", people)
    write_people_table(stage.output_folder / "people.csv", people)
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(people.together),
        outputs=OUTPUTS,
        engine="head_in_face_box",
        libraries=(),
        ledger=Ledger(expected=None, decoded=0, failed=0, processed=0, skipped=0),
    )


def _people(faces_file: Path, persons_file: Path) -> People:
    faces: dict[int, _Span] = {}
    persons: dict[int, _Span] = {}
    links = find_links(_faces(faces_file, faces), _heads(persons_file, persons))
    face = {track: _seen(track, span, links.faces[track]) for track, span in sorted(faces.items())}
    person = {track: _seen(track, span, links.persons.get(track, HEADLESS)) for track, span in sorted(persons.items())}
    together = (
        Together(face=face[link.face], person=person[link.person], moments=link.moments, share=link.share)
        for link in links.found
    )
    return People(persons=tuple(person.values()), faces=tuple(face.values()), together=tuple(together), method=METHOD)


def _faces(file: Path, spans: dict[int, _Span]) -> Iterator[FaceBox]:
    for row in read_rows(file, "annotations", _FaceRow):
        _note(spans, row.track_id, row.timestamp, row.person_label)
        yield FaceBox(row.timestamp, row.track_id, BoundingBox(*row.bbox))


def _heads(file: Path, spans: dict[int, _Span]) -> Iterator[Head]:
    for row in read_rows(file, "annotations", _PersonRow):
        _note(spans, row.track_id, row.timestamp, row.person_label)
        points = [row.keypoints[3 * n : 3 * n + 3] for n in _EYES_AND_NOSE]
        if seen := [(x, y) for x, y, v in points if v == _SEEN]:
            x, y = (sum(values) / len(seen) for values in zip(*seen, strict=True))
            yield Head(row.timestamp, row.track_id, x, y)


def _note(spans: dict[int, _Span], track: int, timestamp: float, label: str | None) -> None:
    span = spans.setdefault(track, _Span(timestamp, timestamp, label))
    span.end = timestamp


def _seen(track: int, span: _Span, why_alone: str) -> Seen:
    return Seen(track_id=track, onset=span.onset, duration=span.end - span.onset, label=span.label, why_alone=why_alone)
