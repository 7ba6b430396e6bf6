"""Who is who from frame to frame: what becomes a track, and when it goes on."""

from typing import Any

import pytest

from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.pipelines.tracks import tracked


def moving(track: list[tuple[int, float]], score: float = 0.9) -> dict[int, list[Face]]:
    """Faces 50 pixels wide by frame number, at the given x."""
    return {n: [Face(Sample(n, n / 10, n), BoundingBox(x, 100, 50, 50), score)] for n, x in track}


def followed(faces: dict[int, list[Face]], **more: Any) -> tuple[list[Face], list[Any]]:
    samples = [Sample(n, n / 10, n) for n in range(100)]
    given: dict[str, Any] = {
        "step_seconds": 0.1, "max_gap_seconds": 1.0, "min_duration_seconds": 0.3, "min_score": 0.5,
    }  # fmt: skip
    return tracked(samples, faces, **(given | more))


def test_a_track_begins_with_its_first_face() -> None:
    """ByteTrack itself tells of a face from its second frame on."""
    faces, tracks = followed(moving([(n, 100 + n) for n in range(20, 40)]))

    assert [f.sample.frame_number for f in faces] == list(range(20, 40))
    assert [(t.id, t.onset, t.duration) for t in tracks] == [(1, 2.0, pytest.approx(2.0))]


def test_what_flickers_is_no_face() -> None:
    """False alarms last a frame or two; they take no id either."""
    noise = moving([(3, 400), (9, 10), (10, 12)])

    faces, tracks = followed(moving([(n, 100) for n in range(20, 40)]) | noise)

    assert {f.track_id for f in faces} == {1}
    assert len(tracks) == 1


@pytest.mark.parametrize(("gap", "ids"), [(8, {1}), (15, {1, 2})])
def test_a_hidden_face_comes_back_as_itself_unless_it_stays_away(gap: int, ids: set[int]) -> None:
    """Peekaboo."""
    faces, _ = followed(moving([(n, 100 + 4 * n) for n in range(20)] + [(n + gap, 180) for n in range(20, 40)]))

    assert {f.track_id for f in faces} == ids


def test_no_faces_make_no_tracks() -> None:
    """Empty rooms are recorded too."""
    assert followed({}) == ([], [])


def seen_at(rate: int, x_by_look: dict[int, float], y: float = 100.0, size: float = 50.0) -> dict[int, list[Face]]:
    """A face by number of the look, at so many looks a second."""
    return {n: [Face(Sample(n, n / rate, n), BoundingBox(x, y, size, size), 0.9)] for n, x in x_by_look.items()}


def looked(rate: int, faces: dict[int, list[Face]]) -> tuple[list[Face], list[Any]]:
    samples = [Sample(n, n / rate, n) for n in range(40)]
    more = {"step_seconds": 1 / rate, "max_gap_seconds": 1.0, "min_duration_seconds": 0.3, "min_score": 0.5}
    return tracked(samples, faces, **more)


def test_who_moves_by_more_than_a_width_from_look_to_look_is_one_and_is_kept() -> None:
    """Five times a second somebody who crosses the picture in two is never where he was: all of him was lost."""
    faces, tracks = looked(5, seen_at(5, {n: 56.0 * (n - 10) for n in range(10, 20)}))

    assert [f.sample.frame_number for f in faces] == list(range(10, 20))
    assert [(t.onset, t.duration) for t in tracks] == [(2.0, pytest.approx(2.0))]


def test_the_first_look_at_somebody_counts_also_when_he_is_elsewhere_in_the_next() -> None:
    """Else every onset is a look late."""
    faces, tracks = looked(5, seen_at(5, {10: 40.0, **dict.fromkeys(range(11, 20), 100.0)}))

    assert min(f.sample.frame_number for f in faces) == 10
    assert len(tracks) == 1


@pytest.mark.parametrize(
    ("rate", "second"),
    [(5, (140.0, 100.0, 50.0)), (5, (80.0, 100.0, 90.0)), (15, (125.0, 100.0, 50.0))],
    ids=["too far", "too large", "too fast"],
)
def test_two_looks_that_are_not_one_face_are_none(rate: int, second: tuple[float, float, float]) -> None:
    """Two false alarms in a row make no face, nor does a cut make two people one."""
    x, y, size = second
    first = dict.fromkeys(range(4, 10), 60.0)
    there = seen_at(rate, first) | seen_at(rate, dict.fromkeys(range(10, 16), x), y, size)

    faces, tracks = looked(rate, there)

    assert len(tracks) == 2
    assert {len([f for f in faces if f.track_id == track.id]) for track in tracks} == {6}


def test_of_two_who_are_near_the_nearest_is_meant() -> None:
    """Two people who cross the picture side by side stay two."""
    above = seen_at(5, {n: 40.0 * n for n in range(10)}, y=100.0)
    below = seen_at(5, {n: 40.0 * n for n in range(10)}, y=170.0)

    faces, tracks = looked(5, {n: [*below[n], *above[n]] for n in range(10)})

    assert [len({f.bounding_box.y for f in faces if f.track_id == track.id}) for track in tracks] == [1, 1]
    assert len(faces) == 20
