"""
What a file holds, without decoding more than its first picture.

Takes some milliseconds for an ordinary file. Every amount that a file could blow up is bounded: bytes and seconds read
to find its tracks, number of tracks, size of the picture, packets looked at. The exception is a file that does not say
how long it is (a browser's recording, a bare MP3): that one is read through once, without decoding.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import av.container
import av.error
import msgspec

from videoannotator.errors import UnreadableVideo
from videoannotator.jobs import Video
from videoannotator.media.names import shown_name
from videoannotator.media.opening import MOST_STREAMS, opened
from videoannotator.media.timeline import (
    Orientation,
    end_of_file,
    orientation,
    origin,
    picture_track,
    sound_track,
    start_of,
)

WIDEST_PICTURE = 16_384
MOST_PIXELS = 2**28
LONGEST_SECONDS = 7 * 24 * 3600.0

_DURATION_IS_A_GUESS = ("aac", "mp3")
"""FFmpeg divides the size by the bit rate of the beginning: 2.97 s for 4.03 s of AAC."""

_PACKETS_LOOKED_AT = 300
_INTERVALS_LOOKED_AT = 512


class _Glance(msgspec.Struct):
    """What the first packets of the picture track show."""

    orientation: Orientation = Orientation()
    has_picture: bool = False
    times: list[int] = []
    intervals: list[int] = []
    """From picture to picture, all over the file, where its index is there whole before anything is read."""


def probe(path: Path, filename: str | None = None) -> Video:
    """
    What the file holds. `filename` is what people call it (default: the path's last part); it is cleaned.

    Raises UnreadableVideo with one clear sentence and a stable code: those of `opened`, and NO_STREAMS,
    TOO_MANY_STREAMS, TOO_LARGE_PICTURE, CODEC_NOT_SUPPORTED, BAD_DURATION.
    """
    name = shown_name(filename or path.name)
    with opened(path, name) as container:
        _refuse_impossible(container, name)
        picture, sound = picture_track(container), sound_track(container)
        zero = origin(container)
        glance = _glance(container, picture) if picture is not None else _Glance()
        video = Video(
            filename=name,
            size_bytes=container.size,
            container=container.format.name,
            duration_seconds=_duration(path, container, zero, name),
            audio_codec=sound.codec_context.codec.canonical_name if sound is not None else None,
            audio_start_seconds=_since(zero, start_of(sound)),
        )
        return video if picture is None else _with_picture(video, picture, glance, zero)


def frame_count(track: av.VideoStream) -> int | None:
    """
    Pictures the container announces inside its timeline; None where it does not say.

    In MP4 and MOV the index knows which samples lie outside the edit list: those are not counted. The header of an AVI
    counts repeated pictures too; its index, where it reaches to the end, does not.
    """
    entries = track.index_entries
    announced: int = track.frames
    kind = track.container.format.name
    if kind.startswith("mov") and len(entries) >= announced:
        return sum(1 for entry in entries if not entry.is_discard) or None
    if kind == "avi" and len(entries) and entries[-1].timestamp + 2 >= announced:
        return sum(1 for entry in entries if entry.size)
    return announced or None


def _with_picture(video: Video, track: av.VideoStream, glance: _Glance, zero: Fraction) -> Video:
    width, height = track.codec_context.width, track.codec_context.height
    if glance.orientation.transposed:
        width, height = height, width
    return msgspec.structs.replace(
        video,
        width=width,
        height=height,
        rotation_degrees=glance.orientation.degrees,
        start_seconds=_since(zero, start_of(track)),
        frame_rate=float(track.average_rate or track.guessed_rate or 0),
        variable_frame_rate=_varies(track, glance),
        frame_count=frame_count(track) if track.frames else None,
        video_codec=track.codec_context.codec.canonical_name,
        pixel_format=track.codec_context.pix_fmt,
    )


def _refuse_impossible(container: av.container.InputContainer, name: str) -> None:
    if len(container.streams) > MOST_STREAMS:
        raise UnreadableVideo(
            f"{name} has {len(container.streams)} tracks; {MOST_STREAMS} are allowed.",
            hint="Save it again with one picture and one sound track.",
            code="TOO_MANY_STREAMS",
        )
    picture, sound = picture_track(container), sound_track(container)
    if picture is None and sound is None:
        raise UnreadableVideo(
            f"{name} holds neither pictures nor sound.", hint="Export it again from its source.", code="NO_STREAMS"
        )
    if picture is not None:
        _refuse_impossible_picture(picture, name)
    if sound is not None and sound.codec_context is None:
        raise _no_decoder(name, "sound")


def _refuse_impossible_picture(track: av.VideoStream, name: str) -> None:
    if track.codec_context is None:
        raise _no_decoder(name, "picture")
    width, height = track.codec_context.width, track.codec_context.height
    if width <= 0 or height <= 0:
        raise UnreadableVideo(
            f"{name} does not say how large its pictures are.",
            hint="It is damaged, or was cut too short: copy the file again.",
            code="NOT_A_VIDEO",
        )
    if max(width, height) > WIDEST_PICTURE or width * height > MOST_PIXELS:
        raise UnreadableVideo(
            f"{name} announces pictures of {width} x {height} pixels; {WIDEST_PICTURE} a side are allowed.",
            hint="Scale it down first.",
            code="TOO_LARGE_PICTURE",
        )


def _no_decoder(name: str, kind: str) -> UnreadableVideo:
    return UnreadableVideo(
        f"The {kind} track of {name} is in a codec that cannot be decoded here.",
        hint="Convert it to H.264 and AAC first.",
        code="CODEC_NOT_SUPPORTED",
    )


def _glance(container: av.container.InputContainer, track: av.VideoStream) -> _Glance:
    """
    Decodes one picture, because only pictures carry the display matrix, and notes packet times where no index has them.

    A beginning that does not decode is no reason to refuse the file: the stage's ledger will say how much is lost.
    """
    glance = _Glance(intervals=_index_intervals(track) if _has_whole_index(track) else [])
    track.codec_context.thread_count = 1
    for packet in islice(_packets(container, track), _PACKETS_LOOKED_AT):
        if packet.pts is not None and not packet.is_discard:
            glance.times.append(packet.pts)
        if packet.is_keyframe and not glance.has_picture:
            _look(glance, track.codec_context, bytes(packet))
        if glance.intervals and glance.has_picture:
            break
    return glance


def _look(glance: _Glance, decoder: av.VideoCodecContext, keyframe: bytes) -> None:
    """A packet of its own, because one outside the edit list decodes to nothing; then the flush brings the picture."""
    try:
        frames = [*decoder.decode(av.Packet(keyframe)), *decoder.decode(None)]
    except av.error.FFmpegError:
        frames = []
    for frame in frames[:1]:
        glance.has_picture = True
        glance.orientation = orientation(frame)
    decoder.flush_buffers()


def _packets(container: av.container.InputContainer, *tracks: av.stream.Stream) -> Iterator[av.Packet]:
    """What can be read, up to the first damage."""
    try:
        yield from (packet for packet in container.demux(*tracks) if packet.size)
    except av.error.FFmpegError:
        return


def _varies(track: av.VideoStream, glance: _Glance) -> bool:
    """
    Whether the time from picture to picture changes by more than rounding does, at the places looked at: all over the
    file where it has a full index, else among its first packets.
    """
    tick = float(track.time_base)
    by_index = glance.intervals or _index_intervals(track)
    gaps = by_index or [later - earlier for earlier, later in pairwise(sorted(glance.times)[:-2])]
    return bool(gaps) and (max(gaps) - min(gaps)) * tick > max(2 * tick, 0.0015)


def _has_whole_index(track: av.VideoStream) -> bool:
    """That of a fragmented file grows while it is read."""
    return "mov" in track.container.format.name and 0 < track.frames <= len(track.index_entries)


def _index_intervals(track: av.VideoStream) -> list[int]:
    entries = track.index_entries
    if "mov" not in track.container.format.name or len(entries) < 3:
        return []
    step = max(1, (len(entries) - 1) // _INTERVALS_LOOKED_AT)
    pairs = ((entries[i], entries[i + 1]) for i in range(0, len(entries) - 1, step))
    return [
        later.timestamp - earlier.timestamp
        for earlier, later in pairs
        if not earlier.is_discard and not later.is_discard
    ]


def _duration(path: Path, container: av.container.InputContainer, zero: Fraction, name: str) -> float:
    """Seconds from zero to the end of the last track."""
    end = end_of_file(container)
    if end is None or end <= zero or container.format.name in _DURATION_IS_A_GUESS:
        end = _end_by_reading(path, name)
    seconds = float(end - zero) if end is not None else 0.0
    if not 0 < seconds <= LONGEST_SECONDS:
        raise UnreadableVideo(
            f"{name} does not say how long it is, or says something impossible ({seconds:.0f} s).",
            hint="Save it again with a video tool.",
            code="BAD_DURATION",
        )
    return seconds


def _end_by_reading(path: Path, name: str) -> Fraction | None:
    with opened(path, name) as container:
        tracks = [t for t in (picture_track(container), sound_track(container)) if t is not None]
        ends = (
            Fraction((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in _packets(container, *tracks)
            if packet.pts is not None
        )
        return max(ends, default=None)


def _since(zero: Fraction, time: Fraction | None) -> float:
    return float(time - zero) if time is not None else 0.0
