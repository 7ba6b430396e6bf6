"""
Scene detection on 60 s of 720p, start-up included, against PySceneDetect's own command in the same run.

Beside it: what a stage takes beyond the bare library on the same input, imports apart, and where the processor's
seconds go. Moving test pictures at 25 frames/s, of many more bits than a camera's, and where ../shared/data is, real
video at the camera's own rate and at 25: the demo clip enlarged, mirrored and brightened in turns, so that there are
cuts. Both commands run once before they are timed; their processor seconds are told too, which depend less on what
else the machine does. Another clip of 60 s may be given as the argument.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rig import CONSOLE_COMMAND, medians, percentile, say, workplace

from videoannotator.media.frames import Frames
from videoannotator.media.probe import probe
from videoannotator.pipelines import scene_detection
from videoannotator.pipelines.ahead import ahead
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.contract import Stage

SECONDS = 60
ROUNDS = 5
DEMO = Path(__file__).parents[3] / "shared" / "data" / "peekaboo_hevc.mp4"


def main() -> None:
    with workplace() as folder:
        clips = {"the given clip": Path(sys.argv[1])} if sys.argv[1:] else _clips(folder)
        for what, clip in clips.items():
            _compare(what, clip, folder)
            _take_apart(what, clip, folder)


def _clips(folder: Path) -> dict[str, Path]:
    clips = {"test pictures": _pictures(folder / "pictures.mp4")}
    if DEMO.exists():
        own = {"real video at its own rate": _real(folder / "own.mp4", rate="14.2")}
        return own | {"real video": _real(folder / "real.mp4", rate="25")} | clips
    say("no real video to measure with", 0, "clips", looked_for=str(DEMO.name))
    return clips


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
    (mine, my_cpu), (other, their_cpu) = (medians(times[1:]) for times in (ours, theirs))
    size = round(clip.stat().st_size / 1e6, 1)
    say(f"scenes of {what}, end to end, p50", mine, "s", asked=round(other, 3), cpu_seconds=my_cpu, megabytes=size)
    say(f"PySceneDetect's command on {what}, p50", other, "s", cpu_seconds=their_cpu)
    say(f"scenes of {what}, speed", SECONDS / mine, "x real time", asked=30, at_least=True, load=os.getloadavg()[0])


def _take_apart(what: str, clip: Path, folder: Path) -> None:
    """Everything in this process, with all libraries loaded, in turns."""
    scene_detection.prepare()
    ways: dict[str, Callable[[], object]] = {
        "decoding": lambda: _decoded(clip),
        "and small pictures": lambda: _looked_at(clip, lambda *_: None),
        "and PySceneDetect's detector": lambda: _looked_at(clip, _bare_detector()),
        "the stage": lambda: _stage(clip, folder / "stage"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(1 + ROUNDS):
        for name, way in ways.items():
            began, before = time.perf_counter(), time.process_time()
            way()
            times[name].append((time.perf_counter() - began, time.process_time() - before))
    for name, took in times.items():
        wall, cpu = medians(took[1:])
        say(f"scenes of {what}: {name}", wall, "s", cpu_seconds=cpu)
    pairs = zip(times["the stage"][1:], times["and PySceneDetect's detector"][1:], strict=True)
    walls, cpus = zip(*((stage[0] / bare[0], stage[1] / bare[1]) for stage, bare in pairs), strict=True)
    more = percentile(walls, 0.5) - 1
    say(f"scenes of {what}: stage beyond the bare library", more, "", asked=0.1, by_cpu=percentile(cpus, 0.5) - 1)


def _decoded(clip: Path) -> None:
    with Frames(clip, probe(clip), threads=scene_detection.DECODER_THREADS) as frames:
        for _ in frames.pictures():
            pass


def _looked_at(clip: Path, look: Callable[[int, Any], object]) -> None:
    threads = scene_detection.DECODER_THREADS
    with (
        Frames(clip, probe(clip), pixel_format="bgr24", max_side=192, threads=threads) as frames,
        ahead(frames, scene_detection.FRAMES_AHEAD) as coming,
    ):
        for frame in coming:
            look(frame.number, frame.image)


def _bare_detector() -> Callable[[int, Any], object]:
    from scenedetect import detectors
    from scenedetect.common import FrameTimecode

    detector = detectors.AdaptiveDetector(min_scene_len=0)
    return lambda number, image: detector.process_frame(FrameTimecode(number, fps=25.0), image)


def _stage(clip: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    config = Catalogue.load().get("scene_detection").defaults
    scene_detection.run(
        Stage(
            video_path=clip,
            video=probe(clip),
            config=config,
            output_folder=folder / "out",
            threads=2,
            max_lost_frames=0.01,
            report=_Quiet(),
            chunks_folder=folder / "chunks",
        )
    )


class _Quiet:
    def progress(self, done_seconds: float) -> None: ...

    def log(self, level: str, message: str) -> None: ...


def _beside(command: str) -> str:
    return str(Path(sys.executable).with_name(command))


def _real(target: Path, *, rate: str) -> Path:
    """A parent and a baby; every 5 s mirrored or not, brighter or not."""
    mirrored, brighter = "hflip=enable='mod(floor(t/5),2)'", "eq=brightness=0.15:enable='eq(mod(floor(t/5),3),1)'"
    look = ["-vf", f"scale=1280:720:flags=bicubic,fps={rate},{mirrored},{brighter}"]
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
