"""
Scene detection on a 60 s 720p clip, start-up included, against PySceneDetect's own command in the same run.

Both run once before they are timed. Another clip of 60 s may be given as the argument.
"""

import subprocess
import sys
import time
from pathlib import Path

from rig import CONSOLE_COMMAND, percentile, say, workplace

SECONDS = 60
ROUNDS = 5


def main() -> None:
    with workplace() as folder:
        clip, output = Path(sys.argv[1]) if sys.argv[1:] else _clip(folder / "clip.mp4"), str(folder / "out")
        our_command = [CONSOLE_COMMAND, "annotate", str(clip), "--pipelines", "scene_detection", "--output", output]
        their_command = [_beside("scenedetect"), "-q", "-i", str(clip), "-o", output, "detect-adaptive", "list-scenes"]
        ours, theirs = [], []
        for _ in range(1 + ROUNDS):
            ours.append(_time(our_command))
            theirs.append(_time(their_command))
        mine, other = percentile(ours[1:], 0.5), percentile(theirs[1:], 0.5)
        say("scene detection, 60 s 720p, end to end, p50", mine, "s", asked=round(other, 3), megabytes=_size(clip))
        say("PySceneDetect's command on the same clip, p50", other, "s")
        say("scene detection, speed", SECONDS / mine, "x real time", asked=30, at_least=True)


def _beside(command: str) -> str:
    return str(Path(sys.executable).with_name(command))


def _clip(target: Path) -> Path:
    """Twelve shots of 5 s at 25 frames/s and a usual rate of bits, like a film of moving test pictures."""
    shots = [f"testsrc2=s=1280x720:r=25:d=5,hue=h={number * 30}:s={1 + number % 3}" for number in range(12)]
    inputs = [part for shot in shots for part in ("-f", "lavfi", "-i", shot)]
    joined = "".join(f"[{number}:v]" for number in range(12)) + "concat=n=12:v=1:a=0,format=yuv420p[v]"
    coding = ["-filter_complex", joined, "-map", "[v]", "-c:v", "libx264", "-preset", "medium", str(target)]
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *inputs, *coding], check=True)
    return target


def _time(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _size(clip: Path) -> float:
    return round(clip.stat().st_size / 1e6, 1)


if __name__ == "__main__":
    main()
