"""
Hard cuts: what PySceneDetect's detectors say, and what the structure of the picture has to say to it.

The detectors compare colour and brightness from frame to frame. Where a camera moves over grass the frames differ as
much as two shots do, and a flash or another exposure changes more than many a cut. So with `structure` each place is
looked at again, in tiny grey pictures whose likeness survives movement and light (`scene_structure.py`):

- The picture before and the picture after are alike: no cut.
- The picture is back within half a second: a flash, or somebody went past the camera. No cut.
- They are unlike, while the frames before and the frames after are alike among themselves: a cut, also where the
  detector saw less than its threshold, or no more than around it.

That a flash is told by the return of the picture is the rule of Truong, Dorai and Venkatesh 2000 (New enhancements to
cut, fade, and dissolve detection processes in video segmentation, ACM Multimedia), on correlation in place of
histograms.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Literal, Protocol

import msgspec

from videoannotator.pipelines.scene_measures import Look
from videoannotator.pipelines.scene_structure import likeness

ALIKE = 0.8
"""From here on two frames that follow each other show the same."""

UNLIKE = 0.5
"""Below it they do not, and the detector is not needed to say so."""

DROP = 0.3
"""By how much less alike than their neighbours they must be then: pictures that flit past are all unlike each other."""

NEIGHBOURS = 2
"""Pairs of frames on each side that are asked."""

PEAK = 1.1
"""By how many times more than between those the picture changes."""

BACK = 0.7
"""From here on a picture is the one of before that is back."""

BACK_SECONDS = 0.5
LEAST_SHARE = 0.4
"""Of the detector's threshold: where its statistic is below that, nothing is looked at again."""

MOST_LOOKS = 16
"""Frames on each side of which a return is looked for; spread where there are more of them."""


class Detector(Protocol):
    """One of PySceneDetect's, asked about what was measured."""

    def numbers(self, look: Look) -> Sequence[int]:
        """Frames at which a scene begins, as is known now that this one is: it, or earlier ones."""


class Boundary(msgspec.Struct, frozen=True):
    """Where a scene begins, by way of what."""

    frame_number: int
    score: float
    """How sure it is, 0 to 1: 0.5 where it is just enough for one."""

    kind: Literal["cut", "fade", "dissolve"] = "cut"
    first: int = -1
    """The first frame that is no longer only the old scene, where it is no cut."""

    end: int = -1
    """The first frame that is only the new scene."""


class Cuts:
    """
    Takes looks in order and says the cuts among them, some frames later.

    `threshold` is what the detector compares its statistic with, `lag` how many frames it may look ahead.
    """

    def __init__(self, detector: Detector, *, threshold: float, lag: int, structure: bool) -> None:
        self._detector, self._threshold, self._lag = detector, threshold, lag
        self._structure = structure
        self._told: set[int] = set()
        self._past: deque[Look] = deque()
        """Those that were judged in the last half second, and NEIGHBOURS + 1 of them at least."""

        self._ahead: deque[Look] = deque()

    def take(self, look: Look) -> Iterator[Boundary]:
        self._told.update(self._detector.numbers(look))
        self._ahead.append(look)
        while len(self._ahead) > self._lag and look.timestamp - self._ahead[0].timestamp > BACK_SECONDS:
            yield from self._judged()

    def end(self) -> Iterator[Boundary]:
        while self._ahead:
            yield from self._judged()

    def _judged(self) -> Iterator[Boundary]:
        now = self._ahead[0]
        is_told = now.number in self._told
        self._told.discard(now.number)
        if not self._structure:
            if is_told:
                yield Boundary(now.number, self._score(now, None))
        elif self._past and (is_told or now.statistic >= LEAST_SHARE * self._threshold):
            alike = likeness(self._past[-1], now)
            if alike is None:
                found = is_told
            else:
                found = alike < ALIKE and (is_told or self._stands_out(alike)) and not self._comes_back(alike)
            if found:
                yield Boundary(now.number, self._score(now, alike))
        self._past.append(self._ahead.popleft())
        while len(self._past) > NEIGHBOURS + 1 and now.timestamp - self._past[0].timestamp > BACK_SECONDS:
            self._past.popleft()

    def _stands_out(self, alike: float) -> bool:
        if alike >= UNLIKE:
            return False
        behind, coming = list(islice(reversed(self._past), NEIGHBOURS + 1)), list(islice(self._ahead, NEIGHBOURS + 1))
        change = max((look.statistic for look in [*behind[:NEIGHBOURS], *coming[1:]]), default=0.0)
        if coming[0].statistic < PEAK * change:
            return False
        pairs = [*((earlier, later) for later, earlier in pairwise(behind)), *pairwise(coming)]
        around = [found for pair in pairs if (found := likeness(*pair)) is not None]
        return all(found - alike >= DROP for found in around)

    def _comes_back(self, alike: float) -> bool:
        """Of two pictures that are not unlike, as where somebody has moved in a pause, more is asked."""
        enough = max(BACK, (1 + alike) / 2 if alike >= UNLIKE else BACK)
        before, now = self._past[-1], self._ahead[0]
        later = [look for look in islice(self._ahead, 1, None) if look.timestamp - now.timestamp <= BACK_SECONDS]
        earlier = [
            look for look in islice(reversed(self._past), 1, None) if before.timestamp - look.timestamp <= BACK_SECONDS
        ]
        return any((likeness(before, look) or 0.0) >= enough for look in _spread(later)) or any(
            (likeness(look, now) or 0.0) >= enough for look in _spread(earlier)
        )

    def _score(self, look: Look, alike: float | None) -> float:
        """How far the statistic, or how unlike the pictures, is beyond the threshold; 0.5 at it."""
        changed = look.statistic / (look.statistic + self._threshold) if look.statistic > 0 else 0.0
        unlike = 0.0 if alike is None else (1 - alike) / (1 - alike + 1 - UNLIKE)
        return max(changed, unlike)


def _spread(looks: list[Look]) -> list[Look]:
    """The nearest, and of more than MOST_LOOKS evenly many."""
    step = -(-len(looks) // MOST_LOOKS)
    return looks[:: step or 1]
