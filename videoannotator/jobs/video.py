"""What is known of a video before anything is made of it."""

import msgspec


class Video(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a probe says of a file. Sizes are those of the upright picture, times are seconds."""

    filename: str
    """As people know it: cleaned of path parts, control and markup characters."""

    size_bytes: int
    container: str
    duration_seconds: float
    start_seconds: float = 0.0
    """Timestamp of the first frame on the file's timeline."""

    width: int = 0
    height: int = 0
    rotation_degrees: int = 0
    """Clockwise turn that makes the stored picture upright: 0, 90, 180 or 270. Already applied to width and height."""

    frame_rate: float = 0.0
    """Average frames per second."""

    variable_frame_rate: bool = False
    frame_count: int | None = None
    """Frames that the container announces, where it does."""

    video_codec: str | None = None
    pixel_format: str | None = None
    """FFmpeg's name for how the pictures are stored, `yuv420p` say."""

    audio_codec: str | None = None
    audio_start_seconds: float = 0.0
    sha256: str | None = None
    """Of the file's bytes; known once a worker has read it."""

    @property
    def has_video(self) -> bool:
        return self.video_codec is not None

    @property
    def has_audio(self) -> bool:
        return self.audio_codec is not None
