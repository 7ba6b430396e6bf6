"""What `videoannotator.media` says of files, and what it refuses to say."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy
import psutil
import pytest

from tests.clips import CLICKS, CLIPS, FRAMES, RATE, SECONDS, Clips, playlists
from videoannotator.errors import StageFailed, UnreadableVideo
from videoannotator.jobs import Video
from videoannotator.media.frames import Frame, Frames
from videoannotator.media.names import shown_name
from videoannotator.media.probe import probe
from videoannotator.media.sound import SAMPLE_RATE, sound

WHOLE = [
    name
    for name in CLIPS
    if not name.startswith(("half", "scratched", "no_moov", "sound.", "cover", "many", "endless", "wide"))
    and name
    not in (
        "empty.mp4",
        "text.mp4",
        "page.mp4",
        "noise.mp4",
        "zeros.mp4",
        "picture.mp4",
        "raw.avi",
        "animation.mp4",
        "subtitles.mp4",
    )
]
SOUND_ONLY = ["sound.wav", "sound.mp3", "sound.flac", "sound.aac", "sound.m4a", "sound.ogg", "cover.m4a", "cover.mp3"]
DAMAGED = {
    "half.mp4": "h264.mp4",
    "half.mkv": "h264.mkv",
    "half.avi": "mpeg4.avi",
    "half_fragmented.mp4": "fragmented.mp4",
    "scratched.mp4": "h264.mp4",
    "scratched.mkv": "h264.mkv",
    "scratched.ts": "h264.ts",
    "scratched_hevc.mp4": "hevc.mp4",
}


def all_frames(path: Path, **options: object) -> tuple[list[Frame], Frames]:
    with Frames(path, probe(path), **options) as frames:  # type: ignore[arg-type]
        return list(frames), frames


class TestProbe:
    def test_says_what_an_ordinary_file_holds(self, clips: Clips) -> None:
        """Everything else builds on these numbers."""
        path = clips.path("h264.mp4")

        video = probe(path)

        assert video == Video(
            filename="h264.mp4",
            size_bytes=path.stat().st_size,
            container="mov,mp4,m4a,3gp,3g2,mj2",
            duration_seconds=SECONDS,
            width=320,
            height=240,
            frame_rate=RATE,
            frame_count=FRAMES,
            video_codec="h264",
            pixel_format="yuv420p",
            audio_codec="aac",
        )

    @pytest.mark.parametrize(
        ("name", "size", "degrees"),
        [
            ("rotated_90.mp4", (240, 320), 90),
            ("rotated_180.mp4", (320, 240), 180),
            ("rotated_270.mp4", (240, 320), 270),
            ("transposed.mp4", (240, 320), 90),
            ("upside_down.mp4", (320, 240), 0),
            ("odd_size.webm", (321, 241), 0),
            ("odd_size.mp4", (321, 241), 0),
        ],
    )
    def test_gives_the_size_of_the_upright_picture(
        self, clips: Clips, name: str, size: tuple[int, int], degrees: int
    ) -> None:
        """Boxes are drawn over the upright picture: phones store theirs lying down."""
        video = probe(clips.path(name))

        assert (video.width, video.height) == size
        assert video.rotation_degrees == degrees

    @pytest.mark.parametrize(
        ("name", "pictures", "sounds"),
        [
            ("late_pictures.mp4", 0.5, 0.0),
            ("late_pictures.mkv", 0.521, 0.0),
            ("late_sound.mp4", 0.0, 0.679),
            ("late_everything.mp4", 0.5, 0.0),
            ("edit_list.mp4", 0.0, 0.0),
            ("h264.ts", 0.021, 0.0),
        ],
    )
    def test_says_when_pictures_and_sound_begin(self, clips: Clips, name: str, pictures: float, sounds: float) -> None:
        """A browser does not pull a late track forward; transport streams count from their earliest track."""
        video = probe(clips.path(name))

        assert video.start_seconds == pytest.approx(pictures, abs=0.002)
        assert video.audio_start_seconds == pytest.approx(sounds, abs=0.002)

    @pytest.mark.parametrize("name", WHOLE)
    def test_knows_variable_from_constant_frame_rate(self, clips: Clips, name: str) -> None:
        """Who sees "constant" may think in frame numbers. The AVI repeats its first picture once."""
        assert probe(clips.path(name)).variable_frame_rate == name.startswith("variable")

    @pytest.mark.parametrize("name", SOUND_ONLY)
    def test_takes_a_file_with_sound_only(self, clips: Clips, name: str) -> None:
        """A sound recording can be searched for voices. A cover is no video."""
        video = probe(clips.path(name))

        assert video.has_audio
        assert not video.has_video
        assert video.duration_seconds == pytest.approx(SECONDS, abs=0.05)

    @pytest.mark.parametrize(
        "name", ["no_duration.webm", "no_duration.flv", "nan_duration.mkv", "negative_duration.mkv"]
    )
    def test_finds_a_missing_or_impossible_duration_by_reading(self, clips: Clips, name: str) -> None:
        """Browsers record WebM without one; progress and coverage depend on it."""
        assert probe(clips.path(name)).duration_seconds == pytest.approx(SECONDS, abs=0.1)

    @pytest.mark.parametrize(
        ("name", "code"),
        [
            ("empty.mp4", "FILE_EMPTY"),
            ("text.mp4", "NOT_A_VIDEO"),
            ("page.mp4", "NOT_A_VIDEO"),
            ("noise.mp4", "NOT_A_VIDEO"),
            ("zeros.mp4", "NOT_A_VIDEO"),
            ("picture.mp4", "NOT_A_VIDEO"),  # this and the next two: FFmpeg could, and is not allowed to
            ("animation.mp4", "NOT_A_VIDEO"),
            ("subtitles.mp4", "NOT_A_VIDEO"),
            ("no_moov.mp4", "VIDEO_TRUNCATED"),
            ("wide.avi", "TOO_LARGE_PICTURE"),
            ("many_tracks.mkv", "TOO_MANY_STREAMS"),
            ("endless_duration.mkv", "BAD_DURATION"),
        ],
    )
    def test_refuses_what_is_no_video_in_one_clear_sentence(self, clips: Clips, name: str, code: str) -> None:
        """What, why, and what to do: the user sees nothing else."""
        with pytest.raises(UnreadableVideo) as refused:
            probe(clips.path(name))

        assert refused.value.code == code
        assert name in refused.value.message
        assert refused.value.hint.endswith(".")
        assert "\n" not in str(refused.value)

    def test_refuses_what_is_no_file_without_opening_it(self, tmp_path: Path) -> None:
        """Opening a FIFO waits for a writer for ever."""
        os.mkfifo(tmp_path / "fifo.mp4")
        (tmp_path / "link.mp4").symlink_to(tmp_path / "fifo.mp4")

        for path in (tmp_path / "fifo.mp4", tmp_path / "link.mp4", tmp_path, Path("/dev/zero")):
            with pytest.raises(UnreadableVideo) as refused:
                probe(path)
            assert refused.value.code == "NOT_A_FILE", path

    @pytest.mark.parametrize("name", ["nothing.mp4", "text.mp4/nothing.mp4", "x" * 300 + ".mp4"])
    def test_says_when_there_is_no_such_file(self, clips: Clips, name: str) -> None:
        """The most frequent mistake of all."""
        clips.path("text.mp4")

        with pytest.raises(UnreadableVideo) as refused:
            probe(clips.folder / name)

        assert refused.value.code == "FILE_NOT_FOUND"

    @pytest.mark.parametrize("kind", list(playlists("x")))
    def test_refuses_playlists_and_opens_nothing_they_name(self, clips: Clips, tmp_path: Path, kind: str) -> None:
        """
        Debian's ffmpeg opened one and read another tenant's file. The file named here is a FIFO: who opens it hangs,
        so the probe runs in a process with a limit.
        """
        os.mkfifo(tmp_path / "other.mp4")
        path = tmp_path / kind
        path.write_bytes(playlists(str(tmp_path / "other.mp4"))[kind])
        script = "import sys, pathlib, videoannotator.media.probe as m\nm.probe(pathlib.Path(sys.argv[1]))"

        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=30, check=False
        )

        assert "UnreadableVideo" in done.stderr
        assert "names other files" in done.stderr

    def test_leaves_no_descriptor_open(self, clips: Clips) -> None:
        """The probing process serves thousands of files."""
        this = psutil.Process()
        before = this.num_fds()

        probe(clips.path("h264.mp4"))
        for name in ("noise.mp4", "no_moov.mp4", "wide.avi"):
            with pytest.raises(UnreadableVideo):
                probe(clips.path(name))

        assert this.num_fds() == before

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("../../etc/clip.mp4", "clip.mp4"),
            ("C:\\Users\\me\\clip.mp4", "clip.mp4"),
            ("a\x00b\nc\u202egpj.mp4", "abcgpj.mp4"),
            ('<img onerror="x">\'&.mp4', "img onerror=x.mp4"),
            ("x" * 5000 + ".mp4", "x" * 116 + ".mp4"),
            ("cafe\u0301.mp4", "caf\u00e9.mp4"),
            ("  clip.mp4. ", "clip.mp4"),
            ("../", "video"),
            ("\udcff.mp4", "mp4"),
            ("Kind 3, Besuch 2.MOV", "Kind 3, Besuch 2.MOV"),
        ],
    )
    def test_shows_a_name_that_can_be_shown(self, name: str, shown: str) -> None:
        """It goes into web pages, terminals and tables."""
        assert shown_name(name) == shown


class TestFrames:
    @pytest.mark.parametrize("name", WHOLE)
    def test_every_picture_of_a_whole_file_is_accounted_for(self, clips: Clips, name: str) -> None:
        """A good file must never be said to have lost something, whatever its container leaves unsaid."""
        pictures, frames = all_frames(clips.path(name))

        ledger = frames.ledger
        assert ledger.closes
        assert (ledger.failed, ledger.skipped, ledger.processed) == (0, 0, len(pictures))
        assert len(pictures) == (67 if name == "edit_list.mp4" else FRAMES)
        assert [picture.number for picture in pictures] == list(range(len(pictures)))
        frames.check(0.0)

    @pytest.mark.parametrize("name", WHOLE)
    def test_time_only_goes_forward_from_the_announced_start(self, clips: Clips, name: str) -> None:
        """B-frames, edit lists, AVI without presentation times: none may turn time back or go below zero."""
        video = probe(clips.path(name))

        pictures, _ = all_frames(clips.path(name))

        times = [picture.timestamp for picture in pictures]
        assert all(earlier < later for earlier, later in pairwise(times))
        assert times[0] == pytest.approx(video.start_seconds, abs=0.001)
        assert 0 <= times[0]
        assert times[-1] <= video.duration_seconds + 0.05

    def test_says_where_times_were_worked_out(self, clips: Clips) -> None:
        """AVI has no presentation times: a study that needs them to the frame must be able to know."""
        _, of_avi = all_frames(clips.path("h264_b_frames.avi"))
        _, of_mp4 = all_frames(clips.path("b_frames.mp4"))

        assert (of_avi.derived_timestamps, of_mp4.derived_timestamps) == (FRAMES, 0)

    @pytest.mark.parametrize("name", DAMAGED)
    def test_loss_is_counted_and_refused(self, clips: Clips, name: str) -> None:
        """OpenCV ends silently on these files, and a study would miss half of its data without a word."""
        _, frames = all_frames(clips.path(name))

        assert frames.ledger.decoded + frames.ledger.failed == pytest.approx(FRAMES, abs=2)
        assert 35 <= frames.ledger.failed <= 60
        with pytest.raises(StageFailed) as failed:
            frames.check(0.01)
        assert failed.value.code == "FRAMES_LOST"
        assert f"{frames.ledger.failed} of " in failed.value.message
        assert ("breaks off" if name.startswith("half") else name) in failed.value.message
        frames.check(0.99)

    @pytest.mark.parametrize("name", [name for name in DAMAGED if not name.endswith(".avi")])
    def test_no_damaged_picture_is_handed_out(self, clips: Clips, name: str) -> None:
        """
        The decoder marks one picture; the following fifty are predicted from it, unmarked, and wrong by up to 24 grey
        levels on average. Annotations on them would be inventions.
        """
        whole, _ = all_frames(clips.path(DAMAGED[name]), pixel_format="gray")
        by_pts = {picture.pts: picture.image for picture in whole}

        pictures, _ = all_frames(clips.path(name), pixel_format="gray")

        assert all(numpy.array_equal(picture.image, by_pts[picture.pts]) for picture in pictures)

    def test_says_from_when_on_a_file_breaks_off(self, clips: Clips) -> None:
        """The user must be able to go and look."""
        _, frames = all_frames(clips.path("half.mkv"))

        with pytest.raises(StageFailed, match=r"half\.mkv breaks off: 50 of 100 frames .* from 2\.0 s on"):
            frames.check(0.01)

    def test_a_transport_stream_cut_in_half_shows_only_its_torn_edge(self, clips: Clips) -> None:
        """Known limit: it announces neither length nor count, so a shorter one is a whole one."""
        _, frames = all_frames(clips.path("half.ts"))

        assert frames.ledger.expected is None
        assert frames.ledger.failed <= 2

    @pytest.mark.parametrize("name", ["h264.mp4", "variable.mp4", "late_pictures.mp4", "h264.ts"])
    @pytest.mark.parametrize("rate", [1.0, 5.0, 7.3, 100.0])
    def test_samples_the_first_picture_at_or_after_each_due_time(self, clips: Clips, name: str, rate: float) -> None:
        """Sampling by time gives the same density on every clip, also where the frame rate varies."""
        every, _ = all_frames(clips.path(name))
        times = [picture.timestamp for picture in every]
        due = [step / rate for step in range(int(times[-1] * rate) + 1)]
        wanted = sorted({next(i for i, t in enumerate(times) if t >= at - 1e-6) for at in due})

        sampled, frames = all_frames(clips.path(name), rate=rate)

        assert [picture.number for picture in sampled] == wanted
        assert frames.ledger.processed == len(wanted)
        assert frames.ledger.processed + frames.ledger.skipped == frames.ledger.decoded == len(every)

    @pytest.mark.parametrize(
        ("name", "turn"),
        [
            ("rotated_90.mp4", lambda image: numpy.rot90(image, -1)),
            ("rotated_180.mp4", lambda image: numpy.rot90(image, 2)),
            ("rotated_270.mp4", lambda image: numpy.rot90(image, 1)),
            ("mirrored.mp4", numpy.fliplr),
            ("upside_down.mp4", numpy.flipud),
            ("transposed.mp4", lambda image: image.swapaxes(0, 1)),
        ],
    )
    def test_pictures_are_upright(self, clips: Clips, name: str, turn: object) -> None:
        """Detectors find no faces that lie on their side; front cameras mirror."""
        (lying, *_), _ = all_frames(clips.path("h264.mp4"))

        (upright, *_), _ = all_frames(clips.path(name))

        assert numpy.array_equal(upright.image, turn(lying.image))  # type: ignore[operator]
        assert upright.image.flags.c_contiguous

    @pytest.mark.parametrize(
        ("name", "options", "shape"),
        [
            ("h264.mp4", {}, (240, 320, 3)),
            ("h264.mp4", {"max_side": 160}, (120, 160, 3)),
            ("h264.mp4", {"max_side": 1000}, (240, 320, 3)),
            ("h264.mp4", {"pixel_format": "gray", "max_side": 100}, (75, 100)),
            ("rotated_90.mp4", {"max_side": 160}, (160, 120, 3)),
            ("odd_size.webm", {"max_side": 107}, (80, 107, 3)),
        ],
    )
    def test_the_longer_side_has_its_limit(
        self, clips: Clips, name: str, options: dict[str, object], shape: tuple[int, ...]
    ) -> None:
        """Small pictures are several times as fast; never made larger than they are."""
        pictures, _ = all_frames(clips.path(name), rate=1.0, **options)

        assert {picture.image.shape for picture in pictures} == {shape}
        assert pictures[0].image.dtype == numpy.uint8

    def test_blue_and_red_are_where_they_are_asked_for(self, clips: Clips) -> None:
        """OpenCV wants BGR, the others RGB."""
        (rgb, *_), _ = all_frames(clips.path("h264.mp4"), pixel_format="rgb24")
        (bgr, *_), _ = all_frames(clips.path("h264.mp4"), pixel_format="bgr24")

        assert numpy.array_equal(rgb.image, bgr.image[:, :, ::-1])
        assert not numpy.array_equal(rgb.image, bgr.image)

    def test_a_kept_picture_does_not_change(self, clips: Clips) -> None:
        """Trackers and batches keep some; the decoder must not write into them."""
        with Frames(clips.path("h264.mp4"), probe(clips.path("h264.mp4"))) as frames:
            source = iter(frames)
            first = next(source)
            copy = first.image.copy()

            for _ in source:
                pass

        assert numpy.array_equal(first.image, copy)

    def test_the_same_pictures_come_every_time(self, clips: Clips) -> None:
        """Same input, same bytes, also with more threads."""
        once, _ = all_frames(clips.path("b_frames.mp4"), threads=1)
        again, _ = all_frames(clips.path("b_frames.mp4"), threads=4)

        assert all(numpy.array_equal(a.image, b.image) and a.pts == b.pts for a, b in zip(once, again, strict=True))

    def test_memory_does_not_grow_with_the_length(self, clips: Clips) -> None:
        """A ten-hour recording is worked through like a short one: 100 pictures of 0.2 MB here, growth below 5 MB."""
        this = psutil.Process()
        with Frames(clips.path("h264.mp4"), probe(clips.path("h264.mp4"))) as frames:
            source = iter(frames)
            for _ in range(20):
                next(source)
            before = this.memory_info().rss

            for _ in source:
                pass

            assert this.memory_info().rss - before < 5_000_000

    def test_a_ledger_before_the_end_is_refused(self, clips: Clips) -> None:
        """Half an account looks like a whole one."""
        with Frames(clips.path("h264.mp4"), probe(clips.path("h264.mp4"))) as frames:
            next(iter(frames))

            with pytest.raises(RuntimeError, match="ended by itself"):
                _ = frames.ledger

    def test_a_file_without_pictures_is_refused(self, clips: Clips) -> None:
        """The stage was started by mistake, or the file was changed since the probe."""
        path = clips.path("sound.wav")

        with pytest.raises(UnreadableVideo, match="no pictures"), Frames(path, probe(path)):
            pass


def click_times(path: Path) -> list[float]:
    heard = sound(path, probe(path))
    loud = numpy.flatnonzero(numpy.abs(heard.samples) > 0.2)
    firsts = [int(loud[0]), *(int(b) for a, b in pairwise(loud) if b - a > SAMPLE_RATE // 10)]
    return [heard.start_seconds + first / SAMPLE_RATE for first in firsts]


class TestSound:
    @pytest.mark.parametrize(
        ("name", "shift", "tolerance"),
        [
            ("sound.wav", 0.0, 0.001),
            ("sound.mp3", 0.0, 0.001),
            ("sound.flac", 0.0, 0.001),
            ("sound.m4a", 0.0, 0.001),
            ("sound.ogg", 0.0, 0.001),
            ("sound.aac", 0.021, 0.002),  # nothing in the file tells of the encoder's delay
            ("h264.mp4", 0.0, 0.001),
            ("fragmented.mp4", 0.08, 0.001),
            ("h264.mkv", 0.021, 0.001),
            ("vp9_opus.webm", 0.0, 0.001),
            ("h264.ts", 0.021, 0.001),
            ("h264.flv", 0.021, 0.001),
            ("wmv.asf", 0.043, 0.001),
            ("mpeg4.avi", 0.023, 0.002),
            ("late_pictures.mp4", 0.0, 0.001),
            ("late_sound.mp4", 0.7, 0.001),
            ("sound_gap.mkv", 0.0, 0.001),
        ],
    )
    def test_a_click_is_heard_when_it_happens(self, clips: Clips, name: str, shift: float, tolerance: float) -> None:
        """
        Turns are compared with pictures to the frame. `shift` is what each file's own timestamps say: encoder delay
        that the container knows of is gone, gaps are filled, offsets are kept.
        """
        assert click_times(clips.path(name)) == pytest.approx([click + shift for click in CLICKS], abs=tolerance)

    def test_what_an_edit_list_cuts_is_not_heard(self, clips: Clips) -> None:
        """The first 1.3 s were cut off: the click at 1.0 s is gone, the other comes earlier."""
        assert click_times(clips.path("edit_list.mp4")) == pytest.approx([CLICKS[1] - 1.3], abs=0.001)

    def test_is_one_channel_of_16_khz_floats(self, clips: Clips) -> None:
        """What every speech model asks for."""
        heard = sound(clips.path("h264.mp4"), probe(clips.path("h264.mp4")))

        assert heard.samples.dtype == numpy.float32
        assert heard.samples.ndim == 1
        assert len(heard.samples) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.03)
        assert 0.5 < numpy.abs(heard.samples).max() <= 1.1
        assert heard.ledger.closes

    def test_a_gap_is_silent(self, clips: Clips) -> None:
        """Between 1.5 and 2.2 s the track has no samples at all."""
        path = clips.path("sound_gap.mkv")

        heard = sound(path, probe(path))

        assert not heard.samples[int(1.55 * SAMPLE_RATE) : int(2.1 * SAMPLE_RATE)].any()
        assert len(heard.samples) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.03)

    def test_missing_sound_is_counted(self, clips: Clips) -> None:
        """Half a track without a word would be half a transcript."""
        heard = sound(clips.path("half.mp4"), probe(clips.path("half.mp4")))

        assert heard.ledger.lost_share == pytest.approx(0.5, abs=0.1)

    def test_a_video_without_sound_says_so(self, clips: Clips) -> None:
        """The stage must end with a sentence, not with an index error."""
        path = clips.path("no_sound.mp4")

        with pytest.raises(StageFailed, match="no sound track") as failed:
            sound(path, probe(path))

        assert failed.value.code == "NO_SOUND"


class TestTheRealClip:
    def test_gives_all_of_its_pictures_and_sound(self, sample: Path) -> None:
        """HEVC from a phone, one picture of which was dropped when it was recorded."""
        video = probe(sample)
        pictures, frames = all_frames(sample, max_side=160)
        heard = sound(sample, video)

        assert (video.width, video.height, video.video_codec) == (640, 480, "hevc")
        assert video.variable_frame_rate
        assert len(pictures) == frames.ledger.expected == 150
        assert len(heard.samples) / SAMPLE_RATE == pytest.approx(10.56, abs=0.02)
