"""
What pipelines produce, before it becomes a file.

All times are seconds on the file's timeline as a browser plays it, taken from presentation timestamps; all pixel
coordinates count from the top left of the upright frame. `frame_number` counts frames in decode order from 0.
"""

from typing import Literal

import msgspec


class BoundingBox(msgspec.Struct, frozen=True):
    """Pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    def scaled(self, scale: float, *, width: float, height: float) -> "BoundingBox":
        """The same in a picture that is `scale` times as large, cut at the edges of that: `width` x `height`."""
        left, top = max(0.0, self.x * scale), max(0.0, self.y * scale)
        right, bottom = min(width, (self.x + self.width) * scale), min(height, (self.y + self.height) * scale)
        return BoundingBox(left, top, max(0.0, right - left), max(0.0, bottom - top))


class Sample(msgspec.Struct, frozen=True):
    """One frame that was looked at, also when nothing was found in it."""

    frame_number: int
    timestamp: float
    pts: int


class Transition(msgspec.Struct, frozen=True):
    """How one scene becomes the next. Times in seconds; those of a cut are that of its frame."""

    kind: Literal["cut", "fade", "dissolve"]
    start_time: float
    """Of the first frame that is no longer only the old scene."""

    end_time: float
    """Of the first frame that is only the new scene."""


class Scene(msgspec.Struct, frozen=True):
    """A stretch without a cut. `end_time` and `frame_end` are those of the next scene's start."""

    start_time: float
    end_time: float
    frame_start: int
    frame_end: int
    score: float | None = None
    """How sure what begins it is, 0 to 1; None for the first, which nothing begins."""

    transition: Transition | None = None
    """What begins it; None for the first. The scene begins in the middle of it."""

    labels: tuple[tuple[str, float], ...] = ()
    """Words and how well each fits, compared with the others, the best first; empty where none were asked for."""

    thumbnail: str | None = None
    """The file with a picture of it."""

    @property
    def duration(self) -> float:
        return self.end_time - self.start_time


class HeadPose(msgspec.Struct, frozen=True):
    """
    Degrees, 0 towards the camera: pitch is positive when the face looks down, yaw when it turns to the person's own
    left, roll when the head leans to the person's own left.
    """

    pitch: float
    yaw: float
    roll: float


class Openness(msgspec.Struct, frozen=True):
    """Height over width, so that distance does not matter; right and left are the person's."""

    right_eye: float
    left_eye: float
    mouth: float


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a face looks like to a model; None or empty where it was not asked, or withheld as too uncertain."""

    head_pose: HeadPose | None = None
    openness: Openness | None = None
    age: int | None = None
    """Years."""

    gender: str | None = None
    """`female` or `male`, the two that the model was trained to tell apart."""

    emotions: tuple[tuple[str, float], ...] = ()
    """Category and share, which sum to 1."""


class Recognised(msgspec.Struct, frozen=True):
    """Who somebody was taken for."""

    name: str
    """`unknown` where nobody is alike enough, or two are too much so."""

    similarity: float
    """To the most alike, -1 to 1."""

    method: str


class Face(msgspec.Struct, frozen=True):
    sample: Sample
    bounding_box: BoundingBox
    score: float
    track_id: int | None = None
    landmarks: tuple[tuple[float, float], ...] = ()
    """Pixels, (x, y) in the order the engine's model defines."""

    traits: Traits = Traits()
    identity: int | None = None
    """Of the person, within the video: tracks that look the same share it."""

    recognised: Recognised | None = None
    """None where there was nobody to compare with."""

    embedding: tuple[float, ...] = ()
    """
    A vector of length 1; the cosine between two tells how alike the faces are. In no result; what an interrupted stage
    has kept of it goes with the stage.
    """


class Keypoint(msgspec.Struct, frozen=True):
    """A joint or a part of the face, in pixels."""

    x: float
    y: float
    score: float
    """How sure the engine is that it can be seen there, 0 to 1."""


class Person(msgspec.Struct, frozen=True):
    sample: Sample
    bounding_box: BoundingBox
    score: float
    keypoints: tuple[Keypoint, ...]
    """COCO's 17, in its order."""

    track_id: int | None = None


class Build(msgspec.Struct, frozen=True):
    """What the proportions of a body say of a person: `adult`, `child`, or `unknown`."""

    label: str
    confidence: float
    """0 to 1: how far beyond the border, not a probability."""


class Turn(msgspec.Struct, frozen=True):
    """A stretch of voice; `label` names the speaker, or `SPEECH` where nobody was told apart."""

    onset: float
    duration: float
    label: str = "SPEECH"
    score: float | None = None

    @property
    def end(self) -> float:
        return self.onset + self.duration


class Word(msgspec.Struct, frozen=True):
    """A word as it was heard, without blanks around it."""

    text: str
    onset: float
    duration: float
    probability: float | None = None
    is_unsure: bool = False
    """Below the probability that was asked for: to be looked at by a person before it counts."""

    speaker: str | None = None

    @property
    def end(self) -> float:
        return self.onset + self.duration


class Utterance(msgspec.Struct, frozen=True):
    """A stretch of speech and what was said in it."""

    onset: float
    duration: float
    text: str
    words: tuple[Word, ...] = ()
    """Empty where only the whole stretch has a time."""

    log_probability: float | None = None
    """Mean over its tokens, natural logarithm."""

    speaker: str | None = None

    @property
    def end(self) -> float:
        return self.onset + self.duration


class LeftOut(msgspec.Struct, frozen=True):
    """Words that an engine gave and that are not believed."""

    onset: float
    duration: float
    text: str
    reason: str
