"""Scenes: cuts at known times are found to the frame, in what is played as in what was filmed."""

import itertools
import os
from pathlib import Path
from typing import Any

import cv2
import numpy
import pytest

from tests import tiny_onnx
from tests.clips import Clips, ffmpeg
from tests.staging import Ran, Recorder, run, start
from tests.viewer import drawn_scenes
from videoannotator.annotations import Scene
from videoannotator.errors import Refused, StageFailed
from videoannotator.formats.scenes import read_scenes
from videoannotator.formats.table import read_table
from videoannotator.media.frames import Frames
from videoannotator.media.probe import probe
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.scene_cuts import Boundary
from videoannotator.pipelines.scene_detection import run as find_scenes
from videoannotator.pipelines.scene_detection import scenes_between
from videoannotator.pipelines.scene_detectors import Content
from videoannotator.pipelines.scene_labels import MODEL
from videoannotator.pipelines.scene_measures import WIDTH, Look
from videoannotator.pipelines.scene_structure import likeness
from videoannotator.pipelines.scene_thumbnails import Every, Thumbnail, of_scenes
from videoannotator.settings import Settings


def scenes_of(ran: Ran) -> tuple[Scene, ...]:
    assert_tiled(scenes := read_scenes(ran.folder / "scene_detection.json"))
    return scenes


def assert_tiled(scenes: tuple[Scene, ...]) -> None:
    for before, after in itertools.pairwise(scenes):
        assert (before.end_time, before.frame_end) == (after.start_time, after.frame_start)


@pytest.mark.parametrize("detector", ["adaptive", "content", "hash", "histogram"])
def test_hard_cuts_are_found_to_the_frame(detector: str, clips: Clips, tmp_path: Path) -> None:
    """The first thing anybody checks."""
    scenes = scenes_of(run("scene_detection", clips.path("cuts.mp4"), tmp_path / "out", {"detector": detector}))

    assert [(s.start_time, s.frame_start) for s in scenes] == [(0.0, 0), (2.0, 50), (3.0, 75), (5.0, 125)]
    assert (scenes[-1].end_time, scenes[-1].frame_end) == (7.0, 175)
    assert scenes[0].score is None
    assert all(s.score is not None and 0.5 <= s.score <= 1 for s in scenes[1:])


def test_cuts_of_variable_frame_rate_have_their_own_times(clips: Clips, tmp_path: Path) -> None:
    """frame / fps was wrong by seconds on phone video."""
    clip = tmp_path / "cuts_vfr.mp4"
    ffmpeg("-i", clips.path("cuts.mp4"), "-vf", "setpts='if(lt(N,50),N,50+2*(N-50))/25/TB'", "-fps_mode", "passthrough",
           "-enc_time_base", "1:90000", "-c:v", "libx264", clip)  # fmt: skip

    scenes = scenes_of(run("scene_detection", clip, tmp_path / "out"))

    assert [s.frame_start for s in scenes] == [0, 50, 75, 125]
    assert [s.start_time for s in scenes] == pytest.approx([0.0, 2.0, 4.0, 8.0], abs=0.001)


def test_cuts_after_a_start_offset_are_on_the_files_timeline(clips: Clips, tmp_path: Path) -> None:
    """PySceneDetect itself counts from the stream's own start: half a second early here."""
    clip = tmp_path / "cuts_late.mp4"
    ffmpeg("-itsoffset", "0.5", "-i", clips.path("cuts.mp4"), "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono",
           "-shortest", "-c:v", "copy", "-c:a", "aac", clip)  # fmt: skip

    scenes = scenes_of(run("scene_detection", clip, tmp_path / "out"))

    assert [s.start_time for s in scenes] == pytest.approx([0.5, 2.5, 3.5, 5.5], abs=0.002)
    assert [s.frame_start for s in scenes] == [0, 50, 75, 125]


