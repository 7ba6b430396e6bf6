"""
A thumbnail of each scene: from its middle, as a JPEG.

Where a scene's middle lies is known only when all scenes are, so a small picture is kept of two frames in each second,
as they pass by. The one nearest to the middle shows the scene, at most a quarter of a second away.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from videoannotator.annotations import Scene

STEP_SECONDS = 0.5
_QUALITY = 85


class Thumbnail(msgspec.Struct, frozen=True):
    timestamp: float
    jpeg: bytes


class Every:
    """Which frames: the first at or after each multiple of STEP_SECONDS. Takes all timestamps in order."""

    def __init__(self) -> None:
        self._last: int | None = None

    def takes(self, timestamp: float) -> bool:
        before, self._last = self._last, int(timestamp / STEP_SECONDS + 1e-6)
        return self._last != before


def thumbnail(timestamp: float, image: Any) -> Thumbnail:
    """Of a BGR picture. The same picture gives the same bytes with the same OpenCV."""
    import cv2

    return Thumbnail(timestamp, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


def picture(taken: Thumbnail) -> Any:
    """BGR, height x width x 3."""
    import cv2
    import numpy

    return cv2.imdecode(numpy.frombuffer(taken.jpeg, numpy.uint8), cv2.IMREAD_COLOR)


def smaller(taken: Thumbnail, side: int) -> Thumbnail:
    """With a longer side of `side` pixels at most."""
    import cv2

    image = picture(taken)
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return taken
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return thumbnail(taken.timestamp, cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def of_scenes(scenes: Sequence[Scene], thumbnails: Iterable[Thumbnail]) -> Iterator[Thumbnail | None]:
    """For each scene the thumbnail nearest to its middle, the earlier one of equals; None where none lies in it."""
    coming = iter(thumbnails)
    now = next(coming, None)
    for scene in scenes:
        middle, best = (scene.start_time + scene.end_time) / 2, None
        while now is not None and now.timestamp < scene.end_time:
            if now.timestamp >= scene.start_time and (best is None or _nearer(now, best, middle)):
                best = now
            now = next(coming, None)
        yield best


def _nearer(one: Thumbnail, other: Thumbnail, middle: float) -> bool:
    return abs(one.timestamp - middle) < abs(other.timestamp - middle)
