"""
Cuts, dissolves and fades: which are found, and where; and what is found where there is none.

The seeds from SEEDS on were not looked at while thresholds were chosen.
"""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from answers import HALF_A_FRAME, content, f1
from rig import CONSOLE_COMMAND, say
from shots import SOURCES, UNREST, Transition, dissolves, fades, hard_cuts
from truth import RATE, STEADY, TIMINGS, write

SEEDS = range(10, 13)
ALONE = ("structure=false", "fades=false", "dissolves=false")
"""PySceneDetect's detector by itself."""

UNREST_SECONDS = 12
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
            clips = [folder / f"cuts{number}.mp4" for number in range(len(made))]
            times = [write(clip, pictures, timing) for clip, (pictures, _) in zip(clips, made, strict=True)]
            for way in WAYS if timing is STEADY else ("default",):
                right = found = there = 0
                error = 0.0
                for rows, (_, cuts), of in zip(_rows(clips, folder, WAYS[way]), made, times, strict=True):
                    got = [row["frame_start"] for row in rows[1:]]
                    right += matched(got, cuts)
                    found, there = found + len(got), there + len(cuts)
                    error = max([error, *(abs(row["start_time"] - of[row["frame_start"]]) for row in rows)])
                name = f"hard cuts {what}, {way}, {timing.name}"
                share = f1(right, found, there)
                say(f"{name}: F1 within a frame", share, "", asked=0.98, at_least=True, cuts=there, found=found)
                say(f"{name}: largest error of a time", error, "s", asked=HALF_A_FRAME)


def transitions(folder: Path) -> None:
    """A boundary is right if it lies inside the transition and is told to be one of its kind."""
    for what, sources in SOURCES.items():
        for kind, make in (("dissolve", dissolves), ("fade", fades)):
            made = [make(seed, sources) for seed in SEEDS]
            for timing in TIMINGS:
                clips = [folder / f"{kind}{number}.mp4" for number in range(len(made))]
                for clip, (pictures, _) in zip(clips, made, strict=True):
                    write(clip, pictures, timing)
                right = found = there = 0
                for rows, (_, places) in zip(_rows(clips, folder, ()), made, strict=True):
                    right += sum(any(_is(row, place) for row in rows[1:]) for place in places)
                    found, there = found + len(rows) - 1, there + len(places)
                name = f"{kind}s {what}, {timing.name}: F1"
                say(name, f1(right, found, there), "", right=right, found=found, there=there)


def unrest(folder: Path) -> None:
    """Clips without a cut that look as if."""
    clips: dict[str, list[Path]] = {}
    for number, (kind, make) in enumerate(UNREST.items()):
        for what, sources in SOURCES.items():
            for name in sources[-3:]:
                clip = folder / f"unrest {number} {what} {name}.mp4"
                write(clip, make(name, 100 + number, UNREST_SECONDS * RATE), STEADY)
                clips.setdefault(kind, []).append(clip)
    for way, settings in WAYS.items():
        all_rows = iter(_rows([clip for each in clips.values() for clip in each], folder, settings))
        for kind, each in clips.items():
            found = sum(len(next(all_rows)) - 1 for _ in each)
            minutes = len(each) * UNREST_SECONDS / 60
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


def _rows(clips: Sequence[Path], folder: Path, settings: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The scenes of each clip, from one command."""
    command = [CONSOLE_COMMAND, "annotate", *map(str, clips), "--no-cache", "--pipelines", "scene_detection"]
    told = [f"--set=scene_detection.{setting}" for setting in settings]
    subprocess.run([*command, "--output", str(folder), *told], check=True, capture_output=True)
    return [content(folder / clip.stem, "scene_detection")["scenes"] for clip in clips]
