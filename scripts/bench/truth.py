"""
Clips whose contents are known exactly: pictures put together here, with the presentation time of each frame chosen
here, so that what a pipeline says can be held against what there is.

Sources are photographs inside scikit-image, moved about; truth_sound.py makes what is heard. Encoded with PyAV's
libx264, which keeps every frame and its time; variable frame rate and a late start are made by the times alone.
"""

import random
import subprocess
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy

RATE = 25
WIDTH, HEIGHT = 640, 360
TICK = Fraction(1, 90_000)
TEXTURES = ("brick", "clock", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "moon", "rocket", "chelsea")
"""Without a person's face."""

FACE = (178, 70, 92, 115)
"""Left, top, width, height of the face in `astronaut`, brow to chin, read off by eye."""

HEAD = (130, 0, 190, 200)
"""What is cut out around it: hair and collar too."""

Picture = Any
"""Height x width x 3, uint8, RGB."""


class Timing(NamedTuple):
    """When frames are shown."""

    name: str
    start_seconds: float = 0.0
    variable: bool = False

    def times(self, frames: int) -> list[float]:
        """Seconds of each frame, on the file's timeline."""
        if not self.variable:
            return [self.start_seconds + number / RATE for number in range(frames)]
        steps = random.Random(7).choices((0.5, 1.0, 1.0, 1.5, 3.0), k=frames)
        times = [self.start_seconds]
        for step in steps[1:]:
            times.append(times[-1] + step / RATE)
        return times


STEADY = Timing("constant frame rate")
TIMINGS = (STEADY, Timing("variable frame rate", variable=True), Timing("start at 0.5 s", start_seconds=0.5))


