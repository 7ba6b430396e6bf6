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
