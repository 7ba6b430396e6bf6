"""
Which tracks of faces show the same person, by how alike their vectors are.

Each track is the mean of its vectors; the two most alike groups are joined until none are alike enough, and two that
are in the picture at the same time never are. What comes out is a number within one video, and no name.
"""

import math
from collections.abc import Sequence

import msgspec

from videoannotator.annotations import Face

Vector = tuple[float, ...]


class _Person(msgspec.Struct):
    tracks: set[int]
    frames: set[int]
    total: list[float]
    """Sum of the vectors; its direction is that of their mean."""


def with_identities(faces: Sequence[Face], least_likeness: float) -> list[Face]:
    """
    The same faces, each with the identity of its track, counted from 1 in the order in which people appear.

    `least_likeness` is the cosine from which two are one. A track none of whose faces has a vector gets no identity.
    """
    people: dict[int, _Person] = {}
    for face in faces:
        if face.track_id is None or not face.embedding:
            continue
        person = people.setdefault(face.track_id, _Person({face.track_id}, set(), [0.0] * len(face.embedding)))
        person.frames.add(face.sample.frame_number)
        person.total = [a + b for a, b in zip(person.total, face.embedding, strict=True)]
    joined = _joined(list(people.values()), least_likeness)
    number = {track: n for n, person in enumerate(joined, start=1) for track in person.tracks}
    return [msgspec.structs.replace(face, identity=number.get(face.track_id or 0)) for face in faces]


def _joined(people: list[_Person], least: float) -> list[_Person]:
    while True:
        alike = [
            (cosine(a.total, b.total), i, j)
            for i, a in enumerate(people)
            for j, b in enumerate(people[:i])
            if a.frames.isdisjoint(b.frames)
        ]
        likeness, later, earlier = max(alike, default=(-2.0, 0, 0))
        if likeness < least:
            return people
        one, other = people[earlier], people.pop(later)
        one.tracks |= other.tracks
        one.frames |= other.frames
        one.total = [a + b for a, b in zip(one.total, other.total, strict=True)]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """-1 to 1; 0 where one of them has no length."""
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
