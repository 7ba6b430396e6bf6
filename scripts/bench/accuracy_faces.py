"""Faces: whether one that is there is found, when it came, and what is taken for one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from answers import HALF_A_FRAME, annotated
from rig import say
from truth import RATE, STEADY, TEXTURES, TIMINGS, Visit, shot, visit, write

FACE_WIDTHS = (40, 60, 90, 140)


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


def _holds(outer: Sequence[float], inner: Sequence[float]) -> bool:
    x, y = inner[0] + inner[2] / 2, inner[1] + inner[3] / 2
    return outer[0] <= x <= outer[0] + outer[2] and outer[1] <= y <= outer[1] + outer[3]
