"""Whether browsers play a video as it is. Nothing of FFmpeg is loaded for the answer: the server asks too."""

from videoannotator.jobs import Video

_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm"})
_PICTURES = {
    "h264": frozenset({"yuv420p", "yuvj420p"}),
    "vp8": frozenset({"yuv420p"}),
    "vp9": frozenset({"yuv420p"}),
    "av1": frozenset({"yuv420p"}),
}
_SOUNDS = frozenset({None, "aac", "mp3", "opus", "vorbis", "flac"})


def browsers_play(video: Video) -> bool:
    """
    Picture and sound, everywhere the Viewer runs: H.264, VP8, VP9 or AV1 in 8 bits and 4:2:0, in MP4, MOV, Matroska or
    WebM. Looked at in Chromium 156, which plays more than that (10 bits, 4:2:2, PCM in MOV); other browsers do not.
    """
    kinds = set(video.container.split(","))
    if not kinds & _CONTAINERS or video.audio_codec not in _SOUNDS:
        return False
    return video.pixel_format in _PICTURES.get(video.video_codec or "", ())
