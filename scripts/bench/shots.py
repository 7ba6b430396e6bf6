"""
Clips of shots whose cuts, dissolves and fades are known to the frame, and clips without any that look as if.

Sources are the photographs inside scikit-image: in colour, as in a video by day, and grey and alike (gravel, grass,
coins, brick), as a night camera sees. A camera moves over each of them, held by hand: it pans, shakes and zooms.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy
from truth import HEIGHT, RATE, WIDTH, Picture

COLOURS = (
    "astronaut",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "motorcycle",
    "retina",
    "rocket",
)
GREYS = ("brick", "camera", "clock", "coins", "grass", "gravel", "moon", "page")
SOURCES = {"in colour": COLOURS, "grey and alike": GREYS}
NOISE = 2.0
"""Of the camera, standard deviation in grey levels."""


class Hand(NamedTuple):
    """How the camera is held: pixels a frame, pixels, and share a frame."""

    pan: float = 3.0
    shake: float = 1.5
    zoom: float = 0.003


HELD = Hand()


class Transition(NamedTuple):
    """From the first frame that is no longer only the old shot to the first that is only the new one."""

    kind: str
    first: int
    end: int


def photograph(name: str) -> Picture:
    from skimage import data, io

    if name == "motorcycle":
        picture = numpy.asarray(io.imread(Path(data.__file__).parent / "motorcycle_left.png"))
    else:
        picture = numpy.asarray(getattr(data, name)())
    if picture.ndim == 2:
        picture = numpy.stack([picture] * 3, axis=2)
    height, width = picture.shape[:2]
    scale = max(2.0 * WIDTH / width, 2.0 * HEIGHT / height)
    return cv2.resize(picture[:, :, :3], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def shot(name: str, frames: int, seed: int, hand: Hand = HELD) -> list[Picture]:
    """So many pictures of a photograph, or of a mirrored or enlarged part of it."""
    chance = random.Random(seed)
    whole = photograph(name)
    if chance.random() < 0.5:
        whole = whole[:, ::-1]
    return list(_seen(whole, frames, chance, hand))


def _seen(whole: Picture, frames: int, chance: random.Random, hand: Hand) -> Iterator[Picture]:
    noise = numpy.random.default_rng(chance.randrange(2**32))
    size, growth = chance.uniform(1.0, 1.5), chance.uniform(-hand.zoom, hand.zoom)
    x, y = (chance.uniform(WIDTH, whole.shape[1] - WIDTH), chance.uniform(HEIGHT, whole.shape[0] - HEIGHT))
    step_x, step_y = chance.uniform(-hand.pan, hand.pan), chance.uniform(-hand.pan, hand.pan) * 0.6
    for _ in range(frames):
        size = min(1.8, max(1.0, size * (1 + growth)))
        wide, high = WIDTH / size * 1.02, HEIGHT / size * 1.02
        x, step_x = _kept(x + step_x, step_x, wide / 2 + 8, whole.shape[1] - wide / 2 - 8)
        y, step_y = _kept(y + step_y, step_y, high / 2 + 8, whole.shape[0] - high / 2 - 8)
        middle = x + chance.gauss(0, hand.shake), y + chance.gauss(0, hand.shake)
        left, top = middle[0] - wide / 2, middle[1] - high / 2
        turn = numpy.array([[wide / WIDTH, 0, left], [0, high / HEIGHT, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(whole, turn, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REFLECT)
        grain = noise.normal(0, NOISE, (HEIGHT, WIDTH, 1))
        yield numpy.clip(picture + grain, 0, 255).astype(numpy.uint8)


def _kept(place: float, step: float, least: float, most: float) -> tuple[float, float]:
    if least <= place <= most:
        return place, step
    return min(most, max(least, place)), -step


def hard_cuts(
    seed: int, sources: tuple[str, ...], shots: int = 20, flashes: int = 6
) -> tuple[list[Picture], list[int]]:
    """Pictures, and the number of the first frame of each shot but the first; some single frames are flashes."""
    chance = random.Random(seed)
    pictures: list[Picture] = []
    cuts: list[int] = []
    last = ""
    for number in range(shots):
        last = chance.choice([name for name in sources if name != last])
        if pictures:
            cuts.append(len(pictures))
        pictures += shot(last, chance.randint(RATE, 4 * RATE), seed * 100 + number)
    for _ in range(flashes):
        at = chance.randrange(RATE, len(pictures) - RATE)
        if all(abs(at - cut) > RATE // 2 for cut in cuts):
            _flash(pictures, at, chance.randint(1, 3))
    return pictures, cuts


def dissolves(seed: int, sources: tuple[str, ...], shots: int = 8) -> tuple[list[Picture], list[Transition]]:
    """Each shot of 2 to 4 s passes into the next within 0.4 to 1.6 s."""
    chance = random.Random(seed)
    names = chance.sample(sources, len(sources))
    pictures: list[Picture] = []
    found: list[Transition] = []
    for number in range(shots):
        length = chance.randint(10, 40)
        coming = shot(names[number % len(names)], chance.randint(2 * RATE, 4 * RATE) + length, seed * 100 + number)
        if not pictures:
            pictures = coming
            continue
        first = len(pictures) - length
        for place in range(length):
            share = (place + 1) / (length + 1)
            pictures[first + place] = cv2.addWeighted(coming[place], share, pictures[first + place], 1 - share, 0)
        found.append(Transition("dissolve", first, first + length))
        pictures += coming[length:]
    return pictures, found


def fades(seed: int, sources: tuple[str, ...], shots: int = 8) -> tuple[list[Picture], list[Transition]]:
    """Each shot of 2 to 4 s goes to black within 0.2 to 1 s, is black for up to 0.6 s, and the next comes likewise."""
    chance = random.Random(seed)
    pictures: list[Picture] = []
    found: list[Transition] = []
    for number in range(shots):
        name = sources[(seed + number) % len(sources)]
        coming = shot(name, chance.randint(2 * RATE, 4 * RATE), seed * 100 + number)
        if pictures:
            out, black, back = chance.randint(5, 25), chance.randint(1, 15), chance.randint(5, 25)
            first = len(pictures) - out
            for place in range(out):
                pictures[first + place] = _dark(pictures[first + place], 1 - (place + 1) / (out + 1))
            pictures += [numpy.zeros_like(coming[0])] * black
            for place in range(back):
                coming[place] = _dark(coming[place], (place + 1) / (back + 1))
            found.append(Transition("fade", first, len(pictures) + back))
        pictures += coming
    return pictures, found


# What is no transition


def whip_pans(name: str, seed: int, frames: int) -> list[Picture]:
    """The camera is thrown from one side of the picture to the other within a fifth of a second, again and again."""
    chance = random.Random(seed)
    whole = photograph(name)
    left, right = 40, whole.shape[1] - WIDTH - 40
    top = chance.randint(20, whole.shape[0] - HEIGHT - 20)
    place, goal = float(left), float(left)
    pictures = []
    for number in range(frames):
        if number % RATE == RATE // 2:
            goal = float(right if goal == left else left)
        step = max(-110.0, min(110.0, goal - place))
        smear = max(1, int(abs(step) / 2))
        strip = whole[top : top + HEIGHT, int(place) : int(place) + WIDTH].astype(numpy.float32)
        pictures.append(cv2.blur(strip, (smear, 1)).astype(numpy.uint8))
        place += step
    return pictures


def exposure(name: str, seed: int, frames: int) -> list[Picture]:
    """The camera finds another exposure each second, at once or within ten frames."""
    chance = random.Random(seed)
    pictures, now, goal, steps = [], 1.0, 1.0, 1
    for number, picture in enumerate(shot(name, frames, seed)):
        if number % RATE == 0:
            goal, steps = chance.choice((0.5, 0.7, 1.0, 1.4, 1.8)), chance.choice((1, 10))
            rest = steps
        if rest:
            now += (goal - now) / rest
            rest -= 1
        pictures.append(numpy.clip(picture * now, 0, 255).astype(numpy.uint8))
    return pictures


def lamp(name: str, seed: int, frames: int) -> list[Picture]:
    """A lamp at one side is turned on and off every second."""
    light = numpy.linspace(0.25, 1.0, WIDTH, dtype=numpy.float32)[None, :, None]
    pictures = shot(name, frames, seed)
    for number, picture in enumerate(pictures):
        if number // RATE % 2:
            pictures[number] = (picture * light * 0.7).astype(numpy.uint8)
    return pictures


def flashes(name: str, seed: int, frames: int) -> list[Picture]:
    """A flash light of one to three frames each second."""
    chance = random.Random(seed)
    pictures = shot(name, frames, seed)
    for at in range(RATE // 2, frames - 4, RATE):
        _flash(pictures, at, chance.randint(1, 3))
    return pictures


def passers_by(name: str, seed: int, frames: int) -> list[Picture]:
    """Each two seconds somebody goes by close to the camera, as wide as 80 % of the picture, within 0.6 s."""
    other = cv2.GaussianBlur(photograph(COLOURS[seed % len(COLOURS)])[:HEIGHT, :WIDTH], (31, 31), 0)
    pictures = shot(name, frames, seed)
    wide, steps = int(0.8 * WIDTH), int(0.6 * RATE)
    for begin in range(RATE, frames - steps, 2 * RATE):
        for step in range(steps):
            left = int(-wide + (WIDTH + wide) * (step + 1) / (steps + 1))
            shown = slice(max(0, left), min(WIDTH, left + wide))
            pictures[begin + step] = pictures[begin + step].copy()
            pictures[begin + step][:, shown] = other[:, : shown.stop - shown.start]
    return pictures


def stuttering(name: str, seed: int, frames: int) -> list[Picture]:
    """Every picture is shown three times while the camera pans: a slow webcam in a faster file."""
    seen = shot(name, frames // 3 + 1, seed, Hand(pan=12.0))
    return [picture for picture in seen for _ in range(3)][:frames]


def handheld(name: str, seed: int, frames: int) -> list[Picture]:
    """Pan of up to 12 pixels a frame, a hand that trembles by 5, and zoom."""
    return shot(name, frames, seed, Hand(pan=12.0, shake=5.0, zoom=0.015))


UNREST: dict[str, Callable[[str, int, int], list[Picture]]] = {
    "a shaking, panning, zooming camera": handheld,
    "whip pans": whip_pans,
    "exposure steps": exposure,
    "a lamp turned on and off": lamp,
    "flashes": flashes,
    "people passing close by": passers_by,
    "pictures shown three times": stuttering,
}


def _flash(pictures: list[Picture], at: int, length: int) -> None:
    """Brighter by 120 to 200 grey levels, less from frame to frame; most of the picture is white."""
    for number in range(length):
        more = 200 - 40 * number
        pictures[at + number] = numpy.minimum(255, pictures[at + number].astype(numpy.uint16) + more).astype(
            numpy.uint8
        )


def _dark(picture: Picture, share: float) -> Picture:
    return cv2.addWeighted(picture, share, picture, 0, 0)
