"""
Whisper by WhisperX: in batches over the stretches that pyannote's VAD finds, and words aligned by wav2vec 2.0.

Runs in the environment `speech`. Whatever WhisperX would fetch is handed to it instead: the sound as an array (no
ffmpeg program), the models as folders, the sentence splitter's tables as empty ones in the scratch folder.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videoannotator.annotations import Utterance, Word
from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelUsed
from videoannotator.media.sound import Recording
from videoannotator.pipelines.contract import Stage
from videoannotator.pipelines.speech_faster_whisper import choose
from videoannotator.pipelines.speech_recognition import RATE, Heard, Hearing, Parameters

LIBRARIES = ("whisperx", "faster-whisper", "ctranslate2", "pyannote-audio", "torch", "torchaudio", "transformers", "av")

OFFSET_BELOW = 0.137
"""A stretch of voice goes on until the probability is that far below the threshold. Source: WhisperX's defaults."""

_HEARING_SHARE = 0.7
"""Of the time; the rest is alignment. A guess, for the progress bar."""

_ABBREVIATIONS = ("dr", "mr", "mrs", "ms", "prof", "st", "vs", "e.g", "i.e", "z.b", "bzw", "ca", "usw", "etc")


def hear(stage: Stage, parameters: Parameters, recording: Recording) -> Hearing:
    import torch

    stage.report.progress(0.0)
    samples = recording.read(0, recording.length)
    torch.manual_seed(0)
    torch.set_num_threads(stage.threads)
    device, arithmetic, warnings = choose(parameters.device, parameters.compute_type)
    model = _load(stage, parameters, device, arithmetic)
    listener = _Listener(model.vad_model)
    model.vad_model = listener
    length = len(samples) / RATE
    said = model.transcribe(
        samples,
        # It tells how far it is after each batch only, and on the processor a batch of a large model takes minutes.
        batch_size=parameters.batch_size if device == "cuda" else 1,
        progress_callback=lambda percent: stage.report.progress(length * _HEARING_SHARE * percent / 100),
    )
    voice = tuple(listener.stretches(parameters.voice_threshold))
    language, used = said["language"], [stage.model(f"faster-whisper-{parameters.model}")]
    segments: Sequence[Any] = said["segments"]
    if segments and parameters.align:
        used.append(aligner := stage.model(f"align-{language}"))
        if aligner is None:
            lacking = f"There is no model here that aligns words in {language!r}: only utterances have times."
            warnings = (*warnings, f"{lacking} See: videoannotator models list")
        else:
            segments = _Aligner(stage, aligner.path, language, device).align(segments, samples)
    return Hearing(
        heard=tuple(_heard(segment) for segment in segments),
        voice=voice,
        language=language if segments else "",
        libraries=LIBRARIES,
        models=(*(files.used for files in used if files is not None), _vad()),
        device=device,
        warnings=warnings if voice else (*warnings, "There is no voice in it."),
    )


def _load(stage: Stage, parameters: Parameters, device: str, arithmetic: str) -> Any:
    from whisperx.asr import load_model

    files = stage.model(f"faster-whisper-{parameters.model}")
    if files is None:
        raise StageFailed(f"The model faster-whisper-{parameters.model} was not handed over.", code="MODEL_MISSING")
    threshold = parameters.voice_threshold
    try:
        return load_model(
            files.path,
            device,
            compute_type=arithmetic,
            language=None if parameters.language == "auto" else parameters.language,
            asr_options={"beam_size": parameters.beam_size, "temperatures": [0.0]},
            vad_method="pyannote",
            vad_options={"vad_onset": threshold, "vad_offset": max(0.01, threshold - OFFSET_BELOW)},
            local_files_only=True,
            threads=stage.threads,
        )
    except (RuntimeError, ValueError) as exc:
        hint = f"Run: videoannotator models remove {files.name}, then models pull {files.name}"
        raise StageFailed(f"{files.name} cannot be loaded: {exc}.", hint=hint, code="MODEL_DAMAGED") from exc


class _Listener:
    """WhisperX's VAD, and what it said last: its own stretches are merged to 30 s, silences included."""

    def __init__(self, vad: Any) -> None:
        self._vad = vad
        self._scores: Any = None

    def __call__(self, sound: Any) -> Any:
        self._scores = self._vad(sound)
        return self._scores

    def stretches(self, threshold: float) -> Iterator[tuple[float, float]]:
        from whisperx.vads.pyannote import Binarize

        turns = Binarize(onset=threshold, offset=max(0.01, threshold - OFFSET_BELOW))(self._scores)
        return ((float(turn.start), float(turn.end)) for turn in turns.get_timeline().support())


class _Aligner:
    """wav2vec 2.0 for one language. Made with StageFailed (MODEL_DAMAGED) where its files cannot be loaded."""

    def __init__(self, stage: Stage, path: str, language: str, device: str) -> None:
        from whisperx.alignment import load_align_model

        _have_sentence_tables(language)
        self._stage = stage
        self._device = device
        try:
            self._model, self._about = load_align_model(language, device, model_name=path, model_cache_only=True)
        except (OSError, ValueError) as exc:
            name = Path(path).name
            hint = f"Run: videoannotator models remove {name}, then models pull {name}"
            raise StageFailed(f"{name} cannot be loaded: {exc}.", hint=hint, code="MODEL_DAMAGED") from exc

    def align(self, segments: Sequence[Any], samples: Any) -> Sequence[Any]:
        """The same text in sentences, with words and their times."""
        from whisperx.alignment import align

        length = len(samples) / RATE
        before = length * _HEARING_SHARE

        def on_progress(percent: float) -> None:
            self._stage.report.progress(before + (length - before) * percent / 100)

        done = align(list(segments), self._model, self._about, samples, self._device, progress_callback=on_progress)
        found: Sequence[Any] = done["segments"]
        return found


def _have_sentence_tables(language: str) -> None:
    """NLTK's Punkt with nothing learned but a few abbreviations, so that it is not fetched while a stage runs."""
    import nltk
    from whisperx.utils import PUNKT_LANGUAGES

    top = Path(tempfile.gettempdir()) / "nltk"
    folder = top / "tokenizers" / "punkt_tab" / PUNKT_LANGUAGES.get(language, "english")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (folder / name).touch()
    (folder / "abbrev_types.txt").write_text("\n".join(_ABBREVIATIONS) + "\n")
    nltk.data.path.insert(0, str(top))


def _heard(segment: Any) -> Heard:
    from faster_whisper.transcribe import get_compression_ratio

    words = tuple(_words(segment.get("words") or (), float(segment["start"])))
    onset, end = (words[0].onset, words[-1].end) if words else (float(segment["start"]), float(segment["end"]))
    text = " ".join(segment["text"].split())
    chance = segment.get("avg_logprob")
    utterance = Utterance(onset, max(0.0, end - onset), text, words, None if chance is None else float(chance))
    return Heard(utterance, get_compression_ratio(text) if text else 0.0)


def _words(words: Sequence[Any], at: float) -> Iterator[Word]:
    """Those without a time of their own, numbers say, stand at the end of the one before."""
    for word in words:
        onset = max(at, float(word.get("start", at)))
        at = max(onset, float(word.get("end", onset)))
        score = word.get("score")
        yield Word(word["word"], onset, at - onset, None if score is None else float(score))


def _vad() -> ModelUsed:
    import whisperx

    file = Path(whisperx.__file__).parent / "assets" / "pytorch_model.bin"
    return ModelUsed("whisperx_vad", hashlib.sha256(file.read_bytes()).hexdigest(), "MIT")
