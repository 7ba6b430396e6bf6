"""
The pictures of a video: in decode order, upright, with the time a browser shows them at, and none lost in silence.

    with Frames(path, video, rate=5.0, pixel_format="bgr24", max_side=640) as frames:
        for frame in frames:
            look_at(frame.image, frame.timestamp)
        frames.check(max_lost_frames=0.01)
        ledger = frames.ledger

One picture is held at a time. Pictures that the sampling leaves out are decoded (others are predicted from them) but
not converted. Several stages of a job may share one decoder (`shared.py`): pictures and account are the same.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import av
import av.video.frame
import av.video.reformatter
import msgspec
import numpy
from numpy.typing import NDArray

from videoannotator.errors import StageFailed, UnreadableVideo
from videoannotator.jobs import Ledger, Video
from videoannotator.media.giving import Giver
from videoannotator.media.opening import opened
from videoannotator.media.reading import Reading
from videoannotator.media.shared import Sharing, Whole, Wish
from videoannotator.media.taking import Taker
from videoannotator.media.timeline import Orientation, orientation, origin, picture_track

PixelFormat = Literal["rgb24", "bgr24", "gray"]

_REORDERED = 4
"""Pictures that B-frames hold back in a decoder; more are rare."""


class Frame(msgspec.Struct, frozen=True):
    """A picture and its place."""

    number: int
    """How many pictures the decoder gave before this one, damaged ones included."""

    timestamp: float
    """Seconds on the file's timeline."""

    pts: int
    """The same in ticks of the track."""

    image: NDArray[numpy.uint8]
    """Height x width x 3, upright; height x width for `gray`. It may be kept: its memory is not used again."""


class Picture(msgspec.Struct, frozen=True):
    """A picture as it is stored: neither turned upright nor converted. For who copies rather than looks."""

    number: int
    timestamp: float
    pts: int
    decoded: av.video.frame.VideoFrame


