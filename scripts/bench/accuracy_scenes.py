"""
Cuts, dissolves and fades: which are found, and where; and what is found where there is none.

The seeds from SEEDS on were not looked at while thresholds were chosen.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from answers import HALF_A_FRAME, annotated, f1
from rig import say
from shots import SOURCES, UNREST, Transition, dissolves, fades, hard_cuts
from truth import RATE, STEADY, TIMINGS, write

SEEDS = range(10, 13)
ALONE = ("structure=false", "fades=false", "dissolves=false")
"""PySceneDetect's detector by itself."""

WAYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "PySceneDetect's adaptive alone": ("detector=adaptive", *ALONE),
    "PySceneDetect's content alone": ("detector=content", *ALONE),
}


def scenes(folder: Path) -> None:
    """Hard cuts among flashes, by a camera held by hand."""
    for what, sources in SOURCES.items():
        made = [hard_cuts(seed, sources) for seed in SEEDS]
        for timing in TIMINGS:
            for way, settings in WAYS.items() if timing is STEADY else [("default", ())]:
                right = found = there = 0
                error = 0.0
                for number, (pictures, cuts) in enumerate(made):
                    clip = folder / f"cuts{number}.mp4"
                    times = write(clip, pictures, timing)
                    rows = _rows(clip, folder, settings)
                    got = [row["frame_start"] for row in rows[1:]]
                    right += matched(got, cuts)
                    found, there = found + len(got), there + len(cuts)
                    error = max([error, *(abs(row["start_time"] - times[row["frame_start"]]) for row in rows)])
                say(
                    f"hard cuts {what}, {way}, {timing.name}: F1 within a frame", f1(right, found, there), "",
                    asked=0.98, at_least=True, cuts=there, found=found,
                )  # fmt: skip
                say(f"hard cuts {what}, {way}, {timing.name}: largest error of a time", error, "s", asked=HALF_A_FRAME)


def transitions(folder: Path) -> None:
    """A boundary is right if it lies inside the transition and is told to be one of its kind."""
    for what, sources in SOURCES.items():
        for kind, make in (("dissolve", dissolves), ("fade", fades)):
            for timing in TIMINGS:
                right = found = there = 0
                for seed in SEEDS:
                    pictures, places = make(seed, sources)
                    clip = folder / f"{kind}{seed}.mp4"
                    write(clip, pictures, timing)
                    rows = _rows(clip, folder, ())[1:]
                    right += sum(any(_is(row, place) for row in rows) for place in places)
                    found, there = found + len(rows), there + len(places)
                name = f"{kind}s {what}, {timing.name}: F1"
                say(name, f1(right, found, there), "", right=right, found=found, there=there)


def unrest(folder: Path) -> None:
    """Clips without a cut that look as if."""
    for kind, make in UNREST.items():
        clips = []
        for what, sources in SOURCES.items():
            for number, name in enumerate(sources[-3:]):
                clips.append(folder / f"unrest {what} {number}.mp4")
                write(clips[-1], make(name, 100 + number, 20 * RATE), STEADY)
        minutes = len(clips) * 20 / 60
        for way, settings in WAYS.items():
            found = sum(len(_rows(clip, folder, settings)) - 1 for clip in clips)
            say(
                f"{kind}, {way}: false boundaries",
                found / minutes,
                "per minute",
                found=found,
                minutes=round(minutes, 1),
            )


def matched(got: Iterable[int], cuts: Sequence[int]) -> int:
    """How many cuts were found, each by another find within a frame."""
    free = set(cuts)
    for find in got:
        near = [cut for cut in free if abs(cut - find) <= 1]
        if near:
            free.remove(min(near, key=lambda cut: abs(cut - find)))
    return len(cuts) - len(free)


def _is(row: dict[str, Any], place: Transition) -> bool:
    return bool(row["transition"]["kind"] == place.kind and place.first <= row["frame_start"] <= place.end)


def _rows(clip: Path, folder: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = annotated(
        clip, "scene_detection", folder, *(f"scene_detection.{setting}" for setting in settings)
    )["scenes"]
    return rows
