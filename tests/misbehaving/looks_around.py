"""Says what it can see of the server: its environment, its descriptors, its place when memory runs out."""

import json
import os
import sys
from pathlib import Path

from tests.misbehaving import behaves


def run(stage):
    behaves.write(stage)
    seen = {
        "environment": dict(os.environ),
        "descriptors": [_target(fd) for fd in sorted(map(int, os.listdir("/proc/self/fd")))],
        "score": int(Path("/proc/self/oom_score_adj").read_text()),
        "modules": [name for name in ("asyncio", "structlog", "yaml", "numpy") if name in sys.modules],
        "input": os.read(0, 1).decode(),
    }
    (stage.output_folder / "out.json").write_text(json.dumps(seen))
    return behaves.result()


def _target(fd: int) -> str:
    try:
        return f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}"
    except OSError:
        return ""