class Frames:
    """
    All pictures, or with `rate` the first at or after each multiple of 1/rate seconds. Iterate once.

    `max_side` makes the longer side that many pixels at most, in the step that converts the colours anyway. Raises
    UnreadableVideo where the file is no longer what was probed.

    Those up to number `after` are decoded and counted and not given; `passing` is told their timestamps meanwhile.

    With `sharing` they are decoded for other stages too, or come from another stage as long as that goes well.
    """

    def __init__(
        self,
        path: Path,
        video: Video,
        *,
        rate: float | None = None,
        pixel_format: PixelFormat = "rgb24",
        max_side: int | None = None,
        threads: int = 2,
        after: int = -1,
        passing: Callable[[float], None] = lambda _: None,
        sharing: Sharing | None = None,
    ) -> None:
        self._path, self._video = path, video
        self._rate = _checked(rate)
        self._pixel_format: PixelFormat = pixel_format
        self._max_side = max_side
        self._picture_of = Conversion(video, pixel_format, max_side)
        self._threads = threads
        self._after = after
        self._passing = passing
        self._sharing = sharing
        self._giver: Giver | None = None
        self._stack = ExitStack()
        self._whole: Whole | None = None
        self.company = "alone"
        """How the decoder was shared: a clause for the log."""

    def __enter__(self) -> Self:
        self._open(self._threads)
        return self

    def _open(self, threads: int) -> None:
        container = self._stack.enter_context(opened(self._path, self._video.filename))
        track = picture_track(container)
        if track is None or track.codec_context is None:
            self._stack.close()
            raise UnreadableVideo(f"{self._video.filename} holds no pictures.", code="NO_STREAMS")
        track.codec_context.thread_type = "AUTO"
        track.codec_context.thread_count = threads
        self._reading = Reading(container, track)
        self._clock = _Clock(track, origin(container))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Frame]:
        last = self._after
        if self._sharing is not None and not self._sharing.gives:
            with closing(self._taken(self._sharing)) as taken:
                for frame in taken:
                    last = frame.number
                    yield frame
        if self._whole is None:
            for picture in self._pictures(last):
                yield Frame(picture.number, picture.timestamp, picture.pts, self._picture_of(picture.decoded))

    def pictures(self) -> Iterator[Picture]:
        """The same before their conversion, never taken from others. Iterate over the one or the other, once."""
        return self._pictures(self._after)

    def _taken(self, sharing: Sharing) -> Generator[Frame, None, None]:
        """Those that another stage decodes: all of them, with the account, or as many as come."""
        taker = Taker(sharing, self._wish(), self._passing)
        with closing(taker.pictures()) as taken:
            for picture in taken:
                yield Frame(picture.number, picture.timestamp, picture.pts, picture.image)
        self._whole = taker.whole
        self.company = f"with {taker.taken} frames of another stage" if taker.taken else "alone"

    def _wish(self) -> Wish:
        width, height = _stored_size(self._video, self._max_side)
        return Wish(
            rate=self._rate,
            pixel_format=self._pixel_format,
            max_side=self._max_side,
            after=self._after,
            places=0,
            place_bytes=width * height * (1 if self._pixel_format == "gray" else 3),
        )

    def _pictures(self, after: int) -> Iterator[Picture]:
        if self._sharing is None or not self._sharing.gives:
            yield from self._decoded(after)
            return
        with Giver(
            self._sharing,
            sampling=lambda wish: _Sampling(wish.rate),
            conversion=lambda wish: Conversion(self._video, wish.pixel_format, wish.max_side),
        ) as self._giver:
            self.company = f"for {self._giver.most_takers} other stages too" if self._giver.most_takers else "alone"
            yield from self._decoded(after)
            self._giver.finish(self._account)

    def _decoded(self, after: int) -> Iterator[Picture]:
        last = after
        for picture in self._read(after=last, until_damage=self._threads > 1):
            last = picture.number
            yield picture
        if self._whole is None:
            # Several threads meet damage a few frames sooner or later, by chance, and the same file must give the same
            # bytes: from the damage on one thread reads alone.
            self._stack.close()
            self._open(threads=1)
            yield from self._read(after=last, until_damage=False)

    def _read(self, *, after: int, until_damage: bool) -> Iterator[Picture]:
        """The pictures behind number `after`; the ledger is complete unless damage ended it."""
        sampled = 0
        sampling = _Sampling(self._rate)
        well_decoded = self._well_decoded(until_damage=until_damage)
        for number, decoded in self._giver.timed(well_decoded) if self._giver else well_decoded:
            pts, timestamp = self._clock.read(decoded)
            picture = Picture(number, timestamp, pts, decoded)
            if self._giver:
                self._giver.give(picture)
            if sampling.takes(timestamp):
                sampled += 1
                if number > after:
                    yield picture
                elif number <= self._after:
                    self._passing(timestamp)
        if self._reading.is_whole or not until_damage:
            self._whole = self._account(sampled)

    def _account(self, sampled: int) -> Whole:
        """Of everything, to one who was given so many pictures. After the last."""
        reading = self._reading
        lost = math.isfinite(reading.first_trouble)
        return Whole(
            ledger=reading.ledger(sampled),
            derived_timestamps=self._clock.derived + reading.retimed,
            first_trouble=reading.first_trouble - self._clock.zero if lost else None,
            broke_off=reading.broke_off,
        )

    def _well_decoded(self, *, until_damage: bool) -> Iterator[tuple[int, av.video.frame.VideoFrame]]:
        """
        With several threads a damaged picture may come out before its damage is known, by as many as are at work and
        are put in order: the last few are held back, and dropped with the damage.
        """
        held: deque[tuple[int, av.video.frame.VideoFrame]] = deque()
        room = self._threads + _REORDERED if until_damage else 0
        for picture in self._reading.frames():
            if until_damage and self._reading.met_damage:
                return
            held.append(picture)
            if len(held) > room:
                yield held.popleft()
        if self._reading.is_whole or not until_damage:
            yield from held

    @property
    def ledger(self) -> Ledger:
        """What became of every picture. Only after the loop has ended by itself."""
        return self._in_the_end.ledger

    @property
    def _in_the_end(self) -> Whole:
        if self._whole is None:
            raise RuntimeError("The ledger is complete when the loop over the frames has ended by itself.")
        return self._whole

    @property
    def derived_timestamps(self) -> int:
        """Pictures that the container gives no presentation time: all of an AVI, few elsewhere. Worked out instead."""
        return self._whole.derived_timestamps if self._whole else self._clock.derived + self._reading.retimed

    def check(self, max_lost_frames: float) -> None:
        """Raises StageFailed (FRAMES_LOST, NO_FRAMES) when more than this share of the pictures is lost."""
        ledger = self.ledger
        name = self._video.filename
        if ledger.decoded == 0:
            raise StageFailed(f"No picture of {name} can be decoded.", hint="Copy the file again.", code="NO_FRAMES")
        if ledger.lost_share <= max_lost_frames:
            return
        whole = self._in_the_end
        what = "breaks off" if whole.broke_off else "is damaged"
        raise StageFailed(
            f"{name} {what}: {ledger.failed} of {ledger.decoded + ledger.failed} frames are missing or damaged, "
            f"from {max(0.0, whole.first_trouble or 0.0):.1f} s on.",
            hint="Copy the file again, or raise max_lost_frames.",
            code="FRAMES_LOST",
        )


