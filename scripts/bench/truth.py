"""
Clips whose contents are known exactly: pictures put together here, with the presentation time of each frame chosen
here, so that what a pipeline says can be held against what there is.

Sources are photographs inside scikit-image, moved about, and speech by espeak-ng. Encoded with PyAV's libx264, which
keeps every frame and its time; variable frame rate and a late start are made by the times alone.
"""

import random
import subprocess
import wave
from collections.abc import Iterator
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


def hard_cuts(seed: int, shots: int = 20, flashes: int = 6) -> tuple[list[Picture], list[int]]:
    """Pictures, and the number of the first frame of each shot but the first; some single frames are flashes."""
    chance = random.Random(seed)
    pictures: list[Picture] = []
    cuts: list[int] = []
    last = ""
    for number in range(shots):
        last = chance.choice([name for name in TEXTURES if name != last])
        if pictures:
            cuts.append(len(pictures))
        pictures += shot(last, chance.randint(RATE, 4 * RATE), seed * 100 + number)
    for _ in range(flashes):
        at = chance.randrange(RATE, len(pictures) - RATE)
        if all(abs(at - cut) > RATE // 2 for cut in cuts):
            pictures[at] = numpy.minimum(255, pictures[at].astype(numpy.uint16) + 120).astype(numpy.uint8)
    return pictures, cuts


def dissolves(seed: int, shots: int = 7) -> tuple[list[Picture], list[tuple[int, int]]]:
    """Pictures, and of each dissolve its first frame and the first frame behind it."""
    chance = random.Random(seed)
    pictures: list[Picture] = []
    places: list[tuple[int, int]] = []
    for number in range(shots):
        coming = list(shot(TEXTURES[(seed + number) % len(TEXTURES)], chance.randint(2 * RATE, 3 * RATE), number))
        if pictures:
            length = chance.randint(10, 25)
            for place in range(length):
                share = (place + 1) / (length + 1)
                going = pictures[len(pictures) - length + place]
                pictures[len(pictures) - length + place] = cv2.addWeighted(coming[place], share, going, 1 - share, 0)
            places.append((len(pictures) - length, len(pictures)))
            coming = coming[length:]
        pictures += coming
    return pictures, places


class Visit(NamedTuple):
    """A face that is in the picture from frame `first` to before frame `end`; its box by frame number."""

    first: int
    end: int
    boxes: dict[int, tuple[float, float, float, float]]


def visit(width: int, seed: int, frames: int = 8 * RATE) -> tuple[list[Picture], Visit]:
    """A photographed face of that width (pixels) that comes at 2 s, moves, and goes at 6 s, before a texture."""
    from skimage import data

    astronaut: Any = data.astronaut
    pictures = list(shot("brick", frames, seed))
    scale = width / FACE[2]
    left, top, wide, high = HEAD
    head = astronaut()[top : top + high, left : left + wide]
    head = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    first, end = 2 * RATE, 6 * RATE
    boxes = {}
    for number in range(first, end):
        share = (number - first) / (end - first)
        x = int(share * max(0, WIDTH - head.shape[1]))
        y = int(max(0, HEIGHT - head.shape[0]) * (0.5 + 0.3 * numpy.sin(share * 6)))
        shown = head[: HEIGHT - y, : WIDTH - x]
        pictures[number][y : y + shown.shape[0], x : x + shown.shape[1]] = shown
        boxes[number] = (x + (FACE[0] - left) * scale, y + (FACE[1] - top) * scale, FACE[2] * scale, FACE[3] * scale)
    return pictures, Visit(first, end, boxes)


def write(file: Path, pictures: list[Picture], timing: Timing, sound: Path | None = None) -> list[float]:
    """The clip (H.264, quality 18, B-frames), and the time of each of its frames in seconds."""
    times = timing.times(len(pictures))
    with av.open(str(file), "w") as container:
        track = container.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
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
    inputs = ["-copyts", "-i", str(silent), "-i", str(sound)]
    command = ["ffmpeg", "-v", "error", "-y", *inputs, "-c:v", "copy", "-c:a", "aac", str(file)]
    subprocess.run(command, check=True, timeout=120)
    return times


def speech(file: Path, noise: float, seed: int) -> list[tuple[float, float]]:
    """
    16 kHz of 60 s with ten spoken sentences in noise (share of full scale), and when somebody speaks (onset, end).

    A stretch of speech is where espeak-ng's own sound is above 1 % of its peak, pauses up to 0.3 s included.
    """
    rate, chance = 16_000, random.Random(seed)
    total = numpy.zeros(60 * rate, numpy.float32)
    spoken: list[tuple[float, float]] = []
    at = 1.0
    for number, text in enumerate(SENTENCES):
        part = file.with_name(f"sentence{number}.wav")
        voice = ("en", "en+f3", "en-us+m2")[number % 3]
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", part, text], check=True, timeout=30)
        said = _read(part, rate)
        begin = int(at * rate)
        said = said[: len(total) - begin]
        total[begin : begin + len(said)] += 0.5 * said
        spoken += [(at + onset, at + end) for onset, end in _loud(said, rate)]
        at += len(said) / rate + chance.uniform(0.8, 2.5)
    total += noise * numpy.random.default_rng(seed).standard_normal(len(total)).astype(numpy.float32)
    _write(file, total, rate)
    return spoken


SENTENCES = (
    "Where is the baby? Here is the baby!", "Look at the red ball, shall we roll it to the dog?",
    "One, two, three, jump!", "Now it is your turn to put the block on top.", "No, not in your mouth please.",
    "Can you find the little bear?", "He is hiding under the table.", "Do you want some more water?",
    "Let us read the book about the moon.", "All done, clap your hands!",
)  # fmt: skip


def _kept_in(place: float, step: float, room: float) -> float:
    return -step if not 0 <= place + step < room else step


def _loud(said: Any, rate: int) -> list[tuple[float, float]]:
    window = rate // 100
    blocks = numpy.abs(said[: len(said) // window * window]).reshape(-1, window).max(axis=1)
    loud = [n for n, peak in enumerate(blocks) if peak > 0.01 * blocks.max()]
    found: list[tuple[float, float]] = []
    for block in loud:
        begin, end = block / 100, (block + 1) / 100
        if found and begin - found[-1][1] <= 0.3:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def _read(file: Path, rate: int) -> Any:
    with av.open(str(file)) as container:
        resampler = av.AudioResampler("flt", "mono", rate)
        parts = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
    return numpy.concatenate(parts)


def _write(file: Path, sound: Any, rate: int) -> None:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((numpy.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
