"""Faces and persons of one video, put together: by where heads are, and honestly where that is not clear."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.server import serving
from tests.staging import CATALOGUE, Recorder, run
from videoannotator.annotations import BoundingBox
from videoannotator.errors import StageFailed
from videoannotator.formats.people import People, Seen, Together, write_people, write_people_table
from videoannotator.formats.table import read_table
from videoannotator.formats.viewer import Verdict, judge
from videoannotator.jobs import PEOPLE, Video
from videoannotator.pipelines import people
from videoannotator.pipelines.contract import Stage
from videoannotator.pipelines.links import FaceBox, Head, Link, links

VIDEO_WITH_PICTURE = Video(
    filename="clip.mp4", size_bytes=1, container="mp4", duration_seconds=2.0, width=640, height=480, video_codec="h264"
)
VIDEO = Video(filename="clip.mp4", size_bytes=1, container="mp4", duration_seconds=2.0, width=640, height=480)


def face(at: float, track: int, x: float) -> FaceBox:
    return FaceBox(at, track, BoundingBox(x, 100.0, 40.0, 50.0))


def head(at: float, track: int, x: float) -> Head:
    return Head(at, track, x, 125.0)


def moments(count: int, step: float = 0.1) -> Iterator[float]:
    return (n * step for n in range(count))


# -- which belongs to which


def test_each_head_belongs_to_the_face_around_it() -> None:
    """Two people side by side, looked for at rates of their own."""
    faces = [face(at, track, x) for at in moments(30, 1 / 15) for track, x in ((1, 100.0), (2, 300.0))]
    heads = [head(at, track, x) for at in moments(20) for track, x in ((7, 321.0), (8, 118.0))]

    found = links(faces, heads)

    assert found.found == (Link(2, 7, 20, 1.0), Link(1, 8, 20, 1.0))
    assert set(found.faces.values()) | set(found.persons.values()) == {""}


def test_a_face_keeps_its_person_when_the_persons_track_breaks() -> None:
    """Two tracks of a body, one after the other, are one face's."""
    faces = [face(at, 1, 100.0) for at in moments(20)]
    heads = [head(at, 1 if at < 0.95 else 2, 120.0) for at in moments(20)]

    assert links(faces, heads).found == (Link(1, 1, 10, 1.0), Link(1, 2, 10, 1.0))


def test_a_track_that_changes_over_belongs_to_nobody() -> None:
    """An engine that sees one person goes from the one to the other: half and half is no link, and says so."""
    faces = [face(at, track, x) for at in moments(20) for track, x in ((1, 100.0), (2, 300.0))]
    heads = [head(at, 1, 120.0 if at < 0.95 else 320.0) for at in moments(20)]

    found = links(faces, heads)

    assert found.found == ()
    assert found.faces[1] == "person 1 and face 1 agree in 50% of their moments; 60% are needed"
    assert found.persons[1] == "person 1 and face 1 agree in 50% of their moments; 60% are needed"


@pytest.mark.parametrize(
    ("heads", "why"),
    [
        ([head(at, 1, 120.0) for at in (0.0, 0.1)], "person 1 and face 1 agree in 2 moments; 3 are needed"),
        ([head(at, 1, 500.0) for at in moments(9)], "person 1 and face 1 agree in 0 moments; 3 are needed"),
        ([head(at, 1, 120.0) for at in (5.0, 5.1, 5.2)], "nobody was there at the same time"),
        ([], "nobody was there at the same time"),
    ],
    ids=["too few", "elsewhere", "at another time", "nobody at all"],
)
def test_a_face_that_belongs_to_nobody_says_why(heads: list[Head], why: str) -> None:
    """No link is an answer too."""
    found = links([face(at, 1, 100.0) for at in moments(9)], heads)

    assert found.found == ()
    assert found.faces == {1: why}


def test_a_head_in_two_boxes_belongs_to_the_nearer_one() -> None:
    """Cheek to cheek: one head, one face."""
    faces = [face(at, track, x) for at in moments(9) for track, x in ((1, 100.0), (2, 120.0))]
    heads = [head(at, track, x) for at in moments(9) for track, x in ((1, 141.0), (2, 119.0))]

    assert [(link.face, link.person) for link in links(faces, heads).found] == [(2, 1), (1, 2)]


# -- what is written


def test_both_files_tell_links_and_what_is_alone(tmp_path: Path) -> None:
    """And the Viewer takes neither for something else."""
    anna = Seen(track_id=1, onset=0.0, duration=2.0, label="anna")
    lonely = Seen(track_id=2, onset=1.0, duration=0.5, why_alone="nobody was there at the same time")
    body = Seen(track_id=4, onset=0.2, duration=1.5, label="adult")
    found = People(
        persons=(body,),
        faces=(anna, lonely),
        together=(Together(face=anna, person=body, moments=9, share=0.9),),
        method="by_eye",
    )

    write_people(tmp_path / "people.json", found)
    write_people_table(tmp_path / "people.csv", found)

    told = json.loads((tmp_path / "people.json").read_text())
    assert told["persons"] == [
        {
            "track_id": 4,
            "person_id": "person_4",
            "person_label": "adult",
            "onset": 0.2,
            "duration": 1.5,
            "face_tracks": [{"face_track_id": 1, "moments": 9, "share": 0.9}],
            "names": ["anna"],
        }
    ]
    assert [f.get("why_alone") for f in told["faces"]] == [None, "nobody was there at the same time"]
    assert told["faces"][0]["person_tracks"] == [{"track_id": 4, "person_id": "person_4", "moments": 9, "share": 0.9}]
    rows = read_table(tmp_path / "people.csv")
    assert [(row["track_id"], row["face_track_id"], row["name"]) for row in rows] == [("4", "1", "anna"), ("", "2", "")]
    assert judge(tmp_path / "people.json") == Verdict(None)


