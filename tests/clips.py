"""
Odd clips, made with ffmpeg when a test first asks for one, kept for the rest of the test run.

`Clips(folder).path("rotated_90.mp4")` makes that clip; CLIPS and STORIES list all there are. In those of CLIPS every
second shows other pictures (`testsrc2`), and "clicks" are 10 ms of a 1 kHz tone at known times in silence, so that a
test can tell where it is.
"""

import fcntl
import hashlib
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

RATE = 25
SECONDS = 4
FRAMES = RATE * SECONDS
CLICKS = (1.0, 2.5)
"""Where the clicks are, in seconds of the sound track."""

SPEECH_AT = ((1.0, "Where is the baby? Here is the baby!"), (5.0, "Look at the red ball, shall we roll it?"))
"""What is said in `speech.mp4`, and from when on."""

_CLICKS = "+".join(f"between(t,{click},{click + 0.01})" for click in CLICKS)
_PICTURES = ("-f", "lavfi", "-i", f"testsrc2=s=320x240:r={RATE}:d={SECONDS}")
_SOUND = ("-f", "lavfi", "-i", f"aevalsrc='({_CLICKS})*sin(2*PI*1000*t)':s=48000:d={SECONDS}")
_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "50", "-threads", "1")
_AAC = ("-c:a", "aac", "-b:a", "96k")


class Clips:
    """A folder that fills itself; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unfinished = folder / "unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        made, part = self.folder / name, self._unfinished / name
        if not made.exists():
            with (self._unfinished / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not made.exists():
                    (CLIPS | STORIES)[name](self, part)
                    part.rename(made)
        return made


def ffmpeg(*arguments: str | Path) -> None:
    """Runs to its end, quietly; its complaint is the test's error."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-fflags", "+bitexact", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


Maker = Callable[[Clips, Path], None]


def _encoded(*arguments: str, inputs: tuple[str, ...] = (*_PICTURES, *_SOUND)) -> Maker:
    return lambda clips, made: ffmpeg(*inputs, *arguments, made)


def _copied(source: str, *arguments: str, before: tuple[str, ...] = ()) -> Maker:
    return lambda clips, made: ffmpeg(*before, "-i", clips.path(source), "-c", "copy", *arguments, made)


def _written(content: bytes) -> Maker:
    return lambda clips, made: made.write_bytes(content) and None


def _changed(source: str, change: Callable[[bytes], bytes]) -> Maker:
    return lambda clips, made: made.write_bytes(change(clips.path(source).read_bytes())) and None


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _scratched(content: bytes) -> bytes:
    """Noise over 3 % of the file, past its middle; the tables at its beginning stay whole."""
    start, length = int(len(content) * 0.55), int(len(content) * 0.03)
    return content[:start] + random.Random(2).randbytes(length) + content[start + length :]


def _with_matrix(a: int, b: int, c: int, d: int) -> Callable[[bytes], bytes]:
    """Another display matrix in the first track's header (ISO/IEC 14496-12, 8.3.2)."""

    def change(content: bytes) -> bytes:
        at = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes from the version field to the matrix
        matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        return content[:at] + matrix + content[at + 36 :]

    return change


def _with_duration(seconds: float) -> Callable[[bytes], bytes]:
    """Another Duration in a Matroska header, in ms."""

    def change(content: bytes) -> bytes:
        at = content.index(b"\x44\x89\x88") + 3
        return content[:at] + struct.pack(">d", seconds * 1000) + content[at + 8 :]

    return change


def _offset_pictures(clips: Clips, made: Path) -> None:
    h264 = clips.path("h264.mp4")
    ffmpeg("-itsoffset", "0.5", "-i", h264, "-i", h264, "-map", "0:v", "-map", "1:a", "-c", "copy", made)


def _offset_sound(clips: Clips, made: Path) -> None:
    h264 = clips.path("h264.mp4")
    ffmpeg("-i", h264, "-itsoffset", "0.7", "-i", h264, "-map", "0:v", "-map", "1:a", "-c", "copy", made)


def _many_tracks(clips: Clips, made: Path) -> None:
    ffmpeg("-i", clips.path("sound.wav"), *["-map", "0:a"] * 100, "-c", "pcm_s16le", "-t", "0.1", made)


