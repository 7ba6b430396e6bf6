"""Faces: whether one that is there is found, when it came, and what is taken for one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from answers import HALF_A_FRAME, annotated
from rig import say
from truth import RATE, STEADY, TEXTURES, TIMINGS, TOYS, Picture, Timing, Visit, rolling, shot, visit, write

FACE_WIDTHS = (40, 60, 90, 140)
"""In pictures of 640 x 360."""

LEAST_WIDTH = 60
"""From here on faces must be found: the declaration promises a seventh of the picture's height."""


def faces(folder: Path) -> None:
    for width in FACE_WIDTHS:
        _visit(folder, width, STEADY)
    for timing in TIMINGS[1:]:
        _visit(folder, FACE_WIDTHS[-1], timing)


def _visit(folder: Path, width: int, timing: Timing) -> None:
    pictures, truth = visit(width, seed=width)
    clip = folder / "visit.mp4"
    times = write(clip, pictures, timing)
    rows = annotated(clip, "face_analysis", folder, f"face_analysis.rate={RATE}")
    recall, onset = face_figures(rows, truth, times)
    what = f"a face {width} px wide, {timing.name}"
    is_asked = width >= LEAST_WIDTH
    say(f"{what}: recall", recall, "", asked=0.95 if is_asked else None, at_least=True)
    say(f"{what}: error of its onset", onset, "s", asked=0.1 if is_asked else None)
    if rows["annotations"]:
        off = max(abs(row["timestamp"] - times[row["frame_number"]]) for row in rows["annotations"])
        say(f"{what}: largest error of a time", off, "s", asked=HALF_A_FRAME)


def face_figures(content: dict[str, Any], truth: Visit, times: Sequence[float]) -> tuple[float, float]:
    """Recall over all frames with the face, and by how much its first frame is missed (its whole stay where never)."""
    hits = {row["frame_number"] for row in content["annotations"] if is_hit(row["bbox"], truth, row["frame_number"])}
    looked = {image["frame_number"] for image in content["images"]} & truth.boxes.keys()
    onset = times[min(hits)] - times[truth.first] if hits else times[truth.end] - times[truth.first]
    return len(hits & looked) / len(looked), onset


def is_hit(box: Sequence[float], truth: Visit, frame: int) -> bool:
    """Each box holds the other's middle."""
    if frame not in truth.boxes:
        return False
    return _holds(box, truth.boxes[frame]) and _holds(truth.boxes[frame], box)


def alarms(folder: Path) -> None:
    for what, shots in (("photographs", _photographs()), ("round things, like toys", _toys())):
        clip = folder / "nobody.mp4"
        times = write(clip, [picture for pictures in shots for picture in pictures], STEADY)
        rows = annotated(clip, "face_analysis", folder)["annotations"]
        tracks = len({row["track_id"] for row in rows}) / (times[-1] / 60)
        say(f"faces where there are none, {what}: tracks", tracks, "per minute", asked=1.0, faces=len(rows))


def _photographs() -> list[Iterator[Picture]]:
    return [shot(name, 6 * RATE, number) for number, name in enumerate(TEXTURES)]


def _toys() -> list[Iterator[Picture]]:
    return [rolling(toy, 6 * RATE, number) for number, toy in enumerate(TOYS)]


def _holds(outer: Sequence[float], inner: Sequence[float]) -> bool:
    x, y = inner[0] + inner[2] / 2, inner[1] + inner[3] / 2
    return outer[0] <= x <= outer[0] + outer[2] and outer[1] <= y <= outer[1] + outer[3]
