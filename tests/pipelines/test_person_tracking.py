"""People and their poses: found on a real parent and baby, labelled by proportion, written as the field reads them."""

import contextlib
import io
import json
from pathlib import Path

import msgspec
import psutil
import pytest
from pycocotools.coco import COCO

from tests.clips import Clips, ffmpeg
from tests.staging import Ran, run
from videoannotator.annotations import BoundingBox, Build, Keypoint, Person, Sample
from videoannotator.formats.persons import KEYPOINTS, read_persons, write_persons
from videoannotator.formats.table import read_table
from videoannotator.formats.viewer import Verdict, judge
from videoannotator.jobs import Video
from videoannotator.pipelines.build import BORDER, LEAST_FRAMES, builds

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # protobuf's own, at mediapipe's import

VIDEO = Video(
    filename="clip.mp4", size_bytes=1, container="mp4", duration_seconds=2.0, width=640, height=480, frame_rate=10.0
)
SAMPLES = tuple(Sample(n, n / 10, n * 100) for n in range(20))


def person(
    sample: Sample, *, ears: float = 20.0, shoulders: float = 50.0, sure: float = 0.9, nose: float = 0.0
) -> Person:
    """Upright, seen from the front, the head at (320, 100), the shoulders 40 pixels below, the nose so far beside."""
    across = {"left_ear": ears / 2, "right_ear": -ears / 2, "left_shoulder": shoulders / 2,
              "right_shoulder": -shoulders / 2, "nose": nose}  # fmt: skip
    keypoints = tuple(
        Keypoint(320 + across.get(name, 0.0), 100.0 if n < 5 else 140.0 + 20 * ((n - 5) // 2), sure)
        for n, name in enumerate(KEYPOINTS)
    )
    return Person(sample, BoundingBox(290.0, 90.0, 60.0, 200.0), 0.8, keypoints, track_id=1)


def written(folder: Path, *persons: Person) -> Path:
    file = folder / "person_tracking.json"
    write_persons(
        file,
        VIDEO,
        persons,
        SAMPLES,
        engine="test",
        builds={1: Build("child", 0.7)},
        build_method="by_eye",
        min_keypoint_score=0.5,
    )
    return file


@pytest.fixture(scope="session")
def people_of_sample(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run("person_tracking", sample, tmp_path_factory.mktemp("people") / "out")


# -- what it finds


def test_the_most_prominent_person_of_the_sample_is_followed(people_of_sample: Ran) -> None:
    """Two real people sit there; the engine sees one of them in each frame."""
    people, samples = read_persons(people_of_sample.folder / "person_tracking.json")

    frames = [p.sample.frame_number for p in people]
    assert len(samples) > 90
    assert len(frames) > len(samples) / 2
    assert len(frames) == len(set(frames))


def test_the_parent_is_an_adult_and_of_the_babys_turned_head_nothing_is_said(people_of_sample: Ran) -> None:
    """
    The parent sits on the right. The baby on the left looks to the side all the time: it was called an adult, with a
    confidence of 0.66 here and of 0.87 in a mirror.
    """
    rows = json.loads((people_of_sample.folder / "person_tracking.json").read_text())["annotations"]

    sides = {(r["person_label"], r["bbox"][0] + r["bbox"][2] / 2 > 360) for r in rows if r["person_label"] != "unknown"}
    assert sides == {("adult", True)}


def test_no_person_is_found_where_there_is_none(clips: Clips, tmp_path: Path) -> None:
    """The files are valid, and every frame that was looked at is in them."""
    ran = run("person_tracking", clips.path("no_sound.mp4"), tmp_path / "out")

    people, samples = read_persons(ran.folder / "person_tracking.json")
    assert people == ()
    assert len(samples) == 40
    assert read_table(ran.folder / "person_tracking.csv") == []
    assert judge(ran.folder / "person_tracking.json") == Verdict("person_tracking")


# -- adult or child


@pytest.mark.parametrize(
    ("ears", "label"),
    [(20.0, "adult"), (50 * BORDER, "unknown"), (33.0, "child")],
    ids=["a head of two fifths", "a head at the border", "a head of two thirds"],
)
def test_a_large_head_on_narrow_shoulders_is_a_childs(ears: float, label: str) -> None:
    """At the border nothing is said."""
    found = builds([person(s, ears=ears) for s in SAMPLES], 0.5)

    assert found[1].label == label
    assert (found[1].confidence > 0) == (label != "unknown")


def test_a_few_turned_heads_do_not_change_the_label() -> None:
    """Ears come together in profile: the median of the track decides."""
    turned = [person(s, ears=5.0) for s in SAMPLES[:8]]
    frontal = [person(s, ears=33.0) for s in SAMPLES[8:]]

    assert builds([*turned, *frontal], 0.5)[1].label == "child"


@pytest.mark.parametrize("persons", [
    [person(s) for s in SAMPLES[: LEAST_FRAMES - 1]],
    [person(s, sure=0.3) for s in SAMPLES],
    [person(s, shoulders=12.0) for s in SAMPLES],
    [person(s, ears=15.0, nose=9.0) for s in SAMPLES],
    [person(s, ears=15.0, nose=-9.0) for s in SAMPLES],
    [person(s, ears=0.0) for s in SAMPLES],
], ids=["few frames", "not seen", "from the side", "looks to the left", "looks to the right", "one ear"])  # fmt: skip
def test_what_is_not_seen_well_gets_no_label(persons: list[Person]) -> None:
    """A label that is guessed is worse than none: a turned head is as narrow as an adult's beside its shoulders."""
    assert builds(persons, 0.5)[1] == Build("unknown", 0.0)


# -- what it writes


def test_people_read_back_as_they_were_written(tmp_path: Path) -> None:
    """Nothing is lost but what the format's first lines say."""
    people = tuple(person(s) for s in SAMPLES)

    assert read_persons(written(tmp_path, *people)) == (people, SAMPLES)


def test_pycocotools_loads_the_people(tmp_path: Path) -> None:
    """COCO is what its own reader loads."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(written(tmp_path, person(SAMPLES[3]))))

    (row,) = coco.loadAnns(coco.getAnnIds(imgIds=["3"], catIds=[1]))
    assert row["num_keypoints"] == 17
    assert coco.cats[1]["keypoints"] == list(KEYPOINTS)
    assert len(coco.imgs) == len(SAMPLES)


def test_only_what_is_seen_in_the_picture_is_drawn(tmp_path: Path) -> None:
    """The Viewer draws visibility 2 alone: a guess and a point outside get 1, an absent one 0 at the corner."""
    keypoints = list(person(SAMPLES[0]).keypoints)
    keypoints[0] = Keypoint(10.0, 10.0, 0.2)
    keypoints[1] = Keypoint(700.0, 10.0, 0.9)
    keypoints[2] = Keypoint(30.0, 30.0, 0.0)
    file = written(tmp_path, msgspec.structs.replace(person(SAMPLES[0]), keypoints=tuple(keypoints)))

    (row,) = json.loads(file.read_text())["annotations"]
    assert row["keypoints"][:12] == [10.0, 10.0, 1, 700.0, 10.0, 1, 0.0, 0.0, 0, 330.0, 100.0, 2]
    assert row["num_keypoints"] == 16


def test_the_viewer_takes_every_person(tmp_path: Path) -> None:
    """One record that breaks its rules loses the whole file there."""
    file = written(tmp_path, *(person(s) for s in SAMPLES))

    assert judge(file) == Verdict("person_tracking")
    assert not {"face_id", "attributes", "emotions"} & json.loads(file.read_text())["annotations"][0].keys()


@pytest.mark.slow
def test_a_process_that_stays_does_not_grow_with_each_stage(clips: Clips, tmp_path: Path) -> None:
    """MediaPipe keeps 110 MiB for each graph that nobody closes; a warm process was soon too large to stay."""
    clip, held = tmp_path / "short.mp4", []
    ffmpeg("-i", clips.path("no_sound.mp4"), "-t", "1", "-c", "copy", clip)

    for number in range(5):
        run("person_tracking", clip, tmp_path / f"out{number}")
        held.append(psutil.Process().memory_info().rss)

    assert held[-1] - held[1] < 150 * 2**20
