"""
The sound of a video as one row of numbers, aligned with its pictures: on disk, or all of it in memory.

    with recorded(path, video) as recording:
        minute = recording.read(0, 60 * SAMPLE_RATE)
"""

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import av
import av.audio.fifo
import av.audio.frame
import av.audio.resampler
import av.container
import av.error
import msgspec
import numpy
from numpy.typing import NDArray

from videoannotator.errors import StageFailed
from videoannotator.jobs import Ledger, Video
from videoannotator.media.opening import opened
from videoannotator.media.reading import packets_of
from videoannotator.media.timeline import origin, sound_track

SAMPLE_RATE = 16_000

_SAMPLE_BYTES = 4

_TOLERANCE_SECONDS = 0.04
"""Timestamps may disagree with the number of samples by this much (rounding to ms, say) before they are obeyed."""

_MISSING_END_SECONDS = 0.5


class Sound(msgspec.Struct):
    """The whole sound track, mixed to one channel."""

    samples: NDArray[numpy.float32]
    """-1 to 1, SAMPLE_RATE a second. Where the track has a gap, or a block that cannot be decoded, zeros."""

    start_seconds: float
    """Where sample 0 lies on the file's timeline; never negative."""

    ledger: Ledger
    """Counts the blocks that the decoder gives (of an AAC track 1024 samples each)."""


class Recording:
    """The same in a scratch file of 230 MB an hour, so that the length of a video takes no memory."""

    def __init__(self, tape: "_Tape", ledger: Ledger) -> None:
        self._tape = tape
        self.length = tape.length
        """Samples."""

        self.start_seconds = tape.start_seconds
        self.ledger = ledger

    def read(self, start: int, stop: int) -> NDArray[numpy.float32]:
        """Samples from `start` to before `stop`, or to the end. Raises OSError."""
        return self._tape.read(start, min(stop, self.length))

    def blocks(self, length: int) -> Iterator[NDArray[numpy.float32]]:
        """All samples, so many at a time; the last ones may be fewer."""
        return (self.read(start, start + length) for start in range(0, self.length, length))


@contextmanager
def recorded(path: Path, video: Video) -> Iterator[Recording]:
    """
    The sound track, decoded and resampled without any outside program.

    Encoder delay and edit lists are taken off, gaps filled, what lies before zero cut off. Raises UnreadableVideo where
    the file is no longer what was probed, StageFailed (NO_SOUND) where it has no sound or none of it can be decoded,
    OSError where the scratch folder is full.
    """
    with _Tape(video.duration_seconds) as tape:
        with opened(path, video.filename) as container:
            track = sound_track(container)
            if track is None or track.codec_context is None:
                raise StageFailed(f"{video.filename} has no sound track.", code="NO_SOUND")
            ledger = _Listening(container, track, tape, video.filename).ledger()
        yield Recording(tape, ledger)


def sound(path: Path, video: Video) -> Sound:
    """All of it at once, as `recorded` says; 230 MB an hour."""
    with recorded(path, video) as recording:
        return Sound(recording.read(0, recording.length), recording.start_seconds, recording.ledger)


def decoded_blocks(
    container: av.container.InputContainer, track: av.AudioStream, on_damage: Callable[[], None]
) -> Iterator[av.audio.frame.AudioFrame]:
    """Every block of the track that can be decoded, in order; `on_damage` is called for each that cannot."""
    for packet in packets_of(container, [track], on_damage):
        try:
            frames = track.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            on_damage()
            continue
        yield from frames


