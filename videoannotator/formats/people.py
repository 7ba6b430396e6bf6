"""
Who is who across files: which face track belongs to which person track.

Our own; JSON and a table. `persons` has a row for each track of person_tracking.json, with `person_id` as there, and
`faces` one for each track of face_analysis.json. The browser client passes the JSON file over: no name in it is one of
those by which it tells files apart.

Losses: seconds are rounded to 0.000001, shares to 0.0001.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.formats.document import seconds, share, write_document
from videoannotator.formats.table import write_table


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A track of a face or of a person."""

    track_id: int
    onset: float
    duration: float
    label: str | None = None
    """A person's build, a face's name from a roster; None where there is none."""

    why_alone: str = ""


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """A face and a person that belong together."""

    face: Seen
    person: Seen
    moments: int
    share: float
    """Of the moments in which both were there, those in which the head was in the face's box."""


class People(msgspec.Struct, frozen=True, kw_only=True):
    persons: tuple[Seen, ...]
    faces: tuple[Seen, ...]
    together: tuple[Together, ...]
    method: str


def write_people(file: Path, people: People) -> None:
    info = {"description": "VideoAnnotator people: which face belongs to which person", "version": "1.0"}
    write_document(
        file,
        {"info": info | {"linking_method": people.method}},
        {
            "persons": (_person(one, [t for t in people.together if t.person == one]) for one in people.persons),
            "faces": (_face(one, [t for t in people.together if t.face == one]) for one in people.faces),
        },
    )


def write_people_table(file: Path, people: People) -> None:
    """
    A row for each person and face that belong together, and for each of either that is alone. `onset` and `duration`
    are those of the face, where there is one; `track_id` is the person's.
    """
    columns = (
        "onset", "duration", "timestamp", "frame_number", "track_id", "person_id", "person_label", "face_track_id",
        "name", "moments", "share", "why_alone",
    )  # fmt: skip
    write_table(file, columns, _rows(people))


def _rows(people: People) -> Iterator[tuple[Any, ...]]:
    for t in people.together:
        who = (t.person.track_id, _id(t.person), t.person.label)
        yield (*_time(t.face), *who, t.face.track_id, t.face.label, t.moments, share(t.share), None)
    for person in people.persons:
        if person.why_alone:
            who = (person.track_id, _id(person), person.label)
            yield (*_time(person), *who, None, None, None, None, person.why_alone)
    for face in people.faces:
        if face.why_alone:
            yield (*_time(face), None, None, None, face.track_id, face.label, None, None, face.why_alone)


def _person(person: Seen, together: Sequence[Together]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "track_id": person.track_id,
        "person_id": _id(person),
        "person_label": person.label,
        **_span(person),
        "face_tracks": [{"face_track_id": t.face.track_id, **_strength(t)} for t in together],
    }
    if names := sorted({t.face.label for t in together if t.face.label}):
        row["names"] = names
    return row | ({"why_alone": person.why_alone} if person.why_alone else {})


def _face(face: Seen, together: Sequence[Together]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "face_track_id": face.track_id,
        **_span(face),
        "person_tracks": [
            {"track_id": t.person.track_id, "person_id": _id(t.person), **_strength(t)} for t in together
        ],
    }
    if face.label:
        row["name"] = face.label
    return row | ({"why_alone": face.why_alone} if face.why_alone else {})


def _strength(together: Together) -> dict[str, Any]:
    return {"moments": together.moments, "share": share(together.share)}


def _span(seen: Seen) -> dict[str, float]:
    return {"onset": seconds(seen.onset), "duration": seconds(seen.duration)}


def _id(person: Seen) -> str:
    """As in person_tracking.json."""
    return f"person_{person.track_id}"


def _time(seen: Seen) -> tuple[Any, ...]:
    return seconds(seen.onset), seconds(seen.duration), seconds(seen.onset), None
