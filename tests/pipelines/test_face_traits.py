"""
What a face looks like: measured on real faces by MediaPipe's mesh, and by insightface and HSEmotion through their real
code paths on tiny networks whose answers are known.
"""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests import tiny_onnx
from tests.clips import ffmpeg
from tests.staging import Recorder
from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.errors import InvalidConfig, StageFailed
from videoannotator.jobs import ModelFiles
from videoannotator.media.probe import probe
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.face_analysis import run
from videoannotator.pipelines.face_measures import head_pose, openness
from videoannotator.pipelines.faces_insightface import InsightFaces
from videoannotator.pipelines.identities import joined, people_of, with_identities
from videoannotator.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # protobuf's own, at mediapipe's import
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # numpy's and scikit-image's, inside insightface
]

NOW = Sample(0, 0.0, 0)

# a red face on the left, gone from 1.0 to 2.0 s; a green one on the right, all the time; 32 pixels each and 3 s long
RED_AND_GREEN = (
    "color=black:s=640x640:r=10:d=3,format=rgb24,"
    "drawbox=x=96:y=288:w=32:h=32:c=red:t=fill:enable='not(between(t,1.0,1.95))',"
    "drawbox=x=480:y=288:w=32:h=32:c=lime:t=fill"
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """With tiny packages imported, as a user without a network does it."""
    folder = tmp_path_factory.mktemp("faces")
    found = Catalogue.of(Settings(storage_dir=folder / "storage"))
    found.supplies.shelf.bring_in(tiny_onnx.insightface_package(folder / "package"), "buffalo_s")
    found.supplies.shelf.bring_in(tiny_onnx.hsemotion(folder / "emotion"), "hsemotion-enet-b0")
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip") / "two.mp4"
    ffmpeg("-f", "lavfi", "-i", RED_AND_GREEN, "-c:v", "libx264rgb", "-qp", "0", made)
    return made


def analysed(catalogue: Catalogue, clip: Path, folder: Path, **config: Any) -> tuple[Result, list[dict[str, Any]]]:
    """The result, and the rows of faces in the file."""
    folder.mkdir()
    values = catalogue.require(["face_analysis"], {"face_analysis": config})["face_analysis"]
    result = run(
        Stage(
            video_path=clip,
            video=probe(clip),
            config=values,
            output_folder=folder,
            threads=1,
            max_lost_frames=0.01,
            report=Recorder(),
            models=catalogue.supplies.models(catalogue.get("face_analysis"), values),
        )
    )
    return result, json.loads((folder / "face_analysis.json").read_text())["annotations"]


def with_insightface(**config: Any) -> dict[str, Any]:
    return {"engine": "insightface", "package": "buffalo_s"} | config


# -- measured on the mesh

FRONTAL = [(0.0, 0.0, 0.0)] * 478


def mesh(turn: Any = None, **moved: tuple[float, float, float]) -> list[tuple[float, float, float]]:
    """A face seen from the front, 100 wide and 140 high, turned by a 3 x 3 matrix."""
    points = {
        234: (-50, 0, 0), 454: (50, 0, 0), 10: (0, -70, 0), 152: (0, 70, 0),
        33: (-40, -20, 0), 160: (-33, -24, 0), 158: (-27, -24, 0), 133: (-20, -20, 0), 153: (-27, -16, 0),
        144: (-33, -16, 0), 263: (40, -20, 0), 387: (33, -21, 0), 385: (27, -21, 0), 362: (20, -20, 0),
        380: (27, -19, 0), 373: (33, -19, 0), 13: (0, 35, 0), 14: (0, 45, 0), 78: (-20, 40, 0), 308: (20, 40, 0),
    }  # fmt: skip
    found = list(FRONTAL)
    for number, point in points.items():
        x, y, z = numpy.asarray(turn if turn is not None else numpy.eye(3)) @ numpy.array(point)
        found[number] = (float(x), float(y), float(z))
    return found


def turned(axis: str, degrees: float) -> Any:
    """A rotation in the picture's axes: x to the right, y down, z away from the camera (a right-handed system)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return numpy.array({
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis])  # fmt: skip


@pytest.mark.parametrize(
    ("turn", "pose"),
    [
        (numpy.eye(3), (0, 0, 0)),
        (turned("x", 20), (20, 0, 0)),
        (turned("y", -30), (0, 30, 0)),
        (turned("z", 15), (0, 0, 15)),
    ],
    ids=["straight", "looks down", "to the own left", "leans to the own left"],
)
def test_head_pose_tells_where_a_face_is_turned(turn: Any, pose: tuple[float, ...]) -> None:
    """
    Signs are half of an angle. Looking down, the nose, which points to (0, 0, -1), goes to positive y; turned to the
    person's own left it goes to the right of the picture.
    """
    found = head_pose(mesh(turn))

    assert (found.pitch, found.yaw, found.roll) == pytest.approx(pose, abs=1e-6)


def test_openness_is_height_over_width() -> None:
    """The right eye is open, the left one nearly shut, the mouth a quarter as high as wide; size does not count."""
    near, far = openness(mesh()), openness([(x / 3, y / 3, z / 3) for x, y, z in mesh()])

    assert (near.right_eye, near.left_eye, near.mouth) == pytest.approx((0.4, 0.1, 0.25))
    assert (far.right_eye, far.left_eye, far.mouth) == pytest.approx((0.4, 0.1, 0.25))


def test_parent_and_baby_of_the_sample_face_each_other(catalogue: Catalogue, sample: Path, tmp_path: Path) -> None:
    """The baby sits on the left of the picture and looks to the right of it, the parent the other way round."""
    _, rows = analysed(catalogue, sample, tmp_path / "out", head_pose=True, rate=3.0, min_track_duration=0.0)

    baby, parent = ([r["attributes"] for r in rows if (r["bbox"][0] > 320) == right and "attributes" in r]
                    for right in (False, True))  # fmt: skip
    assert numpy.median([a["head_pose"]["yaw"] for a in baby]) > 15
    assert numpy.median([a["head_pose"]["yaw"] for a in parent]) < -5
    assert all(0 <= a["openness"]["mouth"] < 1.5 for a in (*baby, *parent))


# -- insightface


@pytest.mark.parametrize(
    ("axis", "degrees", "pose"),
    [("x", 20.0, (-20, 0, 0)), ("y", 20.0, (0, 20, 0)), ("z", 20.0, (0, 0, 20))],
    ids=["looks up", "to the own left", "leans to the own left"],
)
def test_insightfaces_angles_have_our_signs(axis: str, degrees: float, pose: tuple[float, ...], tmp_path: Path) -> None:
    """Its mean shape has z towards the camera, so the nose points to (0, 0, 1): turned about x by 20 it goes up."""
    package = tiny_onnx.insightface_package(tmp_path, turned=turned(axis, degrees))
    picture = numpy.zeros((640, 640, 3), numpy.uint8)
    picture[320:352, 320:352] = 255

    (face,) = insightfaces(package, measures=True).find(picture, NOW, 10)

    assert face.traits.head_pose is not None
    found = face.traits.head_pose
    assert (found.pitch, found.yaw, found.roll) == pytest.approx(pose, abs=1e-3)


def insightfaces(package: Path, **more: Any) -> InsightFaces:
    given = {"landmarks": "none", "measures": False, "age_gender": False, "identity": False} | more
    return InsightFaces(ModelFiles("buffalo_s", str(package), "0", "research"), min_score=0.5, threads=1, **given)


def test_insightface_tells_all_it_is_asked_for(catalogue: Catalogue, clip: Path, tmp_path: Path) -> None:
    """Everything through the library, and the package named in the result."""
    config = with_insightface(landmarks="contour", head_pose=True, age_gender=True, identity=True, emotion=True)

    result, rows = analysed(catalogue, clip, tmp_path / "out", **config)

    assert len(rows) >= 50
    row = rows[0]
    assert row["attributes"] | {"emotions": 0, "head_pose": 0} == {
        "age": 30, "gender": "male", "emotions": 0, "head_pose": 0,
    }  # fmt: skip
    assert [e["rank"] for e in row["attributes"]["emotions"].values()] == list(range(1, 9))
    assert sum(e["score"] for e in row["attributes"]["emotions"].values()) == pytest.approx(1, abs=1e-3)
    assert len(row["keypoints"]) == 3 * 106
    assert row["identity"] in (1, 2)
    assert {m.name for m in result.models} == {"buffalo_s", "hsemotion-enet-b0"}
    assert "insightface" in result.libraries


def test_nothing_is_told_that_was_not_asked_for(catalogue: Catalogue, clip: Path, tmp_path: Path) -> None:
    """Age and gender of strangers are not computed by the way."""
    _, rows = analysed(catalogue, clip, tmp_path / "out", **with_insightface())

    assert not any({"attributes", "identity"} & row.keys() for row in rows)


@pytest.mark.parametrize("limit", [{"min_trait_size": 200.0}, {"min_trait_score": 0.99}])
def test_age_and_expression_of_small_or_doubtful_faces_are_withheld(
    limit: dict[str, float], catalogue: Catalogue, clip: Path, tmp_path: Path
) -> None:
    """A number that nobody should rely on is not written."""
    config = with_insightface(age_gender=True, emotion=True, min_score=0.3, **limit)

    _, rows = analysed(catalogue, clip, tmp_path / "out", **config)

    assert len(rows) >= 50
    assert not any("attributes" in row for row in rows)


def test_a_person_who_comes_back_has_another_track_and_the_same_identity(
    catalogue: Catalogue, clip: Path, tmp_path: Path
) -> None:
    """Red, green and red again: three tracks, two people."""
    config = with_insightface(identity=True, max_gap=0.3, max_absence=0.3)

    _, rows = analysed(catalogue, clip, tmp_path / "out", **config)

    of_track = {row["track_id"]: row["identity"] for row in rows}
    on_the_left = {row["track_id"] for row in rows if row["bbox"][0] < 320}
    assert len(of_track) == 3
    assert len(on_the_left) == 2
    assert len({of_track[track] for track in on_the_left}) == 1
    assert len(set(of_track.values())) == 2


HIDDEN = (
    "color=black:s=640x640:r=10:d=3,format=rgb24,"
    "drawbox=x=96:y=288:w=32:h=32:c=red:t=fill:enable='lt(t,0.95)',"
    "drawbox=x=480:y=96:w=32:h=32:c=red:t=fill:enable='gt(t,1.95)',"
    "drawbox=x=96:y=288:w=32:h=32:c=lime:t=fill:enable='between(t,1.45,2.5)'"
)
"""A red face is hidden and comes out on the other side a second later; a green one appears where it was."""


@pytest.mark.parametrize(("identity", "ids_of_red", "ids_in_all"), [(True, 1, 2), (False, 2, 2)])
def test_who_comes_out_elsewhere_is_known_again_by_looks(
    identity: bool, ids_of_red: int, ids_in_all: int, catalogue: Catalogue, tmp_path: Path
) -> None:
    """And who takes the place is somebody else; by place alone it is the other way round, as it must be."""
    clip = tmp_path / "hidden.mp4"
    ffmpeg("-f", "lavfi", "-i", HIDDEN, "-c:v", "libx264rgb", "-qp", "0", clip)

    _, rows = analysed(catalogue, clip, tmp_path / "out", **with_insightface(identity=identity))

    seen = [(row["track_id"], row["timestamp"], row["bbox"][0] < 320) for row in rows]
    red = {track for track, at, left in seen if (at < 1.2 if left else True)}
    green = {track for track, at, left in seen if left and at > 1.2}
    assert len(seen) >= 28
    assert len(red) == ids_of_red
    assert len(red | green) == ids_in_all
    assert red.isdisjoint(green) == identity


def test_traits_stand_in_the_table_too(catalogue: Catalogue, clip: Path, tmp_path: Path) -> None:
    """One row for each face, empty cells for what is not known."""
    analysed(catalogue, clip, tmp_path / "out", **with_insightface(age_gender=True))

    with (tmp_path / "out" / "face_analysis.csv").open() as lines:
        first = next(csv.DictReader(lines))
    assert (first["age"], first["gender"], first["yaw"], first["expression"]) == ("30", "male", "", "")


def test_a_package_without_a_network_is_said_to_be_damaged(tmp_path: Path) -> None:
    """Not a half result."""
    package = tiny_onnx.insightface_package(tmp_path)
    (package / "genderage_tiny.onnx").unlink()

    with pytest.raises(StageFailed, match="no network for genderage"):
        insightfaces(package, age_gender=True)


# -- who is who


def face(frame: int, track: int, *vector: float) -> Face:
    length = math.hypot(*vector) or 1.0
    box = BoundingBox(0.0, 0.0, 10.0, 10.0)
    embedding = tuple(value / length for value in vector)
    return Face(Sample(frame, frame / 10, frame), box, 0.9, track, embedding=embedding)


def identified(faces: list[Face], least: float) -> list[Face]:
    return with_identities(faces, joined(people_of(faces), least))


def test_two_in_one_picture_are_never_one_person() -> None:
    """Twins look alike: still two."""
    faces = identified([face(0, 1, 1, 0), face(0, 2, 1, 0), face(1, 3, 1, 0.01)], 0.4)

    assert faces[0].identity != faces[1].identity
    assert faces[2].identity in (1, 2)


def test_alike_enough_is_what_the_parameter_says() -> None:
    """The cosine of 60 degrees is 0.5."""
    apart = [face(0, 1, 1, 0), face(1, 2, 0.5, math.sqrt(0.75))]

    assert {f.identity for f in identified(apart, 0.45)} == {1}
    assert {f.identity for f in identified(apart, 0.55)} == {1, 2}


def test_a_face_without_a_vector_has_no_identity() -> None:
    """It is not guessed."""
    assert [f.identity for f in identified([face(0, 1), face(1, 2, 1, 0)], 0.4)] == [None, 1]


# -- what an engine cannot do


@pytest.mark.parametrize("asked", [{"age_gender": True}, {"identity": True}, {"landmarks": "contour"}])
def test_what_the_engine_cannot_do_is_refused(asked: dict[str, Any], catalogue: Catalogue) -> None:
    """It would be left out in silence."""
    with pytest.raises(InvalidConfig) as refused:
        catalogue.require(["face_analysis"], {"face_analysis": {"engine": "mediapipe"} | asked})

    (problem,) = refused.value.problems
    assert problem.field == f"face_analysis.{next(iter(asked))}"
    assert problem.allowed == ("insightface",)
