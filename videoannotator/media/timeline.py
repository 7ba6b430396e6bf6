"""
Where zero lies, and which way is up.

A browser's clock runs on the file's own timeline and is not moved when the first picture comes late: an MP4 whose
edit list begins with half a second of nothing shows its first picture at 0.5 s (Chromium, FFmpegDemuxer: "Don't rebase
timestamps for positive start times"; HTML, "offsets into the media resource"). So in MP4, MOV, Matroska, WebM, AVI, Ogg
and WAV zero is the container's zero. Transport and program streams, FLV and ASF carry the sender's clock, which starts
anywhere; no browser plays them, and every player counts from the earliest stream: so do we. Where a picture would come
before zero, zero moves to that picture: no frame has a negative timestamp.
"""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

import av
import av.container
import av.stream
import av.video.frame
import msgspec

Track = TypeVar("Track", bound=av.stream.Stream)

_SENDERS_CLOCK = {"mpegts", "mpeg", "flv", "asf", "mp3", "aac", "flac"}
_MICROSECONDS = 1_000_000


def origin(container: av.container.InputContainer) -> Fraction:
    """The container's time, in seconds, that is 0 on our timeline."""
    starts = [start for s in (picture_track(container), sound_track(container)) if (start := start_of(s)) is not None]
    if not starts:
        return Fraction(0)
    if _SENDERS_CLOCK & set(container.format.name.split(",")):
        return min(starts)
    first_picture = start_of(picture_track(container))
    return min(Fraction(0), first_picture) if first_picture is not None else Fraction(0)


def picture_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """The track a player shows; a cover picture is none."""
    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return _preferred([track for track in container.streams.video if not track.disposition & covers])


def sound_track(container: av.container.InputContainer) -> av.AudioStream | None:
    return _preferred(list(container.streams.audio))


def start_of(stream: av.stream.Stream | None) -> Fraction | None:
    """First presentation time of a track in the container's seconds; None where it does not say."""
    if stream is None or stream.start_time is None or not stream.time_base:
        return None
    return Fraction(stream.start_time * stream.time_base)


def end_of_file(container: av.container.InputContainer) -> Fraction | None:
    """The announced end in the container's seconds; None where nothing sensible is announced."""
    if not container.duration or container.duration <= 0:
        return None
    return Fraction((container.start_time or 0) + container.duration, _MICROSECONDS)


class Orientation(msgspec.Struct, frozen=True):
    """How stored pictures become upright ones: first transposed, then mirrored."""

    transposed: bool = False
    mirrored_across: bool = False
    """Left and right are swapped."""

    mirrored_down: bool = False
    """Top and bottom are swapped."""

    @property
    def degrees(self) -> int:
        """The clockwise turn. A mirrored picture has more than a turn: then it is that of its top edge."""
        if self.transposed:
            return 270 if self.mirrored_down else 90
        return 180 if self.mirrored_across else 0

    @property
    def is_upright(self) -> bool:
        return not (self.transposed or self.mirrored_across or self.mirrored_down)


def orientation(frame: av.video.frame.VideoFrame) -> Orientation:
    """
    From the display matrix that the container gave the frame; upright where there is none.

    The matrix [a b u, c d v, x y w] takes (p, q) to (ap + cq + x, bp + dq + y): ISO/IEC 14496-12, 6.2.2. Turns
    between the quarters go to the nearest one.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    if math.hypot(a, d) >= math.hypot(b, c):
        return Orientation(mirrored_across=a < 0, mirrored_down=d < 0)
    return Orientation(transposed=True, mirrored_across=c < 0, mirrored_down=b < 0)


def _preferred(tracks: Sequence[Track]) -> Track | None:
    """The default track; where none is marked, or several are, the first."""
    marked = [track for track in tracks if track.disposition & av.stream.Disposition.default]
    return next(iter((*marked, *tracks)), None)
