"""Several people at once, by RTMO's real code path on a tiny network that finds bright squares."""

from pathlib import Path
from typing import Any

import numpy
import pytest

from tests import tiny_onnx
from tests.clips import ffmpeg
from tests.staging import Recorder
from videoannotator.annotations import BoundingBox, Sample
from videoannotator.errors import Refused, StageFailed
from videoannotator.formats.persons import read_persons
from videoannotator.jobs import ModelFiles
from videoannotator.media.probe import probe
from videoannotator.models.shelf import Shelf
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.person_tracking import run
from videoannotator.pipelines.rtmo import Rtmo
from videoannotator.settings import Settings

NOW = Sample(0, 0.0, 0)

# bright squares where the network of a 640 x 640 picture has its cells; the second is away from 1.0 to 1.6 s
TWO_PEOPLE = (
    "color=black:s=640x640:r=10:d=3,format=rgb24,"
    "drawbox=x=0:y=160:w=160:h=160:c=white:t=fill,"
    "drawbox=x=480:y=160:w=160:h=160:c=white:t=fill:enable='not(between(t,1.0,1.6))'"
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """With the model rtmo-s imported, as a user without a network does it."""
    folder = tmp_path_factory.mktemp("rtmo")
    found = Catalogue.of(Settings(storage_dir=folder / "storage"))
    found.supplies.shelf.bring_in(tiny_onnx.rtmo(folder / "made" / "20231211" / "rtmo-s").parents[1], "rtmo-s")
    return found


@pytest.fixture(scope="module")
def model(catalogue: Catalogue) -> ModelFiles:
    return catalogue.supplies.shelf.require("rtmo-s")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip") / "two.mp4"
    ffmpeg("-f", "lavfi", "-i", TWO_PEOPLE, "-c:v", "libx264", "-qp", "0", made)
    return made


def tracked(catalogue: Catalogue, clip: Path, folder: Path, **config: Any) -> Result:
    folder.mkdir()
    complete = catalogue.require(["person_tracking"], {"person_tracking": {"engine": "rtmo", **config}})
    values = complete["person_tracking"]
    models = catalogue.supplies.models(catalogue.get("person_tracking"), values)
    return run(
        Stage(
            video_path=clip,
            video=probe(clip),
            config=values,
            output_folder=folder,
            threads=1,
            max_lost_frames=0.01,
            report=Recorder(),
            models=models,
        )
    )


def picture(*bright: tuple[int, int], size: tuple[int, int] = (640, 640)) -> Any:
    """Height x width x 3, RGB, with these cells of a 4 x 4 grid white."""
    made = numpy.zeros((size[1], size[0], 3), numpy.uint8)
    for across, down in bright:
        width, height = size[0] // 4, size[1] // 4
        made[down * height : (down + 1) * height, across * width : (across + 1) * width] = 255
    return made


def test_two_people_keep_their_ids_when_one_is_hidden(catalogue: Catalogue, clip: Path, tmp_path: Path) -> None:
    """Occluded for 0.6 s, one comes back as the same."""
    result = tracked(catalogue, clip, tmp_path / "out", max_gap=1.0)

    people, samples = read_persons(tmp_path / "out" / "person_tracking.json")
    sides = {p.track_id: p.bounding_box.x > 320 for p in people}
    assert sides == {1: False, 2: True}
    assert len([p for p in people if p.track_id == 1]) == len(samples) == 30
    assert [round(i.duration, 1) for i in result.intervals] == [3.0, 3.0]
    assert not any(1.0 <= p.sample.timestamp < 1.6 for p in people if p.track_id == 2)


def test_a_person_who_stays_away_for_longer_gets_a_new_id(catalogue: Catalogue, clip: Path, tmp_path: Path) -> None:
    """An id is a track, not a person."""
    tracked(catalogue, clip, tmp_path / "out", max_gap=0.3)

    people, _ = read_persons(tmp_path / "out" / "person_tracking.json")
    assert {p.track_id for p in people} == {1, 2, 3}


def test_the_model_stands_in_the_result(catalogue: Catalogue, model: ModelFiles, clip: Path, tmp_path: Path) -> None:
    """Whoever reads the annotations later can tell which weights made them."""
    result = tracked(catalogue, clip, tmp_path / "out")

    assert [(m.name, m.sha256, m.licence) for m in result.models] == [("rtmo-s", model.sha256, "Apache-2.0")]
    assert result.engine == "rtmo"
    assert result.device == "cpu"


def test_boxes_and_keypoints_are_in_pixels_of_the_picture(model: ModelFiles) -> None:
    """The network sees a square of 640: what it says is put back to the picture's own size."""
    network = Rtmo(model, min_score=0.5, threads=1)

    (large,) = network.find(picture((1, 2), size=(1280, 1280)), NOW)
    wide_picture = picture(size=(1280, 640))
    wide_picture[:320, 320:640] = 255
    (wide,) = network.find(wide_picture, NOW)

    assert large.bounding_box == BoundingBox(340.0, 660.0, 280.0, 280.0)
    assert large.keypoints[0].x == 360.0
    assert large.keypoints[16].y == 920.0
    assert wide.bounding_box == BoundingBox(340.0, 20.0, 280.0, 280.0)


def test_a_person_found_twice_is_one(model: ModelFiles) -> None:
    """The network gives every box a second time, shifted: the surer one stays."""
    found = Rtmo(model, min_score=0.5, threads=1).find(picture((0, 0), (3, 3)), NOW)

    assert [person.score for person in found] == [1.0, 1.0]
    assert {person.bounding_box.x for person in found} == {10.0, 490.0}


def test_what_is_below_the_least_score_is_left_out(model: ModelFiles) -> None:
    """A grey square of 0.6."""
    grey = (picture((1, 1)) * 0.6).astype(numpy.uint8)

    assert len(Rtmo(model, min_score=0.5, threads=1).find(grey, NOW)) == 1
    assert Rtmo(model, min_score=0.7, threads=1).find(grey, NOW) == []


@pytest.mark.parametrize("size", [(640, 640), (1280, 720), (333, 517)])
def test_it_agrees_with_rtmlib(model: ModelFiles, size: tuple[int, int], capfd: Any) -> None:
    """The library that the field uses, on the same network and picture."""
    from rtmlib import RTMO

    seen = picture((0, 0), (1, 1), (3, 0), size=size)
    file = next(Path(model.path).rglob("end2end.onnx"))
    theirs, scores = RTMO(str(file), score_thr=0.5)(seen[:, :, ::-1])

    ours = Rtmo(model, min_score=0.5, threads=1).find(seen, NOW)
    mine = [[(k.x, k.y) for k in person.keypoints] for person in ours]
    assert len(ours) > 0
    numpy.testing.assert_allclose(sorted(mine), sorted(theirs.tolist()), rtol=1e-5)
    numpy.testing.assert_allclose([[k.score for k in person.keypoints] for person in ours], scores, rtol=1e-5)


def test_without_its_model_it_is_refused_with_the_command(tmp_path: Path) -> None:
    """Before anything is queued, not when it runs."""
    catalogue = Catalogue.of(Settings(storage_dir=tmp_path))

    with pytest.raises(Refused) as refused:
        catalogue.require(["person_tracking"], {"person_tracking": {"engine": "rtmo", "model": "rtmo-l"}})

    assert "videoannotator models pull rtmo-l" in f"{refused.value} {getattr(refused.value, 'problems', '')}"


def test_a_folder_without_the_network_is_no_model(tmp_path: Path, catalogue: Catalogue) -> None:
    """Neither at import nor at the stage, should a file vanish in between."""
    (tmp_path / "readme.txt").write_text("nothing")

    with pytest.raises(Refused, match=r"end2end\.onnx is missing"):
        Shelf(tmp_path / "models", catalogue.supplies.shelf.models).bring_in(tmp_path, "rtmo-s")
    with pytest.raises(StageFailed, match="holds no end2end"):
        Rtmo(ModelFiles("rtmo-s", str(tmp_path), "0", "Apache-2.0"), min_score=0.5, threads=1)
