"""
Speech recognition by Whisper: what is heard, what of it is believed, and how it is written down.

Two engines hear (`speech_faster_whisper.py`, `speech_whisperx.py`); what they say goes through the same doubts here,
because Whisper invents text where there is none: nothing outside of a stretch of voice, nothing improbable, nothing
that repeats itself. What is not believed is kept with the reason, and is in no caption.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from videoannotator.annotations import LeftOut, Utterance, Word
from videoannotator.formats.captions import write_srt, write_text, write_webvtt
from videoannotator.formats.words import Transcript, write_word_table, write_words
from videoannotator.jobs import Interval, ModelUsed, Output
from videoannotator.media.sound import Recording, recorded
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.listening import check, nothing_heard

RATE = 16_000

EDGE_SECONDS = 0.2
"""A word may begin or end that far outside of a stretch of voice: its time is not more exact than that."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    model: str
    language: str
    beam_size: int
    deterministic: bool
    voice_threshold: float
    min_log_probability: float
    max_compression: float
    min_word_probability: float
    align: bool
    batch_size: int
    device: str
    compute_type: str


class Heard(msgspec.Struct, frozen=True):
    """An utterance as an engine gave it. Times are seconds of the sound, not yet of the file."""

    utterance: Utterance
    compression: float = 0.0
    """How many times shorter zlib makes its text; 0 where the engine does not say."""


class Hearing(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine has to say about a recording."""

    heard: tuple[Heard, ...] = ()
    voice: tuple[tuple[float, float], ...] = ()
    """Stretches with voice in them, onset and end."""

    language: str = ""
    language_probability: float | None = None
    libraries: tuple[str, ...]
    models: tuple[ModelUsed, ...] = ()
    device: str = "cpu"
    warnings: tuple[str, ...] = ()


Engine = Callable[[Stage, Parameters, Recording], Hearing]
"""Reports progress on the file's timeline through the stage."""


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    if not stage.video.has_audio:
        return nothing_heard(stage, parameters.engine, write(stage, Transcript()))
    with recorded(stage.video_path, stage.video) as recording:
        check(recording.ledger, stage)
        hearing = _engine(parameters.engine)(_from(stage, recording), parameters, recording)
        shift, ledger = recording.start_seconds, recording.ledger
    utterances, left_out = believed(hearing, parameters)
    end = stage.video.duration_seconds
    transcript = Transcript(
        tuple(_placed(utterance, shift, end) for utterance in utterances),
        tuple(msgspec.structs.replace(one, onset=one.onset + shift) for one in left_out),
        hearing.language,
        hearing.language_probability,
    )
    outputs = write(stage, transcript)
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(transcript.utterances),
        outputs=outputs,
        engine=parameters.engine,
        libraries=hearing.libraries,
        ledger=ledger,
        intervals=tuple(Interval("utterance", u.onset, u.duration, u.text[:200]) for u in transcript.utterances),
        models=hearing.models,
        warnings=(*hearing.warnings, *_counted(left_out)),
        device=hearing.device,
    )


def believed(hearing: Hearing, parameters: Parameters) -> tuple[list[Utterance], list[LeftOut]]:
    """What passes all doubts, in order of time, and the rest with the reason. Unsure words are marked."""
    utterances, left_out = [], []
    for one in sorted(hearing.heard, key=lambda one: one.utterance.onset):
        utterance = one.utterance
        if reason := _doubt(one, hearing.voice, parameters):
            left_out.append(LeftOut(utterance.onset, utterance.duration, utterance.text, reason))
            continue
        inside = [word for word in utterance.words if _is_voiced(word.onset, word.end, hearing.voice)]
        outside = [word for word in utterance.words if word not in inside]
        if outside:
            words = " ".join(word.text for word in outside)
            onset, end = outside[0].onset, outside[-1].end
            left_out.append(LeftOut(onset, end - onset, words, "no voice there"))
            utterance = _of_words(utterance, inside)
        marked = tuple(_marked(word, parameters.min_word_probability) for word in inside)
        utterances.append(msgspec.structs.replace(utterance, words=marked))
    return utterances, left_out


