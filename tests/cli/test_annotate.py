"""`videoannotator annotate` as a user runs it: a process of its own, real files, exit codes, what is left behind."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.declared import declare
from tests.stages import is_alive
from videoannotator.cli.run import CACHE
from videoannotator.formats.table import read_table

COMMAND = [sys.executable, "-m", "videoannotator", "annotate"]
QUICK = {"face_analysis.csv", "face_analysis.json", "scene_detection.csv", "scene_detection.json", "manifest.json"}


def annotate(*arguments: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        words, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, timeout=120, check=False
    )


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_sample_gives_its_scene_both_faces_and_three_stretches_of_voice(sample, tmp_path):
    """The README shows this; it must stay true."""
    done = annotate(sample, "--preset", "quick", "--json", cwd=tmp_path)

    (line,) = map(json.loads, done.stdout.splitlines())
    results = tmp_path / "annotations" / "peekaboo_hevc"
    faces = json.loads((results / "face_analysis.json").read_text())
    both = [sum(a["image_id"] == image["id"] for a in faces["annotations"]) >= 2 for image in faces["images"]]
    turns = [row.split(",") for row in (results / "voice_activity.csv").read_text().splitlines()[1:]]
    spans = [(round(float(t[0]), 1), round(float(t[0]) + float(t[1]), 1)) for t in turns]
    assert (0, "completed", "full") == (done.returncode, line["status"], line["outcome"])
    assert 1 == len(json.loads((results / "scene_detection.json").read_text())["scenes"])
    assert sum(both) / len(both) > 0.8
    for (onset, end), (asked_onset, asked_end) in zip(spans, [(0.7, 1.5), (2.4, 3.5), (9.4, 10.4)], strict=True):
        assert abs(onset - asked_onset) <= 0.15
        assert abs(end - asked_end) <= 0.15


def test_several_videos_and_directories_end_in_a_folder_each(clips, tmp_path):
    """With every promised file, and nothing beside but what is remembered: no scratch folder, no log, no database."""
    (tmp_path / "in").mkdir()
    os.link(clips.path("h264.mp4"), tmp_path / "in" / "one.mp4")
    os.link(clips.path("h264.mkv"), tmp_path / "in" / "two.mkv")

    done = annotate("in", "--output", "out", cwd=tmp_path)

    assert (0, "") == (done.returncode, done.stderr)
    assert [CACHE, "one", "two"] == sorted(os.listdir(tmp_path / "out"))
    for name in ("one", "two"):
        assert set(os.listdir(tmp_path / "out" / name)) >= QUICK
    assert 2 == done.stdout.count("[OK]")


def test_the_same_call_gives_the_same_bytes_again(clips, tmp_path):
    """Reproducible: every artifact but the manifest, which names the job and the seconds."""
    clip = clips.path("h264.mp4")
    annotate(clip, "--pipelines", "scene_detection,voice_activity", "--no-cache", cwd=tmp_path)
    results = tmp_path / "annotations" / "h264"
    first = {file.name: file.read_bytes() for file in results.iterdir() if file.name != "manifest.json"}

    done = annotate(clip, "--pipelines", "scene_detection,voice_activity", "--no-cache", cwd=tmp_path)

    again = {file.name: file.read_bytes() for file in results.iterdir() if file.name != "manifest.json"}
    assert 0 == done.returncode
    assert first == again
    assert len(first) >= 3
    assert ["h264"] == os.listdir(tmp_path / "annotations")


def test_a_parameter_set_on_the_command_line_is_in_the_manifest(clips, tmp_path):
    """And so in the result: the manifest says what was used, not what was meant."""
    arguments = ("--pipelines", "scene_detection", "--set", "scene_detection.detector=content")

    annotate(clips.path("h264.mp4"), *arguments, cwd=tmp_path)

    manifest = json.loads((tmp_path / "annotations" / "h264" / "manifest.json").read_text())
    assert "content" == manifest["provenance"]["stages"][0]["parameters"]["detector"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--pipelines", "mind_reading"), "No pipeline is called 'mind_reading'"),
        (("--preset", "everything"), "No preset is called 'everything'"),
        (("--set", "scene_detection.speed=1"), "scene_detection has no parameter 'speed'"),
        (("--set", "scene_detection.min_scene_length=-1"), "scene_detection.min_scene_length is -1, outside"),
        (("--set", "scene_detection.detector=guess"), "scene_detection.detector cannot be 'guess'"),
        (("--set", "speed"), "'speed' sets nothing"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line_with_exit_code_2(arguments, says, clips, tmp_path):
    """Before anything is begun, and without a traceback or a folder."""
    done = annotate(clips.path("h264.mp4"), *arguments, cwd=tmp_path)

    assert 2 == done.returncode
    assert says in done.stderr
    assert 1 == len(done.stderr.splitlines())
    assert [] == everything_below(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"This is a letter and not a video.\n" * 50, "is not a video"),
        ("playlist.mp4", b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n", "playlist"),
    ],
)
def test_what_is_no_video_fails_with_one_line_and_leaves_nothing(name, content, says, tmp_path):
    """Exit code 1: the call was right, the file was not."""
    (tmp_path / name).write_bytes(content)

    done = annotate(name, cwd=tmp_path)

    assert 1 == done.returncode
    assert says in done.stdout
    assert 1 == len(done.stdout.splitlines())
    assert [name] == everything_below(tmp_path)


def test_a_bad_video_does_not_keep_the_good_ones_from_their_results(clips, tmp_path):
    """In a folder of fifty there is always one; it is named, and the exit code says that not all is done."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.mp4").write_bytes(b"nothing")
    os.link(clips.path("h264.mp4"), tmp_path / "in" / "good.mp4")

    done = annotate("in", "--pipelines", "scene_detection", "--json", cwd=tmp_path)

    lines = {Path(line["video"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert 1 == done.returncode
    assert ("failed", "full") == (lines["bad.mp4"]["status"], lines["good.mp4"]["outcome"])
    assert [CACHE, "good"] == sorted(os.listdir(tmp_path / "annotations"))


@pytest.mark.parametrize("name", ["half.mp4", "scratched.mp4"])
def test_a_broken_video_fails_with_the_number_of_lost_frames(name, clips, tmp_path):
    """Half a video's scenes look like a whole video's: they must not be delivered as such."""
    done = annotate(clips.path(name), "--pipelines", "scene_detection", "--json", cwd=tmp_path)

    (line,) = map(json.loads, done.stdout.splitlines())
    assert (1, "failed") == (done.returncode, line["status"])
    assert "of 100 frames" in line["message"] or "frames" in line["stages"][0]["message"]
    assert [] == everything_below(tmp_path)


def test_a_video_without_sound_ends_well_with_nobody_heard_and_a_note(clips, tmp_path):
    """One silent film in a hundred is no failure: empty files that are valid, one clear line, exit code 0."""
    done = annotate(clips.path("no_sound.mp4"), "--pipelines", "scene_detection,voice_activity", cwd=tmp_path)

    results = tmp_path / "annotations" / "no_sound"
    note = "no_sound.mp4 has no sound track: nothing was listened to."
    assert 0 == done.returncode
    assert f"[WARNING] voice_activity: {note}" in done.stdout.splitlines()
    assert "[OK]" in done.stdout
    assert "0 stretches of voice" in done.stdout
    assert [] == read_table(results / "voice_activity.csv")
    stages = json.loads((results / "manifest.json").read_text())["provenance"]["stages"]
    assert [note] == next(stage for stage in stages if stage["pipeline"] == "voice_activity")["warnings"]


def test_a_sound_file_gives_its_voices_and_says_what_is_missing(clips, tmp_path):
    """A recorder's file is legal input for what needs only sound. Partial is not full: exit code 1."""
    refused = annotate(clips.path("sound.wav"), "--pipelines", "scene_detection", cwd=tmp_path)
    done = annotate(clips.path("sound.wav"), "--pipelines", "scene_detection,voice_activity", cwd=tmp_path)

    assert (1, 1) == (refused.returncode, done.returncode)
    assert "[PARTIAL]" in done.stdout
    assert "has no picture" in done.stdout
    assert (tmp_path / "annotations" / "sound" / "voice_activity.csv").exists()
    assert "has no picture" in refused.stdout


def test_an_output_that_cannot_be_written_is_one_line(clips, tmp_path):
    """And not a traceback after an hour of work: it is tried first."""
    (tmp_path / "file").write_text("")

    done = annotate(clips.path("h264.mp4"), "--output", "file/out", cwd=tmp_path)

    assert 1 == done.returncode
    assert "cannot be written" in done.stderr
    assert 1 == len(done.stderr.splitlines())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_cleanly(number, clips, tmp_path):
    """No process, no scratch folder, no half result; the exit code is the shell's for an interrupt."""
    pipelines = declare(tmp_path / "pipelines", "family")
    words = [*COMMAND, str(clips.path("h264.mp4")), "--pipelines", "family", "--output", "out"]
    environ = os.environ | {"VIDEOANNOTATOR_PIPELINE_DIRS": str(pipelines)}
    process = subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 20
        while not (pipelines / "pids").exists() or len((pipelines / "pids").read_text().split()) < 4:
            assert time.monotonic() < until
            time.sleep(0.01)
        below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]

        process.send_signal(number)
        told, _ = process.communicate(timeout=10)
    finally:
        process.kill()

    pids = [int(pid) for pid in (pipelines / "pids").read_text().split()]
    assert 130 == process.returncode
    assert "[CANCELLED]" in told
    assert [] == [pid for pid in pids + below if is_alive(pid)]
    assert not (tmp_path / "out").exists()


def test_on_a_terminal_there_is_a_bar_for_each_stage(clips, tmp_path):
    """The reader sees that it works, how fast, and how long it will take."""
    leader, follower = pty.openpty()
    words = [*COMMAND, str(clips.path("h264.mp4")), "--pipelines", "scene_detection"]
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while block := _read(leader):
            shown += block
        process.wait(20)
    finally:
        process.kill()
        os.close(leader)

    assert 0 == process.returncode
    assert b"scene_detection" in shown
    assert b"\x1b[" in shown
    assert b"[OK]" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""  # Linux says EIO when the last writer has closed


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk takes root on Linux")
def test_a_disk_that_fills_up_fails_the_job_and_leaves_nothing(clips, tmp_path):
    """One line that says so; not a traceback, and no half-written file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
    try:
        done = annotate(
            clips.path("h264.mp4"),
            "--output",
            disk / "out",
            cwd=tmp_path,
            VIDEOANNOTATOR_MIN_FREE_BYTES="1",
            VIDEOANNOTATOR_RETRY_ATTEMPTS="1",
        )
        left = everything_below(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert 1 == done.returncode
    assert "Traceback" not in done.stdout + done.stderr
    assert "space" in done.stdout + done.stderr
    assert [] == [name for name in left if name != "out"]


@pytest.mark.slow
def test_a_copy_for_browsers_is_made_when_it_is_asked_for(clips, tmp_path):
    """And not else: on the command line it would cost time that nobody asked to spend."""
    clip = clips.path("hevc.mp4")

    plain = annotate(clip, "--pipelines", "scene_detection", "--output", "plain", cwd=tmp_path)
    copied = annotate(clip, "--pipelines", "scene_detection", "--output", "copied", "--browser-copy", cwd=tmp_path)

    assert (0, 0) == (plain.returncode, copied.returncode)
    assert "browser_copy" not in plain.stdout
    assert re.search(r"browser_copy +made in \d+\.\d s", copied.stdout)
    assert {"browser_copy.mp4"} == {f.name for f in (tmp_path / "copied" / "hevc").iterdir()} - {
        f.name for f in (tmp_path / "plain" / "hevc").iterdir()
    }


def test_what_was_done_before_is_not_done_again_unless_asked(clips, tmp_path):
    """A corpus that is annotated again after one file was added must not take the night again."""
    arguments = (clips.path("h264.mp4"), "--pipelines", "scene_detection")
    annotate(*arguments, cwd=tmp_path)
    first = (tmp_path / "annotations" / "h264" / "scene_detection.json").read_bytes()

    again = annotate(*arguments, cwd=tmp_path)
    second = (tmp_path / "annotations" / "h264" / "scene_detection.json").read_bytes()
    anew = annotate(*arguments, "--no-cache", cwd=tmp_path)

    assert (0, 0) == (again.returncode, anew.returncode)
    assert "done before" in again.stdout
    assert "done before" not in anew.stdout
    assert first == second
