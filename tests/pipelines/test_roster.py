"""People by name: pictures of the user's, through the real library on tiny networks, and what is refused of them."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy
import pytest

from tests import tiny_onnx
from tests.clips import Clips
from tests.server import Served, serving
from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.cli.inputs import on_this_machine
from videoannotator.errors import InvalidConfig, Refused, StageFailed
from videoannotator.jobs import ModelFiles, NamedPicture
from videoannotator.pipelines import pictures
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.faces_insightface import InsightFaces
from videoannotator.pipelines.identities import Person
from videoannotator.pipelines.roster import METHOD, recognised, roster

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # numpy's and scikit-image's, inside insightface

RED, GREEN, BLACK = (0, 0, 255), (0, 255, 0), (0, 0, 0)
"""As OpenCV writes them: blue, green, red."""


def picture(file: Path, *colours: tuple[int, int, int], side: int = 640) -> Path:
    """A square of each colour on black: to the tiny networks, so many faces."""
    image = numpy.zeros((side, side, 3), numpy.uint8)
    for number, colour in enumerate(colours):
        left = 96 + 192 * number
        image[288:320, left : left + 32] = colour
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)
    return file


def named(folder: Path) -> tuple[NamedPicture, ...]:
    return pictures.hashed("roster", str(folder), [folder.parent])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> InsightFaces:
    package = ModelFiles("buffalo_s", str(tiny_onnx.insightface_package(tmp_path_factory.mktemp("faces"))), "0", "free")
    return InsightFaces(
        package, landmarks="none", measures=False, age_gender=False, identity=True, min_score=0.5, threads=1
    )


def read(folder: Path, engine: InsightFaces) -> dict[str, Any]:
    return roster(named(folder), lambda image: engine.find(image, Sample(0, 0.0, 0), 0.0))


# -- who is who


def test_faces_are_told_by_the_pictures_of_each_name(engine: InsightFaces, tmp_path: Path) -> None:
    """One picture, or a folder of them."""
    picture(tmp_path / "r" / "anna.png", RED)
    picture(tmp_path / "r" / "bob" / "1.png", GREEN)
    picture(tmp_path / "r" / "bob" / "2.png", (0, 250, 0))
    image = cv2.imread(str(picture(tmp_path / "scene.png", GREEN, RED)))[:, :, ::-1]

    names = read(tmp_path / "r", engine)
    faces = sorted(engine.find(image, Sample(0, 0.0, 0), 0.0), key=lambda face: face.bounding_box.x)

    people = [Person({n}, {0}, numpy.asarray(face.embedding)) for n, face in enumerate(faces, start=1)]
    found = recognised(people, names, least=0.45, margin=0.1)
    assert [found[n].name for n in (1, 2)] == ["bob", "anna"]
    assert [found[n].similarity for n in (1, 2)] == pytest.approx([1, 1], abs=1e-2)
    assert {who.method for who in found.values()} == {METHOD}


def person(track: int, frame: int, *vector: float) -> Person:
    return Person({track}, {frame}, numpy.array(vector))


NAMES = {"anna": numpy.array([1.0, 0.0]), "bob": numpy.array([0.0, 1.0])}


@pytest.mark.parametrize(
    ("vector", "name"),
    [((1.0, 0.2), "anna"), ((1.0, 0.9), "unknown"), ((-1.0, 0.3), "unknown")],
    ids=["alike", "between two names", "like nobody"],
)
def test_who_is_not_clearly_one_of_them_is_unknown(vector: tuple[float, ...], name: str) -> None:
    """A wrong name is worse than none. The similarity is that to the nearest name all the same."""
    (found,) = recognised([person(1, 0, *vector)], NAMES, least=0.45, margin=0.1).values()

    assert found.name == name
    assert found.similarity == pytest.approx(max(vector) / float(numpy.hypot(*vector)))


def test_two_in_one_picture_never_have_one_name() -> None:
    """The more alike of the two has it; who comes when both are gone may be her again."""
    people = [person(1, 0, 1.0, 0.3), person(2, 0, 1.0, 0.1), person(3, 9, 1.0, 0.2)]

    found = recognised(people, NAMES, least=0.45, margin=0.1)

    assert [found[track].name for track in (1, 2, 3)] == ["unknown", "anna", "anna"]


# -- what is refused


@pytest.mark.parametrize(
    ("colours", "why"),
    [((), "one.png in the roster shows no face"), ((RED, GREEN), "one.png in the roster shows 2 faces")],
)
def test_a_picture_without_exactly_one_face_is_named(
    colours: tuple[tuple[int, int, int], ...], why: str, engine: InsightFaces, tmp_path: Path
) -> None:
    """Whose face is it?"""
    picture(tmp_path / "r" / "one.png", *colours)

    with pytest.raises(StageFailed, match=why) as failed:
        read(tmp_path / "r", engine)
    assert failed.value.code == "ROSTER_UNUSABLE"


def test_a_damaged_picture_is_named(engine: InsightFaces, tmp_path: Path) -> None:
    """It begins as a picture does, which is all that a submission looks at."""
    file = picture(tmp_path / "r" / "one.png", RED)
    file.write_bytes(file.read_bytes()[:40])

    with pytest.raises(StageFailed, match=r"one\.png in the roster is no picture that can be read"):
        read(tmp_path / "r", engine)


def test_a_face_that_fills_its_picture_is_found(tmp_path: Path) -> None:
    """Cut-out portraits are what people have, and detectors see a face only with some room around it."""
    folder = tmp_path / "r"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "anna.png"), numpy.full((40, 60, 3), RED, numpy.uint8))
    sizes = []

    def find(image: Any) -> list[Face]:
        sizes.append(image.shape[:2])
        room = not image[0, 0].any()
        return [Face(Sample(0, 0.0, 0), BoundingBox(30, 20, 60, 40), 0.9, embedding=(1.0, 0.0))] if room else []

    assert list(roster(named(folder), find)) == ["anna"]
    assert sizes == [(40, 60), (80, 120)]


def test_a_picture_that_changed_meanwhile_is_not_taken_for_the_one_that_was_hashed(tmp_path: Path) -> None:
    """The result would say that it was made with another picture, and be remembered for it."""
    file = picture(tmp_path / "r" / "anna.png", RED)
    (before,) = named(tmp_path / "r")
    picture(file, GREEN)

    with pytest.raises(StageFailed) as failed:
        pictures.content(before)
    assert (failed.value.code, failed.value.retryable) == ("PICTURE_CHANGED", True)


def _empty(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"what a system leaves")


def _text(folder: Path) -> None:
    (folder / "notes.txt").write_text("anna is on the left")


def _no_picture(folder: Path) -> None:
    (folder / "anna.jpg").write_text("<html>")


def _link(folder: Path) -> None:
    (folder / "anna.png").symlink_to("/etc/passwd")


def _link_to_folder(folder: Path) -> None:
    (folder / "anna").symlink_to("/etc")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "anna.png")


def _markup(folder: Path) -> None:
    picture(folder / "<b>.png", RED)


def _unknown(folder: Path) -> None:
    picture(folder / "Unknown.png", RED)


def _nested(folder: Path) -> None:
    picture(folder / "anna" / "old" / "1.png", RED)


@pytest.mark.parametrize(
    "fill", [_empty, _text, _no_picture, _link, _link_to_folder, _fifo, _markup, _unknown, _nested]
)
def test_a_directory_with_anything_but_pictures_is_refused(fill: Any, tmp_path: Path) -> None:
    """Before there is a job, and without opening what is no file."""
    folder = tmp_path / "r"
    folder.mkdir()
    fill(folder)

    with pytest.raises(Refused) as refused:
        pictures.look(str(folder), [tmp_path])
    assert refused.value.code == "PICTURES_UNUSABLE"


@pytest.mark.parametrize("path", ["/etc", "roster", "{here}/../x", "{here}\0"])
def test_only_directories_that_were_opened_are_looked_into(path: str, tmp_path: Path) -> None:
    """By its words alone; what else lies on the machine is not told."""
    with pytest.raises(Refused) as refused:
        pictures.look(path.format(here=tmp_path), [tmp_path])
    assert refused.value.code == "PATH_NOT_ALLOWED"


def test_no_link_on_the_way_is_followed(tmp_path: Path) -> None:
    """It could be turned elsewhere in between."""
    picture(tmp_path / "r" / "anna.png", RED)
    (tmp_path / "other").symlink_to(tmp_path / "r")

    assert pictures.look(str(tmp_path / "r"), [tmp_path]) == ("anna",)
    with pytest.raises(Refused, match="No link is followed"):
        pictures.look(str(tmp_path / "other"), [tmp_path])


def test_an_engine_that_cannot_tell_people_apart_is_refused_a_roster(tmp_path: Path) -> None:
    """It would be left out in silence."""
    asked = {"face_analysis": {"engine": "mediapipe", "roster": str(tmp_path)}}

    with pytest.raises(InvalidConfig, match="needs the engine insightface"):
        Catalogue.load(data_roots=[tmp_path]).require(["face_analysis"], asked)


def test_a_path_from_the_command_line_counts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a video does."""
    (tmp_path / "r").mkdir()
    (tmp_path / "link").symlink_to("r")
    monkeypatch.chdir(tmp_path)

    config = on_this_machine({"face_analysis": {"roster": "link", "engine": "insightface"}}, Catalogue.load())

    assert config == {"face_analysis": {"roster": str(tmp_path.resolve() / "r"), "engine": "insightface"}}


