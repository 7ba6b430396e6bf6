"""
A copy of a video that every browser plays: H.264 (8 bits, 4:2:0) and AAC in an MP4 whose index stands at its front.

What is drawn over the copy must lie where it lay in the original, and when. So every picture keeps its time on the
file's timeline (`timeline.py`; variable frame rates, late starts and edit lists are in it already), and its size in
upright pixels up to `MOST_SIDE`; pixels become square, because annotations count them. There are no B-frames: with
them the MP4 would need an edit list, which some players pass over. The sound is cut and filled up so that it stays on
the same timeline. Memory: a few dozen pictures, however long the video.
"""

import heapq
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.audio.frame
import av.audio.stream
import av.filter
import av.video.frame
import av.video.stream
import msgspec

from videoannotator.jobs import Ledger, Video
from videoannotator.media.frames import Frames, Picture
from videoannotator.media.opening import opened
from videoannotator.media.sound import decoded_blocks
from videoannotator.media.timeline import Orientation, orientation, origin, sound_track

MOST_SIDE = 4096
"""Longer sides are made smaller: beyond it the decoders in graphics chips refuse H.264."""

TICKS = 90_000
"""A second of the copy's pictures."""

SAMPLE_RATE = 48_000

_QUALITY = {"preset": "veryfast", "crf": "23", "bf": "0", "mbtree": "0"}
"""x264's mbtree reads memory it never wrote: with it two copies of one video are not always the same bytes."""

_SOUND_BITS = {"mono": 96_000, "stereo": 160_000}
_LEAP_SECONDS = 1.0
_UNSPECIFIED = 2
_FULL_RANGE = 2
_LIMITED_RANGE = 1

Timed = tuple[float, list[av.Packet]]


class Copied(msgspec.Struct, frozen=True):
    ledger: Ledger
    """Of the original's pictures."""

    width: int
    height: int
    sound_blocks_lost: int
    is_smaller: bool
    """A side was longer than MOST_SIDE: what is drawn in pixels of the original does not fit."""


def browser_copy(
    path: Path,
    video: Video,
    copy: Path,
    *,
    threads: int,
    max_lost_frames: float,
    on_progress: Callable[[float], None],
) -> Copied:
    """
    Write the copy; `on_progress` hears how many seconds of it are done.

    Raises:
        StageFailed: FRAMES_LOST, NO_FRAMES: too much of the original cannot be decoded.
        UnreadableVideo: the original is no longer what was probed.
        OSError: the copy cannot be written.
    """
    with ExitStack() as stack:
        frames = stack.enter_context(Frames(path, video, threads=threads))
        sound = stack.enter_context(opened(path, video.filename)) if video.has_audio else None
        target = stack.enter_context(av.open(str(copy), "w", format="mp4", options={"movflags": "+faststart"}))
        pictures = _Pictures(target, video, threads)
        tracks = [pictures.packets(frames)]
        track = None
        if sound is not None and (source := sound_track(sound)) is not None:
            track = _Sound(target, source, origin(sound), video.duration_seconds)
            tracks.append(track.packets())
        for seconds, packets in heapq.merge(*tracks, key=_when):
            target.mux(packets)
            on_progress(seconds)
        frames.check(max_lost_frames)
    return Copied(
        ledger=frames.ledger,
        width=pictures.width,
        height=pictures.height,
        sound_blocks_lost=track.lost if track is not None else 0,
        is_smaller=max(video.width, video.height) > MOST_SIDE,
    )


