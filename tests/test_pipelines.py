"""
What every pipeline must do, and what each of them must find.

The first half runs over all declared pipelines; a new one is held to it by being declared. The second half is a table
of clips with known answers.
"""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.clips import Clips, ffmpeg
from tests.staging import CATALOGUE, HERE, Ran, files_in, run, start
from tests.viewer import drawn_faces, drawn_scenes
from videoannotator.annotations import BoundingBox, Face, Sample, Scene, Turn
from videoannotator.errors import StageFailed
from videoannotator.formats.coco import read_faces
from videoannotator.formats.rttm import read_rttm
from videoannotator.formats.scenes import read_scenes
from videoannotator.formats.table import read_table
from videoannotator.formats.uem import read_uem
from videoannotator.jobs import BROWSER_COPY
from videoannotator.pipelines.ahead import ahead
from videoannotator.pipelines.faces_mediapipe import regions
from videoannotator.pipelines.scene_detection import Cut, faster, scenes_between
from videoannotator.pipelines.tracks import tracked
from videoannotator.pipelines.voice_activity import Parameters as VoiceParameters
from videoannotator.pipelines.voice_activity import turns_from

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # protobuf's own, at mediapipe's import

every_pipeline = pytest.mark.parametrize("pipeline", [*HERE, BROWSER_COPY])

SPEECH_AT = ((1.0, "Where is the baby? Here is the baby!"), (5.0, "Look at the red ball, shall we roll it?"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="session")
def cuts(made: Path) -> Path:
    """25 frames/s, four plain shots with hard cuts at 2.0, 3.0 and 5.0 s; 7 s long."""
    shots = (("testsrc2", 2), ("smptebars", 1), ("mandelbrot", 2), ("rgbtestsrc", 2))
    inputs = [a for kind, s in shots for a in ("-f", "lavfi", "-t", str(s), "-i", f"{kind}=s=320x240:r=25")]
    joined = "".join(f"[{n}:v]setsar=1,format=yuv420p[v{n}];" for n in range(4)) + "[v0][v1][v2][v3]concat=n=4[v]"
    ffmpeg(*inputs, "-filter_complex", joined, "-map", "[v]", "-c:v", "libx264", made / "cuts.mp4")
    return made / "cuts.mp4"


@pytest.fixture(scope="session")
def fades(made: Path) -> Path:
    """Fades to black from 2 to 3 s, black until 4 s, and back until 5 s; 7 s long."""
    fade = "fade=t=out:st=2:d=1:enable='lt(t,4)',fade=t=in:st=4:d=1:enable='gte(t,4)'"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=7", "-vf", fade, "-c:v", "libx264", made / "fades.mp4")
    return made / "fades.mp4"


@pytest.fixture(scope="session")
def speech(made: Path) -> Path:
    """A still picture; espeak-ng says one sentence at 1.0 s and one at 5.0 s, else silence; 9 s long."""
    inputs: list[str | Path] = []
    for number, (_, text) in enumerate(SPEECH_AT):
        wav = made / f"sentence{number}.wav"
        subprocess.run(["espeak-ng", "-s", "150", "-w", wav, text], check=True, timeout=30)
        inputs += ["-i", wav]
    placed = "".join(f"[{n}:a]adelay={int(at * 1000)}[a{n}];" for n, (at, _) in enumerate(SPEECH_AT))
    ffmpeg(*inputs, "-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=9", "-filter_complex",
           f"{placed}[a0][a1]amix=inputs=2:normalize=0,apad=whole_dur=9[a]", "-map", "2:v", "-map", "[a]",
           "-c:v", "libx264", "-c:a", "aac", made / "speech.mp4")  # fmt: skip
    return made / "speech.mp4"


@pytest.fixture(scope="session")
def minutes(made: Path) -> Path:
    """Ten minutes of noise and moving pictures: longer than any pipeline needs to say that it works."""
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:r=25:d=20", "-f", "lavfi", "-i", "anoisesrc=d=20:a=0.1",
           "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", made / "short.mp4")  # fmt: skip
    ffmpeg("-stream_loop", "29", "-i", made / "short.mp4", "-c", "copy", made / "minutes.mp4")
    return made / "minutes.mp4"


# What every pipeline must do


