"""
Finds over time: which face or person of one frame is which of the next, by ByteTrack (in supervision).

A detector's false alarms come and go from frame to frame, people stay: what makes no track of the least duration is
left out. What stays and is never a sure find is a false alarm too: a stain, a cup, a pattern.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from videoannotator.annotations import BoundingBox, Face, Person, Sample
from videoannotator.pipelines.identities import cosine

Find = TypeVar("Find", Face, Person)

MATCHING_COST = 0.8
"""ByteTrack joins a track and a find where 1 - overlap * score is at most that much."""

SAME_OVERLAP = 0.5
"""Overlap (IoU) from which a find and the one seen there before are one."""

SOMEBODY_ELSE = 0.5
"""Of the likeness from which two are one: below it they are not, whatever place and motion say. Between, these say."""

LONGEST_STEP = 1.5
"""Of the usual time between two samples: who is missing for longer was out of sight."""

FASTEST = 6.0
"""
Of its own widths a second: who is so far away in the next look can still be the same. At 15 looks a second that is less
than what overlaps anyway; at 5 it is more than a width.
"""

FARTHEST = 1.5
"""Widths, however long it is from look to look."""

MOST_GROWN = 1.5
"""Times as wide and as high, or as narrow and low, in the next look."""

ROUNDING_SECONDS = 1e-6


class Track(msgspec.Struct, frozen=True):
    """One face or person from its first sample to its last. `duration` includes the last sample's own time."""

    id: int
    onset: float
    duration: float


class Likeness(Generic[Find]):
    """What finds look like, where an engine can tell: who comes back is known again, and who is in his place is not."""

    def __init__(
        self, vectors: Callable[[Sequence[Sequence[Find]]], Sequence[Any]], *, least: float, max_absence_seconds: float
    ) -> None:
        """
        `vectors` gives for each run of finds the sum of their vectors (numpy), or None. From the cosine `least` on two
        runs may be one, also elsewhere in the picture, if no more than `max_absence_seconds` lie between.
        """
        self.vectors: Callable[[Sequence[Sequence[Find]]], Sequence[Any]] = vectors
        self.least = least
        self.max_absence_seconds = max_absence_seconds


def tracked(
    samples: Sequence[Sample],
    finds: Mapping[int, Sequence[Find]],
    *,
    step_seconds: float,
    max_gap_seconds: float,
    min_duration_seconds: float,
    min_score: float,
    min_best_score: float = 0.0,
    likeness: Likeness[Find] | None = None,
) -> tuple[list[Find], list[Track]]:
    """
    The finds that are part of a track, with its id, in the order of time, and the tracks in the order they begin.

    Args:
        samples: every frame that was looked at, in order.
        finds: by frame number.
        step_seconds: usual time between two samples.
        max_gap_seconds: who is hidden for longer gets a new id.
        min_duration_seconds: shorter tracks are left out, with their finds.
        min_score: a track begins only with a find of that score.
        min_best_score: tracks without a find of that score are left out, with their finds.
    """
    if not any(finds.values()):
        return [], []  # spares the second that the import of supervision takes
    pieces = _runs(samples, finds, max_gap_seconds / step_seconds, min_score)
    if likeness is None:
        runs = _joined_in_place(_chained(pieces, step_seconds), max_gap_seconds)
    else:
        alone = _chained([piece for piece in pieces if len(piece) == 1], step_seconds)
        runs = _joined([piece for piece in pieces if len(piece) > 1] + alone, step_seconds, max_gap_seconds, likeness)
    kept: list[Find] = []
    tracks: list[Track] = []
    for run in runs:
        onset, duration = _time(run[0]), _time(run[-1]) - _time(run[0]) + step_seconds
        if duration >= min_duration_seconds - ROUNDING_SECONDS and max(f.score for f in run) >= min_best_score:
            tracks.append(Track(len(tracks) + 1, onset, duration))
            kept += [msgspec.structs.replace(find, track_id=len(tracks)) for find in run]
    return sorted(kept, key=lambda f: (f.sample.frame_number, f.track_id)), tracks


