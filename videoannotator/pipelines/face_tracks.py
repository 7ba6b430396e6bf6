"""
Faces over time: which face of one frame is which of the next, by ByteTrack (in supervision).

A detector's false alarms come and go from frame to frame, faces stay: what makes no track of the least duration is
left out.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from videoannotator.annotations import BoundingBox, Face, Sample

MATCHING_COST = 0.8
"""ByteTrack joins a track and a face where 1 - overlap * score is at most that much."""

SAME_FACE_OVERLAP = 0.5
"""Overlap (IoU) from which a face and the one seen there before are one."""

ROUNDING_SECONDS = 1e-6


class Track(msgspec.Struct, frozen=True):
    """One face from its first sample to its last. `duration` includes the last sample's own time."""

    id: int
    onset: float
    duration: float


def track_faces(
    samples: Sequence[Sample],
    faces: Mapping[int, Sequence[Face]],
    *,
    step_seconds: float,
    max_gap_seconds: float,
    min_duration_seconds: float,
    min_score: float,
) -> tuple[list[Face], list[Track]]:
    """
    The faces that are part of a track, with its id, in the order of time, and the tracks in the order they begin.

    Args:
        samples: every frame that was looked at, in order.
        faces: by frame number.
        step_seconds: usual time between two samples.
        max_gap_seconds: a face that is hidden for longer gets a new id.
        min_duration_seconds: shorter tracks are left out, with their faces.
        min_score: a track begins only with a face of that score.
    """
    if not any(faces.values()):
        return [], []  # spares the second that the import of supervision takes
    runs = _joined(_runs(samples, faces, max_gap_seconds / step_seconds, min_score), max_gap_seconds)
    tracked: list[Face] = []
    tracks: list[Track] = []
    for run in runs:
        onset, duration = _time(run[0]), _time(run[-1]) - _time(run[0]) + step_seconds
        if duration >= min_duration_seconds - ROUNDING_SECONDS:
            tracks.append(Track(len(tracks) + 1, onset, duration))
            tracked += [msgspec.structs.replace(face, track_id=len(tracks)) for face in run]
    return sorted(tracked, key=lambda f: (f.sample.frame_number, f.track_id)), tracks


Run = list[Face]
"""One face in the order of time."""


def _runs(
    samples: Sequence[Sample], faces: Mapping[int, Sequence[Face]], max_gap: float, min_score: float
) -> list[Run]:
    """ByteTrack's tracks. It tells of one from its second face on; the first is added here."""
    tracker = _byte_track(max_gap, min_score)
    runs: dict[int, Run] = {}
    free_before: list[Face] = []
    for sample in samples:
        found = faces.get(sample.frame_number, ())
        ids = _update(tracker, found)
        for place, track in ids.items():
            if track not in runs:
                runs[track] = _take_first(free_before, found[place])
            runs[track].append(found[place])
        free_before = [face for place, face in enumerate(found) if place not in ids]
    return sorted(runs.values(), key=lambda run: (_time(run[0]), run[0].bounding_box.x))


def _byte_track(max_gap: float, min_score: float) -> Any:
    from supervision.tracker.byte_tracker.core import ByteTrack

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it moves to another package in 0.31; we stay below
        return ByteTrack(
            track_activation_threshold=max(0.0, min_score - 0.1),  # a new track needs 0.1 more, it adds by itself
            lost_track_buffer=max(1, round(max_gap)),
            minimum_matching_threshold=MATCHING_COST,
            frame_rate=30,  # its buffer counts in frames of 1/30 s; with 30 it counts in samples
        )


def _update(tracker: Any, found: Sequence[Face]) -> dict[int, int]:
    """Place of a face in `found` to the id of its track. Called for every sample, also an empty one."""
    import numpy
    from supervision.detection.core import Detections

    detections = Detections(
        numpy.array([_corners(face.bounding_box) for face in found], dtype=numpy.float32).reshape(-1, 4),
        confidence=numpy.array([face.score for face in found], dtype=numpy.float32),
        data={"place": numpy.arange(len(found))},
    )
    tracked = tracker.update_with_detections(detections)
    if not len(tracked):
        return {}
    return dict(zip(tracked.data["place"].tolist(), tracked.tracker_id.tolist(), strict=True))


def _take_first(free: list[Face], face: Face) -> Run:
    best = max(free, key=lambda other: overlap(other.bounding_box, face.bounding_box), default=None)
    if best is None or overlap(best.bounding_box, face.bounding_box) < SAME_FACE_OVERLAP:
        return []
    free.remove(best)
    return [best]


def _joined(runs: Sequence[Run], max_gap_seconds: float) -> list[Run]:
    """
    Runs that go on where another ended not long before are one.

    ByteTrack expects a hidden face to move on as it did before; one that waits behind hands comes back where it was.
    """
    joined: list[Run] = []
    for run in runs:
        ended = [e for e in joined if 0 < _time(run[0]) - _time(e[-1]) <= max_gap_seconds + ROUNDING_SECONDS]
        best = max(ended, key=lambda e: overlap(e[-1].bounding_box, run[0].bounding_box), default=None)
        if best is not None and overlap(best[-1].bounding_box, run[0].bounding_box) >= SAME_FACE_OVERLAP:
            best += run
        else:
            joined.append(list(run))
    return joined


def overlap(a: BoundingBox, b: BoundingBox) -> float:
    """Intersection over union, 0 to 1."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a.area + b.area - width * height)


def _corners(box: BoundingBox) -> tuple[float, float, float, float]:
    return box.x, box.y, box.x + box.width, box.y + box.height


def _time(face: Face) -> float:
    return face.sample.timestamp
