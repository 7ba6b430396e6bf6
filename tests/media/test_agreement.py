"""
`Frames` beside three readers that others wrote: ffprobe for times, decord and OpenCV for times and pictures.

The product decodes with PyAV only (docs/decisions/0005-time-and-decoder.md). Where the others differ, the test says
how, so that nobody swaps the decoder for another one without noticing what changes.
"""

import json
import subprocess
from pathlib import Path

import numpy
import pytest
from numpy.typing import NDArray

from tests.clips import CLIPS, FRAMES, Clips
from videoannotator.media.frames import Frame, Frames
from videoannotator.media.probe import probe

SENDERS_CLOCK = (".ts", ".mpg", ".flv", ".asf")
UPRIGHT = ["rotated_90.mp4", "rotated_180.mp4", "rotated_270.mp4"]
AGREED = ["h264.mp4", "hevc.mp4", "b_frames.mp4", "variable.mp4", "odd_size.mp4", *UPRIGHT]
LATE = {"late_pictures.mp4": 0.5, "late_everything.mp4": 0.5, "late_pictures.mkv": 0.521, "variable.mkv": 0.021}


def ours(path: Path) -> list[Frame]:
    with Frames(path, probe(path)) as frames:
        return list(frames)


def times_of_ffprobe(path: Path) -> list[float]:
    """Seconds on our timeline: ffprobe gives the container's, so a sender's clock is taken off."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries",
               "frame=best_effort_timestamp_time:format=start_time", "-of", "json", str(path)]  # fmt: skip
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    zero = float(said["format"]["start_time"]) if path.suffix in SENDERS_CLOCK else 0.0
    return [float(frame["best_effort_timestamp_time"]) - zero for frame in said["frames"]]


def read_by_decord(path: Path) -> tuple[list[float], list[NDArray[numpy.uint8]]]:
    """Times and pictures, as many as it gives before it raises."""
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    times = [float(reader.get_frame_timestamp(i)[0]) for i in range(len(reader))]
    pictures = []
    try:
        pictures.extend(reader.next().asnumpy() for _ in range(len(reader)))
    except decord.DECORDError:
        return times, pictures
    return times, pictures


def read_by_opencv(path: Path) -> tuple[list[float], list[NDArray[numpy.uint8]]]:
    cv2 = pytest.importorskip("cv2")
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    times, pictures = [], []
    while (read := capture.read())[0]:
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        pictures.append(read[1][:, :, ::-1])
    capture.release()
    return times, pictures


def differ(mine: list[Frame], theirs: list[NDArray[numpy.uint8]]) -> float:
    """Mean difference of the worst picture, in levels of 255."""
    return max(float(numpy.abs(a.image.astype(numpy.int16) - b).mean()) for a, b in zip(mine, theirs, strict=False))


@pytest.mark.parametrize(
    "name",
    [*AGREED, *LATE, "edit_list.mp4", "fragmented.mp4", "h264.mkv", "vp9_opus.webm", "vp8_hidden_frames.webm",
     "h264.ts", "mpeg2.mpg", "h264.flv", "mpeg4.avi", "theora.ogv", "wmv.asf", "odd_size.webm"],
)  # fmt: skip
def test_times_are_those_of_ffprobe(clips: Clips, name: str) -> None:
    """An independent reader of the same timestamps, in another version of FFmpeg, from outside of Python."""
    path = clips.path(name)

    mine = [frame.timestamp for frame in ours(path)]

    assert mine == pytest.approx(times_of_ffprobe(path), abs=0.0011)


@pytest.mark.parametrize("reader", [read_by_decord, read_by_opencv])
@pytest.mark.parametrize("name", AGREED)
def test_decord_and_opencv_agree(clips: Clips, name: str, reader: object) -> None:
    """Same number, same times, the same pixels, turned the same way."""
    path = clips.path(name)
    mine = ours(path)

    times, pictures = reader(path)  # type: ignore[operator]

    assert len(mine) == len(pictures) == FRAMES
    assert times == pytest.approx([frame.timestamp for frame in mine], abs=0.001)
    assert differ(mine, pictures) == 0


@pytest.mark.parametrize("reader", [read_by_decord, read_by_opencv])
def test_odd_sizes_agree_to_the_rounding_of_colours(clips: Clips, reader: object) -> None:
    """At an odd width each lays out its rows in its own way, and swscale picks another routine: a level or two."""
    path = clips.path("odd_size.webm")
    mine = ours(path)

    times, pictures = reader(path)  # type: ignore[operator]

    assert times == pytest.approx([frame.timestamp for frame in mine], abs=0.001)
    assert pictures[0].shape == mine[0].image.shape == (241, 321, 3)
    assert differ(mine, pictures) < 2


@pytest.mark.parametrize("reader", [read_by_decord, read_by_opencv])
@pytest.mark.parametrize("name", LATE)
def test_decord_and_opencv_forget_a_late_start(clips: Clips, name: str, reader: object) -> None:
    """Both count from the track's own first picture: every time is early by the offset. The pictures agree."""
    path = clips.path(name)
    mine = ours(path)

    times, pictures = reader(path)  # type: ignore[operator]

    assert [time + LATE[name] for time in times] == pytest.approx([frame.timestamp for frame in mine], abs=0.001)
    assert differ(mine, pictures) == 0


def test_decord_forgets_the_edit_list_and_opencv_does_not(clips: Clips) -> None:
    """decord gives all 100 pictures of the track, 33 of which no player shows, and times that are 1.3 s off."""
    path = clips.path("edit_list.mp4")
    mine = ours(path)

    times, pictures = read_by_opencv(path)
    _, of_decord = read_by_decord(path)

    assert len(mine) == len(pictures) == 67
    assert times == pytest.approx([frame.timestamp for frame in mine], abs=0.001)
    assert differ(mine, pictures) == 0
    assert len(of_decord) == FRAMES


def test_of_a_mirrored_picture_only_we_undo_the_mirror(clips: Clips) -> None:
    """Both others know quarter turns only. A browser draws it mirrored back, as we do."""
    path = clips.path("mirrored.mp4")
    mine = ours(path)

    _, pictures = read_by_opencv(path)

    assert numpy.array_equal(numpy.fliplr(mine[0].image), numpy.fliplr(ours(clips.path("h264.mp4"))[0].image[:, ::-1]))
    assert differ(mine, pictures) > 10


@pytest.mark.parametrize("name", ["half.mp4", "scratched.mp4"])
def test_on_damage_opencv_ends_silently_and_decord_raises(clips: Clips, name: str) -> None:
    """
    What comes before the damage is the same in all three; only our ledger says that something is missing. decord's
    thread raises as soon as it meets the damage, and then pictures that were ready are lost, more or fewer by chance:
    every second read gets as far as it can.
    """
    path = clips.path(name)
    with Frames(path, probe(path)) as frames:
        mine = list(frames)

    _, by_opencv = read_by_opencv(path)
    by_decord = max((read_by_decord(path)[1] for _ in range(50)), key=len)

    assert len(mine) == pytest.approx(len(by_opencv), abs=3)
    assert len(mine) == pytest.approx(len(by_decord), abs=3)
    assert differ(mine, by_opencv) == differ(mine, by_decord) == 0
    assert frames.ledger.expected == FRAMES
    assert frames.ledger.failed == FRAMES - len(mine)


def test_every_clip_named_here_exists() -> None:
    """A table with a misspelt name would test nothing."""
    assert {*AGREED, *LATE} <= set(CLIPS)
