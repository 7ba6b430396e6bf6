"""The copy that browsers play: what is drawn over it lies where and when it lay in the original."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy
import pytest

from tests.browser import Screen, screen
from tests.clips import Clips, ffmpeg
from videoannotator.errors import StageFailed
from videoannotator.jobs import Video
from videoannotator.media.copying import Copied, browser_copy, copy_size
from videoannotator.media.frames import Frame, Frames
from videoannotator.media.playable import browsers_play
from videoannotator.media.probe import probe
from videoannotator.media.sound import SAMPLE_RATE, sound

NOT_PLAYED = [
    *("hevc.mp4", "mpeg4.avi", "h264_b_frames.avi", "h264.ts", "interlaced.ts", "mpeg2.mpg", "h264.flv", "theora.ogv"),
    *("wmv.asf", "no_duration.flv"),
]
PLAYED = [
    *("h264.mp4", "b_frames.mp4", "h264.mkv", "vp9_opus.webm", "vp8_hidden_frames.webm", "no_sound.mp4"),
    *("variable.mp4", "late_pictures.mkv", "edit_list.mp4", "fragmented.mp4", "rotated_90.mp4", "odd_size.webm"),
]
TELLING = [
    *("hevc.mp4", "h264_b_frames.avi", "h264.ts", "odd_size.mp4", "variable.mkv", "late_pictures.mp4"),
    *("edit_list.mp4", "rotated_90.mp4"),
]
MORE = [
    *(name for name in NOT_PLAYED if name not in TELLING),
    *(
        "late_sound.mp4",
        "late_everything.mp4",
        "sound_gap.mkv",
        "rotated_180.mp4",
        "rotated_270.mp4",
        "mirrored.mp4",
        "transposed.mp4",
    ),
    "no_sound.mp4",
]
every_kind = pytest.mark.parametrize("name", [*TELLING, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    with screen(tmp_path_factory.mktemp("page")) as shown:
        yield shown


class Copies:
    """Each clip's copy, made when first asked for."""

    def __init__(self, clips: Clips, folder: Path) -> None:
        self._clips, self._folder = clips, folder
        self._made: dict[str, tuple[Path, Copied]] = {}

    def of(self, name: str) -> tuple[Path, Copied]:
        if name not in self._made:
            folder = self._folder / name
            folder.mkdir()
            self._made[name] = copied(self._clips.path(name), folder)
        return self._made[name]


