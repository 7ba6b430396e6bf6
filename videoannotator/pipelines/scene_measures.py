"""
What is measured of each frame of a video, once, so that its scenes can be told afterwards without the frames.

What PySceneDetect's detector computes of a frame, how bright it is, and a tiny grey picture: some 1,300 bytes a frame,
which can be kept from one attempt at a stage to the next.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

WIDTH, HEIGHT = 48, 27
"""Of the tiny picture, in pixels, whatever the shape of the frame."""


class Look(msgspec.Struct, frozen=True, dict=True):
    """One frame as it was measured."""

    number: int
    timestamp: float
    statistic: float
    """What the detector compares with its threshold."""

    is_told: bool
    """A detector that looks at two frames only said that a scene begins here."""

    colour: tuple[float, float, float]
    """Mean over the frame of blue, green and red, 0 to 255."""

    picture: Any
    """HEIGHT x WIDTH, uint8, grey."""

    @property
    def brightness(self) -> float:
        """Mean over the frame, 0 to 255."""
        return sum(self.colour) / 3

    @cached_property
    def contrast(self) -> float:
        """Standard deviation of the tiny picture, in grey levels."""
        import cv2

        return float(cv2.meanStdDev(self.picture)[1][0, 0])

    @cached_property
    def relief(self) -> Any:
        """
        The tiny picture without its light: each pixel's distance from the mean around it, in standard deviations of
        what is around it. A lamp at one side, a shadow and another exposure do not show in it.
        """
        import cv2
        import numpy

        grey = self.picture.astype(numpy.float32)
        detail = grey - cv2.GaussianBlur(grey, (0, 0), _AROUND)
        return detail / numpy.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _AROUND) + _GRAIN**2)


_AROUND = 3.0
"""Pixels."""

_GRAIN = 3.0
"""Grey levels that a pixel differs without saying anything."""


def tiny(image: Any) -> tuple[tuple[float, float, float], Any]:
    """The mean colour of a BGR picture, and the tiny grey picture of it, averaged over areas against noise."""
    import cv2

    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    blue, green, red, _ = cv2.mean(small)
    return (blue, green, red), cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)


class Measures(msgspec.Struct, frozen=True):
    """Some frames in a row, as they are kept. All lists have one entry for each frame."""

    numbers: list[int] = []
    timestamps: list[float] = []
    statistics: list[float] = []
    told: list[bool] = []
    colours: list[tuple[float, float, float]] = []
    pictures: list[bytes] = []

    def add(self, look: Look) -> None:
        self.numbers.append(look.number)
        self.timestamps.append(look.timestamp)
        self.statistics.append(look.statistic)
        self.told.append(look.is_told)
        self.colours.append(look.colour)
        self.pictures.append(look.picture.tobytes())

    def looks(self) -> Iterator[Look]:
        import numpy

        columns = self.numbers, self.timestamps, self.statistics, self.told, self.colours, self.pictures
        for number, timestamp, statistic, is_told, colour, picture in zip(*columns, strict=True):
            pixels = numpy.frombuffer(picture, numpy.uint8).reshape(HEIGHT, WIDTH)
            yield Look(number, timestamp, statistic, is_told, colour, pixels)
