"""
Who speaks when, by pyannote, and with a transcript of the same job who says which word.

Runs in the environment `speech`. The sound is handed over as an array, the models as a folder; pyannote's reports on
its use are switched off for every stage, and there is no network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.annotations import Turn
from videoannotator.errors import StageFailed
from videoannotator.formats.captions import write_webvtt
from videoannotator.formats.rttm import write_rttm
from videoannotator.formats.table import write_turn_table
from videoannotator.formats.uem import write_uem
from videoannotator.formats.words import read_words, write_word_table
from videoannotator.jobs import Interval, Output
from videoannotator.media.sound import sound
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.listening import check, nothing_heard
from videoannotator.pipelines.who_said import with_speakers

MODEL = "pyannote-community-1"
LIBRARIES = ("pyannote-audio", "whisperx", "torch", "torchaudio", "av", "numpy")
RATE = 16_000
WORDS = "speech_words.json"

SHORTEST_SECONDS = 0.5
"""Of sound. The embedding network needs a few frames; below, nobody can be told apart anyway."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    speakers: int
    min_speakers: int
    max_speakers: int
    device: str


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    if not stage.video.has_audio:
        return nothing_heard(stage, parameters.engine, _write(stage, (), None))
    track = sound(stage.video_path, stage.video)
    check(track.ledger, stage)
    start, length = track.start_seconds, len(track.samples) / RATE
    stage.report.progress(0.0)
    device = _device(parameters.device)
    turns = _turns(stage, parameters, track.samples, device) if length >= SHORTEST_SECONDS else ()
    placed = tuple(msgspec.structs.replace(turn, onset=turn.onset + start) for turn in turns)
    outputs = _write(stage, placed, (start, start + length))
    stage.report.progress(stage.video.duration_seconds)
    names = sorted({turn.label for turn in placed})
    return Result(
        annotations=len(placed),
        outputs=outputs,
        engine=parameters.engine,
        libraries=LIBRARIES,
        ledger=track.ledger,
        intervals=tuple(
            Interval("speaker", turn.onset, turn.duration, turn.label, names.index(turn.label)) for turn in placed
        ),
        models=tuple(files.used for files in stage.models),
        warnings=() if placed else ("Nobody speaks in it.",),
        device=device,
    )


def _turns(stage: Stage, parameters: Parameters, samples: Any, device: str) -> tuple[Turn, ...]:
    """In order of time, seconds of the sound; where two speak at once there are two."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(stage.threads)
    pipeline = _load(stage, device)
    seconds = len(samples) / RATE
    found = pipeline(
        samples,
        num_speakers=parameters.speakers or None,
        min_speakers=parameters.min_speakers or None,
        max_speakers=parameters.max_speakers or None,
        progress_callback=lambda percent: stage.report.progress(seconds * percent / 100),
    )
    # The last window is filled up with silence, and a turn may go on into it.
    turns = ((float(row.start), min(seconds, float(row.end)), str(row.speaker)) for row in found.itertuples())
    return tuple(Turn(onset, end - onset, speaker) for onset, end, speaker in sorted(turns) if end > onset)


def _load(stage: Stage, device: str) -> Any:
    from whisperx.diarize import DiarizationPipeline

    files = stage.model(MODEL)
    if files is None:
        raise StageFailed(f"The model {MODEL} was not handed over.", code="MODEL_MISSING")
    try:
        return DiarizationPipeline(model_name=files.path, device=device)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as exc:
        hint = f"Run: videoannotator models remove {MODEL}, then models pull {MODEL}"
        raise StageFailed(f"{MODEL} cannot be loaded: {exc}.", hint=hint, code="MODEL_DAMAGED") from exc


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _write(stage: Stage, turns: Sequence[Turn], heard: tuple[float, float] | None) -> tuple[Output, ...]:
    """`heard` is the stretch that was listened to; an RTTM without a turn is none, and is left out."""
    folder, uri = stage.output_folder, Path(stage.video.filename).stem
    write_uem(folder / "speaker_diarization.uem", [heard] if heard else [], uri=uri)
    write_turn_table(folder / "speakers.csv", turns)
    outputs = [
        Output("speaker_diarization.uem", "audio_regions", "text/plain", in_zip=False),
        Output("speakers.csv", "table", "text/csv"),
    ]
    if turns:
        write_rttm(folder / "speaker_diarization.rttm", turns, uri=uri)
        outputs.append(Output("speaker_diarization.rttm", "audio_regions", "text/plain"))
    if (words := stage.earlier.get(WORDS)) is not None:
        said = with_speakers(read_words(words).utterances, turns)
        write_word_table(folder / "speaker_words.csv", said)
        write_webvtt(folder / "speakers.vtt", said, speakers=True)
        outputs.append(Output("speaker_words.csv", "table", "text/csv"))
        outputs.append(Output("speakers.vtt", "captions", "text/vtt", in_zip=False))
    return tuple(outputs)
