"""
Times: what every pipeline says against the presentation times that the clip was written with.

One clip for each way of timing: shots with hard cuts, in one of them a person, and two sentences. Frames are held
against the time of the frame with that number; voice and words against where they lie in the clip in which pictures and
sound begin at zero, because how exactly they are found is told elsewhere (accuracy_voice.py).
"""

from pathlib import Path
from typing import Any, NamedTuple

from answers import HALF_A_FRAME, annotate, content
from rig import say
from truth import RATE, TIMINGS, Timing, person, shot, write
from truth_sound import speech

from tests.tiny_models import shelf_of
from videoannotator.formats.rttm import read_rttm
from videoannotator.formats.words import read_words

PIPELINES = "scene_detection,face_analysis,person_tracking,voice_activity,speech_recognition"
CREDULOUS = ("model=tiny", "language=en", "min_log_probability=-20", "max_compression=1000", "beam_size=1")


class Case(NamedTuple):
    """A clip: its container, when its frames are shown, and when its sound begins."""

    timing: Timing
    suffix: str = ".mp4"
    sound_at: float = 0.0

    def __str__(self) -> str:
        late = f", sound at {self.sound_at} s" if self.sound_at else ""
        return f"{self.suffix[1:]}, {self.timing.name}{late}"


CASES = (
    *(Case(timing) for timing in TIMINGS),
    Case(Timing("variable frame rate, start at 0.5 s", 0.5, variable=True), ".mkv", sound_at=0.7),
    Case(TIMINGS[0], sound_at=1.3),
)


def times(folder: Path) -> None:
    pictures = [*shot("brick", 2 * RATE, 1), *person(6 * RATE), *shot("coffee", 3 * RATE, 2)]
    speech(folder / "said.wav", sentences=2)
    models = shelf_of(folder / "models", "faster-whisper-tiny").folder
    heard_first: dict[str, list[float]] = {}
    for number, case in enumerate(CASES):
        clip = folder / f"clip{number}{case.suffix}"
        truth = write(clip, pictures, case.timing, folder / "said.wav", sound_at=case.sound_at)
        settings = (f"speech_recognition.{one}" for one in CREDULOUS)
        results = annotate(clip, PIPELINES, folder, *settings, VIDEOANNOTATOR_MODELS_DIR=str(models))
        for what, rows in _seen(results).items():
            off = max(abs(at - truth[frame]) for frame, at in rows)
            say(f"{what}, {case}: largest error of a time", off, "s", asked=HALF_A_FRAME, times=len(rows))
        for what, onsets in _heard(results).items():
            expected = [at + case.sound_at for at in heard_first.setdefault(what, onsets)]
            off = max(abs(at - there) for at, there in zip(onsets, expected, strict=True))
            say(f"{what}, {case}: largest error of a time", off, "s", asked=HALF_A_FRAME, times=len(onsets))


def _seen(results: Path) -> dict[str, list[tuple[int, float]]]:
    """Frame numbers and the times that are told of them."""
    scenes = content(results, "scene_detection")["scenes"]
    return {
        "scenes": [(row["frame_start"], row["start_time"]) for row in scenes],
        **{name: _frames(content(results, name)) for name in ("face_analysis", "person_tracking")},
    }


def _frames(rows: dict[str, Any]) -> list[tuple[int, float]]:
    """Of what was found, and of what was looked at."""
    assert rows["annotations"], "nobody was found: the clip says nothing of times"
    return [(row["frame_number"], row["timestamp"]) for row in (*rows["annotations"], *rows["images"])]


def _heard(results: Path) -> dict[str, list[float]]:
    """Onsets and ends."""
    turns = read_rttm(results / "voice_activity.rttm")
    utterances = read_words(results / "speech_words.json").utterances
    words = [word for utterance in utterances for word in utterance.words]
    return {
        "voice": [at for turn in turns for at in (turn.onset, turn.end)],
        "words": [at for word in words for at in (word.onset, word.end)],
    }
