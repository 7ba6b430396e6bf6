"""Voice: heard where somebody speaks, nowhere else, and as the library itself would hear it."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.clips import SPEECH_AT, Clips, ffmpeg
from tests.staging import CATALOGUE, Ran, run, start
from videoannotator.annotations import Turn
from videoannotator.formats.rttm import read_rttm
from videoannotator.formats.table import read_table
from videoannotator.formats.uem import read_uem
from videoannotator.media.probe import probe
from videoannotator.media.sound import sound
from videoannotator.pipelines.silero import Network, turns_from
from videoannotator.pipelines.voice_activity import Parameters


class Held(msgspec.Struct):
    """A recording in memory."""

    samples: Any

    @property
    def length(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Any:
        return self.samples[start:stop]


def heard(clip: Path) -> Any:
    return sound(clip, probe(clip)).samples


def turns_of(ran: Ran) -> tuple[Turn, ...]:
    return read_rttm(ran.folder / "voice_activity.rttm")


def test_speech_is_found_where_it_is(clips: Clips, tmp_path: Path) -> None:
    """Two sentences, with silence around them."""
    ran = run("voice_activity", clips.path("speech.mp4"), tmp_path / "out")

    turns = turns_of(ran)
    assert {round(min((abs(t.onset - at), at) for at, _ in SPEECH_AT)[1]) for t in turns} == {1, 5}
    assert turns[0].onset == pytest.approx(1.0, abs=0.2)
    assert min(t.onset for t in turns if t.onset > 4) == pytest.approx(5.0, abs=0.2)
    assert all(t.end < 4.5 or t.onset > 4.5 for t in turns)
    assert all(t.score is not None and 0.5 < t.score <= 1 for t in turns)
    ((heard_from, heard_until),) = read_uem(ran.folder / "voice_activity.uem")
    assert (heard_from, heard_until) == pytest.approx((0.0, 9.0), abs=0.1)
    assert len(read_table(ran.folder / "voice_activity.csv")) == len(turns) == ran.result.annotations


def test_a_video_without_sound_is_completed_with_nothing_and_a_note(clips: Clips, tmp_path: Path) -> None:
    """Valid empty files; the UEM says that nothing was listened to, which is not the same as that nobody spoke."""
    ran = run("voice_activity", clips.path("no_sound.mp4"), tmp_path / "out")

    assert (ran.result.annotations, ran.result.ledger.closes) == (0, True)
    assert ran.result.warnings == ("no_sound.mp4 has no sound track: nothing was listened to.",)
    assert (read_uem(ran.folder / "voice_activity.uem"), read_table(ran.folder / "voice_activity.csv")) == ((), [])
    assert ran.report.progressed[-1] == ran.duration_seconds


def test_quiet_speech_is_found_too(clips: Clips, tmp_path: Path) -> None:
    """The camera stands at the other end of the room."""
    clip = tmp_path / "quiet.mkv"
    ffmpeg("-i", clips.path("speech.mp4"), "-c:v", "copy", "-af", "volume=-65dB", "-c:a", "pcm_f32le", clip)

    assert run("voice_activity", clip, tmp_path / "as it is", {"normalize": False}).result.annotations == 0
    assert turns_of(run("voice_activity", clip, tmp_path / "out"))[0].onset == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("sound", ["anullsrc=r=16000:cl=mono", "anoisesrc=a=0.05:c=pink:seed=1", "sine=f=440"])
def test_what_is_no_speech_makes_no_rttm(sound: str, tmp_path: Path) -> None:
    """An RTTM without a line is refused by its readers; the UEM says that somebody listened."""
    clip = tmp_path / f"{sound[:5]}.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=6", "-f", "lavfi", "-t", "6", "-i", sound,
           "-c:v", "libx264", "-c:a", "aac", clip)  # fmt: skip

    ran = run("voice_activity", clip, tmp_path / "out")

    assert sorted(ran.files) == ["voice_activity.csv", "voice_activity.uem"]
    assert ran.result.annotations == 0


def test_late_sound_is_where_the_browser_plays_it(clips: Clips, tmp_path: Path) -> None:
    """Turns must fit to the pictures."""
    speech, clip = clips.path("speech.mp4"), tmp_path / "late_speech.mp4"
    ffmpeg("-i", speech, "-itsoffset", "0.7", "-i", speech, "-map", "0:v", "-map", "1:a", "-c", "copy", clip)

    assert turns_of(run("voice_activity", clip, tmp_path / "out"))[0].onset == pytest.approx(1.7, abs=0.2)


def test_the_sample_has_three_stretches_of_voice(sample: Path, tmp_path: Path) -> None:
    """A real recording, heard by people as well."""
    turns = turns_of(run("voice_activity", sample, tmp_path / "out"))

    assert [t.onset for t in turns] == pytest.approx([0.7, 2.4, 9.4], abs=0.15)
    assert [t.end for t in turns] == pytest.approx([1.5, 3.5, 10.4], abs=0.15)


def test_turns_are_those_of_the_library(clips: Clips) -> None:
    """Same network, same rule: only the blocks, the scores and the very end are ours."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    samples = heard(clips.path("speech.mp4"))
    options = VadOptions(threshold=0.5, min_speech_duration_ms=150, min_silence_duration_ms=250, speech_pad_ms=30)
    parameters = msgspec.convert(CATALOGUE.get("voice_activity").defaults, Parameters)
    probabilities = [p for block in Network().listen(Held(samples)) for p in block.probabilities]

    ours = turns_from(probabilities, len(samples), parameters.rule)

    theirs = get_speech_timestamps(samples.copy(), options)
    assert [(start, end) for start, end, _ in ours] == [(t["start"], t["end"]) for t in theirs]


def test_a_long_recording_is_heard_in_blocks_without_a_seam(clips: Clips) -> None:
    """The network remembers; forgetting at a block's end would lose or make turns there."""
    import numpy
    from faster_whisper.vad import get_vad_model

    samples = numpy.tile(heard(clips.path("speech.mp4")), 15)
    blocks = list(Network().listen(Held(samples)))
    whole = numpy.pad(samples, (0, 512 - len(samples) % 512))

    assert len(blocks) == 3
    ours = numpy.concatenate([numpy.array(block.probabilities) for block in blocks])
    assert numpy.allclose(ours[:-1], get_vad_model()(whole).reshape(-1)[:-1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["voice_activity", "speech_recognition"])
def test_ten_minutes_take_no_more_memory_than_one(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """A day of recording on a laptop. Asked: a tenth more at most."""
    peaks = []
    for minutes in (1, 10):
        clip = tmp_path / f"{minutes}.mkv"
        ffmpeg("-f", "lavfi", "-i", "color=gray:s=32x32:r=1", "-stream_loop", "-1", "-i", clips.path("speech.mp4"),
               "-map", "0:v", "-map", "1:a", "-t", str(60 * minutes), "-c:v", "libx264", clip)  # fmt: skip
        with start(pipeline, clip, tmp_path / f"out{minutes}") as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss)

    assert peaks[1] <= 1.1 * peaks[0]