class _Pictures:
    """The picture track of the copy."""

    def __init__(self, target: Any, video: Video, threads: int) -> None:
        self.width, self.height = copy_size(video.width, video.height)
        rate = Fraction(min(240.0, max(1.0, video.frame_rate or 25.0))).limit_denominator(1001)
        # A keyframe each second: who steps back by one frame in a browser waits for all since the keyframe before.
        options = _QUALITY | {"g": str(round(rate))}
        self._track: av.video.stream.VideoStream = target.add_stream("libx264", rate=rate, options=options)
        self._track.width, self._track.height, self._track.pix_fmt = self.width, self.height, "yuv420p"
        self._track.time_base = self._track.codec_context.time_base = Fraction(1, TICKS)
        self._track.codec_context.thread_count = threads
        self._upright = _Upright(self.width, self.height)
        self._last = -1

    def packets(self, frames: Frames) -> Iterator[Timed]:
        end = 0.0
        for picture in frames.pictures():
            if self._last < 0:
                self._keep_colours(picture.decoded)
            end = picture.timestamp
            yield end, self._track.encode(self._prepared(picture))
        yield end, self._track.encode(None)

    def _prepared(self, picture: Picture) -> av.video.frame.VideoFrame:
        frame = self._upright(picture.decoded)
        # Two pictures at one time are an error of the original, and would be refused by the MP4.
        self._last = max(self._last + 1, round(picture.timestamp * TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        frame.pict_type = av.video.frame.PictureType.NONE  # or the encoder would repeat the original's choices
        return frame

    def _keep_colours(self, frame: av.video.frame.VideoFrame) -> None:
        """What the numbers mean, where the original says it: HDR, too, looks the same in the copy."""
        encoder = self._track.codec_context
        encoder.color_range = _LIMITED_RANGE
        for name in ("colorspace", "color_primaries", "color_trc"):
            if (value := getattr(frame, name)) not in (None, _UNSPECIFIED):
                setattr(encoder, name, value)


class _Upright:
    """From stored pictures to upright ones of one size and kind; those that are it already pass through."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._orientation: Orientation | None = None
        self._kind: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.video.frame.VideoFrame) -> av.video.frame.VideoFrame:
        if self._orientation is None:
            self._orientation = orientation(frame)
        if self._is_right(frame, self._orientation):
            return frame
        kind = frame.width, frame.height, frame.format.name
        if self._graph is None or kind != self._kind:
            self._graph, self._kind = self._made(frame, self._orientation), kind
        self._graph.push(frame)
        turned = self._graph.pull()
        assert isinstance(turned, av.video.frame.VideoFrame)
        return turned

    def _is_right(self, frame: av.video.frame.VideoFrame, orientation: Orientation) -> bool:
        is_plain = frame.format.name == "yuv420p" and frame.color_range != _FULL_RANGE
        return orientation.is_upright and is_plain and (frame.width, frame.height) == self._size

    def _made(self, frame: av.video.frame.VideoFrame, orientation: Orientation) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, TICKS)
        )
        steps = [graph.add(name, value) for name, value in self._steps(frame, orientation)]
        graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
        return graph

    def _steps(self, frame: av.video.frame.VideoFrame, orientation: Orientation) -> Iterator[tuple[str, str | None]]:
        width, height = self._size
        upright = (frame.height, frame.width) if orientation.transposed else (frame.width, frame.height)
        is_padded = all(0 <= goal - side <= 1 for goal, side in zip(self._size, upright, strict=True))
        yield "scale", f"{'iw:ih' if is_padded else _stored(width, height, orientation)}:out_range=tv"
        yield "format", "yuv444p" if is_padded and upright != self._size else "yuv420p"  # odd sides have no half
        if orientation.transposed:
            yield "transpose", "cclock_flip"
        if orientation.mirrored_across:
            yield "hflip", None
        if orientation.mirrored_down:
            yield "vflip", None
        if is_padded and upright != self._size:
            yield "pad", f"{width}:{height}:0:0"
            yield "format", "yuv420p"


class _Sound:
    """The sound track of the copy: AAC, one or two channels, silence where the original has none."""

    def __init__(self, target: Any, source: av.AudioStream, zero: Fraction, duration: float) -> None:
        self._source, self._zero = source, zero
        self._longest = duration + _LEAP_SECONDS
        self._layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
        self._track: av.audio.stream.AudioStream = target.add_stream("aac", rate=SAMPLE_RATE)
        self._track.codec_context.layout = self._layout
        self._track.codec_context.bit_rate = _SOUND_BITS[self._layout]
        self._end = Fraction(0)
        self._written = 0
        self.lost = 0

    def packets(self) -> Iterator[Timed]:
        graph: av.filter.Graph | None = None
        kind: tuple[str, str, int] | None = None
        for block in decoded_blocks(self._source.container, self._source, self._lose):
            here = block.format.name, block.layout.name, block.sample_rate
            if graph is None or kind != here:
                yield from self._encoded(_drained(graph))
                graph, kind = self._filter(block), here
            begin = self._place(block)
            for part in chain(_silence(block, self._end, begin), (block,)):
                graph.push(part)
                yield from self._encoded(_pulled(graph))
            self._end = begin + Fraction(block.samples, block.sample_rate)
        yield from self._encoded(_drained(graph))
        if self._written:
            yield self._written / SAMPLE_RATE, self._track.encode(None)

    def _lose(self) -> None:
        self.lost += 1

    def _place(self, block: av.audio.frame.AudioFrame) -> Fraction:
        """
        Put it on our timeline; where it begins. A leap far back, or beyond the file's own end, is a broken timestamp:
        go on instead.
        """
        time = self._end
        if block.pts is not None and block.time_base is not None:
            told = block.pts * block.time_base - self._zero
            time = told if self._end - _LEAP_SECONDS < told < self._longest or self._end == 0 > told else self._end
        block.pts, block.time_base = round(time * block.sample_rate), Fraction(1, block.sample_rate)
        return time

    def _filter(self, block: av.audio.frame.AudioFrame) -> av.filter.Graph:
        """Resamples, fills gaps longer than 40 ms, cuts what overlaps or lies before the beginning."""
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_abuffer(sample_rate=block.sample_rate, format=block.format, layout=block.layout)
        begin = f"async=1:min_hard_comp=0.04:first_pts={self._written}"
        steps = (
            graph.add("aresample", f"{SAMPLE_RATE}:{begin}"),
            graph.add("aformat", f"sample_fmts=fltp:channel_layouts={self._layout}"),
            graph.add("abuffersink"),
        )
        graph.link_nodes(source, *steps).configure()
        return graph

    def _encoded(self, blocks: Iterator[av.audio.frame.AudioFrame]) -> Iterator[Timed]:
        for block in blocks:
            block.pts, block.time_base = self._written, Fraction(1, SAMPLE_RATE)
            self._written += block.samples
            yield self._written / SAMPLE_RATE, self._track.encode(block)


def _silence(like: av.audio.frame.AudioFrame, begin: Fraction, end: Fraction) -> Iterator[av.audio.frame.AudioFrame]:
    """Silent blocks for a gap, a second each: the filter would fill an hour at once, in memory."""
    while end - begin > _LEAP_SECONDS:
        silent = av.audio.frame.AudioFrame(like.format, like.layout, like.sample_rate)
        for plane in silent.planes:
            plane.update((b"\x80" if like.format.name.startswith("u8") else b"\0") * plane.buffer_size)
        silent.sample_rate = like.sample_rate
        silent.pts, silent.time_base = round(begin * like.sample_rate), Fraction(1, like.sample_rate)
        yield silent
        begin += 1


def copy_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the copy of upright pictures: the same, made even, and MOST_SIDE at most."""
    share = min(1.0, MOST_SIDE / max(width, height))
    return _even(width * share), _even(height * share)


def _even(side: float) -> int:
    return max(2, -(-round(side) // 2) * 2)


def _stored(width: int, height: int, orientation: Orientation) -> str:
    return f"{height}:{width}" if orientation.transposed else f"{width}:{height}"


def _when(timed: Timed) -> float:
    return timed[0]


def _pulled(graph: av.filter.Graph) -> Iterator[av.audio.frame.AudioFrame]:
    while True:
        try:
            block = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(block, av.audio.frame.AudioFrame)
        yield block


def _drained(graph: av.filter.Graph | None) -> Iterator[av.audio.frame.AudioFrame]:
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)
