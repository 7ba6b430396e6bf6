"""
Whether two tiny pictures show the same, however bright each of them is and wherever the camera points meanwhile.

Normalized cross-correlation stays 1 when light is multiplied or added (Lewis 1995, Fast Normalized Cross-Correlation);
its best value over all shifts of up to an eighth of the picture stands a camera that moves.
"""

from typing import Any, NamedTuple

from videoannotator.pipelines.scene_measures import HEIGHT, WIDTH, Look

SHIFT_X, SHIFT_Y = WIDTH // 8, HEIGHT // 7
FLAT = 3.0
"""Contrast in grey levels below which a picture has no structure: darkness, a white wall, a lens that is covered."""

OTHER_COLOURS = 0.3
"""Sum of the differences of the shares. A flash takes a warm room by 0.2 towards white; from red to green it is 2."""

DARK = 10.0
"""Grey levels below which colours mean nothing."""

ALIKE_AS_THEY_ARE = 0.9
"""From here on light need not be taken away to see that two pictures are alike."""

_MIDDLE = slice(SHIFT_Y, HEIGHT - SHIFT_Y), slice(SHIFT_X, WIDTH - SHIFT_X)


def likeness(one: Look, other: Look) -> float | None:
    """
    -1 to 1; 0 where one of them is flat or of other colours, None where both are flat and nothing can be said.

    Frames of one shot that follow each other have more than 0.7, other pictures less than 0.3; light does not count.
    """
    if one.contrast < FLAT or other.contrast < FLAT:
        return 0.0 if one.contrast >= FLAT or other.contrast >= FLAT else None
    if _other_colours(one, other):
        return 0.0
    as_it_is = _best(one.picture, other.picture)
    return as_it_is if as_it_is >= ALIKE_AS_THEY_ARE else _best(one.relief, other.relief)


def _other_colours(one: Look, other: Look) -> bool:
    """Other than light makes them: shares of blue, green and red that are far apart."""
    if min(one.brightness, other.brightness) < DARK:
        return False
    shares = (
        (a / (3 * one.brightness), b / (3 * other.brightness)) for a, b in zip(one.colour, other.colour, strict=True)
    )
    return sum(abs(a - b) for a, b in shares) > OTHER_COLOURS


class Mixture(NamedTuple):
    """A picture as a weighted sum of two others."""

    old: float
    new: float
    explained: float
    """Share of its variance that the sum accounts for."""


def mixture(first: Look, middle: Look, last: Look) -> Mixture | None:
    """How much of the first and of the last is in the middle one (least squares); None where it cannot be told."""
    import numpy

    seen = middle.picture[_MIDDLE].astype(numpy.float32).ravel()
    seen -= seen.mean()
    old, new = _where_it_is_best(first, middle), _where_it_is_best(last, middle)
    oo, nn, on, os, ns, ss = (
        float(a @ b) for a, b in ((old, old), (new, new), (old, new), (old, seen), (new, seen), (seen, seen))
    )
    determinant = oo * nn - on * on
    if ss <= 0 or determinant <= 1e-6 * oo * nn:
        return None
    old_weight, new_weight = (os * nn - ns * on) / determinant, (ns * oo - os * on) / determinant
    return Mixture(old_weight, new_weight, (old_weight * os + new_weight * ns) / ss)


def likeness_as_it_is(one: Look, other: Look) -> float:
    """Light counts; both have contrast."""
    return _best(one.picture, other.picture)


def _best(one: Any, other: Any) -> float:
    import cv2

    return float(cv2.matchTemplate(other, one[_MIDDLE], cv2.TM_CCOEFF_NORMED).max())


def _where_it_is_best(whole: Look, part_of: Look) -> Any:
    """The part of `whole` that is most like the middle of `part_of`, less its mean, in one row."""
    import cv2
    import numpy

    part = part_of.picture[_MIDDLE]
    left, top = cv2.minMaxLoc(cv2.matchTemplate(whole.picture, part, cv2.TM_CCOEFF_NORMED))[3]
    found = whole.picture[top : top + part.shape[0], left : left + part.shape[1]].astype(numpy.float32).ravel()
    return found - found.mean()
