"""
Whisper by faster-whisper: CTranslate2, no torch. The stretches of voice are silero's, from inside the package.

Only voice is listened to, in pieces of up to half a minute that begin and end in a pause: the memory does not grow with
the recording, and no word is cut in two by the window that Whisper hears at once. Within a piece all is as the library
does it with its own VAD filter.
"""

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from videoannotator.annotations import Utterance, Word
from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelFiles
from videoannotator.media.sound import Recording
from videoannotator.pipelines.contract import Stage
from videoannotator.pipelines.silero import WINDOW, Network, Rule, turns_from
from videoannotator.pipelines.speech_recognition import RATE, Heard, Hearing, Parameters

LIBRARIES = ("faster-whisper", "ctranslate2", "onnxruntime", "tokenizers", "av", "numpy")
FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SEED = 0

PAUSE_MS = 500
"""Shorter than faster-whisper's own: a pause of two seconds is no voice, and Whisper fills it with words."""

PADDING_MS = 200

PIECE = 30 * RATE
"""Samples that Whisper hears at once."""

Stretch = tuple[int, int]
"""With voice: its first sample, and the one after its last."""


def hear(stage: Stage, parameters: Parameters, recording: Recording) -> Hearing:
    stage.report.progress(0.0)
    network = Network()
    rule = Rule(threshold=parameters.voice_threshold, min_speech_ms=0, min_silence_ms=PAUSE_MS, padding_ms=PADDING_MS)
    probabilities = [p for judged in network.listen(recording) for p in judged.probabilities]
    stretches = [(start, end) for start, end, _ in turns_from(probabilities, recording.length, rule)]
    if not stretches:
        return Hearing(libraries=LIBRARIES, models=(network.model,), warnings=("There is no voice in it.",))
    device, arithmetic, warnings = choose(parameters.device, parameters.compute_type)
    model = load(stage, parameters, device, arithmetic)
    heard, info = _listen(model, parameters, recording, pieces_of(stretches, probabilities), stage)
    found = parameters.language == "auto"
    return Hearing(
        heard=heard,
        voice=tuple((start / RATE, end / RATE) for start, end in stretches),
        language=info.language,
        language_probability=info.language_probability if found else None,
        libraries=LIBRARIES,
        models=(*(files.used for files in stage.models), network.model),
        device=device,
        warnings=(*warnings, *_doubtful_language(info, found=found)),
    )


def pieces_of(stretches: Iterable[Stretch], probabilities: Sequence[float]) -> Iterator[list[Stretch]]:
    """
    All stretches, in order, packed into pieces of at most PIECE samples. One that is longer is a piece of its own; one
    of more than twice that is cut where a voice is least probable.
    """
    piece: list[Stretch] = []
    for start, end in (part for stretch in stretches for part in _parts(stretch, probabilities)):
        if piece and sum(b - a for a, b in piece) + end - start > PIECE:
            yield piece
            piece = []
        piece.append((start, end))
    if piece:
        yield piece


def _parts(stretch: Stretch, probabilities: Sequence[float]) -> Iterator[Stretch]:
    start, end = stretch
    while end - start > 2 * PIECE:
        first = (start + PIECE) // WINDOW
        cut = min(range(first, (start + 2 * PIECE) // WINDOW), key=lambda window: probabilities[window]) * WINDOW
        yield start, cut
        start = cut
    yield start, end


def load(stage: Stage, parameters: Parameters, device: str, arithmetic: str) -> Any:
    """
    Raises StageFailed (MODEL_DAMAGED) where the files are right and cannot be loaded all the same: an import by hand,
    or a form that this CTranslate2 does not know.
    """
    import ctranslate2

    files = stage.model(f"faster-whisper-{parameters.model}")
    if files is None:
        raise StageFailed(f"The model faster-whisper-{parameters.model} was not handed over.", code="MODEL_MISSING")
    ctranslate2.set_random_seed(SEED)
    try:
        return _loaded(files, device, arithmetic, stage.threads)
    except (RuntimeError, ValueError) as exc:
        hint = f"Run: videoannotator models remove {files.name}, then models pull {files.name}"
        raise StageFailed(f"{files.name} cannot be loaded: {exc}.", hint=hint, code="MODEL_DAMAGED") from exc


@lru_cache(maxsize=1)
def _loaded(files: ModelFiles, device: str, arithmetic: str, threads: int) -> Any:
    """Once in the life of a process that stays warm; it remembers nothing of what it has heard."""
    from faster_whisper import WhisperModel
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread for bars that nobody sees: a process with one left over does not stay warm
    return WhisperModel(files.path, device=device, compute_type=arithmetic, cpu_threads=threads, local_files_only=True)


def choose(device: str, arithmetic: str) -> tuple[str, str, tuple[str, ...]]:
    """Device and arithmetic that will be used, and what there is to say about the choice."""
    if device == "auto":
        device = "cuda" if _has_cuda() else "cpu"
    if arithmetic == "auto":
        return device, "float16" if device == "cuda" else "int8", ()
    if arithmetic == "float16" and device == "cpu":
        return device, "float32", ("The CPU does not compute in float16: float32 was used.",)
    return device, arithmetic, ()


def _has_cuda() -> bool:
    """A GPU, and the libraries that CTranslate2 loads when it computes on one."""
    import ctranslate2

    if ctranslate2.get_cuda_device_count() == 0:
        return False
    try:
        for library in ("libcublas.so.12", "libcudnn.so.9"):
            ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _listen(
    model: Any, parameters: Parameters, recording: Recording, pieces: Iterable[list[Stretch]], stage: Stage
) -> tuple[tuple[Heard, ...], Any]:
    """What is said in all pieces, and what the first of them tells of the language, which holds for all."""
    heard: list[Heard] = []
    first: Any = None
    for piece in pieces:
        language = first.language if first else None if parameters.language == "auto" else parameters.language
        segments, info = _transcribed(model, parameters, recording, piece, language)
        first = first or info
        for segment in segments:
            heard.append(Heard(_utterance(segment), segment.compression_ratio))
            stage.report.progress(segment.end)
        stage.report.progress(piece[-1][1] / RATE)
    return tuple(heard), first


def _transcribed(
    model: Any, parameters: Parameters, recording: Recording, piece: list[Stretch], language: str | None
) -> tuple[Iterable[Any], Any]:
    """Segments, with times of the recording, and what is known of the language."""
    import numpy
    from faster_whisper.transcribe import restore_speech_timestamps

    segments, info = model.transcribe(
        numpy.concatenate([recording.read(start, end) for start, end in piece]),
        language=language,
        beam_size=parameters.beam_size,
        temperature=[0.0] if parameters.deterministic else list(FALLBACK),
        compression_ratio_threshold=parameters.max_compression,
        log_prob_threshold=parameters.min_log_probability,
        # What was said before makes Whisper repeat it.
        condition_on_previous_text=False,
        word_timestamps=True,
    )
    return restore_speech_timestamps(segments, [{"start": start, "end": end} for start, end in piece], RATE), info


def _utterance(segment: Any) -> Utterance:
    words = tuple(
        Word(text, float(word.start), max(0.0, float(word.end - word.start)), float(word.probability))
        for word in segment.words or ()
        if (text := word.word.strip())
    )
    onset, end = (words[0].onset, words[-1].end) if words else (float(segment.start), float(segment.end))
    return Utterance(onset, max(0.0, end - onset), segment.text.strip(), words, float(segment.avg_logprob))


def _doubtful_language(info: Any, *, found: bool) -> Iterable[str]:
    if found and info.language_probability < 0.5:
        yield f"The language was taken for {info.language}, with a probability of only {info.language_probability:.2f}."
