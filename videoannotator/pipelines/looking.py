"""
Looks for things in the sampled frames of a video, and need not begin anew when it is interrupted.

What is found is kept in chunks of about a minute. An attempt that finds chunks of an earlier one decodes up to their
end without looking, which takes a small part of the time, and goes on from there: the account of every frame stays
whole, and the result is the same to the byte.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from videoannotator.annotations import Sample
from videoannotator.jobs import Ledger
from videoannotator.media.frames import Frame, Frames
from videoannotator.pipelines.ahead import ahead
from videoannotator.pipelines.contract import Stage


class Found(Protocol):
    @property
    def sample(self) -> Sample: ...


T = TypeVar("T", bound=Found)
Find = Callable[[Frame, Sample], Sequence[T]]


class Chunk(msgspec.Struct, Generic[T], frozen=True):
    """What was looked at, and found, in a stretch of time."""

    samples: list[Sample]
    found: list[T]


class Seen(Generic[T]):
    """Everything that was looked at. Lists are in the order of time."""

    def __init__(
        self,
        samples: list[Sample],
        found: dict[int, list[T]],
        ledger: Ledger,
        chunks: Callable[[], Iterator[Chunk[T]]],
    ) -> None:
        self.samples = samples
        self.found = found
        """By frame number, without what `lighter` took away; frames without a find are missing."""

        self.ledger = ledger
        self.chunks = chunks
        """All of it again, complete, a chunk in memory at a time."""

        self.trouble: Exception | None = None
        """What broke it off: then the rest of the video was not looked at, and the ledger is empty."""

    @property
    def until_seconds(self) -> float | None:
        """Up to where it was looked at; None where it was to the end."""
        if self.trouble is None:
            return None
        return self.samples[-1].timestamp if self.samples else 0.0


def look(
    stage: Stage,
    *,
    kind: type[T],
    rate: float,
    max_side: int,
    frames_ahead: int,
    finder: Callable[[], Find[T]],
    lighter: Callable[[T], T] = lambda found: found,
) -> Seen[T]:
    """
    Args:
        kind: the Struct that is looked for.
        rate, max_side: see `Frames`; they are RGB.
        finder: makes what finds, while the first frames are decoded.
        lighter: takes from a find what is too large to be held for the whole video.

    An engine that raises half-way does not lose what was found: see `Seen.trouble`. At the first frame already, while
    it is made, and where the file is at fault, everything is raised.

    Raises:
        StageFailed: FRAMES_LOST, NO_FRAMES.
    """
    chunks, decoder = stage.chunks(), msgspec.msgpack.Decoder(Chunk[kind])  # type: ignore[valid-type]
    seen: Seen[T] = Seen([], {}, _NOTHING, lambda: (decoder.decode(chunk) for chunk in chunks))

    def take(chunk: Chunk[T]) -> None:
        seen.samples.extend(chunk.samples)
        for thing in chunk.found:
            seen.found.setdefault(thing.sample.frame_number, []).append(lighter(thing))

    for earlier in seen.chunks():
        take(earlier)
    with Frames(
        stage.video_path,
        stage.video,
        rate=rate,
        pixel_format="rgb24",
        max_side=max_side,
        threads=stage.threads,
        after=seen.samples[-1].frame_number if seen.samples else -1,
        passing=stage.report.progress,
        sharing=stage.sharing,
    ) as frames:
        with ahead(frames, frames_ahead) as coming:
            try:
                for chunk in _chunks(coming, finder(), stage, chunks.seconds):
                    chunks.keep(msgspec.msgpack.encode(chunk))
                    take(chunk)
            except _BrokeOff as broke:
                if not seen.samples:
                    raise broke.why from None
                seen.trouble = broke.why
                return seen
        stage.report.log("debug", f"Frames were decoded {frames.company}.")
        frames.check(stage.max_lost_frames)
        seen.ledger = frames.ledger
    return seen


class _BrokeOff(Exception):
    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


_NOTHING = Ledger(expected=None, decoded=0, failed=0, processed=0, skipped=0)


def _chunks(coming: Iterator[Frame], find: Find[T], stage: Stage, seconds: float) -> Iterator[Chunk[T]]:
    samples: list[Sample] = []
    found: list[T] = []
    for frame in coming:
        sample = Sample(frame.number, frame.timestamp, frame.pts)
        try:
            found += find(frame, sample)
        except Exception as exc:  # whatever it is: it is raised again when what was found is safe
            if samples:
                yield Chunk(samples, found)
            raise _BrokeOff(exc) from exc
        samples.append(sample)
        stage.report.progress(frame.timestamp)
        if frame.timestamp - samples[0].timestamp >= seconds:
            yield Chunk(samples, found)
            samples, found = [], []
    if samples:
        yield Chunk(samples, found)
