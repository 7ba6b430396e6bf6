"""
When warm stage processes pay: the same short clip again and again, with every process new and with processes kept, and
what a waiting process holds.
"""

import statistics
import time
from pathlib import Path

import psutil
from rig import Server, make_clip, say, wait_until, workplace

CLIP_SECONDS = 4
JOBS = 6
PIPELINES = ("scene_detection", "voice_activity", "face_analysis", "person_tracking")


def main() -> None:
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=CLIP_SECONDS)
        for pipeline in PIPELINES:
            cold, _ = _measure(folder / f"{pipeline}-cold", clip, pipeline, warm_seconds="0")
            warm, held = _measure(folder / f"{pipeline}-warm", clip, pipeline, warm_seconds="60")
            say(f"{pipeline}: a stage of {CLIP_SECONDS} s of video in a new process, p50", cold, "s")
            say(f"{pipeline}: the same in a warm process, p50", warm, "s", asked=cold, saved=round(cold - warm, 3))
            say(f"{pipeline}: memory of the process that waits", held / 2**20, "MiB")


def _measure(storage: Path, clip: Path, pipeline: str, **settings: str) -> tuple[float, int]:
    """Seconds of a stage once all is warm, and the memory of what waits afterwards."""
    server = Server(storage, cache="off", browser_copy="false", **settings)
    seconds = []
    for _ in range(1 + JOBS):
        job = server.submit(clip, pipeline)
        wait_until(lambda job=job: server.job(job)["status"] == "completed", limit_seconds=60)
        seconds.append(server.job(job)["stages"][0]["seconds"])
    time.sleep(0.5)
    stages = [p for p in server.family() if any("runner.child" in part for part in p.cmdline())]
    held = sum(_resident(process) for process in stages)
    server.stop()
    return statistics.median(seconds[1:]), held


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    main()