def _runs(
    samples: Sequence[Sample], finds: Mapping[int, Sequence[Find]], max_gap: float, min_score: float
) -> list[list[Find]]:
    """
    ByteTrack's tracks, each in the order of time, and the finds that are in none, each alone. It tells of a track from
    its second find on; the first is added.
    """
    tracker = _byte_track(max_gap, min_score)
    runs: dict[int, list[Find]] = {}
    free: list[Find] = []
    free_before: list[Find] = []
    for sample in samples:
        found = finds.get(sample.frame_number, ())
        ids = _update(tracker, found)
        for place, track in ids.items():
            if track not in runs:
                runs[track] = _take_first(free_before, found[place])
            runs[track].append(found[place])
        free += free_before
        free_before = [find for place, find in enumerate(found) if place not in ids]
    free += free_before
    pieces = list(runs.values()) + [[find] for find in free]
    return sorted(pieces, key=lambda run: (_time(run[0]), run[0].bounding_box.x))


def load_tracker() -> Any:
    """ByteTrack's class. The first time it takes half a second: supervision loads all it has."""
    from supervision.tracker.byte_tracker.core import ByteTrack

    return ByteTrack


def _byte_track(max_gap: float, min_score: float) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it moves to another package in 0.31; we stay below
        return load_tracker()(
            track_activation_threshold=max(0.0, min_score - 0.1),  # a new track needs 0.1 more, it adds by itself
            lost_track_buffer=max(1, round(max_gap)),
            minimum_matching_threshold=MATCHING_COST,
            frame_rate=30,  # its buffer counts in frames of 1/30 s; with 30 it counts in samples
        )


def _update(tracker: Any, found: Sequence[Find]) -> dict[int, int]:
    """Place of a find in `found` to the id of its track. Called for every sample, also an empty one."""
    import numpy
    from supervision.detection.core import Detections

    detections = Detections(
        numpy.array([_corners(find.bounding_box) for find in found], dtype=numpy.float32).reshape(-1, 4),
        confidence=numpy.array([find.score for find in found], dtype=numpy.float32),
        data={"place": numpy.arange(len(found))},
    )
    tracked = tracker.update_with_detections(detections)
    if not len(tracked):
        return {}
    return dict(zip(tracked.data["place"].tolist(), tracked.tracker_id.tolist(), strict=True))


def _take_first(free: list[Find], find: Find) -> list[Find]:
    best = max(free, key=lambda other: overlap(other.bounding_box, find.bounding_box), default=None)
    if best is None or overlap(best.bounding_box, find.bounding_box) < SAME_OVERLAP:
        return []
    free.remove(best)
    return [best]


def _chained(runs: Sequence[list[Find]], step_seconds: float) -> list[list[Find]]:
    """
    Runs of which one ends in a look and the other begins near by in the next are one, the nearest first. Finds that
    stay alone are left out. Given and returned in the order in which they begin.

    ByteTrack asks for an overlap. Between two looks a fifth of a second apart somebody who leans over has none.
    """
    longest = step_seconds * LONGEST_STEP
    chained: list[list[Find]] = []
    recent: list[list[Find]] = []
    for begun, together in itertools.groupby(runs, key=lambda run: _time(run[0])):
        beginning = list(together)
        recent = [run for run in recent if _time(run[-1]) >= begun - longest]
        near = sorted(
            (apart, end, begin)
            for end, earlier in enumerate(recent)
            for begin, later in enumerate(beginning)
            if (apart := _apart(earlier[-1], later[0])) is not None
        )
        taken: dict[int, int] = {}
        for _, end, begin in near:
            if begin not in taken and end not in taken.values():
                taken[begin] = end
        for begin, end in taken.items():
            recent[end] += beginning[begin]
        fresh = [list(run) for begin, run in enumerate(beginning) if begin not in taken]
        chained += fresh
        recent += fresh
    return [run for run in chained if len(run) > 1]


def _apart(earlier: Find, later: Find) -> float | None:
    """How far, in widths; None where that is too far or too different in size to be one."""
    seconds, a, b = _time(later) - _time(earlier), earlier.bounding_box, later.bounding_box
    if seconds <= 0 or min(a.width, a.height, b.width, b.height) <= 0:
        return None
    grown = max(a.width / b.width, b.width / a.width, a.height / b.height, b.height / a.height)
    across, down = a.x + a.width / 2 - b.x - b.width / 2, a.y + a.height / 2 - b.y - b.height / 2
    apart = math.hypot(across, down) / ((a.width + b.width) / 2)
    return apart if grown <= MOST_GROWN and apart <= min(FARTHEST, FASTEST * seconds) else None