@every_pipeline
def test_it_keeps_the_contract(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """Worker, manifest and progress bar rely on each of these."""
    ran = run(pipeline, clips.path("h264.mp4"), tmp_path / "out")

    declaration = CATALOGUE.get(pipeline)
    declared = {o.name: (o.role, o.media_type, o.in_zip) for o in declaration.outputs}
    written = {o.name: (o.role, o.media_type, o.in_zip) for o in ran.result.outputs}
    assert written.items() <= declared.items()
    assert declared.keys() - written.keys() <= {o.name for o in declaration.outputs if o.optional}
    assert set(ran.files) == set(written)
    assert ran.result.engine in {e.name for e in declaration.engines}
    known = {m.name for m in (*declaration.models, *CATALOGUE.models_of(pipeline))}
    assert {m.name for m in ran.result.models} <= known
    assert ran.result.ledger.closes
    assert ran.result.ledger.lost_share == 0
    assert ran.report.progressed == sorted(ran.report.progressed)
    assert ran.report.progressed[-1] == pytest.approx(ran.duration_seconds)
    assert all(0 <= i.onset and i.duration > 0 for i in ran.result.intervals)


@every_pipeline
def test_it_gives_the_same_bytes_twice(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """A result that cannot be had again is no measurement."""
    clip = clips.path("h264.mp4")

    first, second = (run(pipeline, clip, tmp_path / name).files for name in ("first", "second"))

    assert first == second


@every_pipeline
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc fills new memory on demand")
def test_what_memory_held_before_does_not_show(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """A library that reads what it never wrote gives another result every hundredth time, and nobody sees why."""
    clip = clips.path("h264.mp4")
    plain = run(pipeline, clip, tmp_path / "plain")

    with start(pipeline, clip, tmp_path / "filled", MALLOC_PERTURB_="1") as process:
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert files_in(tmp_path / "filled") == plain.files


@every_pipeline
@pytest.mark.parametrize("clip", ["half.mp4", "half_fragmented.mp4"])
def test_it_refuses_a_video_that_breaks_off(pipeline: str, clip: str, clips: Clips, tmp_path: Path) -> None:
    """Half a video looks like a whole one that shows less."""
    with pytest.raises(StageFailed):
        run(pipeline, clips.path(clip), tmp_path / "out")


@every_pipeline
def test_it_stops_at_once(pipeline: str, minutes: Path, tmp_path: Path) -> None:
    """Cancel sends SIGTERM and expects its default effect within the grace of one second."""
    with start(pipeline, minutes, tmp_path / "out") as process:
        assert process.stdout
        assert process.stdout.readline() == "working\n"

        process.terminate()

        assert process.wait(timeout=1.0) == -signal.SIGTERM


@every_pipeline
def test_late_pictures_and_sound_are_where_the_browser_plays_them(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """A start offset that is forgotten shifts every annotation."""
    ran = run(pipeline, clips.path("late_pictures.mp4"), tmp_path / "out")

    onsets = [i.onset for i in ran.result.intervals if i.kind == "scene"]
    assert all(onset == pytest.approx(0.5, abs=0.02) for onset in onsets)
    assert max(ran.report.progressed) <= ran.duration_seconds + 1e-6


# Scenes


def scenes_of(ran: Ran) -> tuple[Scene, ...]:
    assert_tiled(scenes := read_scenes(ran.folder / "scene_detection.json"))
    return scenes


def assert_tiled(scenes: tuple[Scene, ...]) -> None:
    for before, after in itertools.pairwise(scenes):
        assert (before.end_time, before.frame_end) == (after.start_time, after.frame_start)


@pytest.mark.parametrize("detector", ["adaptive", "content", "hash", "histogram"])
def test_hard_cuts_are_found_to_the_frame(detector: str, cuts: Path, tmp_path: Path) -> None:
    """The first thing anybody checks."""
    scenes = scenes_of(run("scene_detection", cuts, tmp_path / "out", {"detector": detector}))

    assert [(s.start_time, s.frame_start) for s in scenes] == [(0.0, 0), (2.0, 50), (3.0, 75), (5.0, 125)]
    assert (scenes[-1].end_time, scenes[-1].frame_end) == (7.0, 175)
    assert scenes[0].score is None
    assert all(s.score is not None and 0.5 <= s.score <= 1 for s in scenes[1:])


def test_cuts_of_variable_frame_rate_have_their_own_times(cuts: Path, made: Path, tmp_path: Path) -> None:
    """frame / fps was wrong by seconds on phone video."""
    clip = made / "cuts_vfr.mp4"
    ffmpeg("-i", cuts, "-vf", "setpts='if(lt(N,50),N,50+2*(N-50))/25/TB'", "-fps_mode", "passthrough",
           "-enc_time_base", "1:90000", "-c:v", "libx264", clip)  # fmt: skip

    scenes = scenes_of(run("scene_detection", clip, tmp_path / "out"))

    assert [s.frame_start for s in scenes] == [0, 50, 75, 125]
    assert [s.start_time for s in scenes] == pytest.approx([0.0, 2.0, 4.0, 8.0], abs=0.001)


def test_cuts_after_a_start_offset_are_on_the_files_timeline(cuts: Path, made: Path, tmp_path: Path) -> None:
    """PySceneDetect itself counts from the stream's own start: half a second early here."""
    clip = made / "cuts_late.mp4"
    ffmpeg("-itsoffset", "0.5", "-i", cuts, "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-shortest",
           "-c:v", "copy", "-c:a", "aac", clip)  # fmt: skip

    scenes = scenes_of(run("scene_detection", clip, tmp_path / "out"))

    assert [s.start_time for s in scenes] == pytest.approx([0.5, 2.5, 3.5, 5.5], abs=0.002)
    assert [s.frame_start for s in scenes] == [0, 50, 75, 125]


def test_a_fade_is_found_by_the_threshold_detector(fades: Path, tmp_path: Path) -> None:
    """The cut lies in the middle of the dark, which is from about 2.9 to 4.1 s."""
    scenes = scenes_of(run("scene_detection", fades, tmp_path / "out", {"detector": "threshold"}))

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


def test_short_scenes_are_merged(cuts: Path, tmp_path: Path) -> None:
    """Not dropped: that would leave holes."""
    scenes = scenes_of(run("scene_detection", cuts, tmp_path / "out", {"min_scene_length": 1.5}))

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


def test_the_viewer_draws_found_scenes(cuts: Path, tmp_path: Path) -> None:
    """The file as it is really written, by the Viewer's own rules."""
    ran = run("scene_detection", cuts, tmp_path / "out")

    assert len(drawn_scenes(ran.folder / "scene_detection.json")) == 4
    assert [row["onset"] for row in read_table(ran.folder / "scene_detection.csv")] == ["0.0", "2.0", "3.0", "5.0"]


# Faces


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


def test_small_faces_are_found_in_squares(sample: Path, made: Path, tmp_path: Path) -> None:
    """The networks see 128 pixels: in a wide frame a face of a tenth of it is lost without a closer look."""
    clip = made / "small_faces.mp4"
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


# Voice


def turns_of(ran: Ran) -> tuple[Turn, ...]:
    return read_rttm(ran.folder / "voice_activity.rttm")


def test_speech_is_found_where_it_is(speech: Path, tmp_path: Path) -> None:
    """Two sentences, with silence around them."""
    ran = run("voice_activity", speech, tmp_path / "out")

    turns = turns_of(ran)
    assert {round(min((abs(t.onset - at), at) for at, _ in SPEECH_AT)[1]) for t in turns} == {1, 5}
    assert turns[0].onset == pytest.approx(1.0, abs=0.2)
    assert min(t.onset for t in turns if t.onset > 4) == pytest.approx(5.0, abs=0.2)
    assert all(t.end < 4.5 or t.onset > 4.5 for t in turns)
    assert all(t.score is not None and 0.5 < t.score <= 1 for t in turns)
    ((heard_from, heard_until),) = read_uem(ran.folder / "voice_activity.uem")
    assert (heard_from, heard_until) == pytest.approx((0.0, 9.0), abs=0.1)
    assert len(read_table(ran.folder / "voice_activity.csv")) == len(turns) == ran.result.annotations


def test_quiet_speech_is_found_too(speech: Path, made: Path, tmp_path: Path) -> None:
    """The camera stands at the other end of the room."""
    clip = made / "quiet.mkv"
    ffmpeg("-i", speech, "-c:v", "copy", "-af", "volume=-65dB", "-c:a", "pcm_f32le", clip)

    assert run("voice_activity", clip, tmp_path / "as it is", {"normalize": False}).result.annotations == 0
    assert turns_of(run("voice_activity", clip, tmp_path / "out"))[0].onset == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("sound", ["anullsrc=r=16000:cl=mono", "anoisesrc=a=0.05:c=pink:seed=1", "sine=f=440"])
def test_what_is_no_speech_makes_no_rttm(sound: str, made: Path, tmp_path: Path) -> None:
    """An RTTM without a line is refused by its readers; the UEM says that somebody listened."""
    clip = made / f"{sound[:5]}.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=6", "-f", "lavfi", "-t", "6", "-i", sound,
           "-c:v", "libx264", "-c:a", "aac", clip)  # fmt: skip

    ran = run("voice_activity", clip, tmp_path / "out")

    assert sorted(ran.files) == ["voice_activity.csv", "voice_activity.uem"]
    assert ran.result.annotations == 0


def test_late_sound_is_where_the_browser_plays_it(speech: Path, made: Path, tmp_path: Path) -> None:
    """Turns must fit to the pictures."""
    clip = made / "late_speech.mp4"
    ffmpeg("-i", speech, "-itsoffset", "0.7", "-i", speech, "-map", "0:v", "-map", "1:a", "-c", "copy", clip)

    assert turns_of(run("voice_activity", clip, tmp_path / "out"))[0].onset == pytest.approx(1.7, abs=0.2)


def test_the_sample_has_three_stretches_of_voice(sample: Path, tmp_path: Path) -> None:
    """A real recording, heard by people as well."""
    turns = turns_of(run("voice_activity", sample, tmp_path / "out"))

    assert [t.onset for t in turns] == pytest.approx([0.7, 2.4, 9.4], abs=0.15)
    assert [t.end for t in turns] == pytest.approx([1.5, 3.5, 10.4], abs=0.15)


def test_turns_are_those_of_the_library(speech: Path) -> None:
    """Same network, same rule: only the blocks, the scores and the very end are ours."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    from videoannotator.media.probe import probe
    from videoannotator.media.sound import sound
    from videoannotator.pipelines import voice_activity

    samples = sound(speech, probe(speech)).samples
    options = VadOptions(threshold=0.5, min_speech_duration_ms=150, min_silence_duration_ms=250, speech_pad_ms=30)
    parameters = msgspec.convert(CATALOGUE.get("voice_activity").defaults, VoiceParameters)
    probabilities = [p for block in voice_activity._Network().listen(samples) for p in block.probabilities]

    ours = turns_from(probabilities, len(samples), parameters)

    theirs = get_speech_timestamps(samples.copy(), options)
    assert [(start, end) for start, end, _ in ours] == [(t["start"], t["end"]) for t in theirs]


def test_a_long_recording_is_heard_in_blocks_without_a_seam(speech: Path) -> None:
    """The network remembers; forgetting at a block's end would lose or make turns there."""
    import numpy
    from faster_whisper.vad import get_vad_model

    from videoannotator.media.probe import probe
    from videoannotator.media.sound import sound
    from videoannotator.pipelines import voice_activity

    samples = numpy.tile(sound(speech, probe(speech)).samples, 15)
    blocks = list(voice_activity._Network().listen(samples))
    whole = numpy.pad(samples, (0, 512 - len(samples) % 512))

    assert len(blocks) == 3
    ours = numpy.concatenate([numpy.array(block.probabilities) for block in blocks])
    assert numpy.allclose(ours[:-1], get_vad_model()(whole).reshape(-1)[:-1], atol=1e-5)


# Working ahead


def test_ahead_gives_all_items_in_order() -> None:
    """Also when there are more of them than it may keep."""
    with ahead(range(1, 1000), 3) as coming:
        assert list(coming) == list(range(1, 1000))


def test_ahead_ends_its_thread_when_the_rest_is_not_wanted() -> None:
    """An error in a detector must end the stage, not leave it waiting for a full queue."""
    with pytest.raises(ZeroDivisionError), ahead(itertools.count(1), 3) as coming:  # noqa: PT012
        next(coming)
        raise ZeroDivisionError


def test_ahead_tells_what_went_wrong_after_the_last_good_item() -> None:
    """A broken file must not look like a short one."""

    def broken() -> Any:
        yield 1
        raise StageFailed("broken")

    seen = []
    with pytest.raises(StageFailed), ahead(broken(), 3) as coming:
        seen += coming

    assert seen == [1]