@pytest.mark.parametrize("detector", ["adaptive", "threshold"])
def test_a_fade_through_black_is_one_boundary_in_the_middle_of_the_dark(
    detector: str, clips: Clips, tmp_path: Path
) -> None:
    """It fades from 2 to 3 s, is dark from about 2.9 to 4.1 s, and is back at 5 s."""
    before, after = scenes_of(run("scene_detection", clips.path("fades.mp4"), tmp_path / "out", {"detector": detector}))

    assert after.start_time == pytest.approx(3.5, abs=0.1)
    assert before.transition is None
    assert after.transition
    assert after.transition.kind == "fade"
    assert (after.transition.start_time, after.transition.end_time) == pytest.approx((2.0, 5.0), abs=0.2)


def test_a_dissolve_is_found_where_it_is(clips: Clips, tmp_path: Path) -> None:
    """From 2 to 3 s; PySceneDetect has no detector for it."""
    before, after = scenes_of(run("scene_detection", clips.path("dissolve.mp4"), tmp_path / "out"))

    assert after.start_time == before.end_time == pytest.approx(2.5, abs=0.1)
    assert after.transition
    assert after.transition.kind == "dissolve"
    assert (after.transition.start_time, after.transition.end_time) == pytest.approx((2.0, 3.0), abs=0.15)
    assert after.score is not None
    assert 0.5 <= after.score <= 1
    (_, row) = read_table(tmp_path / "out" / "scene_detection.csv")
    assert (row["begins_by"], row["transition_start"]) == ("dissolve", str(after.transition.start_time))


def test_light_is_no_cut(clips: Clips, tmp_path: Path) -> None:
    """Flashes, another exposure and a lamp at one side change more than many a cut; the detector alone is taken in."""
    alone = run("scene_detection", clips.path("lights.mp4"), tmp_path / "alone", {"structure": False})
    checked = run("scene_detection", clips.path("lights.mp4"), tmp_path / "checked")

    assert len(scenes_of(alone)) > 3
    assert [s.start_time for s in scenes_of(checked)] == [0.0]


def test_likeness_is_of_what_is_there_and_not_of_its_light() -> None:
    """A lamp at one side, and a camera that moves meanwhile; another room with the same lamp is another room."""
    noise = numpy.random.default_rng(3)
    room, other = (cv2.resize(noise.uniform(40, 200, (9, 16)), (60, 40), interpolation=cv2.INTER_CUBIC) for _ in "ab")
    lamp = numpy.linspace(0.1, 1.2, WIDTH)[None]

    def look(picture: Any) -> Look:
        pixels = numpy.clip(picture, 0, 255).astype(numpy.uint8)
        return Look(0, 0.0, 0.0, False, (pixels.mean(),) * 3, pixels)

    plain, lit = look(room[5:32, 6:54]), look(room[3:30, 9:57] * lamp)

    assert (likeness(plain, lit) or 0) > 0.7
    assert (likeness(look(other[5:32, 6:54] * lamp), lit) or 0) < 0.4


def test_without_structure_the_detector_has_the_word(clips: Clips, tmp_path: Path) -> None:
    """As published, fed with the same pictures: the one that papers name."""
    from scenedetect import detectors
    from scenedetect.common import FrameTimecode

    clip, theirs = clips.path("lights.mp4"), detectors.AdaptiveDetector(min_scene_len=0)
    with Frames(clip, probe(clip), pixel_format="bgr24", max_side=192) as frames:
        told = [theirs.process_frame(FrameTimecode(frame.number, fps=25.0), frame.image) for frame in frames]

    config = {"structure": False, "fades": False, "dissolves": False, "min_scene_length": 0}
    scenes = scenes_of(run("scene_detection", clip, tmp_path / "out", config))

    assert [s.frame_start for s in scenes[1:]] == [cut.frame_num for cuts in told for cut in cuts]
    assert len(scenes) > 3


def test_our_arithmetic_gives_pyscenedetects_own_numbers() -> None:
    """To the last bit: else the detector would not be the one that papers name."""
    from scenedetect import detectors
    from scenedetect.common import FrameTimecode

    theirs, ours = detectors.ContentDetector(), Content()
    noise = numpy.random.default_rng(1)
    pictures = [noise.integers(0, 256, (108, 191, 3), dtype=numpy.uint8) for _ in range(8)]
    pictures += [numpy.full((108, 191, 3), level, dtype=numpy.uint8) for level in (0, 255, 3)]

    scores = []
    for number, picture in enumerate(pictures):
        theirs.process_frame(FrameTimecode(number, fps=25.0), picture)
        scores.append((theirs._frame_score, ours.change(picture)))

    assert all(their == our for their, our in scores)
    assert len(set(scores)) > 8


