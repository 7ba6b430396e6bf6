"""What watching costs: a sample of the machine with four stages at work, and the share of a core that samples take."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rig import say

from videoannotator.machine.resources import SAMPLE_SECONDS, AtWork, Resources
from videoannotator.runner import leftovers

STAGES = 4
LOOKS = 500
IDLE_SECONDS = 20.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    with _stages() as at_work:
        async with Resources.open(folder, every_seconds=3600) as resources:
            await asyncio.to_thread(resources.sample, gpus=True)  # the driver wakes
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(LOOKS):
                resources.sample(at_work, gpus=True)
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
    say("one sample of the machine", wall / LOOKS * 1e3, "ms")
    share = spent / LOOKS / SAMPLE_SECONDS * 100
    say("processor of an idle server for samples", share, "% of a core", asked=1)
    began, cpu = time.perf_counter(), time.process_time()
    own = leftovers.family(1)
    for _ in range(LOOKS):
        leftovers.resident_bytes(own)
        leftovers.cpu_seconds(1, own)
        leftovers.disk_bytes(1, own)
    say(f"one look at a family of {len(own)} processes", (time.perf_counter() - began) / LOOKS * 1e3, "ms")
    async with Resources.open(folder):
        cpu = time.process_time()
        await asyncio.sleep(IDLE_SECONDS)
        share = (time.process_time() - cpu) / IDLE_SECONDS * 100
    say("processor of a process that does nothing but watch", share, "% of a core", asked=1)


@contextmanager
def _stages() -> Iterator[tuple[AtWork, ...]]:
    """Processes that stand for stages."""
    sleeping = [subprocess.Popen(["sleep", "600"]) for _ in range(STAGES)]
    try:
        yield tuple(AtWork(pid=process.pid, job_id=f"job_{process.pid}", pipeline="sleeps") for process in sleeping)
    finally:
        for process in sleeping:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