def test_it_fails_where_one_of_the_two_is_missing(tmp_path: Path) -> None:
    """So that a retry, which runs the missing one, runs it too."""
    stage = Stage(
        video_path=tmp_path, video=VIDEO, config={}, output_folder=tmp_path, threads=1, max_lost_frames=0,
        report=Recorder(), earlier={"face_analysis.json": tmp_path},
    )  # fmt: skip

    with pytest.raises(StageFailed, match=r"no person_tracking\.json"):
        people.run(stage)


_YAML = """\
name: {name}
version: "1.0.0"
display_name: {name}
family: test
description: A pipeline of the tests.
needs: video
engines: [{{name: none, description: writes what is told}}]
parameters: []
outputs:
  - {{name: {name}.json, format: COCO, role: annotations, media_type: application/json, description: told}}
resources: {{memory_mb: 50, realtime_factor: 1}}
known_limits: []
"""
_CODE = """\
from videoannotator.annotations import BoundingBox, Face, Keypoint, Person, Sample
from videoannotator.formats.coco import write_faces
from videoannotator.formats.persons import write_persons
from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result


def run(stage):
    samples = [Sample(n, n / 10, n) for n in range(9)]
    box, file = BoundingBox(100.0, 100.0, 40.0, 50.0), stage.output_folder / "{name}.json"
    if "{name}" == "face_analysis":
        write_faces(file, stage.video, [Face(s, box, 0.9, 3) for s in samples], samples, engine="none")
    else:
        points = (Keypoint(120.0, 120.0, 0.9),) * 17
        write_persons(
            file, stage.video, [Person(s, box, 0.9, points, 5) for s in samples], samples,
            engine="none", builds={{}}, build_method="none", min_keypoint_score=0.5,
        )
    return Result(
        annotations=9, outputs=(Output("{name}.json", "annotations", "application/json"),), engine="none",
        libraries=(), ledger=Ledger(expected=None, decoded=0, failed=0, processed=0, skipped=0),
    )
"""


async def test_a_job_with_both_gets_them_put_together(clips: Clips, tmp_path: Path) -> None:
    """Without being asked, and after both; a job with one of them gets nothing more."""
    for name in ("face_analysis", "person_tracking"):
        (tmp_path / "told").mkdir(exist_ok=True)
        (tmp_path / "told" / f"{name}.yaml").write_text(_YAML.format(name=name))
        (tmp_path / "told" / f"{name}.py").write_text(_CODE.format(name=name))
    async with serving(tmp_path, pipeline_dirs=(tmp_path / "told",)) as served:
        both = await served.finished(clips.path("h264.mp4"), "person_tracking,face_analysis")
        one = await served.finished(clips.path("h264.mp4"), "face_analysis")
        told = json.loads((served.storage / "results" / both["id"] / "people.json").read_text())

    assert both["outcome"] == "full", both
    assert both["selected_pipelines"] == ["person_tracking", "face_analysis"]
    assert [stage["pipeline"] for stage in both["stages"]] == ["person_tracking", "face_analysis", PEOPLE]
    assert [stage["pipeline"] for stage in one["stages"]] == ["face_analysis"]
    assert told["persons"][0]["face_tracks"] == [{"face_track_id": 3, "moments": 9, "share": 1.0}]


def test_what_else_lacks_sound_does_not_keep_them_apart() -> None:
    """A silent film has faces and persons too."""
    found = CATALOGUE.plan(VIDEO_WITH_PICTURE, ["face_analysis", "person_tracking", "voice_activity"], {})

    assert [stage.pipeline for stage in found if stage.skip_because is None][-1] == PEOPLE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # protobuf's own, at mediapipe's import
def test_parent_and_baby_of_the_sample_have_their_own_faces(sample: Path, tmp_path: Path) -> None:
    """The parent sits on the right, the baby on the left."""
    files = {
        f"{name}.json": run(name, sample, tmp_path / name, {"rate": 5.0}).folder / f"{name}.json"
        for name in ("face_analysis", "person_tracking")
    }
    stage = Stage(
        video_path=sample, video=VIDEO, config={}, output_folder=tmp_path, threads=1, max_lost_frames=0,
        report=Recorder(), earlier=files,
    )  # fmt: skip

    people.run(stage)

    told = json.loads((tmp_path / "people.json").read_text())
    middles = {
        name: {
            row["track_id"]: row["bbox"][0] + row["bbox"][2] / 2 for row in json.loads(file.read_text())["annotations"]
        }
        for name, file in files.items()
    }
    on_the_right = {
        (
            middles["person_tracking.json"][person["track_id"]] > 320,
            middles["face_analysis.json"][face["face_track_id"]] > 320,
        )
        for person in told["persons"]
        for face in person["face_tracks"]
    }
    assert on_the_right == {(True, True), (False, False)}