def _cover(clips: Clips, made: Path) -> None:
    picture = made.with_name(f"{made.name}.png")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=1:d=1", "-frames:v", "1", picture)
    ffmpeg("-i", clips.path("sound" + made.suffix), "-i", picture, "-map", "0:a", "-map", "1:v", "-c", "copy",
           "-disposition:v", "attached_pic", made)  # fmt: skip


def _cuts(clips: Clips, made: Path) -> None:
    """25 frames/s, four plain shots with hard cuts at 2.0, 3.0 and 5.0 s; 7 s long."""
    shots = (("testsrc2", 2), ("smptebars", 1), ("mandelbrot", 2), ("rgbtestsrc", 2))
    inputs = [a for kind, s in shots for a in ("-f", "lavfi", "-t", str(s), "-i", f"{kind}=s=320x240:r=25")]
    joined = "".join(f"[{n}:v]setsar=1,format=yuv420p[v{n}];" for n in range(4)) + "[v0][v1][v2][v3]concat=n=4[v]"
    ffmpeg(*inputs, "-filter_complex", joined, "-map", "[v]", "-c:v", "libx264", made)


def _dissolve(clips: Clips, made: Path) -> None:
    """One picture passes into another from 2 to 3 s; 5 s long."""
    joined = "[0:v]setsar=1[a];[1:v]setsar=1[b];[a][b]xfade=fade:duration=1:offset=2[v]"
    ffmpeg("-f", "lavfi", "-t", "3", "-i", "testsrc2=s=320x240:r=25", "-f", "lavfi", "-t", "3", "-i",
           "smptebars=s=320x240:r=25", "-filter_complex", joined, "-map", "[v]", "-c:v", "libx264", made)  # fmt: skip


def _colours(clips: Clips, made: Path) -> None:
    """A red, a green and a blue room of 2 s each, upside down in the file."""
    rooms = [f"color={name}:s=320x240:r=10:d=2,drawgrid=w=40:h={size}" for name, size in (("red", 40), ("green", 17))]
    rooms.append("color=blue:s=320x240:r=10:d=2,drawgrid=w=90:h=60")
    inputs = [part for room in rooms for part in ("-f", "lavfi", "-i", room)]
    joined = "concat=n=3,drawbox=w=iw:h=40:c=white:t=fill,vflip,hflip"
    ffmpeg(*inputs, "-filter_complex", joined, "-c:v", "libx264", made)
    made.write_bytes(_with_matrix(-1, 0, 0, -1)(made.read_bytes()))


def _lights(clips: Clips, made: Path) -> None:
    """One shot: a flash at 1 s, more light from 2 s on, a lamp at the right from 3 to 4 s; 5 s long."""
    lamp = "geq=lum='lum(X,Y)*(0.1+0.9*X/W)':cb='cb(X,Y)':cr='cr(X,Y)':enable='between(t,3,4)'"
    looks = f"eq=brightness=0.7:enable='between(n,25,26)',eq=contrast=0.5:enable='lt(t,2)',{lamp}"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=5", "-vf", looks, "-c:v", "libx264", made)


def _fades(clips: Clips, made: Path) -> None:
    """Fades to black from 2 to 3 s, black until 4 s, and back until 5 s; 7 s long."""
    fade = "fade=t=out:st=2:d=1:enable='lt(t,4)',fade=t=in:st=4:d=1:enable='gte(t,4)'"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=7", "-vf", fade, "-c:v", "libx264", made)


def _speech(clips: Clips, made: Path) -> None:
    """A still picture; espeak-ng says one sentence at 1.0 s and one at 5.0 s, else silence; 9 s long."""
    inputs: list[str | Path] = []
    for number, (_, text) in enumerate(SPEECH_AT):
        wav = made.with_suffix(f".{number}.wav")
        subprocess.run(["espeak-ng", "-s", "150", "-w", wav, text], check=True, timeout=30)
        inputs += ["-i", wav]
    placed = "".join(f"[{n}:a]adelay={int(at * 1000)}[a{n}];" for n, (at, _) in enumerate(SPEECH_AT))
    ffmpeg(*inputs, "-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=9", "-filter_complex",
           f"{placed}[a0][a1]amix=inputs=2:normalize=0,apad=whole_dur=9[a]", "-map", "2:v", "-map", "[a]",
           "-c:v", "libx264", "-c:a", "aac", made)  # fmt: skip