def photograph(name: str) -> Picture:
    from skimage import data

    picture = numpy.asarray(getattr(data, name)())
    if picture.ndim == 2:
        picture = numpy.stack([picture] * 3, axis=2)
    height, width = picture.shape[:2]
    scale = max(1.6 * WIDTH / width, 1.6 * HEIGHT / height)
    return cv2.resize(picture[:, :, :3], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def shot(name: str, frames: int, seed: int) -> Iterator[Picture]:
    """A slow pan over a photograph, at most 3 pixels a frame."""
    whole = photograph(name)
    room_x, room_y = whole.shape[1] - WIDTH, whole.shape[0] - HEIGHT
    chance = random.Random(seed)
    x, y = chance.uniform(0, room_x), chance.uniform(0, room_y)
    step_x, step_y = chance.uniform(-3, 3), chance.uniform(-2, 2)
    for _ in range(frames):
        yield whole[int(y) : int(y) + HEIGHT, int(x) : int(x) + WIDTH].copy()
        step_x, step_y = _kept_in(x, step_x, room_x), _kept_in(y, step_y, room_y)
        x, y = x + step_x, y + step_y


def still(seconds: float) -> list[Picture]:
    """A small grey picture, for clips that are about their sound."""
    return [numpy.full((90, 160, 3), 128, numpy.uint8)] * round(seconds * RATE)


TOYS = ("ball", "rings", "wheel", "button", "plate", "peg doll")


def rolling(toy: str, frames: int, seed: int) -> Iterator[Picture]:
    """A drawn toy, round and of 40 to 240 pixels, that rolls over a photographed floor."""
    chance = random.Random(seed)
    radius, hue = chance.randint(20, 120), [chance.randint(60, 255) for _ in range(3)]
    for number, picture in enumerate(shot(("brick", "grass", "gravel")[seed % 3], frames, seed)):
        along = number / frames
        x = round(radius + along * (WIDTH - 2 * radius))
        y = round(HEIGHT / 2 + 0.3 * (HEIGHT / 2 - radius) * numpy.sin(9 * along))
        _draw(picture, toy, (x, y), radius, hue, turned=along * WIDTH / radius)
        yield cv2.GaussianBlur(picture, (3, 3), 0)


def _draw(picture: Picture, toy: str, at: tuple[int, int], radius: int, hue: list[int], *, turned: float) -> None:
    dark, light = [c // 3 for c in hue], [min(255, c + 60) for c in hue]
    cv2.circle(picture, at, radius, hue, -1, cv2.LINE_AA)
    cv2.circle(picture, at, radius, dark, max(2, radius // 12), cv2.LINE_AA)
    spots = [_around(at, radius * 0.4, turned + n * numpy.pi / 2) for n in range(4)]
    match toy:
        case "ball":
            cv2.circle(picture, _around(at, radius * 0.5, -2.2), radius // 4, light, -1, cv2.LINE_AA)
        case "rings":
            for share in (0.75, 0.5, 0.25):
                cv2.circle(picture, at, int(radius * share), light if share == 0.5 else dark, -1, cv2.LINE_AA)
        case "wheel":
            for spot in spots:
                cv2.line(picture, at, spot, dark, max(2, radius // 8), cv2.LINE_AA)
        case "button":
            for spot in spots:
                cv2.circle(picture, spot, radius // 7, dark, -1, cv2.LINE_AA)
        case "plate":
            cv2.circle(picture, at, int(radius * 0.7), light, -1, cv2.LINE_AA)
        case "peg doll":  # a head without a face: hair above, a collar below
            cv2.ellipse(picture, at, (radius, radius), 0, 180, 360, dark, -1, cv2.LINE_AA)


def _around(at: tuple[int, int], distance: float, angle: float) -> tuple[int, int]:
    return round(at[0] + distance * numpy.cos(angle)), round(at[1] + distance * numpy.sin(angle))


def person(frames: int) -> Iterator[Picture]:
    """A photographed person, head to belt, as high as the picture, who is moved from its left to its right."""
    from skimage import data

    astronaut: Any = data.astronaut
    somebody = cv2.resize(astronaut(), (HEIGHT, HEIGHT), interpolation=cv2.INTER_AREA)
    for number, picture in enumerate(shot("grass", frames, 3)):
        x = round(number / frames * (WIDTH - HEIGHT))
        picture[:, x : x + HEIGHT] = somebody
        yield picture


class Visit(NamedTuple):
    """A face that is in the picture from frame `first` to before frame `end`; its box by frame number."""

    first: int
    end: int
    boxes: dict[int, tuple[float, float, float, float]]


def visit(width: int, seed: int, frames: int = 8 * RATE) -> tuple[list[Picture], Visit]:
    """A photographed face of that width (pixels) that comes at 2 s, moves, and goes at 6 s, before a texture."""
    pictures, (truth,) = visits(width, seed, [(2 * RATE, 6 * RATE)], frames)
    return pictures, truth


def visits(
    width: int, seed: int, stays: Sequence[tuple[int, int]], frames: int, *, crossing_seconds: float = 4.0
) -> tuple[list[Picture], list[Visit]]:
    """
    The same face again and again, each time from the left, so fast that it crosses the picture in that time. A stay is
    its first frame and the one after its last.
    """
    from skimage import data

    astronaut: Any = data.astronaut
    pictures = list(shot("brick", frames, seed))
    scale = width / FACE[2]
    left, top, wide, high = HEAD
    head = astronaut()[top : top + high, left : left + wide]
    head = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    made = []
    for first, end in stays:
        boxes = {}
        for number in range(first, end):
            share = (number - first) / (crossing_seconds * RATE)
            x = int(share * max(0, WIDTH - head.shape[1]))
            y = int(max(0, HEIGHT - head.shape[0]) * (0.5 + 0.3 * numpy.sin(share * 6)))
            shown = head[: HEIGHT - y, : WIDTH - x]
            pictures[number][y : y + shown.shape[0], x : x + shown.shape[1]] = shown
            face = (x + (FACE[0] - left) * scale, y + (FACE[1] - top) * scale, FACE[2] * scale, FACE[3] * scale)
            boxes[number] = face
        made.append(Visit(first, end, boxes))
    return pictures, made


def write(
    file: Path, pictures: list[Picture], timing: Timing, sound: Path | None = None, *, sound_at: float = 0.0
) -> list[float]:
    """The clip (H.264, quality 18, B-frames; AAC), and the time of each of its frames in seconds."""
    times = timing.times(len(pictures))
    with av.open(str(file), "w") as container:
        track = container.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast"})
        track.height, track.width = pictures[0].shape[:2]
        track.pix_fmt = "yuv420p"
        track.codec_context.time_base = TICK
        for picture, at in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(at / TICK), TICK
            container.mux(track.encode(frame))
        container.mux(track.encode())
    if sound is None:
        return times
    silent = file.with_stem(f"{file.stem}_silent")
    file.rename(silent)
    inputs = ["-copyts", "-i", str(silent), "-itsoffset", str(sound_at), "-i", str(sound)]
    command = ["ffmpeg", "-v", "error", "-y", *inputs, "-c:v", "copy", "-c:a", "aac", str(file)]
    subprocess.run(command, check=True, timeout=120)
    return times


def _kept_in(place: float, step: float, room: float) -> float:
    return -step if not 0 <= place + step < room else step
