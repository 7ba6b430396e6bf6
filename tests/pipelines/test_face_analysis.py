"""Faces: where the default engine finds a real parent and a real baby, and where it finds nobody."""

import itertools
from pathlib import Path

import pytest

from tests.clips import Clips, ffmpeg
from tests.staging import Ran, run
from tests.viewer import drawn_faces
from videoannotator.formats.coco import read_faces
from videoannotator.formats.table import read_table
from videoannotator.pipelines.faces_mediapipe import regions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # protobuf's own, at mediapipe's import


def test_no_face_is_found_where_there_is_none(clips: Clips, tmp_path: Path) -> None:
    """And every frame that was looked at is listed, so that "nobody" differs from "not looked at"."""
    ran = run("face_analysis", clips.path("h264.mp4"), tmp_path / "out", {"rate": 5.0})

    faces, samples = read_faces(ran.folder / "face_analysis.json")
    assert faces == ()
    assert [s.frame_number for s in samples] == list(range(0, 100, 5))
    assert drawn_faces(ran.folder / "face_analysis.json") == []
    assert read_table(ran.folder / "face_analysis.csv") == []


@pytest.fixture(scope="session")
def faces_of_sample(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run("face_analysis", sample, tmp_path_factory.mktemp("faces") / "out")


def test_both_people_of_the_sample_are_found_on_most_frames(faces_of_sample: Ran) -> None:
    """A real parent and a real baby, who looks away at first."""
    faces, samples = read_faces(faces_of_sample.folder / "face_analysis.json")

    both = [n for n, there in itertools.groupby(faces, lambda f: f.sample.frame_number) if len(list(there)) == 2]
    assert len(samples) == 150
    assert len(both) > 130
    assert len(drawn_faces(faces_of_sample.folder / "face_analysis.json")) == len(faces)


def test_the_people_of_the_sample_keep_their_ids(faces_of_sample: Ran) -> None:
    """The parent hides behind hands, the baby turns away: still two tracks, left and right."""
    faces, _ = read_faces(faces_of_sample.folder / "face_analysis.json")

    assert {f.track_id for f in faces} == {1, 2}
    sides = {t: {f.bounding_box.x + f.bounding_box.width / 2 > 320 for f in faces if f.track_id == t} for t in (1, 2)}
    assert sorted(map(len, sides.values())) == [1, 1]
    assert all(i.kind == "face_track" and i.duration > 9 for i in faces_of_sample.result.intervals)


@pytest.mark.parametrize(("landmarks", "points"), [("none", 0), ("points", 6), ("mesh", 478)])
def test_landmarks_are_a_choice(landmarks: str, points: int, sample: Path, tmp_path: Path) -> None:
    """They cost time and space."""
    ran = run("face_analysis", sample, tmp_path / "out", {"landmarks": landmarks, "rate": 2.0, "min_track_duration": 0})

    faces, _ = read_faces(ran.folder / "face_analysis.json")
    assert max(len(f.landmarks) for f in faces) == points
    for face in faces:
        box = face.bounding_box
        for x, y in face.landmarks:
            assert abs(x - box.x - box.width / 2) < box.width * 1.2
            assert abs(y - box.y - box.height / 2) < box.height * 1.2


def test_small_faces_are_found_in_squares(sample: Path, tmp_path: Path) -> None:
    """The networks see 128 pixels: in a wide frame a face of a tenth of it is lost without a closer look."""
    clip = tmp_path / "small_faces.mp4"
    ffmpeg("-i", sample, "-t", "4", "-vf", "pad=1280:720:320:120:gray", "-c:v", "libx264", "-an", clip)

    whole, squares = (
        run("face_analysis", clip, tmp_path / detail, {"detail": detail, "rate": 5.0}).result.annotations
        for detail in ("whole", "squares")
    )

    assert squares > 30
    assert squares > 1.5 * whole


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (720, 1280), (500, 500), (2000, 100), (321, 241), (1, 1)])
@pytest.mark.parametrize("detail", ["whole", "squares", "small_squares"])
def test_regions_cover_the_picture(size: tuple[int, int], detail: str) -> None:
    """A face in a strip that nobody looks at is lost."""
    width, height = size

    found = regions(width, height, detail)

    assert all(r.x >= 0 and r.y >= 0 and r.x + r.width <= width and r.y + r.height <= height for r in found)
    squares = [r for r in found if r.width == min(size)] or found
    assert {x for r in squares for x in range(r.x, r.x + r.width)} == set(range(width))
    assert {y for r in squares for y in range(r.y, r.y + r.height)} == set(range(height))
