"""
Reads the frames of a clip in a process of its own, sharing a decoder as it is told, and says the number of each.

`python -m tests.reads_frames CLIP SHARING OPTIONS STOP`: the two in the middle are JSON; after so many frames it hangs.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.media.frames import Frames
from videoannotator.media.probe import probe
from videoannotator.media.shared import Sharing


def start(clip: Path, sharing: Sharing, options: dict[str, Any], *, stop: int) -> "subprocess.Popen[str]":
    """The caller ends it."""
    told = [msgspec.json.encode(said).decode() for said in (sharing, options)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reads_frames", str(clip), *told, str(stop)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def main(clip: Path, sharing: str, options: str, stop: int) -> None:
    told = msgspec.json.decode(sharing, type=Sharing)
    with Frames(clip, probe(clip), sharing=told, **msgspec.json.decode(options)) as frames:
        for count, frame in enumerate(frames, 1):
            print(frame.number, flush=True)
            if count == stop:
                time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
