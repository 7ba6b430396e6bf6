"""Voice activity: the turns that silero's network finds (silero.py), on the video's timeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.annotations import Turn
from videoannotator.formats.rttm import write_rttm
from videoannotator.formats.table import write_turn_table
from videoannotator.formats.uem import write_uem
from videoannotator.jobs import Interval, Output
from videoannotator.media.sound import Recording, recorded
from videoannotator.pipelines import silero
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.listening import check, nothing_heard
from videoannotator.pipelines.silero import BLOCK_WINDOWS, RATE, WINDOW, Judged, Rule, turns_from

PEAK = 0.9
MAX_GAIN = 100.0
"""A recording without anything in it is not made loud: 40 dB at most."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    threshold: float
    min_speech_ms: int
    min_silence_ms: int
    padding_ms: int
    normalize: bool

    @property
    def rule(self) -> Rule:
        return Rule(
            threshold=self.threshold,
            min_speech_ms=self.min_speech_ms,
            min_silence_ms=self.min_silence_ms,
            padding_ms=self.padding_ms,
        )


_JUDGED = msgspec.msgpack.Decoder(Judged)


def prepare() -> None:
    silero.load()


def run(stage: Stage) -> Result:
    parameters = stage.parameters(Parameters)
    if not stage.video.has_audio:
        return nothing_heard(stage, parameters.engine, _write(stage, (), None))
    with recorded(stage.video_path, stage.video) as recording:
        check(recording.ledger, stage)
        network = silero.Network()
        probabilities = _probabilities(stage, network, recording, parameters)
        start, length, ledger = recording.start_seconds, recording.length, recording.ledger
    turns = tuple(
        Turn(start + begin / RATE, (end - begin) / RATE, score=score)
        for begin, end, score in turns_from(probabilities, length, parameters.rule)
    )
    outputs = _write(stage, turns, (start, start + length / RATE))
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(turns),
        outputs=outputs,
        engine=parameters.engine,
        libraries=("faster-whisper", "onnxruntime", "av", "numpy"),
        ledger=ledger,
        intervals=tuple(Interval("voice", turn.onset, turn.duration, turn.label) for turn in turns),
        models=(network.model,),
    )


def _probabilities(stage: Stage, network: silero.Network, recording: Recording, parameters: Parameters) -> list[float]:
    samples = _Loud(recording) if parameters.normalize else recording
    chunks = stage.chunks()
    probabilities = [p for chunk in chunks for p in _JUDGED.decode(chunk).probabilities]
    earlier = _JUDGED.decode(chunks[-1]) if chunks.earlier else None
    for judged in network.listen(samples, earlier, len(probabilities)):
        probabilities += judged.probabilities
        chunks.keep(msgspec.msgpack.encode(judged))
        done = recording.start_seconds + len(probabilities) * WINDOW / RATE
        stage.report.progress(min(done, stage.video.duration_seconds))
    return probabilities


def _write(stage: Stage, turns: Sequence[Turn], heard: tuple[float, float] | None) -> tuple[Output, ...]:
    """`heard` is the stretch that was listened to; an RTTM without a turn is none, and is left out."""
    folder, uri = stage.output_folder, Path(stage.video.filename).stem
    write_uem(folder / "voice_activity.uem", [heard] if heard else [], uri=uri)
    write_turn_table(folder / "voice_activity.csv", turns)
    outputs = (
        Output("voice_activity.uem", "audio_regions", "text/plain", in_zip=False),
        Output("voice_activity.csv", "table", "text/csv"),
    )
    if not turns:
        return outputs
    write_rttm(folder / "voice_activity.rttm", turns, uri=uri)
    return (Output("voice_activity.rttm", "audio_regions", "text/plain"), *outputs)


class _Loud:
    """A recording with its peak at 0.9, as far as the gain allows. Digital silence stays what it is."""

    def __init__(self, recording: Recording) -> None:
        import numpy

        self._recording = recording
        self.length = recording.length
        peak = max((float(max(b.max(), -b.min())) for b in recording.blocks(BLOCK_WINDOWS * WINDOW)), default=0.0)
        self._gain = numpy.float32(min(PEAK / peak, MAX_GAIN)) if peak > 0 else None

    def read(self, start: int, stop: int) -> Any:
        samples = self._recording.read(start, stop)
        if self._gain is not None:
            samples *= self._gain
        return samples
