"""
The silero VAD network that comes inside faster-whisper (ONNX, no torch), and silero's rule for cutting turns.

The network gives a probability of speech for every 32 ms. It runs in blocks with its state carried over, so that long
recordings report progress and need little memory. It computes on one thread, as the library does: a second one takes a
fifth more of the processor and saves no time.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import msgspec

from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelUsed

RATE = 16_000
WINDOW = 512
"""Samples the network judges at once: 32 ms."""

CONTEXT = 64
"""Samples before the window that it sees too."""

BLOCK_WINDOWS = 1_875
"""One minute."""

RUN_WINDOWS = 125
"""Four seconds, judged at once: more takes 20 kB for each window and is no faster."""

HYSTERESIS = 0.15
"""A turn goes on until the probability is that far below the threshold. Source: silero-vad."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How turns are cut from probabilities."""

    threshold: float
    min_speech_ms: int
    min_silence_ms: int
    padding_ms: int


class Judged(msgspec.Struct, frozen=True):
    """What the network said of a minute, and its state afterwards: float32, as they lie in memory."""

    probabilities: list[float]
    hidden: bytes
    cell: bytes


class Samples(Protocol):
    """A recording, 16 kHz mono float32."""

    @property
    def length(self) -> int: ...

    def read(self, start: int, stop: int) -> Any:
        """From `start` to before `stop`, or to the end."""


class Network:
    """Silero VAD v6."""

    def __init__(self) -> None:
        file = _weights()
        self._session = _session(file)
        self.model = ModelUsed("silero_vad_v6", hashlib.sha256(file.read_bytes()).hexdigest(), "MIT")

    def listen(self, samples: Samples, earlier: Judged | None = None, windows_done: int = 0) -> Iterator[Judged]:
        """
        Speech probabilities of all windows in order, a block at a time; the last window is filled with silence. With
        the last word of an `earlier` attempt it goes on behind the windows that are done.
        """
        import numpy

        hidden, cell = (numpy.zeros((1, 1, 128), dtype="float32") for _ in range(2))
        before = numpy.zeros(CONTEXT, dtype="float32")
        start = windows_done * WINDOW
        if earlier is not None:
            hidden, cell = (numpy.frombuffer(s, "float32").reshape(1, 1, 128) for s in (earlier.hidden, earlier.cell))
            before = samples.read(start - CONTEXT, start)
        for first in range(start, samples.length + 1, BLOCK_WINDOWS * WINDOW):
            block = samples.read(first, first + BLOCK_WINDOWS * WINDOW)
            if len(block) < BLOCK_WINDOWS * WINDOW:
                block = numpy.pad(block, (0, WINDOW - len(block) % WINDOW))
            probabilities: list[float] = []
            windows = block.reshape(-1, WINDOW)
            for part in (windows[place : place + RUN_WINDOWS] for place in range(0, len(windows), RUN_WINDOWS)):
                contexts = numpy.vstack([before, part[:-1, -CONTEXT:]])
                before = part[-1, -CONTEXT:]
                feed = {"input": numpy.hstack([contexts, part]), "h": hidden, "c": cell}
                output, hidden, cell = self._session.run(None, feed)
                probabilities += output.reshape(-1).tolist()
            yield Judged(probabilities, hidden.tobytes(), cell.tobytes())


def load() -> None:
    """What takes long before the first word."""
    import onnxruntime  # noqa: F401


def turns_from(probabilities: Sequence[float], sample_count: int, rule: Rule) -> list[tuple[int, int, float]]:
    """
    Turns as (first sample, sample after the last, mean probability), in order, without overlap.

    Silero's rule: a turn begins at the threshold, ends where the probability stays below threshold - 0.15 for the
    least silence, counts if longer than the least speech, and is padded; two paddings that meet share the gap. Unlike
    with silero a turn that has fallen quiet when the sound ends does not go on to the end.
    """
    turns = [
        (start, end, _mean(probabilities[start // WINDOW : -(-end // WINDOW)]))
        for start, end in _stretches(probabilities, sample_count, rule)
    ]
    return _padded(turns, sample_count, rule.padding_ms * RATE // 1000)


def _stretches(probabilities: Sequence[float], sample_count: int, rule: Rule) -> Iterator[tuple[int, int]]:
    lower = max(rule.threshold - HYSTERESIS, 0.01)
    least_silence, least_speech = (ms * RATE // 1000 for ms in (rule.min_silence_ms, rule.min_speech_ms))
    start: int | None = None
    quiet_since: int | None = None
    for number, probability in enumerate(probabilities):
        at = number * WINDOW
        if probability >= rule.threshold:
            start, quiet_since = at if start is None else start, None
        elif start is not None and probability < lower:
            quiet_since = at if quiet_since is None else quiet_since
            if at - quiet_since >= least_silence:
                if quiet_since - start > least_speech:
                    yield start, quiet_since
                start = quiet_since = None
    end = sample_count if quiet_since is None else quiet_since
    if start is not None and end - start > least_speech:
        yield start, end


def _padded(turns: list[tuple[int, int, float]], sample_count: int, padding: int) -> list[tuple[int, int, float]]:
    padded = []
    for place, (start, end, score) in enumerate(turns):
        gap_before = start - turns[place - 1][1] if place else None
        gap_after = turns[place + 1][0] - end if place + 1 < len(turns) else None
        before = padding if gap_before is None or gap_before >= 2 * padding else gap_before // 2
        after = padding if gap_after is None or gap_after >= 2 * padding else gap_after // 2
        padded.append((max(0, start - before), min(sample_count, end + after), score))
    return padded


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _weights() -> Path:
    """Found without importing the package: its other libraries take longer to load than a minute of sound to judge."""
    package = find_spec("faster_whisper")
    if package is None or package.origin is None:
        raise StageFailed("faster-whisper is not installed.", hint="Run: uv sync", code="PIPELINE_UNAVAILABLE")
    return Path(package.origin).parent / "assets" / "silero_vad_v6.onnx"


@lru_cache(maxsize=1)
def _session(file: Path) -> Any:
    """Once in the life of a process that stays warm."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
