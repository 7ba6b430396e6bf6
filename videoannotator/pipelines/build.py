"""
Adult or child, by the proportions of a body.

A head grows little after birth and shoulders grow much: the breadth of the head is about two fifths of that of the
shoulders in adults and about two thirds in a one-year-old (Snyder et al. 1977, Anthropometry of Infants, Children, and
Youths to Age 18, UM-HSRI-77-17): the distance between the ears over that between the shoulders, in the frames that
show both from the front, the median of a track. A head turns without its shoulders, and for seconds: then the ears come
together and the largest head is an adult's. Such frames say nothing.

The border was placed between these two figures and not fitted to labelled video: a label is a first sorting, to be
looked at.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

from videoannotator.annotations import Build, Keypoint, Person
from videoannotator.formats.persons import UNKNOWN

METHOD = "head_to_shoulder_breadth"

BORDER = 0.53
"""Of the breadth of the head to that of the shoulders: above it a child, below it an adult."""

UNSURE = 0.04
"""That close to the border nothing is said."""

LEAST_FRAMES = 5
"""Fewer frames with both ears and both shoulders say nothing."""

LEAST_TURNED = 0.8
"""Of the breadth of the shoulders to their distance from the nose: less is a body seen from the side."""

MOST_TURNED = 0.35
"""
Of the nose's distance from the middle of the ears, along the line through them, to the distance of the ears: more is a
turned head. The nose lies about three quarters of a head's breadth before that line, so this is some 25 degrees, at
which the ears have come together by a tenth.
"""

_NOSE = 0
_EARS = (3, 4)
_SHOULDERS = (5, 6)


def builds(persons: Iterable[Person], min_keypoint_score: float) -> dict[int, Build]:
    """By track id."""
    ratios: dict[int, list[float]] = {}
    for person in persons:
        of_track = ratios.setdefault(person.track_id or 0, [])
        if (ratio := _head_to_shoulders(person.keypoints, min_keypoint_score)) is not None:
            of_track.append(ratio)
    return {track: _build(found) for track, found in ratios.items()}


def _build(ratios: Sequence[float]) -> Build:
    if len(ratios) < LEAST_FRAMES:
        return UNKNOWN
    beyond = median(ratios) - BORDER
    if abs(beyond) < UNSURE:
        return UNKNOWN
    return Build("child" if beyond > 0 else "adult", min(1.0, abs(beyond) / BORDER + 0.5))


def _head_to_shoulders(keypoints: Sequence[Keypoint], min_score: float) -> float | None:
    """None where one of them is not seen, or the head or the body is seen from the side."""
    if any(keypoints[number].score < min_score for number in (_NOSE, *_EARS, *_SHOULDERS)):
        return None
    left, right = (keypoints[number] for number in _SHOULDERS)
    breadth = _distance(left, right)
    below_the_nose = math.hypot(
        keypoints[_NOSE].x - (left.x + right.x) / 2, keypoints[_NOSE].y - (left.y + right.y) / 2
    )
    if breadth == 0 or breadth < below_the_nose * LEAST_TURNED:
        return None
    head = _distance(*(keypoints[number] for number in _EARS))
    return head / breadth if _beside_the_middle(keypoints) <= head * MOST_TURNED else None


def _beside_the_middle(keypoints: Sequence[Keypoint]) -> float:
    """How far the nose is from the middle of the ears, along the line through them (pixels)."""
    nose, (left, right) = keypoints[_NOSE], (keypoints[number] for number in _EARS)
    head = _distance(left, right)
    if head == 0:
        return math.inf
    x, y = nose.x - (left.x + right.x) / 2, nose.y - (left.y + right.y) / 2
    return abs(x * (left.x - right.x) + y * (left.y - right.y)) / head


def _distance(a: Keypoint, b: Keypoint) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)
