"""
The one place where a stranger's file is opened.

FFmpeg is given the descriptor of a regular file that is already open, may use no protocol but that one descriptor, and
no demuxer but those below. So whatever a file says (a playlist, an external reference, a URL), no second file and no
connection can be opened on its behalf: libavformat has no protocol left to do it with.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import av.error

from videoannotator.errors import UnreadableVideo
from videoannotator.paths.nofollow import open_inside

DEMUXERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "ogg", "wav", "mp3", "flac", "aac", "asf")
"""FFmpeg's names; "mov" is MP4 and M4A too, "matroska" is WebM too, "mpeg" is the program stream."""

MOST_STREAMS = 64

_SNIFFED_BYTES = 4096
_PLAYLISTS = {
    "an HLS playlist": (b"#EXTM3U",),
    "a DASH manifest": (b"<MPD", b"urn:mpeg:dash"),
    "a Smooth Streaming manifest": (b"<SmoothStreamingMedia",),
    "a concat script": (b"ffconcat version",),
    "a session description (SDP)": (b"v=0\r\n", b"v=0\n", b"\nm=video ", b"\nm=audio "),
    "a playlist": (b"[playlist]", b"<asx", b"<ASX", b"<smil", b"[Reference]", b"ASF "),
}
_OPTIONS = {
    "protocol_whitelist": "fd",
    "format_whitelist": ",".join(DEMUXERS),
    "max_streams": str(MOST_STREAMS + 1),
    "probesize": "5000000",
    "analyzeduration": "5000000",
}


@contextmanager
def opened(path: Path, filename: str) -> Iterator[av.container.InputContainer]:
    """
    The file as a container, closed on every path. `filename` is what messages call it.

    Raises UnreadableVideo, with a code that says why: FILE_NOT_FOUND, NOT_A_FILE, FILE_UNREADABLE, FILE_EMPTY,
    PLAYLIST_REFUSED, NOT_A_VIDEO, VIDEO_TRUNCATED, TOO_MANY_STREAMS.
    """
    descriptor = _open_regular_file(path, filename)
    try:
        _refuse_playlists(os.pread(descriptor, _SNIFFED_BYTES, 0), filename)
        container = _open_container(descriptor, filename)
        try:
            yield container
        finally:
            container.close()
    finally:
        os.close(descriptor)


def _open_regular_file(path: Path, filename: str) -> int:
    """
    A FIFO or a device is not even opened: opening one can hang, or rewind a tape. No link is followed, at the end or on
    the way: the path was resolved when the video was admitted, and others may write to the folders in it.
    """
    try:
        _refuse_unless_regular(os.stat(path), filename)  # noqa: PTH116
        whole = path.absolute()
        descriptor = open_inside(Path(whole.anchor), whole.parts[1:])
    except OSError as exc:
        raise _unopenable(exc, filename) from exc
    try:
        _refuse_unless_regular(os.fstat(descriptor), filename)  # it may have been swapped in between
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_unless_regular(found: os.stat_result, filename: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableVideo(f"{filename} is a folder.", hint="Name a video file in it.", code="NOT_A_FILE")
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableVideo(
            f"{filename} is a pipe, socket or device.", hint="Save the video to a file first.", code="NOT_A_FILE"
        )
    if found.st_size == 0:
        raise UnreadableVideo(f"{filename} is empty (0 bytes).", hint="Copy the file again.", code="FILE_EMPTY")


def _unopenable(exc: OSError, filename: str) -> UnreadableVideo:
    if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        message = f"There is no file {filename}, or a link leads to it, which is not followed."
        return UnreadableVideo(message, hint="Check the path.", code="FILE_NOT_FOUND")
    return UnreadableVideo(
        f"{filename} cannot be opened: {exc.strerror}.", hint="Check who may read it.", code="FILE_UNREADABLE"
    )


def _refuse_playlists(beginning: bytes, filename: str) -> None:
    """Only for a clear message; what keeps playlists out is the list of demuxers."""
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_markup = text.startswith(b"<")
    for kind, marks in _PLAYLISTS.items():
        if any(text.startswith(mark) or (is_markup and mark in text) for mark in marks):
            raise UnreadableVideo(
                f"{filename} is {kind}, which names other files.",
                hint="Submit the video itself.",
                code="PLAYLIST_REFUSED",
            )


def _open_container(descriptor: int, filename: str) -> av.container.InputContainer:
    try:
        return av.open("fd:", mode="r", options={**_OPTIONS, "fd": str(descriptor)}, metadata_errors="replace")
    except av.error.FFmpegError as exc:
        raise _unreadable(os.pread(descriptor, 64, 0), exc, filename) from exc


def _unreadable(beginning: bytes, exc: av.error.FFmpegError, filename: str) -> UnreadableVideo:
    if isinstance(exc, av.error.MemoryError):
        return UnreadableVideo(
            f"{filename} announces more tracks or samples than can be held.",
            hint=f"Save it again with one picture and one sound track; {MOST_STREAMS} tracks are allowed.",
            code="TOO_MANY_STREAMS",
        )
    if beginning[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return UnreadableVideo(
            f"{filename} breaks off before its table of contents, or the table is damaged.",
            hint="The recording or the copy was cut short: copy the file again, or repair it.",
            code="VIDEO_TRUNCATED",
        )
    return UnreadableVideo(
        f"{filename} is not a video of a kind that is read here.",
        hint="Use MP4, MOV, MKV, WebM, AVI, MPEG, FLV, OGG, ASF or WAV, MP3, FLAC, AAC.",
        code="NOT_A_VIDEO",
    )
