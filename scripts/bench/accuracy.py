"""
How right the pipelines are, on clips with exact truth (truth.py): scenes, faces, voice, and the times they give.

    uv run scripts/bench/accuracy.py                 # all of it
    uv run scripts/bench/accuracy.py faces voice     # these sections

Everything goes through the real command. What needs models that are not here is said to be left out.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from accuracy_faces import faces, false_alarms
from accuracy_scenes import scenes, transitions
from accuracy_voice import voice
from rig import workplace

SECTIONS: dict[str, Callable[[Path], None]] = {
    "scenes": scenes,
    "transitions": transitions,
    "faces": faces,
    "false_alarms": false_alarms,
    "voice": voice,
}


def main(asked: list[str]) -> None:
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        sys.exit(f"There is no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}.")
    for name in asked or SECTIONS:
        with workplace() as folder:
            SECTIONS[name](folder)
    for figure in ("invented words in silence", "word error rate", "diarization error rate"):
        print(json.dumps({"figure": figure, "left_out": "needs model weights that are not on this machine"}))


if __name__ == "__main__":
    main(sys.argv[1:])
