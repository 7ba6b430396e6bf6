"""
Gradual transitions: fades through black, and dissolves. PySceneDetect has a detector for the former and none for the
latter.

A dissolve is the weighted sum of two pictures (Hampapur, Jain and Weymouth 1995, Production model based digital video
segmentation, Multimedia Tools and Applications 1), and of two pictures that have nothing in common. From that follows
what is looked for around the middle of one, in the tiny pictures of `scene_structure.py`:

- Contrast dips: variances add with the squares of the weights, a parabola (Alattar 1993, Detecting and compressing
  dissolve regions in video sequences; Truong, Dorai and Venkatesh 2000, New enhancements to cut, fade, and dissolve
  detection processes in video segmentation).
- The first picture and the last are unlike.
- After a quarter, a half and three quarters of the way the picture is a sum of the two, found by least squares, which
  accounts for nearly all of it, whose weights sum to 1 and go over evenly. A pan, which also passes from one picture
  into another, has a middle that is like neither, or all of one of them; another exposure has other sums.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from videoannotator.pipelines.scene_cuts import Boundary, Detector
from videoannotator.pipelines.scene_measures import Look
from videoannotator.pipelines.scene_structure import FLAT, likeness_as_it_is, mixture

STEP_SECONDS = 0.08
"""Looks that are compared for dissolves are at least that far apart."""

SPANS = (4, 6, 8, 12, 18, 26, 38)
"""Of dissolves, in such steps: from a third of a second to three seconds."""

SAG = (0.97, 0.9, 0.97)
"""Contrast over that on a straight line between the ends', at most; 0.79, 0.71, 0.79 where both have the same."""

LEAST_CONTRAST = 0.4
"""At least: two pictures are never so opposed that less is left of them."""

UNLIKE = 0.45
"""The ends are less alike."""

EXPLAINED = 0.8
"""Of the variance of what lies between, by the two ends."""

SUM = 0.2
"""By how much the two weights may miss 1 together."""

SHARES = (0.25, 0.5, 0.75)
"""Of the way, where is looked."""

QUARTERS = ((0.10, 0.42), (0.35, 0.65), (0.58, 0.90))
"""Where the weight of the new picture lies there, as a share of both."""

LONGEST_FADE_SECONDS = 3.0
LEAST_RAMP = 3
"""Frames within which a fade gets darker or brighter, at least; in fewer it is cut to black."""

LEAST_SLOPE = 0.5
"""Grey levels a frame by which it does."""


