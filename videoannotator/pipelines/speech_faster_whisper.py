"""Whisper by faster-whisper: CTranslate2, no torch. The stretches of voice are silero's, from inside the package."""

import ctypes
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from videoannotator.annotations import Utterance, Word
from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelFiles, ModelUsed
from videoannotator.pipelines.contract import Stage
from videoannotator.pipelines.speech_recognition import RATE, Heard, Hearing, Parameters

LIBRARIES = ("faster-whisper", "ctranslate2", "onnxruntime", "tokenizers", "av", "numpy")
FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SEED = 0


def hear(stage: Stage, parameters: Parameters, samples: Any) -> Hearing:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    stage.report.progress(0.0)
    # Shorter than faster-whisper's own: a pause of two seconds is no voice, and Whisper fills it with words.
    options = VadOptions(threshold=parameters.voice_threshold, min_silence_duration_ms=500, speech_pad_ms=200)
    stretches = get_speech_timestamps(samples, options)
    voice = tuple((stretch["start"] / RATE, stretch["end"] / RATE) for stretch in stretches)
    if not voice:
        return Hearing(libraries=LIBRARIES, models=(_silero(),), warnings=("There is no voice in it.",))
    device, arithmetic, warnings = choose(parameters.device, parameters.compute_type)
    model = load(stage, parameters, device, arithmetic)
    heard, info = _listen(model, parameters, samples, options, stage)
    found = parameters.language == "auto"
    return Hearing(
        heard=heard,
        voice=voice,
        language=info.language,
        language_probability=info.language_probability if found else None,
        libraries=LIBRARIES,
        models=(*(files.used for files in stage.models), _silero()),
        device=device,
        warnings=(*warnings, *_doubtful_language(info, found=found)),
    )


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

    return WhisperModel(files.path, device=device, compute_type=arithmetic, cpu_threads=threads, local_files_only=True)


def _silero() -> ModelUsed:
    from faster_whisper.utils import get_assets_path

    file = Path(get_assets_path()) / "silero_vad_v6.onnx"
    return ModelUsed("silero_vad_v6", hashlib.sha256(file.read_bytes()).hexdigest(), "MIT")


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
    model: Any, parameters: Parameters, samples: Any, options: Any, stage: Stage
) -> tuple[tuple[Heard, ...], Any]:
    segments, info = model.transcribe(
        samples,
        language=None if parameters.language == "auto" else parameters.language,
        beam_size=parameters.beam_size,
        temperature=[0.0] if parameters.deterministic else list(FALLBACK),
        compression_ratio_threshold=parameters.max_compression,
        log_prob_threshold=parameters.min_log_probability,
        # What was said before makes Whisper repeat it.
        condition_on_previous_text=False,
        word_timestamps=True,
        vad_filter=True,
        vad_parameters=options,
    )
    heard = []
    for segment in segments:
        heard.append(Heard(_utterance(segment), segment.compression_ratio))
        stage.report.progress(segment.end)
    return tuple(heard), info


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
