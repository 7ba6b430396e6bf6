"""
Which tracks of faces show the same person, by how alike their vectors are.

Each track is the mean of its vectors; the two most alike groups are joined until none are alike enough, and two that
are in the picture at the same time never are. What comes out is a number within one video, and no name.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy

from videoannotator.annotations import Face

Vector = Any
"""A numpy array of one dimension, whose direction counts."""


class Person(msgspec.Struct):
    tracks: set[int]
    frames: set[int]
    total: Vector
    """Sum of the vectors; its direction is that of their mean."""


def people_of(faces: Iterable[Face]) -> list[Person]:
    """A person for each track that has a vector, in the order in which they appear."""
    people: dict[int, Person] = {}
    for face in faces:
        if face.track_id is None or not face.embedding:
            continue
        vector = numpy.asarray(face.embedding)
        person = people.setdefault(face.track_id, Person({face.track_id}, set(), numpy.zeros(len(vector))))
        person.frames.add(face.sample.frame_number)
        person.total += vector
    return list(people.values())


def joined(people: Sequence[Person], least_likeness: float) -> list[Person]:
    """Those that are one, joined; `least_likeness` is the cosine from which two are."""
    left = list(people)
    while True:
        alike = [
            (cosine(a.total, b.total), i, j)
            for i, a in enumerate(left)
            for j, b in enumerate(left[:i])
            if a.frames.isdisjoint(b.frames)
        ]
        likeness, later, earlier = max(alike, default=(-2.0, 0, 0))
        if likeness < least_likeness:
            return left
        one, other = left[earlier], left.pop(later)
        left[earlier] = Person(one.tracks | other.tracks, one.frames | other.frames, one.total + other.total)


def with_identities(faces: Iterable[Face], people: Sequence[Person]) -> list[Face]:
    """
    The same faces, each with the number of its person, counted from 1. A track none of whose faces has a vector gets
    none.
    """
    number = {track: n for n, person in enumerate(people, start=1) for track in person.tracks}
    return [msgspec.structs.replace(face, identity=number.get(face.track_id or 0)) for face in faces]


def cosine(a: Vector, b: Vector) -> float:
    """-1 to 1; 0 where one of them has no length."""
    lengths = float(numpy.linalg.norm(a) * numpy.linalg.norm(b))
    return float(numpy.dot(a, b)) / lengths if lengths else 0.0
