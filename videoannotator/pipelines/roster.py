"""
Who is who by name: faces in a video against pictures of people that the user named.

Each name is the mean of the vectors of its pictures, and each person in the video that of all faces of it. The most
alike name is taken where the cosine is high enough and far enough ahead of the next name; who is in the picture with
somebody more alike is not the same person. Everybody else is unknown.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy

from videoannotator.annotations import Face, Recognised
from videoannotator.errors import StageFailed
from videoannotator.jobs import NamedPicture
from videoannotator.pipelines.identities import Person, Vector, cosine
from videoannotator.pipelines.pictures import UNKNOWN, content

METHOD = "cosine_to_roster"
_BORDER = 0.5
"""Of the picture's size: detectors miss a face that fills a picture to its edges, as in cut-out portraits."""


class _Match(msgspec.Struct, frozen=True):
    person: int
    name: str
    similarity: float
    ahead: float
    """Of the next name."""


def roster(pictures: Sequence[NamedPicture], find: Callable[[Any], Sequence[Face]]) -> dict[str, Vector]:
    """
    A vector for each name. `find` gives the faces of an RGB picture, with their vectors.

    Raises:
        StageFailed: ROSTER_UNUSABLE, a picture that cannot be read, or shows no face or several; PICTURE_CHANGED.
    """
    totals: dict[str, Vector] = {}
    for picture in pictures:
        vector = numpy.asarray(_only_face(picture, find).embedding)
        totals[picture.name] = totals.get(picture.name, 0) + vector
    return totals


def recognised(
    people: Sequence[Person], names: Mapping[str, Vector], *, least: float, margin: float
) -> dict[int, Recognised]:
    """Who each track shows, by its id. `least` and `margin` are cosines."""
    matches = [_match(number, person, names) for number, person in enumerate(people)]
    found = {match.person: _told(UNKNOWN, match) for match in matches}
    taken: dict[str, set[int]] = {}
    for match in sorted(matches, key=lambda m: (-m.similarity, m.person)):
        frames = people[match.person].frames
        if match.similarity < least or match.ahead < margin or not taken.get(match.name, set()).isdisjoint(frames):
            continue
        found[match.person] = _told(match.name, match)
        taken[match.name] = taken.get(match.name, set()) | frames
    return {track: found[number] for number, person in enumerate(people) for track in person.tracks}


def with_names(faces: Sequence[Face], names: Mapping[int, Recognised]) -> list[Face]:
    """The same faces, each with the name of its track."""
    return [msgspec.structs.replace(face, recognised=names.get(face.track_id or 0)) for face in faces]


def _match(number: int, person: Person, names: Mapping[str, Vector]) -> _Match:
    best, *others = sorted(((cosine(person.total, vector), name) for name, vector in names.items()), reverse=True)
    return _Match(number, best[1], best[0], best[0] - others[0][0] if others else 2.0)


def _told(name: str, match: _Match) -> Recognised:
    return Recognised(name, match.similarity, METHOD)


def _only_face(picture: NamedPicture, find: Callable[[Any], Sequence[Face]]) -> Face:
    image = _decoded(picture)
    found = find(image) or find(_bordered(image))
    if len(found) != 1:
        what = f"shows {len(found)} faces" if found else "shows no face that is found"
        hint = "Give each name pictures of that person alone, the face well visible."
        raise _unusable(f"{picture.file} in the roster {what}.", hint)
    return found[0]


def _decoded(picture: NamedPicture) -> Any:
    """Height x width x 3, RGB, upright as its EXIF data say."""
    import cv2

    held = numpy.frombuffer(content(picture), numpy.uint8)
    try:
        image = cv2.imdecode(held, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None  # more pixels than OpenCV reads
    if image is None:
        raise _unusable(
            f"{picture.file} in the roster is no picture that can be read.", "Save it again as JPEG or PNG."
        )
    return image[:, :, ::-1]


def _bordered(image: Any) -> Any:
    height, width = (round(side * _BORDER) for side in image.shape[:2])
    return numpy.pad(image, ((height, height), (width, width), (0, 0)))


def _unusable(message: str, hint: str) -> StageFailed:
    return StageFailed(message, code="ROSTER_UNUSABLE", hint=hint)