@pytest.fixture(scope="module")
def copies(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    return Copies(clips, tmp_path_factory.mktemp("copies"))


def copied(clip: Path, folder: Path, *, max_lost_frames: float = 0.01) -> tuple[Path, Copied]:
    copy = folder / "copy.mp4"
    said = browser_copy(
        clip, probe(clip), copy, threads=2, max_lost_frames=max_lost_frames, on_progress=lambda seconds: None
    )
    return copy, said


def frames_of(path: Path) -> list[Frame]:
    with Frames(path, probe(path)) as frames:
        return list(frames)


def clicks_in(path: Path, video: Video) -> list[float]:
    """When a click begins, in seconds on the file's timeline."""
    track = sound(path, video)
    loud = numpy.flatnonzero(numpy.abs(track.samples) > 0.3)
    first = [loud[0], *(later for earlier, later in pairwise(loud) if later - earlier > SAMPLE_RATE // 4)]
    return [track.start_seconds + at / SAMPLE_RATE for at in first]


@every_kind
def test_every_picture_of_the_copy_has_its_time_and_place(name: str, clips: Clips, copies: Copies) -> None:
    """Within half a frame: variable frame rates, late starts, edit lists, transport streams, turned phones."""
    clip = clips.path(name)

    copy, said = copies.of(name)

    before, after = frames_of(clip), frames_of(copy)
    gaps = [b.timestamp - a.timestamp for a, b in pairwise(before)]
    height, width = before[0].image.shape[:2]
    middle = len(before) // 2
    off = numpy.abs(after[middle].image[:height, :width].astype(int) - before[middle].image).mean()
    assert len(after) == len(before) == said.ledger.processed
    assert max(abs(a.timestamp - b.timestamp) for a, b in zip(before, after, strict=True)) < min(gaps) / 2
    assert off < 5  # a wrong turn or a neighbouring picture is off by 20 and more
    assert said.ledger.closes


@pytest.mark.parametrize(
    "name",
    [
        "hevc.mp4",
        "late_sound.mp4",
        "h264.ts",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("edit_list.mp4", "variable.mkv", "late_pictures.mkv", "sound_gap.mkv", *NOT_PLAYED)
        ),
    ],
)
def test_the_sound_of_the_copy_is_where_it_was(name: str, clips: Clips, copies: Copies) -> None:
    """Sound that drifts makes people distrust every speech mark. 10 ms is the length of the click."""
    clip = clips.path(name)
    original = probe(clip)

    copy, _ = copies.of(name)

    before, after = clicks_in(clip, original), clicks_in(copy, probe(copy))
    assert after == pytest.approx(before, abs=0.01)


@every_kind
def test_the_copy_is_of_the_kind_that_browsers_play(name: str, clips: Clips, copies: Copies) -> None:
    """H.264, 8 bits, even sides, upright, AAC, the index in front: also what other browsers than Chromium ask for."""
    clip = clips.path(name)
    original = probe(clip)

    copy, _ = copies.of(name)

    video = probe(copy)
    layout = copy.read_bytes()[:200_000]
    assert browsers_play(video)
    assert (video.video_codec, video.pixel_format, video.rotation_degrees) == ("h264", "yuv420p", 0)
    assert (video.width, video.height) == copy_size(original.width, original.height)
    assert video.audio_codec == ("aac" if original.has_audio else None)
    assert 0 < layout.index(b"moov") < layout.index(b"mdat")
    assert video.duration_seconds == pytest.approx(original.duration_seconds, abs=0.1)


@pytest.mark.slow
def test_chromium_shows_copies_and_what_needs_none(browser: Screen, clips: Clips, copies: Copies) -> None:
    """The browser is the judge of both lists: what is taken for playable must load, with its size and length."""
    shown = {}
    for name in PLAYED:
        shown[name] = browser.load(clips.path(name))
        assert browsers_play(probe(clips.path(name))), name
    for name in (*NOT_PLAYED, "odd_size.mp4"):
        assert not browsers_play(probe(clips.path(name))), name
        shown[name] = browser.load(copies.of(name)[0])

    for name, said in shown.items():
        original = probe(clips.path(name))
        assert said["error"] == "", name
        assert abs(said["width"] - original.width) <= 1, name
        assert abs(said["height"] - original.height) <= 1, name
        assert said["duration"] == pytest.approx(original.duration_seconds, abs=0.15), name


def test_chromium_shows_each_picture_of_the_sample_when_the_annotations_say(
    browser: Screen, sample: Path, tmp_path: Path
) -> None:
    """The clip that everybody tries first: HEVC from a phone, with a variable frame rate."""
    copy, _ = copied(sample, tmp_path)
    times = [frame.timestamp for frame in frames_of(sample)]

    said = browser.load(copy)
    seen = {at: browser.seek(at + 0.01) for at in times[5::29]}

    assert (said["error"], said["width"], said["height"]) == ("", 640, 480)
    assert said["duration"] == pytest.approx(probe(sample).duration_seconds, abs=0.05)
    assert all(abs(at - picture) < 0.03 for at, picture in seen.items()), seen


def test_colours_of_the_full_range_stay_what_they_are(clips: Clips, tmp_path: Path) -> None:
    """Cameras write it; taken for the limited range the copy would be too bright or too dark."""
    clip = tmp_path / "full.mp4"
    ffmpeg("-i", clips.path("h264.mp4"), "-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p", "-c:v", "mpeg4", clip)

    copy, _ = copied(clip, tmp_path)

    before, after = frames_of(clip)[50].image, frames_of(copy)[50].image
    assert numpy.abs(after.astype(int) - before).mean() < 4


def test_pictures_larger_than_browsers_show_are_made_smaller_and_said_so(tmp_path: Path) -> None:
    """Boxes in pixels of the original do not fit such a copy: nobody may learn that from the screen."""
    clip = tmp_path / "large.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=5000x1500:r=5:d=0.4", "-c:v", "mpeg4", clip)

    copy, said = copied(clip, tmp_path)

    video = probe(copy)
    assert (video.width, video.height, said.is_smaller) == (4096, 1230, True)
    assert copy_size(4096, 3072) == (4096, 3072)


def test_a_damaged_original_is_copied_as_far_as_it_goes_or_refused(clips: Clips, tmp_path: Path) -> None:
    """By the same rule as every stage: the ledger closes, and who allows losses gets the rest at its right time."""
    with pytest.raises(StageFailed, match="damaged"):
        copied(clips.path("scratched.ts"), tmp_path)

    copy, said = copied(clips.path("scratched.ts"), tmp_path, max_lost_frames=0.9)

    before = {round(frame.timestamp, 2) for frame in frames_of(clips.path("scratched.ts"))}
    after = {round(frame.timestamp, 2) for frame in frames_of(copy)}
    assert said.ledger.closes
    assert after == before


@pytest.mark.slow
def test_the_memory_of_a_copy_does_not_grow_with_the_video(clips: Clips, tmp_path: Path) -> None:
    """An hour must not need more than a minute; sixteen times as long may cost a few megabytes of index."""
    long = tmp_path / "long.ts"
    ffmpeg("-stream_loop", "15", "-i", clips.path("h264.ts"), "-c", "copy", long)

    short_peak, long_peak = peak_of(clips.path("h264.ts"), tmp_path), peak_of(long, tmp_path)

    assert long_peak - short_peak < 16 * 1024  # KiB


@pytest.mark.slow
def test_sound_that_begins_an_hour_late_takes_no_gigabyte(clips: Clips, tmp_path: Path) -> None:
    """The silence before it is filled in as it is encoded."""
    late = tmp_path / "late.mkv"
    h264 = clips.path("h264.mp4")
    ffmpeg("-i", h264, "-itsoffset", "3600", "-i", h264, "-map", "0:v", "-map", "1:a", "-c", "copy", late)

    assert peak_of(late, tmp_path) < 200 * 1024
    assert probe(tmp_path / "copy.mp4").duration_seconds == pytest.approx(3604, abs=0.1)
    assert clicks_in(tmp_path / "copy.mp4", probe(tmp_path / "copy.mp4")) == pytest.approx([3601, 3602.5], abs=0.05)


def peak_of(clip: Path, folder: Path) -> int:
    """The most memory that copying it takes, in KiB, in a process of its own."""
    code = f"""
from pathlib import Path
from tests.media.test_copying import copied
copied(Path({str(clip)!r}), Path({str(folder)!r}))
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    return int(done.stdout)