def _minutes(clips: Clips, made: Path) -> None:
    """Ten minutes of noise and moving pictures: longer than any pipeline needs to say that it works."""
    short = made.with_suffix(".short.mp4")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:r=25:d=20", "-f", "lavfi", "-i", "anoisesrc=d=20:a=0.1",
           "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", short)  # fmt: skip
    ffmpeg("-stream_loop", "29", "-i", short, "-c", "copy", made)


_VARIABLE = (
    "-vf",
    "settb=1/90000,setpts='(N+0.45*sin(N)+0.002*N*N)/25/TB'",
    "-vsync",
    "passthrough",
    "-enc_time_base",
    "1:90000",
)

CLIPS: dict[str, Maker] = {
    # kinds
    "h264.mp4": _encoded(*_H264, *_AAC, "-movflags", "+faststart"),
    "b_frames.mp4": _encoded(*_H264, "-bf", "3", "-x264-params", "b-pyramid=normal:open-gop=1", *_AAC),
    "hevc.mp4": _encoded(
        "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:pools=1", "-tag:v", "hvc1", *_AAC
    ),
    "h264.mkv": _encoded(*_H264, *_AAC),
    "vp9_opus.webm": _encoded("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    "vp8_hidden_frames.webm": _encoded(
        "-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-cpu-used", "4", "-c:a", "libvorbis"
    ),
    "h264.ts": _copied("h264.mp4"),
    "mpeg2.mpg": _encoded("-c:v", "mpeg2video", "-b:v", "1M", "-bf", "2", "-c:a", "mp2"),
    "h264.flv": _copied("h264.mp4"),
    "mpeg4.avi": _encoded("-c:v", "mpeg4", "-b:v", "1M", "-c:a", "libmp3lame"),
    "h264_b_frames.avi": _encoded(*_H264, "-bf", "2", "-c:a", "libmp3lame"),
    "theora.ogv": _encoded("-c:v", "libtheora", "-q:v", "6", "-c:a", "libvorbis"),
    "wmv.asf": _encoded("-c:v", "wmv2", "-b:v", "1M", "-c:a", "wmav2"),
    "no_sound.mp4": _copied("h264.mp4", "-an"),
    "interlaced.ts": _encoded(*_H264, "-flags", "+ilme+ildct", *_AAC),
    # time
    "variable.mp4": _encoded(*_H264, *_VARIABLE, "-video_track_timescale", "90000", *_AAC),
    "variable.mkv": _encoded(*_H264, *_VARIABLE, *_AAC),
    "late_pictures.mp4": _offset_pictures,
    "late_pictures.mkv": _offset_pictures,
    "late_sound.mp4": _offset_sound,
    "late_everything.mp4": _copied("no_sound.mp4", before=("-itsoffset", "0.5")),
    "edit_list.mp4": _copied("b_frames.mp4", before=("-ss", "1.3")),
    "fragmented.mp4": _copied("h264.mp4", "-movflags", "frag_keyframe+empty_moov"),
    "no_duration.webm": lambda clips, made: made.write_bytes(_piped(clips.path("vp9_opus.webm"), "webm")) and None,
    "no_duration.flv": _copied("h264.mp4", "-flvflags", "no_duration_filesize"),
    "sound_gap.mkv": _encoded(*_H264, "-af", "aselect='not(between(t,1.5,2.2))'", "-c:a", "flac"),
    # space
    "rotated_90.mp4": _changed("h264.mp4", _with_matrix(0, 1, -1, 0)),
    "rotated_180.mp4": _changed("h264.mp4", _with_matrix(-1, 0, 0, -1)),
    "rotated_270.mp4": _changed("h264.mp4", _with_matrix(0, -1, 1, 0)),
    "mirrored.mp4": _changed("h264.mp4", _with_matrix(-1, 0, 0, 1)),
    "upside_down.mp4": _changed("h264.mp4", _with_matrix(1, 0, 0, -1)),
    "transposed.mp4": _changed("h264.mp4", _with_matrix(0, 1, 1, 0)),
    "odd_size.webm": _encoded(
        "-vf", "scale=321:241", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-an"
    ),
    "odd_size.mp4": _encoded("-vf", "scale=321:241", "-c:v", "libx264", "-pix_fmt", "yuv444p", "-an"),
    "raw.avi": _encoded("-frames:v", "2", "-c:v", "rawvideo", "-pix_fmt", "bgr24", "-an"),
    "wide.avi": _encoded("-vf", "scale=20000:16", "-frames:v", "2", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-an"),
    # sound only
    "sound.wav": _encoded("-vn", "-c:a", "pcm_s16le"),
    "sound.mp3": _encoded("-vn", "-c:a", "libmp3lame"),
    "sound.flac": _encoded("-vn", "-c:a", "flac"),
    "sound.aac": _encoded("-vn", *_AAC),
    "sound.m4a": _encoded("-vn", *_AAC),
    "sound.ogg": _encoded("-vn", "-c:a", "libopus"),
    "cover.m4a": _cover,
    "cover.mp3": _cover,
    # damage
    "half.mp4": _changed("h264.mp4", _half),
    "half.mkv": _changed("h264.mkv", _half),
    "half.avi": _changed("mpeg4.avi", _half),
    "half.ts": _changed("h264.ts", _half),
    "half_fragmented.mp4": _changed("fragmented.mp4", _half),
    "scratched.mp4": _changed("h264.mp4", _scratched),
    "scratched.mkv": _changed("h264.mkv", _scratched),
    "scratched.ts": _changed("h264.ts", _scratched),
    "scratched_hevc.mp4": _changed("hevc.mp4", _scratched),
    "no_moov.mp4": _changed("b_frames.mp4", _half),
    # not videos
    "empty.mp4": lambda clips, made: made.touch(),
    "text.mp4": _written(b"Dear all, please find the recording attached.\n" * 50),
    "page.mp4": _written(b"<!doctype html><script>alert(1)</script>" * 50),
    "noise.mp4": _written(random.Random(1).randbytes(200_000)),
    "zeros.mp4": _written(bytes(200_000)),
    "picture.mp4": lambda clips, made: ffmpeg(*_PICTURES, "-frames:v", "1", "-f", "image2", "-c:v", "png", made),
    "animation.mp4": _encoded("-frames:v", "5", "-an", "-f", "gif"),
    "subtitles.mp4": _written(b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n" * 20),
    # lies
    "many_tracks.mkv": _many_tracks,
    "nan_duration.mkv": _changed("h264.mkv", _with_duration(float("nan"))),
    "negative_duration.mkv": _changed("h264.mkv", _with_duration(-4.0)),
    "endless_duration.mkv": _changed("h264.mkv", _with_duration(1e12)),
}

STORIES: dict[str, Maker] = {
    "cuts.mp4": _cuts,
    "fades.mp4": _fades,
    "dissolve.mp4": _dissolve,
    "lights.mp4": _lights,
    "colours.mp4": _colours,
    "minutes.mp4": _minutes,
    "speech.mp4": _speech,
}
"""Ordinary files in which something happens at known times."""


def playlists(other: str) -> dict[str, bytes]:
    """Texts of the kinds that make a careless reader open `other`, by the name they are submitted under."""
    return {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{other}\n#EXT-X-ENDLIST\n".encode(),
        "hls_blank.mp4": f"\ufeff\n#EXTM3U\n#EXTINF:4,\nfile://{other}\n".encode(),
        "dash.mp4": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
        f"<Representation><BaseURL>{other}</BaseURL></Representation></AdaptationSet></Period></MPD>".encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{other}'\n".encode(),
        "sdp.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={other}\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 9 RTP/AVP 96\n".encode(),
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _piped(source: Path, kind: str) -> bytes:
    """What a recorder that cannot go back writes: no duration, no index."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(source), "-c", "copy", "-f", kind, "pipe:1"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
