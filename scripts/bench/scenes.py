"""
Scene detection on 60 s of 720p at 25 frames/s, start-up included, against PySceneDetect's own command in the same run.

Two clips: moving test pictures, of many more bits than a camera's, and where ../shared/data is, real video: the demo
clip enlarged, mirrored and brightened in turns, so that there are cuts. Both commands run once before they are timed;
their processor seconds are told too, which depend less on what else the machine does. Another clip of 60 s may be given
as the argument.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from rig import CONSOLE_COMMAND, percentile, say, workplace

SECONDS = 60
ROUNDS = 5
DEMO = Path(__file__).parents[3] / "shared" / "data" / "peekaboo_hevc.mp4"


def main() -> None:
    with workplace() as folder:
        if sys.argv[1:]:
            _compare("the given clip", Path(sys.argv[1]), folder)
            return
        if DEMO.exists():
            _compare("real video", _real(folder / "real.mp4"), folder)
        else:
            say("no real video to measure with", 0, "clips", looked_for=str(DEMO.name))
        _compare("test pictures", _pictures(folder / "pictures.mp4"), folder)


def _compare(what: str, clip: Path, folder: Path) -> None:
    output = str(folder / "out")
    # Every run computes everything: a remembered result would be no measure of anything.
    annotate = [CONSOLE_COMMAND, "annotate", str(clip), "--no-cache", "--pipelines", "scene_detection"]
    our_command = [*annotate, "--output", output]
    their_command = [_beside("scenedetect"), "-q", "-i", str(clip), "-o", output, "detect-adaptive", "list-scenes"]
    ours, theirs = [], []
    for _ in range(1 + ROUNDS):
        ours.append(_time(our_command))
        theirs.append(_time(their_command))
    (mine, my_cpu), (other, their_cpu) = (_medians(times[1:]) for times in (ours, theirs))
    size = round(clip.stat().st_size / 1e6, 1)
    say(f"scenes of {what}, end to end, p50", mine, "s", asked=round(other, 3), cpu_seconds=my_cpu, megabytes=size)
    say(f"PySceneDetect's command on {what}, p50", other, "s", cpu_seconds=their_cpu)
    say(f"scenes of {what}, speed", SECONDS / mine, "x real time", asked=30, at_least=True, load=os.getloadavg()[0])


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = zip(*times, strict=True)
    return percentile(wall, 0.5), round(percentile(cpu, 0.5), 3)


def _beside(command: str) -> str:
    return str(Path(sys.executable).with_name(command))


def _real(target: Path) -> Path:
    """A parent and a baby; every 5 s mirrored or not, brighter or not."""
    mirrored, brighter = "hflip=enable='mod(floor(t/5),2)'", "eq=brightness=0.15:enable='eq(mod(floor(t/5),3),1)'"
    look = ["-vf", f"scale=1280:720:flags=bicubic,fps=25,{mirrored},{brighter}"]
    coding = ["-t", str(SECONDS), "-an", "-c:v", "libx264", "-preset", "medium", str(target)]
    subprocess.run(
        ["ffmpeg", "-y", "-loglevel", "error", "-stream_loop", "-1", "-i", str(DEMO), *look, *coding], check=True
    )
    return target


def _pictures(target: Path) -> Path:
    """Twelve shots of 5 s at 25 frames/s and a usual rate of bits, like a film of moving test pictures."""
    shots = [f"testsrc2=s=1280x720:r=25:d=5,hue=h={number * 30}:s={1 + number % 3}" for number in range(12)]
    inputs = [part for shot in shots for part in ("-f", "lavfi", "-i", shot)]
    joined = "".join(f"[{number}:v]" for number in range(12)) + "concat=n=12:v=1:a=0,format=yuv420p[v]"
    coding = ["-filter_complex", joined, "-map", "[v]", "-c:v", "libx264", "-preset", "medium", str(target)]
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *inputs, *coding], check=True)
    return target


def _time(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processors."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


if __name__ == "__main__":
    main()
