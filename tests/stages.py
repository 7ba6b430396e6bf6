"""What tests of the runner share: start a misbehaving stage, and look for what it left."""

import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from videoannotator.jobs import Video
from videoannotator.runner import leftovers
from videoannotator.runner.messages import Done, Log, Progress, Start
from videoannotator.runner.process import Limits, Runner, Warmth

FOLDER = Path(__file__).parent / "misbehaving"
LIMITS = {
    "grace_seconds": 1.0,
    "timeout_seconds": 60.0,
    "stall_seconds": 30.0,
    "memory_bytes": 0,
    "log_bytes": 1_000_000,
}


class Bench:
    """A runner, a folder, and what the stages run on it have said."""

    def __init__(self, runner: Runner, folder: Path, storage_id: str) -> None:
        self.runner = runner
        self.folder = folder
        self.storage_id = storage_id
        self.log = folder / "logs" / "stage.log"
        self.pids = folder / "pids"
        self.progress: list[Progress] = []
        self.lines: list[Log] = []
        self._runs = 0

    @property
    def output(self) -> Path:
        return self.folder / f"out{self._runs}"

    async def run(
        self,
        name: str,
        *,
        network: str = "auto",
        config: dict[str, Any] | None = None,
        warmth: Warmth | None = None,
        environ: dict[str, str] | None = None,
        **limits: Any,
    ) -> Done:
        self._runs += 1
        self.output.mkdir()
        return await self.runner.run(
            self.start(name, network, config or {}),
            interpreter=Path(sys.executable),
            log=self.log,
            limits=Limits(**(LIMITS | limits)),
            on_progress=self.progress.append,
            on_log=self.lines.append,
            warmth=warmth,
            environ=environ,
        )

    def start(self, name: str, network: Any, config: dict[str, Any]) -> Start:
        return Start(
            code=f"tests.misbehaving.{name}:run",
            pipeline=name,
            pipeline_version="1.2.3",
            known_limits=("adult-trained",),
            video_path="clip.mp4",
            video=Video(filename="clip.mp4", size_bytes=1, container="mp4", duration_seconds=10.0),
            config={"pids": str(self.pids)} | config,
            output_folder=str(self.output),
            threads=1,
            max_lost_frames=0.01,
            network=network,
        )

    def left(self) -> list[psutil.Process]:
        """Living processes of this runner's stages, found in three ways; guardian and nursery are none of them."""
        marked = leftovers.carrying(leftovers.needle(leftovers.STORAGE_MARK, self.storage_id))
        told = [int(line) for line in self.pids.read_text().split()] if self.pids.exists() else []
        others = {self.runner.guard.pid, *self.runner.nursery_pids}
        below = [p.pid for p in psutil.Process().children(recursive=True) if p.pid not in others]
        return [psutil.Process(pid) for pid in {*marked, *told, *below} if is_alive(pid)]


@asynccontextmanager
async def benching(folder: Path) -> AsyncIterator[Bench]:
    storage_id = secrets.token_hex(8)
    async with Runner.open(storage_id) as runner:
        yield Bench(runner, folder, storage_id)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descriptors() -> list[str]:
    """What this process holds open, without what the listing itself opens."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue
    return sorted(found)
