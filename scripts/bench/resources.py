"""What watching costs: one sample of the machine, and the share of a core that sampling takes from an idle server."""

import asyncio
import tempfile
import time
from pathlib import Path

from rig import say

from videoannotator.machine.resources import SAMPLE_SECONDS, Resources
from videoannotator.runner import leftovers

LOOKS = 500
IDLE_SECONDS = 20.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    async with Resources.open(folder, every_seconds=3600) as resources:
        await asyncio.to_thread(resources.sample, gpus=True)  # the driver wakes
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(LOOKS):
            resources.sample(gpus=True)
        wall, spent = time.perf_counter() - began, time.process_time() - cpu
    say("one sample of the machine", wall / LOOKS * 1e3, "ms")
    share = spent / LOOKS / SAMPLE_SECONDS * 100
    say("processor of an idle server for samples", share, "% of a core", asked=1)
    began, cpu = time.perf_counter(), time.process_time()
    own = leftovers.family(1)
    for _ in range(LOOKS):
        leftovers.resident_bytes(own)
        leftovers.cpu_seconds(1, own)
    say(f"one look at a family of {len(own)} processes", (time.perf_counter() - began) / LOOKS * 1e3, "ms")
    async with Resources.open(folder):
        cpu = time.process_time()
        await asyncio.sleep(IDLE_SECONDS)
        share = (time.process_time() - cpu) / IDLE_SECONDS * 100
    say("processor of a process that does nothing but watch", share, "% of a core", asked=1)


if __name__ == "__main__":
    main()
