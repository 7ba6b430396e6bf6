"""
What decoding costs the stages of a job that look at frames, and what it saves that they share a decoder.

    decoding.py                      all sections on 60 s of 720p at 25 frames/s, real video where ../shared/data is
    decoding.py SECTION [CLIP]       one of: reading, stages, job, memory

`reading`: processor seconds and time of `Frames` alone, as each stage asks for them. `stages`: the same as a share of
each stage. `job`: a job of all three stages, sharing or not, in turns; with a slot for each, and with two slots.
`memory`: the peak of each stage at 1 min and at 10 min. Processor seconds are the figure to trust on a busy machine.
"""

import os
import sqlite3
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import scenes
from rig import Others, Server, percentile, say, wait_until, workplace

from videoannotator.media.frames import Frames
from videoannotator.media.probe import probe

ASKED: dict[str, dict[str, Any]] = {
    "scene_detection": {"rate": None, "pixel_format": "bgr24", "max_side": 192, "threads": 4},
    "face_analysis": {"rate": 5.0, "max_side": 960, "threads": 1},
    "person_tracking": {"rate": 5.0, "max_side": 960, "threads": 1},
}
CONFIG = {"face_analysis": {"rate": 5.0}, "person_tracking": {"rate": 5.0}}
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SHARED_BYTES = 64 * 1024**2
LONGEST_JOB_SECONDS = 3000


class Done(msgspec.Struct, frozen=True):
    wall_seconds: float
    cpu_seconds: dict[str, float]
    peak_bytes: dict[str, int]
    company: dict[str, str]
    files: dict[str, str]

    @property
    def whole_cpu(self) -> float:
        return sum(self.cpu_seconds.values())


def main() -> None:
    chosen = sys.argv[1:2] or ["reading", "stages", "job", "memory"]
    with workplace() as folder:
        clip = Path(sys.argv[2]).resolve() if sys.argv[2:] else _clip(folder)
        for section in chosen:
            SECTIONS[section](clip, folder)


def _clip(folder: Path) -> Path:
    if scenes.DEMO.exists():
        return scenes._real(folder / "real.mp4", rate="25")
    return scenes._pictures(folder / "pictures.mp4")


def reading(clip: Path, folder: Path) -> None:
    del folder
    video = probe(clip)
    size = f"{video.width}x{video.height}"
    more: dict[str, Any] = {"pixels": size, "codec": video.video_codec, "seconds": video.duration_seconds}
    cpu, wall = _read(clip, {"threads": 1}, converted=False)
    say("decoding alone, one thread", cpu, "CPU s", wall=wall, **more)
    for pipeline, options in ASKED.items():
        cpu, wall = _read(clip, options, converted=True)
        say(f"frames as {pipeline} asks for them", cpu, "CPU s", wall=wall, **more)


def _read(clip: Path, options: dict[str, Any], *, converted: bool) -> tuple[float, float]:
    cpu, wall = [], []
    for _ in range(ROUNDS):
        began, before = time.perf_counter(), time.process_time()
        with Frames(clip, probe(clip), **options) as frames:
            for _ in frames if converted else frames.pictures():
                pass
        cpu.append(time.process_time() - before)
        wall.append(time.perf_counter() - began)
    return percentile(cpu, 0.5), round(percentile(wall, 0.5), 2)


def stages(clip: Path, folder: Path) -> None:
    for pipeline, options in ASKED.items():
        frames, _ = _read(clip, options, converted=True)
        done = _run(clip, folder, [pipeline], slots=2, shared=0)
        say(f"{pipeline} alone", done.whole_cpu, "CPU s", wall=done.wall_seconds, frames_cpu=round(frames, 2),
            share_of_frames=round(frames / done.whole_cpu, 3))  # fmt: skip


def job(clip: Path, folder: Path) -> None:
    for pipelines, slots in ((list(ASKED), 3), (list(ASKED)[:2], 2)):
        alone, together, ratios = [], [], []
        for _ in range(ROUNDS):
            others = Others()
            alone.append(_run(clip, folder, pipelines, slots=slots, shared=0))
            together.append(_run(clip, folder, pipelines, slots=slots, shared=SHARED_BYTES))
            ratios.append(together[-1].whole_cpu / alone[-1].whole_cpu)
            say(f"{len(pipelines)} stages, {slots} slots: CPU s sharing over not", ratios[-1], "x",
                alone=alone[-1].cpu_seconds, together=together[-1].cpu_seconds, company=together[-1].company,
                wall_alone=alone[-1].wall_seconds, wall_together=together[-1].wall_seconds,
                same_files=alone[-1].files == together[-1].files, others=round(others.share(), 2))  # fmt: skip
        say(f"{len(pipelines)} stages, {slots} slots: sharing over not, p50", percentile(ratios, 0.5), "x", asked=1.0)


def memory(clip: Path, folder: Path) -> None:
    long = folder / "long.mp4"
    again = ["-stream_loop", "9", "-i", str(clip), "-c", "copy", str(long)]
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *again], check=True)
    pipelines = list(ASKED)[:2]
    short, longer = (_run(video, folder, pipelines, slots=2, shared=SHARED_BYTES) for video in (clip, long))
    for pipeline in pipelines:
        ratio = longer.peak_bytes[pipeline] / short.peak_bytes[pipeline]
        say(f"peak memory of {pipeline}, ten times as long a video", ratio, "x", asked=1.1,
            mib=[round(done.peak_bytes[pipeline] / 2**20) for done in (short, longer)],
            company=longer.company.get(pipeline))  # fmt: skip


def _run(clip: Path, folder: Path, pipelines: list[str], *, slots: int, shared: int) -> Done:
    storage = folder / f"storage-{time.monotonic_ns()}"
    server = Server(storage, max_concurrent_stages=str(slots), shared_frames_bytes=str(shared))
    try:
        began = time.perf_counter()
        job_id = server.submit(clip, *pipelines, config={name: CONFIG.get(name, {}) for name in pipelines})
        is_over = ("completed", "failed", "cancelled")
        wait_until(
            lambda: server.job(job_id)["status"] in is_over, limit_seconds=LONGEST_JOB_SECONDS, every_seconds=0.1
        )
        wall = time.perf_counter() - began
        if (ended := server.job(job_id))["status"] != "completed":
            raise RuntimeError(f"the job did not go well: {ended}")
    finally:
        server.stop()
    results = storage / "results" / job_id
    files = {file.name: sha256(file.read_bytes()).hexdigest() for file in sorted(results.iterdir())}
    files.pop("manifest.json")
    return Done(round(wall, 2), *_recorded(storage), files)


def _recorded(storage: Path) -> tuple[dict[str, float], dict[str, int], dict[str, str]]:
    """Processor seconds, peak of memory and sharing by pipeline, as the database has them."""
    with sqlite3.connect(next(storage.glob("*.sqlite*"))) as database:
        used = database.execute("SELECT pipeline, cpu_seconds, peak_memory_bytes FROM stages").fetchall()
        lines = database.execute("SELECT data FROM events WHERE data LIKE '%Frames were decoded%'").fetchall()
    said = [msgspec.json.decode(line) for (line,) in lines]
    return (
        {name: round(cpu, 2) for name, cpu, _ in used},
        {name: peak for name, _, peak in used},
        {line.get("stage") or line.get("pipeline"): line["message"] for line in said},
    )


SECTIONS = {"reading": reading, "stages": stages, "job": job, "memory": memory}

if __name__ == "__main__":
    main()