def test_a_clip_without_a_cut_is_one_scene(clips: Clips, tmp_path: Path) -> None:
    """Most clips of parents and children are."""
    (scene,) = scenes_of(run("scene_detection", clips.path("h264.mp4"), tmp_path / "out"))

    assert (scene.start_time, scene.frame_start, scene.frame_end) == (0.0, 0, 100)
    assert scene.end_time == pytest.approx(4.0, abs=0.05)


def test_short_scenes_are_merged(clips: Clips, tmp_path: Path) -> None:
    """Not dropped: that would leave holes."""
    scenes = scenes_of(run("scene_detection", clips.path("cuts.mp4"), tmp_path / "out", {"min_scene_length": 1.5}))

    assert len(scenes) == 3
    assert all(s.duration >= 1.5 for s in scenes)
    assert (scenes[0].start_time, scenes[-1].end_time) == (0.0, 7.0)


TIMES = {n: n / 10 for n in range(100)}


@pytest.mark.parametrize(
    ("found", "starts"),
    [
        ([], [0]),
        ([Boundary(50, 0.9)], [0, 50]),
        ([Boundary(3, 0.9)], [0]),
        ([Boundary(95, 0.9)], [0]),
        ([Boundary(50, 0.6), Boundary(55, 0.9)], [0, 55]),
        ([Boundary(50, 0.6), Boundary(55, 0.6)], [0, 50]),
        ([Boundary(50, 0.7), Boundary(60, 0.7)], [0, 50, 60]),
        ([Boundary(0, 0.9)], [0]),
    ],
    ids=["none", "one", "too early", "too late", "the stronger", "the earlier", "just apart", "at the start"],
)
def test_of_two_cuts_that_are_too_close_the_stronger_stays(found: list[Boundary], starts: list[int]) -> None:
    """A second is the least length here; ten frames."""
    scenes = scenes_between(found, TIMES, 1.0, end=10.0)

    assert [s.frame_start for s in scenes] == starts
    assert_tiled(scenes)
    assert (scenes[-1].end_time, scenes[-1].frame_end) == (10.0, 100)