# -- as a job

_YAML = """\
name: compares
version: "1.0.0"
display_name: compares
family: test
description: A pipeline of the tests.
needs: video
engines: [{name: none, description: reads the pictures}]
parameters:
  - {name: roster, type: string, holds: pictures, label: Roster, description: pictures, default: ""}
outputs:
  - {name: seen.json, format: json, role: annotations, media_type: application/json, description: sizes}
resources: {memory_mb: 50, realtime_factor: 1}
known_limits: []
"""
_CODE = """\
import json

from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result
from videoannotator.pipelines.pictures import content


def run(stage):
    sizes = {picture.name: len(content(picture)) for picture in stage.pictures}
    (stage.output_folder / "seen.json").write_text(json.dumps(sizes))
    return Result(
        annotations=len(sizes),
        outputs=(Output("seen.json", "annotations", "application/json"),),
        engine="none",
        libraries=(),
        ledger=Ledger(expected=None, decoded=0, failed=0, processed=0, skipped=0),
    )
"""


async def batch_that_skips_what_is_done(served: Served, clip: Path, folder: Path, config: str) -> dict[str, Any]:
    """Of the same bytes and parameters; but who knows what the pictures were then."""
    folder.mkdir()
    shutil.copy(clip, folder / "a.mp4")
    dataset = (await served.http.post("/api/v1/datasets", json={"name": "d", "base_path": str(folder)})).json()
    order = {"dataset_id": dataset["id"], "selected_pipelines": ["compares"], "config": json.loads(config)}
    batch = (await served.http.post("/api/v1/batches", json=order | {"skip_done": True})).json()
    for job in batch["jobs"]:
        await served.ended(job["id"])
    return dict(batch)


