"""Scenes: cuts at known times are found to the frame, in what is played as in what was filmed."""

import itertools
import os
from pathlib import Path

import pytest

from tests.clips import Clips, ffmpeg
from tests.staging import Ran, run, start
from tests.viewer import drawn_scenes
from videoannotator.annotations import Scene
from videoannotator.formats.scenes import read_scenes
from videoannotator.formats.table import read_table
from videoannotator.pipelines.scene_detection import Cut, faster, scenes_between


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


def test_a_fade_is_found_by_the_threshold_detector(clips: Clips, tmp_path: Path) -> None:
    """The cut lies in the middle of the dark, which is from about 2.9 to 4.1 s."""
    scenes = scenes_of(run("scene_detection", clips.path("fades.mp4"), tmp_path / "out", {"detector": "threshold"}))

    assert len(scenes) == 2
    assert scenes[1].start_time == pytest.approx(3.5, abs=0.1)
    assert scenes[1].score is None


def test_our_arithmetic_gives_pyscenedetects_own_numbers() -> None:
    """To the last bit: else the detector would not be the one that papers name."""
    import numpy
    from scenedetect import detectors
    from scenedetect.common import FrameTimecode

    theirs, ours = detectors.ContentDetector(), faster(detectors.ContentDetector)()
    noise = numpy.random.default_rng(1)
    pictures = [noise.integers(0, 256, (108, 191, 3), dtype=numpy.uint8) for _ in range(8)]
    pictures += [numpy.full((108, 191, 3), level, dtype=numpy.uint8) for level in (0, 255, 3)]

    scores = []
    for number, picture in enumerate(pictures):
        for detector in (theirs, ours):
            detector.process_frame(FrameTimecode(number, fps=25.0), picture)
        scores.append((theirs._frame_score, ours._frame_score))

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
        ([Cut(50, 0.9)], [0, 50]),
        ([Cut(3, 0.9)], [0]),
        ([Cut(95, 0.9)], [0]),
        ([Cut(50, 0.6), Cut(55, 0.9)], [0, 55]),
        ([Cut(50, None), Cut(55, None)], [0, 50]),
        ([Cut(50, 0.7), Cut(60, 0.7)], [0, 50, 60]),
        ([Cut(0, 0.9)], [0]),
    ],
    ids=["none", "one", "too early", "too late", "the stronger", "the earlier", "just apart", "at the start"],
)
def test_of_two_cuts_that_are_too_close_the_stronger_stays(found: list[Cut], starts: list[int]) -> None:
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
