"""
What can be measured on MediaPipe's face mesh: where a head is turned, and how far eyes and mouth are open.

The mesh has 478 points in the order of canonical_face_model.obj (mediapipe, Apache-2.0), here as (x, y, z) in one unit:
x to the right, y down, z away from the camera. Its depth is the network's guess, so a pose is good for which way
somebody faces and not for gaze research.
"""

import math
from collections.abc import Sequence

from videoannotator.annotations import HeadPose, Openness

Point = tuple[float, float, float]

# Points by the person's own right and left.
_RIGHT_CHEEK, _LEFT_CHEEK = 234, 454
_FOREHEAD, _CHIN = 10, 152
_RIGHT_EYE = (33, 160, 158, 133, 153, 144)
_LEFT_EYE = (263, 387, 385, 362, 380, 373)
"""Outer corner, upper lid outside and inside, inner corner, lower lid inside and outside."""

_UPPER_LIP, _LOWER_LIP, _RIGHT_CORNER, _LEFT_CORNER = 13, 14, 78, 308


def head_pose(mesh: Sequence[Point]) -> HeadPose:
    """
    Euler angles of the frame that the mesh spans: across from cheek to cheek, down from forehead to chin, and the
    normal of both, which is where the face points (pitch about the first axis, yaw about the second, roll about the
    third, in the order roll, pitch, yaw).
    """
    across = _unit(_minus(mesh[_LEFT_CHEEK], mesh[_RIGHT_CHEEK]))
    down = _minus(mesh[_CHIN], mesh[_FOREHEAD])
    inwards = _unit(_cross(across, down))
    yaw = math.degrees(math.atan2(-inwards[0], inwards[2]))
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -inwards[1]))))
    roll = math.degrees(math.atan2(across[1], math.hypot(across[0], across[2])))
    return HeadPose(pitch, yaw, roll)


def openness(mesh: Sequence[Point]) -> Openness:
    """
    Eyes: the eye aspect ratio of Soukupova and Cech 2016 (Real-Time Eye Blink Detection using Facial Landmarks), mean
    distance of the lids over that of the corners; about 0.25 to 0.35 when open, below 0.2 when shut. Mouth: distance of
    the inner lips over that of the inner corners.
    """
    mouth = _distance(mesh[_UPPER_LIP], mesh[_LOWER_LIP]) / _distance(mesh[_RIGHT_CORNER], mesh[_LEFT_CORNER])
    return Openness(_eye([mesh[n] for n in _RIGHT_EYE]), _eye([mesh[n] for n in _LEFT_EYE]), mouth)


def _eye(points: Sequence[Point]) -> float:
    outer, upper_outside, upper_inside, inner, lower_inside, lower_outside = points
    lids = _distance(upper_outside, lower_outside) + _distance(upper_inside, lower_inside)
    return lids / (2 * _distance(outer, inner))


def _minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _unit(a: Point) -> Point:
    length = math.hypot(*a)
    return a[0] / length, a[1] / length, a[2] / length


def _distance(a: Point, b: Point) -> float:
    return max(1e-9, math.dist(a, b))