class _Listening:
    """One pass over a sound track."""

    def __init__(
        self, container: av.container.InputContainer, track: av.AudioStream, tape: "_Tape", filename: str
    ) -> None:
        self._container, self._track = container, track
        self._filename = filename
        self._zero = origin(container)
        self._tape = tape
        self._segment: _Segment | None = None
        self._blocks = self._failed = 0

    def ledger(self) -> Ledger:
        """After all of it is on the tape."""
        for frame in decoded_blocks(self._container, self._track, self._note_failure):
            self._blocks += 1
            self._record(frame)
        self._end_segment()
        if self._blocks == 0:
            raise StageFailed(
                f"No sound of {self._filename} can be decoded.", hint="Copy the file again.", code="NO_SOUND"
            )
        return Ledger(
            expected=None,
            decoded=self._blocks,
            failed=self._failed + self._missing_at_the_end(),
            processed=self._blocks,
            skipped=0,
        )

    def _note_failure(self) -> None:
        self._failed += 1

    def _record(self, frame: av.audio.frame.AudioFrame) -> None:
        time = self._time_of(frame)
        if self._segment is None or not self._segment.continues_with(frame, time):
            self._end_segment()
            self._segment = _Segment(frame, time)
            self._tape.wind_to(time)
        for block in self._segment.take(frame):
            self._tape.write(block)

    def _time_of(self, frame: av.audio.frame.AudioFrame) -> float:
        if frame.pts is not None:
            return float(frame.pts * frame.time_base - self._zero)
        return self._segment.end if self._segment is not None else 0.0

    def _end_segment(self) -> None:
        if self._segment is not None:
            for block in self._segment.rest():
                self._tape.write(block)
        self._segment = None

    def _missing_at_the_end(self) -> int:
        """Blocks between the last one and the end that the track announces."""
        track = self._track
        if track.duration is None or "mov" not in self._container.format.name:
            return 0
        end = float(((track.start_time or 0) + track.duration) * track.time_base - self._zero)
        missing = end - self._tape.end_seconds
        block_seconds = (track.codec_context.frame_size or 1024) / (track.codec_context.sample_rate or 48_000)
        return round(missing / block_seconds) if missing > _MISSING_END_SECONDS else 0


class _Segment:
    """
    Blocks that follow each other without a break, in one format: they go through one resampler, a second at a time,
    because each call costs as much as the samples of a few blocks.
    """

    def __init__(self, first: av.audio.frame.AudioFrame, time: float) -> None:
        self._format = _format_of(first)
        self._waiting = av.audio.fifo.AudioFifo()
        self._resampler = av.audio.resampler.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        self.end = time

    def continues_with(self, frame: av.audio.frame.AudioFrame, time: float) -> bool:
        return _format_of(frame) == self._format and abs(time - self.end) <= _TOLERANCE_SECONDS

    def take(self, frame: av.audio.frame.AudioFrame) -> Iterator[NDArray[numpy.float32]]:
        """What has been resampled by now."""
        self.end += frame.samples / frame.sample_rate
        frame.pts = None  # the segment knows; the resampler must not guess about rounded ones
        self._waiting.write(frame)
        if self._waiting.samples >= frame.sample_rate:
            yield from self._resampled(self._waiting.read())

    def rest(self) -> Iterator[NDArray[numpy.float32]]:
        """Everything that is still held, at its end."""
        if self._waiting.samples:
            yield from self._resampled(self._waiting.read())
        yield from self._resampled(None)

    def _resampled(self, frame: av.audio.frame.AudioFrame | None) -> Iterator[NDArray[numpy.float32]]:
        for block in self._resampler.resample(frame):
            yield block.to_ndarray()[0]


def _format_of(frame: av.audio.frame.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


class _Tape:
    """Samples from the first one on, in a file that is gone when it is closed. What is not written is silence."""

    def __init__(self, expected_seconds: float) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed in __exit__)
        self._longest = round((expected_seconds + 1) * SAMPLE_RATE)
        self._start: int | None = None
        self._head = 0
        self.length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def start_seconds(self) -> float:
        return (self._start or 0) / SAMPLE_RATE

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + self.length / SAMPLE_RATE

    def wind_to(self, seconds: float) -> None:
        """The next sample belongs here. A leap far beyond the file's own end is a broken timestamp: go on instead."""
        position = round(seconds * SAMPLE_RATE)
        if self._start is None:
            self._start = max(0, position)
        target = position - self._start
        if target <= self._longest:
            self._head = target

    def write(self, block: NDArray[numpy.float32]) -> None:
        if self._head < 0:
            before = min(-self._head, len(block))
            self._head += before
            block = block[before:]
        if not len(block):
            return
        self._file.seek(self._head * _SAMPLE_BYTES)
        content = numpy.ascontiguousarray(block).data.cast("B")
        while content:
            content = content[self._file.write(content) :]
        self._head += len(block)
        self.length = max(self.length, self._head)

    def read(self, start: int, stop: int) -> NDArray[numpy.float32]:
        samples = numpy.empty(max(0, stop - start), numpy.float32)
        if not len(samples):
            return samples
        self._file.seek(start * _SAMPLE_BYTES)
        room = samples.data.cast("B")
        while room:
            read = self._file.readinto(room)
            if not read:
                raise OSError(errno.EIO, "the scratch file of the sound is shorter than what was written to it")
            room = room[read:]
        return samples