def write(stage: Stage, transcript: Transcript) -> tuple[Output, ...]:
    """Every file, also when nobody spoke."""
    folder = stage.output_folder
    write_webvtt(folder / "speech_recognition.vtt", transcript.utterances)
    write_srt(folder / "transcript.srt", transcript.utterances)
    write_text(folder / "transcript.txt", transcript.utterances)
    write_word_table(folder / "speech_words.csv", transcript.utterances)
    write_words(folder / "speech_words.json", transcript)
    return (
        Output("speech_recognition.vtt", "captions", "text/vtt"),
        Output("transcript.srt", "captions", "application/x-subrip"),
        Output("transcript.txt", "captions", "text/plain"),
        Output("speech_words.csv", "table", "text/csv"),
        Output("speech_words.json", "annotations", "application/json", in_zip=False),
    )


def _engine(name: str) -> Engine:
    if name == "whisperx":
        from videoannotator.pipelines import speech_whisperx

        return speech_whisperx.hear
    from videoannotator.pipelines import speech_faster_whisper

    return speech_faster_whisper.hear


def _from(stage: Stage, recording: Recording) -> Stage:
    """The stage as the engine sees it: progress counts from the sound's first sample."""
    return msgspec.structs.replace(stage, report=_Shifted(stage, recording.start_seconds))


class _Shifted:
    """A Report whose progress only grows, in seconds of the sound."""

    def __init__(self, stage: Stage, start_seconds: float) -> None:
        self._report = stage.report
        self._start = start_seconds
        self._end = stage.video.duration_seconds
        self._furthest = 0.0

    def progress(self, done_seconds: float) -> None:
        self._furthest = max(self._furthest, min(self._start + done_seconds, self._end))
        self._report.progress(self._furthest)

    def log(self, level: Any, message: str) -> None:
        self._report.log(level, message)


def _doubt(one: Heard, voice: Sequence[tuple[float, float]], parameters: Parameters) -> str:
    """Why a whole utterance is not believed; empty where it is."""
    utterance = one.utterance
    if not any(character.isalnum() for character in utterance.text):
        return "no words"
    if utterance.log_probability is not None and utterance.log_probability < parameters.min_log_probability:
        return f"improbable: {utterance.log_probability:.2f}"
    if one.compression > parameters.max_compression:
        return f"repeats itself: {one.compression:.1f}"
    if utterance.words:
        is_voiced = any(_is_voiced(word.onset, word.end, voice) for word in utterance.words)
    else:
        is_voiced = any(utterance.onset < stop and start < utterance.end for start, stop in voice)
    return "" if is_voiced else "no voice there"


def _is_voiced(onset: float, end: float, voice: Iterable[tuple[float, float]]) -> bool:
    middle = (onset + end) / 2
    return any(start - EDGE_SECONDS <= middle <= stop + EDGE_SECONDS for start, stop in voice)


def _of_words(utterance: Utterance, words: Sequence[Word]) -> Utterance:
    """What is left of an utterance; there is at least one word."""
    onset, end = words[0].onset, words[-1].end
    text = " ".join(word.text for word in words)
    return msgspec.structs.replace(utterance, onset=onset, duration=end - onset, text=text)


def _marked(word: Word, least: float) -> Word:
    return msgspec.structs.replace(word, is_unsure=word.probability is not None and word.probability < least)


def _placed(utterance: Utterance, shift: float, end: float) -> Utterance:
    """On the file's timeline, inside the file."""
    words = tuple(_moved(word, shift, end) for word in utterance.words)
    moved: Utterance = _moved(utterance, shift, end)
    return msgspec.structs.replace(moved, words=words)


def _moved(what: Any, shift: float, end: float) -> Any:
    onset = min(max(0.0, what.onset + shift), end)
    return msgspec.structs.replace(what, onset=onset, duration=max(0.0, min(what.end + shift, end) - onset))


def _counted(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    if not left_out:
        return ()
    reasons = sorted({one.reason.split(":")[0] for one in left_out})
    return (f"{len(left_out)} of what was heard is not believed ({', '.join(reasons)}); see speech_words.json.",)
