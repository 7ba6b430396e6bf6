"""Faces: whether one that is there is found, when it came, and what is taken for one."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from answers import HALF_A_FRAME, annotated
from rig import say
from truth import (
    RATE,
    STEADY,
    TEXTURES,
    TIMINGS,
    TOYS,
    WIDTH,
    Picture,
    Timing,
    Visit,
    rolling,
    shot,
    visit,
    visits,
    write,
)

FACE_WIDTHS = (40, 60, 90, 140)
"""In pictures of 640 x 360."""

LEAST_WIDTH = 60
"""From here on faces must be found: the declaration promises a seventh of the picture's height."""


PRESENCE_WIDTH = 80
STAYS = ((33, 72), (97, 141), (212, 263), (301, 316))
"""Frames, none at a multiple of a fifth of a second; away for 1.0, 2.8 and 1.5 s; the last stay is 0.6 s."""


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


def presence(folder: Path) -> None:
    """
    When a face comes and goes and comes again, at five looks a second and at every frame: the largest error of an onset
    and of an end, which is the time of the look after the last one with the face. Bar: the time from look to look.
    """
    for timing in TIMINGS:
        pictures, stays = visits(PRESENCE_WIDTH, 5, STAYS, frames=14 * RATE)
        clip = folder / "presence.mp4"
        times = write(clip, pictures, timing)
        for rate in (5, RATE):
            content = annotated(clip, "face_analysis", folder, f"face_analysis.rate={rate}")
            looked = [image["frame_number"] for image in content["images"]]
            at = [times[frame] for frame in looked]
            interval = max(later - earlier for earlier, later in pairwise(at))
            what = f"a face that comes and goes, {rate} looks a second, {timing.name}"
            onsets, ends = zip(*(_missed(content, stay, times, looked) for stay in stays), strict=True)
            tracks = len({row["track_id"] for row in content["annotations"]})
            more = {"stays": len(stays), "ids": tracks, "median": round(sorted(onsets)[len(onsets) // 2], 3)}
            say(f"{what}: largest error of an onset", max(onsets), "s", asked=round(interval, 3), **more)
            say(f"{what}: largest error of an end", max(ends), "s", asked=round(interval, 3))


def hurry(folder: Path) -> None:
    """A face that crosses the picture, its own width in a third and in a fifth of a second: recall."""
    for widths_a_second in (3, 5):
        frames = round((WIDTH / PRESENCE_WIDTH - 2) / widths_a_second * RATE)
        stays = [(number * 3 * RATE + 7, number * 3 * RATE + 7 + frames) for number in range(4)]
        pictures, truth = visits(PRESENCE_WIDTH, 6, stays, 12 * RATE, crossing_seconds=frames / RATE)
        clip = folder / "hurry.mp4"
        times = write(clip, pictures, STEADY)
        for rate in (5, 15, RATE):
            content = annotated(clip, "face_analysis", folder, f"face_analysis.rate={rate}")
            recalls = [face_figures(content, stay, times)[0] for stay in truth]
            ids = len({row["track_id"] for row in content["annotations"]})
            what = f"a face that moves {widths_a_second} of its widths a second, {rate} looks a second"
            say(f"{what}: recall", sum(recalls) / len(recalls), "", stays=len(truth), ids=ids)


def _missed(content: dict[str, Any], stay: Visit, times: Sequence[float], looked: Sequence[int]) -> tuple[float, float]:
    """By how much the onset and the end of a stay are missed; all of it where the face was never found."""
    hits = [row["frame_number"] for row in content["annotations"] if is_hit(row["bbox"], stay, row["frame_number"])]
    if not hits:
        return (times[stay.end] - times[stay.first],) * 2
    after = next(frame for frame in looked if frame > max(hits))
    return times[min(hits)] - times[stay.first], abs(times[after] - times[stay.end])


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
