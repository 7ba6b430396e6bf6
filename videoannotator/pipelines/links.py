"""
Which face belongs to which person: where the head of a person is, again and again, in the box of a face.

In each moment a head (the middle of the eyes and the nose that are seen) belongs to the nearest face whose box, made
larger by a quarter, holds it; a face to one head at most. A face track and a person track belong together if they agree
in most of the moments in which both are there. Where they are not clear there is no link, and a reason. Either may
belong to several of the other, one after the other: tracks break.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

import msgspec

from videoannotator.annotations import BoundingBox

METHOD = "head_keypoints_in_face_box"

NEAR_SECONDS = 0.06
"""Faces and people are looked for at rates of their own: what is farther apart in time is not compared."""

LARGER = 0.25
"""By so much of its width and height a face's box is made larger on each side: engines draw it tighter or wider."""

LEAST_MOMENTS = 3
LEAST_SHARE = 0.6
"""Of the moments in which face and person are both there."""


class Head(msgspec.Struct, frozen=True):
    """Where the head of a person track is in one moment."""

    timestamp: float
    track_id: int
    x: float
    y: float


class FaceBox(msgspec.Struct, frozen=True):
    timestamp: float
    track_id: int
    bounding_box: BoundingBox


T = TypeVar("T", FaceBox, Head)
Pair = tuple[int, int]
"""Face track and person track."""


class Link(msgspec.Struct, frozen=True):
    """A face and a person that belong together."""

    face: int
    person: int
    moments: int
    """In which they agree."""

    share: float
    """Of the moments in which both were there."""


class Links(msgspec.Struct, frozen=True):
    found: tuple[Link, ...]
    """By person, then by face."""

    faces: dict[int, str]
    """Every face track, and why it belongs to nobody; empty where it does."""

    persons: dict[int, str]
    """Every person track with a head, and why it has no face."""


def links(faces: Iterable[FaceBox], heads: Iterable[Head]) -> Links:
    """Both are in the order of time; a moment of each is in memory at a time."""
    agreeing: Counter[Pair] = Counter()
    together: Counter[Pair] = Counter()
    face_tracks: set[int] = set()
    person_tracks: set[int] = set()
    for boxes, persons in _moments(_noted(faces, face_tracks), _noted(heads, person_tracks)):
        together.update((box.track_id, head.track_id) for box in boxes for head in persons)
        agreeing.update(_pairs(boxes, persons))
    met = [Link(*pair, agreeing[pair], agreeing[pair] / moments) for pair, moments in together.items()]
    return Links(
        tuple(sorted((link for link in met if not _doubt(link)), key=lambda link: (link.person, link.face))),
        {face: _why_not([link for link in met if link.face == face]) for face in sorted(face_tracks)},
        {person: _why_not([link for link in met if link.person == person]) for person in sorted(person_tracks)},
    )


def _noted(seen: Iterable[T], tracks: set[int]) -> Iterator[T]:
    for one in seen:
        tracks.add(one.track_id)
        yield one


def _moments(faces: Iterable[FaceBox], heads: Iterable[Head]) -> Iterator[tuple[list[FaceBox], list[Head]]]:
    """For each moment with heads the faces that were seen nearest to it."""
    coming = ((at, list(boxes)) for at, boxes in groupby(faces, key=lambda face: face.timestamp))
    near: deque[tuple[float, list[FaceBox]]] = deque()
    for at, persons in groupby(heads, key=lambda head: head.timestamp):
        while near and near[0][0] < at - NEAR_SECONDS:
            near.popleft()
        while not near or near[-1][0] <= at:
            if (following := next(coming, None)) is None:
                break
            near.append(following)
        nearest = min(near, key=lambda seen: abs(seen[0] - at), default=None)
        if nearest is not None and abs(nearest[0] - at) <= NEAR_SECONDS:
            yield nearest[1], list(persons)
    for _ in coming:
        pass  # faces after the last head have tracks too


def _pairs(boxes: Sequence[FaceBox], heads: Sequence[Head]) -> list[Pair]:
    """Each face and each person once, the nearest first."""
    near = sorted(
        (distance, box.track_id, head.track_id)
        for box in boxes
        for head in heads
        if (distance := _distance(box.bounding_box, head)) <= 0.5 + LARGER
    )
    pairs: list[Pair] = []
    for _, face, person in near:
        if all(face != other and person != somebody for other, somebody in pairs):
            pairs.append((face, person))
    return pairs


def _distance(box: BoundingBox, head: Head) -> float:
    """From the middle of the box, in its widths or heights, whichever is more: 0.5 is on the edge."""
    if box.width <= 0 or box.height <= 0:
        return math.inf
    return max(abs(head.x - box.x - box.width / 2) / box.width, abs(head.y - box.y - box.height / 2) / box.height)


def _doubt(link: Link) -> str:
    """Why they do not belong together; empty where they do."""
    both = f"person {link.person} and face {link.face}"
    if link.moments < LEAST_MOMENTS:
        return f"{both} agree in {link.moments} moments; {LEAST_MOMENTS} are needed"
    if link.share < LEAST_SHARE:
        return f"{both} agree in {link.share:.0%} of their moments; {LEAST_SHARE:.0%} are needed"
    return ""


def _why_not(met: Sequence[Link]) -> str:
    if not met:
        return "nobody was there at the same time"
    if any(not _doubt(link) for link in met):
        return ""
    return _doubt(max(met, key=lambda link: (link.share, link.moments)))
