"""
Words and speakers: what is invented where nobody speaks, what is wrong where somebody does.

With the best Whisper that is here (`videoannotator models list`), else with a tiny random one that the tests make. Then
the rates say nothing and are marked so; what is invented still counts, because a random model always has something to
say, and everything it says is let through (CREDULOUS) but what lies outside of a voice.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy
from answers import annotate
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from rig import left_out, say
from truth import STEADY, still, write
from truth_sound import Recital, save, speech, voiceless

from tests.tiny_models import ENVIRONMENTS, shelf_of
from videoannotator.environments import Environments
from videoannotator.formats.rttm import read_rttm
from videoannotator.formats.words import Transcript, read_words
from videoannotator.pipelines.supplies import Supplies
from videoannotator.settings import load_settings

CREDULOUS = ("min_log_probability=-20", "max_compression=1000", "beam_size=1")
SIZES = ("large-v3", "turbo", "large-v2", "medium", "small", "base", "tiny")
DIARIZER = "pyannote-community-1"
ALIGNER = "align-en"
NEAR_SECONDS = 0.5
"""A word may lie that far outside of speech: silero's padding and the edge that a word is allowed."""


def silence(folder: Path) -> None:
    """Bar 0: nobody is asked where no voice is."""
    save(folder / "nobody.wav", numpy.concatenate(list(voiceless().values())))
    clip = folder / "nobody.mp4"
    write(clip, still(70), STEADY, folder / "nobody.wav")
    for engine, here in _engines(folder, believing=True):
        transcript = _heard(clip, folder, here)
        invented = [word.text for utterance in transcript.utterances for word in utterance.words]
        say(f"{engine}: words invented where nobody speaks", len(invented), "words", asked=0, words=invented[:10])


def words(folder: Path) -> None:
    for noise in (0.0, 0.01):
        clip, recital = _recital(folder, noise)
        for engine, here in _engines(folder, believing=True):
            transcript = _heard(clip, folder, here)
            lost = [
                word.text
                for utterance in transcript.utterances
                for word in utterance.words
                if not _is_near((word.onset + word.end) / 2, recital)
            ]
            say(f"{engine}, noise {noise}: words in the pauses", len(lost), "words", asked=0, words=lost[:10])
        for engine, here in _engines(folder, believing=False):
            said = " ".join(utterance.text for utterance in _heard(clip, folder, here).utterances)
            rate = jiwer.wer(_plain(" ".join(one.text for one in recital.said)), _plain(said) or "-")
            say(f"{engine}, noise {noise}: word error rate", rate, "", **here.told)


def speakers(folder: Path) -> None:
    clip, recital = _recital(folder, 0.0)
    here = _diarizer(folder)
    if here is None:
        left_out("diarization error rate", "needs the environment speech: videoannotator install speech")
        return
    results = annotate(clip, "speaker_diarization", folder, "speaker_diarization.speakers=3", **here.environ)
    turns = results / "speaker_diarization.rttm"
    truth, found = Annotation(), Annotation()
    for number, one in enumerate(recital.said):
        truth[Segment(one.onset, one.end), number] = one.speaker
    for number, turn in enumerate(read_rttm(turns) if turns.exists() else ()):
        found[Segment(turn.onset, turn.end), number] = turn.label
    listened = Timeline([Segment(0.0, recital.seconds)])
    rate = DiarizationErrorRate(collar=0.5, skip_overlap=False)(truth, found, uem=listened)
    say("three speakers: diarization error rate, collar 0.25 s on each side", rate, "", **here.told)


class _Here:
    """An engine with the models that are here, or with tiny ones."""

    def __init__(self, real: Supplies, folder: Path, engine: str, *names: str, believing: bool = False) -> None:
        settings = load_settings()
        self.is_real = all(real.shelf.state(name) in ("ready", "unchecked") for name in names)
        models = real.shelf.folder if self.is_real else shelf_of(folder / "models", *names).folder
        self.told: dict[str, Any] = {} if self.is_real else {"note": "a tiny random model: no figure of a real one"}
        environments = settings.environments_folder if _is_ready(settings.environments_folder) else ENVIRONMENTS
        self.environ = {
            "VIDEOANNOTATOR_MODELS_DIR": str(models),
            "VIDEOANNOTATOR_ENVIRONMENTS_DIR": str(environments),
        }
        size = names[0].removeprefix("faster-whisper-")
        chosen = (f"engine={engine}", f"model={size}", "language=en", *(CREDULOUS if believing else ()))
        self.settings = tuple(f"speech_recognition.{one}" for one in chosen)


def _engines(folder: Path, *, believing: bool) -> Iterator[tuple[str, _Here]]:
    real = Supplies.of(load_settings())
    whispers = [f"faster-whisper-{size}" for size in SIZES]
    whisper = next((name for name in whispers if real.shelf.state(name) == "ready"), whispers[-1])
    yield "faster-whisper", _Here(real, folder, "faster-whisper", whisper, believing=believing)
    if _speech_environment() is None:
        left_out("whisperx", "needs the environment speech: videoannotator install speech")
        return
    yield "whisperx", _Here(real, folder, "whisperx", whisper, ALIGNER, believing=believing)


def _diarizer(folder: Path) -> _Here | None:
    if _speech_environment() is None:
        return None
    return _Here(Supplies.of(load_settings()), folder, "pyannote", DIARIZER)


def _speech_environment() -> Path | None:
    return next((f for f in (load_settings().environments_folder, ENVIRONMENTS) if _is_ready(f)), None)


def _is_ready(environments: Path) -> bool:
    return Environments(environments).state("speech") == "ready"


def _recital(folder: Path, noise: float) -> tuple[Path, Recital]:
    recital = speech(folder / "said.wav", noise=noise)
    clip = folder / "said.mp4"
    write(clip, still(recital.seconds), STEADY, folder / "said.wav")
    return clip, recital


def _heard(clip: Path, folder: Path, here: _Here) -> Transcript:
    results = annotate(clip, "speech_recognition", folder, *here.settings, **here.environ)
    return read_words(results / "speech_words.json")


def _is_near(at: float, recital: Recital) -> bool:
    return any(onset - NEAR_SECONDS <= at <= end + NEAR_SECONDS for onset, end in recital.stretches)


def _plain(text: str) -> str:
    """As word error rates are counted: lower case, without punctuation."""
    return " ".join("".join(sign for sign in text.lower() if sign.isalnum() or sign.isspace()).split())