async def test_another_roster_is_other_work_and_the_manifest_has_its_hashes(clips: Clips, tmp_path: Path) -> None:
    """A remembered result with the faces of yesterday would be wrong today."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "compares.yaml").write_text(_YAML)
    (tmp_path / "pipelines" / "compares.py").write_text(_CODE)
    anna, clip = picture(tmp_path / "data" / "r" / "anna.png", RED, side=400), clips.path("h264.mp4")
    given = {"config": json.dumps({"compares": {"roster": str(tmp_path / "data" / "r")}})}
    elsewhere = {"config": json.dumps({"compares": {"roster": str(tmp_path)}})}

    async with serving(
        tmp_path, pipeline_dirs=(tmp_path / "pipelines",), data_roots=(tmp_path / "data",), cache="on"
    ) as served:
        first = await served.finished(clip, "compares", **given)
        again = await served.finished(clip, "compares", **given)
        before = await asyncio.to_thread(anna.read_bytes)
        picture(anna, GREEN, side=400)
        changed = await served.finished(clip, "compares", **given)
        manifest = (await served.http.get(f"/api/v1/jobs/{changed['id']}/manifest")).json()
        skipping = await batch_that_skips_what_is_done(served, clip, tmp_path / "data" / "videos", given["config"])
        with clip.open("rb") as video:
            refused = await served.http.post(
                "/api/v1/jobs", files={"video": ("a.mp4", video)}, data={"selected_pipelines": "compares"} | elsewhere
            )

    assert [job["stages"][0]["cached"] for job in (first, again, changed)] == [False, True, False]
    assert anna.read_bytes() != before
    assert (skipping["skipped"], len(skipping["jobs"])) == ([], 1)
    (stage,) = manifest["provenance"]["stages"]
    assert stage["pictures"] == [{"file": "anna.png", "sha256": named(anna.parent)[0].sha256}]
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "PATH_NOT_ALLOWED")
    assert refused.json()["error"]["field"] == "compares.roster"