def test_finding_scenes_starts_no_ffmpeg(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PySceneDetect starts the first one on the PATH when it is imported, whatever that is, and it costs 0.1 s."""
    clip = clips.path("h264.mp4")
    fake, started = tmp_path / "bin" / "ffmpeg", tmp_path / "started"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho started > '{started}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")

    process = start("scene_detection", clip, tmp_path / "out")
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert not started.exists()


def test_the_viewer_draws_found_scenes(clips: Clips, tmp_path: Path) -> None:
    """The file as it is really written, by the Viewer's own rules."""
    ran = run("scene_detection", clips.path("cuts.mp4"), tmp_path / "out")

    assert len(drawn_scenes(ran.folder / "scene_detection.json")) == 4
    assert [row["onset"] for row in read_table(ran.folder / "scene_detection.csv")] == ["0.0", "2.0", "3.0", "5.0"]


# Pictures of scenes


def test_each_scene_has_a_picture_from_its_middle_and_upright(clips: Clips, tmp_path: Path) -> None:
    """What people look at first; white is at the top, and the file holds it upside down."""
    ran = run("scene_detection", clips.path("colours.mp4"), tmp_path / "out", {"thumbnail_side": 128})

    scenes = scenes_of(ran)
    assert [s.thumbnail for s in scenes] == ["scene_0001.jpg", "scene_0002.jpg", "scene_0003.jpg"]
    assert [row["thumbnail"] for row in read_table(ran.folder / "scene_detection.csv")] == [s.thumbnail for s in scenes]
    for scene, strongest in zip(scenes, (2, 1, 0), strict=True):
        image = cv2.imread(str(ran.folder / str(scene.thumbnail)))
        assert image.shape == (96, 128, 3)
        assert image[:10].min() > 200
        assert image[50:].mean(axis=(0, 1)).argmax() == strongest


def test_the_picture_is_the_one_nearest_to_the_middle() -> None:
    """By presentation time, of two that are kept in a second."""
    every = Every()
    kept = [Thumbnail(at, b"") for at in (0.0, 0.4, 0.52, 0.98, 1.04, 1.5, 2.6, 4.0) if every.takes(at)]
    scenes = [Scene(0.0, 1.9, 0, 1), Scene(1.9, 2.5, 1, 2), Scene(2.5, 4.4, 2, 3)]

    assert [t.timestamp for t in kept] == [0.0, 0.52, 1.04, 1.5, 2.6, 4.0]
    assert [t and t.timestamp for t in of_scenes(scenes, kept)] == [1.04, None, 4.0]


def test_without_thumbnails_there_are_none(clips: Clips, tmp_path: Path) -> None:
    """For who must not keep pictures."""
    ran = run("scene_detection", clips.path("colours.mp4"), tmp_path / "out", {"thumbnail_side": 0})

    assert set(ran.files) == {"scene_detection.json", "scene_detection.csv"}
    assert [s.thumbnail for s in scenes_of(ran)] == [None] * 3


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """With CLIP imported, a tiny one that knows three colours."""
    folder = tmp_path_factory.mktemp("clip")
    found = Catalogue.of(Settings(storage_dir=folder / "storage"))
    found.supplies.shelf.bring_in(tiny_onnx.clip(folder / "made"), MODEL)
    return found


def labelled(catalogue: Catalogue, clip: Path, folder: Path, **config: object) -> Result:
    """As a worker does it: what the declaration asks for arrives with the stage."""
    folder.mkdir()
    complete = catalogue.require(["scene_detection"], {"scene_detection": {"labels": "clip", **config}})
    declaration = catalogue.get("scene_detection")
    return find_scenes(
        Stage(
            video_path=clip,
            video=probe(clip),
            config=complete["scene_detection"],
            output_folder=folder,
            threads=1,
            max_lost_frames=0.01,
            report=Recorder(),
            models=catalogue.supplies.models(declaration, complete["scene_detection"]),
        )
    )


def test_scenes_get_the_word_that_fits_best(catalogue: Catalogue, clips: Clips, tmp_path: Path) -> None:
    """In the field that the Viewer prints on the bar, and the others' shares beside it."""
    words = "green, a  blue room, red"

    result = labelled(catalogue, clips.path("colours.mp4"), tmp_path / "out", label_words=words)

    scenes = read_scenes(tmp_path / "out" / "scene_detection.json")
    assert [s.labels[0][0] for s in scenes] == ["red", "green", "a blue room"]
    assert all(sum(share for _, share in s.labels) == pytest.approx(1, abs=1e-3) for s in scenes)
    assert [row["scene_type"] for row in drawn_scenes(tmp_path / "out" / "scene_detection.json")] == [
        i.label for i in result.intervals
    ]
    assert [model.name for model in result.models] == [MODEL]
    assert max(cv2.imread(str(tmp_path / "out" / "scene_0001.jpg")).shape) == 192


def test_labels_without_the_model_are_refused_with_the_command(tmp_path: Path) -> None:
    """Before anything starts."""
    bare = Catalogue.of(Settings(storage_dir=tmp_path))

    with pytest.raises(Refused, match=MODEL) as refused:
        bare.require(["scene_detection"], {"scene_detection": {"labels": "clip"}})

    assert f"videoannotator models pull {MODEL}" in str(refused.value.hint)


def test_one_word_is_nothing_to_compare(catalogue: Catalogue, clips: Clips, tmp_path: Path) -> None:
    """Its share would be 1 for every scene."""
    with pytest.raises(StageFailed, match="2 to 200"):
        labelled(catalogue, clips.path("colours.mp4"), tmp_path / "out", label_words=" kitchen , kitchen,")