class Dissolves:
    """Takes looks in order; the dissolves are there at the end."""

    def __init__(self) -> None:
        self._recent: deque[Look] = deque(maxlen=SPANS[-1] + 1)
        self._found: list[_Dissolve] = []

    def take(self, look: Look) -> None:
        if self._recent and look.timestamp - self._recent[-1].timestamp < STEP_SECONDS - 1e-6:
            return
        self._recent.append(look)
        best = max(self._ending(), key=lambda found: found.quality, default=None)
        if best is None:
            return
        if self._found and best.touches(self._found[-1]):
            self._found[-1] = max(self._found[-1], best, key=lambda found: found.quality)
        else:
            self._found.append(best)

    def _ending(self) -> "Iterator[_Dissolve]":
        """Those that the last look may be the end of."""
        looks = self._recent
        for span in SPANS:
            if span >= len(looks):
                return
            first, last = looks[-span - 1], looks[-1]
            if min(first.contrast, last.contrast) < FLAT or not _sags(first, looks[span // 2 - span - 1], last, 1):
                continue
            between = [looks[place - span - 1] for place in (span // 4, span // 2, span - span // 4)]
            sags = all(_sags(first, look, last, quarter) for quarter, look in enumerate(between))
            if sags and (found := _dissolve(first, between, last)) is not None:
                yield found

    def end(self) -> list[Boundary]:
        return [Boundary(d.middle, d.quality, "dissolve", d.first, d.end) for d in self._found]


class _Dissolve(NamedTuple):
    first: int
    end: int
    middle: int
    quality: float
    """0.5 to 1."""

    def touches(self, other: "_Dissolve") -> bool:
        return self.first <= other.end and other.first <= self.end


def _sags(first: Look, between: Look, last: Look, quarter: int) -> bool:
    """The contrast lies below the straight line from one end to the other, at that one of SHARES of the way."""
    share = SHARES[quarter]
    straight = (1 - share) * first.contrast + share * last.contrast
    return LEAST_CONTRAST * straight <= between.contrast <= SAG[quarter] * straight


def _dissolve(first: Look, between: Sequence[Look], last: Look) -> _Dissolve | None:
    if (across := likeness_as_it_is(first, last)) > UNLIKE:
        return None
    weights, explained = [], 1.0
    for look, (least, most) in zip(between, QUARTERS, strict=True):
        found = mixture(first, look, last)
        if found is None or found.explained < EXPLAINED or abs(found.old + found.new - 1) > SUM:
            return None
        weights.append(found.new / (found.old + found.new))
        if not least <= weights[-1] <= most:
            return None
        explained = min(explained, found.explained)
    uneven = max(abs(weight - share) for weight, share in zip(weights, SHARES, strict=True))
    # The whole dissolve, and nothing around it, has unlike ends and weights that go over evenly.
    quality = explained - uneven - max(0.0, across) / 2
    return _Dissolve(*_extent(between, weights), 0.5 + 0.5 * min(1.0, max(0.0, quality)))


def _extent(between: Sequence[Look], weights: Sequence[float]) -> tuple[int, int, int]:
    """By the straight line through the weights: the first frame above 0, the first at 1, and the first above half."""
    slope = (weights[2] - weights[0]) / (between[2].number - between[0].number)
    at = [between[1].number + (weight - weights[1]) / slope for weight in (0.0, 1.0, 0.5)]
    first, end, middle = (math.ceil(number) for number in at)
    return max(0, first), max(first + 1, end), min(max(first, between[0].number, middle), between[2].number)


class Fades:
    """
    Takes looks in order and says where PySceneDetect's ThresholdDetector sees a fade through black.

    With `ramps` only where it gets dark, or bright again, little by little, and not where the video begins in the dark.
    """

    def __init__(self, detector: Detector, *, threshold: float, ramps: bool) -> None:
        self._detector, self._threshold, self._ramps = detector, threshold, ramps
        self._past: deque[Look] = deque()
        self._falling: Sequence[Look] = ()
        """From the last frame that was not yet darker to the first dark one, of the dark that was last."""

        self._darkest = 255.0
        self._cut: int | None = None
        self._rising: list[Look] = []
        """From the first frame that is no longer dark to the last that is brighter than the one before."""

    def take(self, look: Look) -> Iterator[Boundary]:
        if self._cut is not None:
            yield from self._brighter(look)
        if look.brightness < self._threshold:
            self._darker(look)
        for number in self._detector.numbers(look):
            self._cut, self._rising = number, [look]
        self._past.append(look)
        while look.timestamp - self._past[0].timestamp > LONGEST_FADE_SECONDS:
            self._past.popleft()

    def end(self) -> Iterator[Boundary]:
        if self._cut is not None:
            yield from self._told(self._cut)

    def _darker(self, look: Look) -> None:
        if not self._past or self._past[-1].brightness >= self._threshold:
            self._falling = tuple(reversed(_ramp([look, *reversed(self._past)])))
            self._darkest = look.brightness
        self._darkest = min(self._darkest, look.brightness)

    def _brighter(self, look: Look) -> Iterator[Boundary]:
        assert self._cut is not None
        last, first = self._rising[-1], self._rising[0]
        is_short = look.timestamp - first.timestamp <= LONGEST_FADE_SECONDS
        if is_short and look.brightness - last.brightness >= LEAST_SLOPE:
            self._rising.append(look)
            return
        yield from self._told(self._cut)
        self._cut = None

    def _told(self, cut: int) -> Iterator[Boundary]:
        """Score: half at the threshold, 1 for pure black."""
        is_ramp = max(len(self._falling), len(self._rising)) > LEAST_RAMP and len(self._falling) > 1
        if is_ramp or not self._ramps:
            first = self._falling[1].number if len(self._falling) > 1 else cut
            score = 1 - self._darkest / (2 * self._threshold)
            yield Boundary(cut, score, "fade", first, self._rising[-1].number)


def _ramp(backwards: Sequence[Look]) -> list[Look]:
    """As far back as each is brighter than the one behind it."""
    rising = [backwards[0]]
    for later, earlier in pairwise(backwards):
        if earlier.brightness - later.brightness < LEAST_SLOPE:
            break
        rising.append(earlier)
    return rising


def together(found: Sequence[Boundary]) -> list[Boundary]:
    """
    Each boundary once, in order.

    What is seen inside a fade as a cut, or as a dissolve, is the fade. A dissolve with a cut inside it is none: nothing
    changes at once in a dissolve.
    """
    fades = [b for b in found if b.kind == "fade"]
    cuts = [b for b in found if b.kind == "cut" and not any(_inside(b.frame_number, fade) for fade in fades)]
    dissolves = [b for b in found if b.kind == "dissolve" and not any(_overlap(b, fade) for fade in fades)]
    dissolves = [d for d in dissolves if not any(_inside(cut.frame_number, d) for cut in cuts)]
    return sorted([*cuts, *fades, *dissolves], key=lambda boundary: boundary.frame_number)


def _inside(number: int, of: Boundary) -> bool:
    return of.first - 1 <= number <= of.end + 1


def _overlap(one: Boundary, other: Boundary) -> bool:
    return one.first <= other.end and other.first <= one.end