class _Sampling:
    """Picks the first picture at or after each multiple of 1/rate; all of them without a rate."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = -math.inf

    def takes(self, timestamp: float) -> bool:
        if self._rate is None:
            return True
        if timestamp < self._next:
            return False
        self._next = (math.floor(timestamp * self._rate + 1e-6) + 1) / self._rate - 1e-6
        return True


class _Clock:
    """The time of each picture; where there is none, one frame after the picture before."""

    def __init__(self, track: av.VideoStream, zero: Fraction) -> None:
        tick = Fraction(track.time_base)
        # Seconds are (pts * step - zero) / whole: whole numbers that are divided once are rounded as a Fraction is, and
        # cost a tenth.
        self._whole = math.lcm(tick.denominator, zero.denominator)
        self._seconds_step = tick.numerator * (self._whole // tick.denominator)
        self._seconds_zero = zero.numerator * (self._whole // zero.denominator)
        self.zero = float(zero)
        rate = track.average_rate or track.guessed_rate or 25
        self._step = max(1, round(1 / (Fraction(rate) * tick)))
        self._next = round(zero / tick)
        self.derived = 0

    def read(self, frame: av.video.frame.VideoFrame) -> tuple[int, float]:
        pts = frame.pts
        if pts is None:
            self.derived += 1
            pts = self._next
        self._next = pts + (frame.duration or self._step)
        return pts, (pts * self._seconds_step - self._seconds_zero) / self._whole


class Conversion:
    """From the decoder's picture to an upright array: colours and size in one pass of swscale, then the turn."""

    def __init__(self, video: Video, pixel_format: PixelFormat, max_side: int | None) -> None:
        self._pixel_format = pixel_format
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._size = _stored_size(video, max_side)
        self._orientation: Orientation | None = None

    def __call__(self, frame: av.video.frame.VideoFrame) -> NDArray[numpy.uint8]:
        if self._orientation is None:
            self._orientation = orientation(frame)
        width, height = self._size
        # Averaging over areas is for making smaller what it should be, and takes 60 % of the time of BILINEAR there.
        converted = self._reformatter.reformat(
            frame, width, height, self._pixel_format, interpolation="AREA", threads=1
        )
        return _upright(converted.to_ndarray(), self._orientation)


def _checked(rate: float | None) -> float | None:
    if rate is not None and not rate > 0:
        raise ValueError(f"rate must be above 0, not {rate}")
    return rate


def _stored_size(video: Video, max_side: int | None) -> tuple[int, int]:
    """Width and height before the turn; the same for every picture, also where the file changes its size midway."""
    width, height = video.width, video.height
    if video.rotation_degrees in (90, 270):
        width, height = height, width
    if max_side is None or max(width, height) <= max_side:
        return width, height
    share = max_side / max(width, height)
    return max(1, round(width * share)), max(1, round(height * share))


def _upright(image: NDArray[numpy.uint8], orientation: Orientation) -> NDArray[numpy.uint8]:
    if orientation.is_upright:
        return image
    if orientation.transposed:
        image = image.swapaxes(0, 1)
    if orientation.mirrored_across:
        image = image[:, ::-1]
    if orientation.mirrored_down:
        image = image[::-1]
    return numpy.ascontiguousarray(image)
