"""Cuts and dissolves: which are found, and where."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from answers import HALF_A_FRAME, annotated, f1
from rig import say
from truth import STEADY, TIMINGS, dissolves, hard_cuts, write


def scenes(folder: Path) -> None:
    for timing in TIMINGS:
        for detector in ("adaptive", "content"):
            right = found = there = 0
            errors: list[float] = []
            for seed in range(3):
                pictures, cuts = hard_cuts(seed)
                clip = folder / f"cuts{seed}.mp4"
                times = write(clip, pictures, timing)
                rows = annotated(clip, "scene_detection", folder, f"scene_detection.detector={detector}")["scenes"]
                got = [row["frame_start"] for row in rows[1:]]
                right += matched(got, cuts)
                found, there = found + len(got), there + len(cuts)
                errors += [abs(row["start_time"] - times[row["frame_start"]]) for row in rows]
            say(
                f"hard cuts, {detector}, {timing.name}: F1 within a frame", f1(right, found, there), "",
                asked=0.98, at_least=True, cuts=there, found=found,
            )  # fmt: skip
            say(f"hard cuts, {detector}, {timing.name}: largest error of a time", max(errors), "s", asked=HALF_A_FRAME)


def transitions(folder: Path) -> None:
    right = found = there = 0
    for seed in range(2):
        pictures, places = dissolves(seed)
        clip = folder / f"dissolves{seed}.mp4"
        write(clip, pictures, STEADY)
        got = [row["frame_start"] for row in annotated(clip, "scene_detection", folder)["scenes"][1:]]
        right += sum(any(first <= cut <= end for cut in got) for first, end in places)
        found, there = found + len(got), there + len(places)
    say("dissolves, found within: recall", right / there, "", dissolves=there, found=found)


def matched(got: Iterable[int], cuts: Sequence[int]) -> int:
    """How many cuts were found, each by another find within a frame."""
    free = set(cuts)
    for find in got:
        near = [cut for cut in free if abs(cut - find) <= 1]
        if near:
            free.remove(min(near, key=lambda cut: abs(cut - find)))
    return len(cuts) - len(free)
