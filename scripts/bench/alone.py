"""
Runs stages' functions without a server: one for each line of JSON on stdin, and a line [seconds, processor seconds,
peak bytes of this process] for each on stdout. The modules that are named as arguments are imported before it says
`ready`. It runs in any environment that has the package; `asked` makes the lines.
"""

import importlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.jobs import ModelFiles, Video
from videoannotator.pipelines.contract import Stage


class _Silent:
    """A Report that nobody hears."""

    def progress(self, done_seconds: float) -> None:
        return None

    def log(self, level: str, message: str) -> None:
        return None


def asked(pipeline: str, clip: Path, video: Video, *, config: Any, models: Any, threads: int) -> dict[str, Any]:
    """`config` is complete, `models` are ModelFiles."""
    return {
        "pipeline": pipeline, "clip": str(clip), "config": config, "threads": threads,
        "video": msgspec.to_builtins(video), "models": msgspec.to_builtins(models),
    }  # fmt: skip


def _work(line: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="videoannotator-bench-"))
    stage = Stage(
        video_path=Path(line["clip"]),
        video=msgspec.convert(line["video"], Video),
        config=line["config"],
        output_folder=folder,
        threads=line["threads"],
        max_lost_frames=0.01,
        report=_Silent(),
        models=tuple(msgspec.convert(one, ModelFiles) for one in line["models"]),
    )
    importlib.import_module(f"videoannotator.pipelines.{line['pipeline']}").run(stage)
    shutil.rmtree(folder)


def _main(modules: list[str]) -> None:
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    for module in modules:
        importlib.import_module(module)
    print("ready", file=told, flush=True)
    for line in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        _work(json.loads(line))
        print(
            json.dumps([time.perf_counter() - began, time.process_time() - cpu, _peak_bytes()]), file=told, flush=True
        )


def _peak_bytes() -> int:
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: there a new process begins with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    _main(sys.argv[1:])