def _joined(
    runs: Sequence[list[Find]], step_seconds: float, max_gap_seconds: float, likeness: Likeness[Find]
) -> list[list[Find]]:
    """
    Runs cut where somebody was out of sight, and put together anew: by looks where these are clear, else as ByteTrack
    had it or by place.
    """
    pieces = [_Run(piece, n) for n, run in enumerate(runs) for piece in _unbroken(run, step_seconds)]
    pieces.sort(key=lambda piece: (_time(piece.finds[0]), piece.finds[0].bounding_box.x))
    for piece, vector in zip(pieces, likeness.vectors([piece.finds for piece in pieces]), strict=True):
        piece.vector = vector
    longest = max(max_gap_seconds, likeness.max_absence_seconds) + ROUNDING_SECONDS
    joined: list[_Run[Find]] = []
    recent: list[_Run[Find]] = []
    for piece in pieces:
        recent = [earlier for earlier in recent if _gap(earlier, piece) <= longest]
        bonds = [_bond(earlier, piece, max_gap_seconds, likeness.least) for earlier in recent]
        strongest = max(bonds, default=0.0)
        if strongest > 0:
            recent[bonds.index(strongest)].take(piece)
        else:
            joined.append(piece)
            recent.append(piece)
    return [run.finds for run in joined]


class _Run(Generic[Find]):
    def __init__(self, finds: list[Find], source: int) -> None:
        self.finds: list[Find] = finds
        self.source = source
        """Which of ByteTrack's runs its end belongs to."""

        self.vector: Any = None

    def take(self, later: "_Run[Find]") -> None:
        self.finds += later.finds
        self.source = later.source
        known = [vector for vector in (self.vector, later.vector) if vector is not None]
        self.vector = sum(known[1:], known[0]) if known else None


def _unbroken(run: Sequence[Find], step_seconds: float) -> list[list[Find]]:
    pieces = [[run[0]]]
    for before, find in itertools.pairwise(run):
        if _time(find) - _time(before) > step_seconds * LONGEST_STEP:
            pieces.append([])
        pieces[-1].append(find)
    return pieces


def _gap(earlier: _Run[Find], later: _Run[Find]) -> float:
    return _time(later.finds[0]) - _time(earlier.finds[-1])


def _bond(earlier: _Run[Find], later: _Run[Find], max_gap_seconds: float, least: float) -> float:
    """0 where they are not one; more than 1 where looks speak for it, 1 where ByteTrack does, and else the overlap."""
    gap = _gap(earlier, later)
    if gap <= 0:
        return 0.0
    if earlier.vector is not None and later.vector is not None:
        alike = cosine(earlier.vector, later.vector)
        if alike >= least:
            return 1 + alike
        if alike < least * SOMEBODY_ELSE:
            return 0.0
    if earlier.source == later.source:
        return 1.0
    if gap > max_gap_seconds + ROUNDING_SECONDS:
        return 0.0
    shared = overlap(earlier.finds[-1].bounding_box, later.finds[0].bounding_box)
    return shared if shared >= SAME_OVERLAP else 0.0


def _joined_in_place(runs: Sequence[list[Find]], max_gap_seconds: float) -> list[list[Find]]:
    """
    Runs that go on where another ended not long before are one.

    ByteTrack expects who is hidden to move on as it did before; a face that waits behind hands comes back where it was.
    """
    joined: list[list[Find]] = []
    for run in runs:
        ended = [e for e in joined if 0 < _time(run[0]) - _time(e[-1]) <= max_gap_seconds + ROUNDING_SECONDS]
        best = max(ended, key=lambda e: overlap(e[-1].bounding_box, run[0].bounding_box), default=None)
        if best is not None and overlap(best[-1].bounding_box, run[0].bounding_box) >= SAME_OVERLAP:
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


def _time(find: Face | Person) -> float:
    return find.sample.timestamp
