"""
How right the pipelines are, on clips with exact truth (truth.py): scenes, faces, voice, and the times they give.

Everything goes through the real command. What needs models that are not here is said to be left out.
"""

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy
from rig import CONSOLE_COMMAND, say, workplace
from truth import RATE, STEADY, TEXTURES, TIMINGS, Visit, dissolves, hard_cuts, shot, speech, visit, write

HALF_A_FRAME = 0.5 / RATE
FACE_WIDTHS = (40, 60, 90, 140)


def main() -> None:
    with workplace() as folder:
        scenes(folder)
        transitions(folder)
        faces(folder)
        false_alarms(folder)
        voice(folder)
    for figure in ("invented words in silence", "word error rate", "diarization error rate"):
        print(json.dumps({"figure": figure, "left_out": "needs model weights that are not on this machine"}))


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


def faces(folder: Path) -> None:
    for timing in TIMINGS:
        for width in FACE_WIDTHS if timing is STEADY else (140,):
            pictures, truth = visit(width, seed=width)
            clip = folder / "visit.mp4"
            times = write(clip, pictures, timing)
            rows = annotated(clip, "face_analysis", folder, "face_analysis.rate=25")
            recall, onset = face_figures(rows, truth, times)
            say(f"a face {width} px wide, {timing.name}: recall", recall, "")
            say(f"a face {width} px wide, {timing.name}: error of its onset", onset, "s")
            if rows["annotations"]:
                off = max(abs(row["timestamp"] - times[row["frame_number"]]) for row in rows["annotations"])
                say(f"a face {width} px wide, {timing.name}: largest error of a time", off, "s", asked=HALF_A_FRAME)


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


def false_alarms(folder: Path) -> None:
    pictures = [picture for number, name in enumerate(TEXTURES) for picture in shot(name, 6 * RATE, number)]
    clip = folder / "nobody.mp4"
    times = write(clip, pictures, STEADY)
    rows = annotated(clip, "face_analysis", folder)["annotations"]
    minutes = times[-1] / 60
    tracks = len({row["track_id"] for row in rows})
    say(
        "faces where there are none: tracks", tracks / minutes, "per minute", faces=len(rows), minutes=round(minutes, 2)
    )


def voice(folder: Path) -> None:
    for noise in (0.0, 0.01):
        for timing in TIMINGS:
            sound = folder / "speech.wav"
            spoken = speech(sound, noise, seed=1)
            clip = folder / "speech.mp4"
            write(clip, list(shot("coffee", 60 * RATE, 1)), timing, sound)
            command = [CONSOLE_COMMAND, "annotate", str(clip), "--pipelines", "voice_activity", "--output", str(folder)]
            subprocess.run(command, check=True, capture_output=True)
            lines = (folder / "speech" / "voice_activity.rttm").read_text().splitlines()
            got = [(float(f[3]), float(f[3]) + float(f[4])) for f in (line.split() for line in lines)]
            there, heard = on_a_grid(spoken), on_a_grid(got)
            score = f1(int((there & heard).sum()), int(heard.sum()), int(there.sum()))
            say(f"voice, noise {noise}, {timing.name}: F1 on a grid of 10 ms", score, "", stretches=len(spoken))


def annotated(clip: Path, pipeline: str, folder: Path, *settings: str) -> dict[str, Any]:
    """What the command writes."""
    command = [CONSOLE_COMMAND, "annotate", str(clip), "--pipelines", pipeline, "--output", str(folder)]
    subprocess.run([*command, *(f"--set={s}" for s in settings)], check=True, capture_output=True)
    content: dict[str, Any] = json.loads((folder / clip.stem / f"{pipeline}.json").read_text())
    return content


def matched(got: Iterable[int], cuts: Sequence[int]) -> int:
    """How many cuts were found, each by another find within a frame."""
    free = set(cuts)
    for find in got:
        near = [cut for cut in free if abs(cut - find) <= 1]
        if near:
            free.remove(min(near, key=lambda cut: abs(cut - find)))
    return len(cuts) - len(free)


def f1(right: int, found: int, there: int) -> float:
    return 2 * right / (found + there) if found + there else 1.0


def on_a_grid(stretches: Iterable[tuple[float, float]]) -> Any:
    grid = numpy.zeros(60 * 100, bool)
    for begin, end in stretches:
        grid[round(begin * 100) : round(end * 100)] = True
    return grid


def _holds(outer: Sequence[float], inner: Sequence[float]) -> bool:
    x, y = inner[0] + inner[2] / 2, inner[1] + inner[3] / 2
    return outer[0] <= x <= outer[0] + outer[2] and outer[1] <= y <= outer[1] + outer[3]


if __name__ == "__main__":
    main()
