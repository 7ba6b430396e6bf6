"""
What the machine and the server use: processor, memory, GPUs, the disk of the storage directory.

`Resources.latest` is at most SAMPLE_SECONDS old and costs nothing to read. A sample takes some 2 ms without a GPU, and
all of them 0.15 % of a core (scripts/bench/resources.py), in a thread: a disk that hangs does not hold up the server.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil

from videoannotator.logs import get_logger

SAMPLE_SECONDS = 2.0

log = get_logger(__name__)


class GpuUse(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    busy_share: float
    """0 to 1, of the last second or so, as the driver tells it."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look. Shares are 0 to 1."""

    at: float
    """Seconds since the epoch."""

    cpu_share: float
    """Of all cores, since the sample before."""

    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    server_cpu_seconds: float
    """Of this process, since it began."""

    server_memory_bytes: int
    stages_memory_bytes: int
    """Resident, of all processes below this one; pages that several share count for each."""

    gpus: tuple[GpuUse, ...] = ()


class Resources:
    def __init__(self, folder: Path) -> None:
        self.latest: Sample | None = None
        """None while none can be taken."""

        self._listeners: list[Callable[[Sample], None]] = []
        self._folder = folder
        self._process = psutil.Process()
        self._gpus = Gpus()

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, *, every_seconds: float = SAMPLE_SECONDS) -> AsyncIterator[Self]:
        """
        Sampled for as long as the block runs. The first sample is there when it begins, without the GPUs: to wake
        their driver may take seconds.
        """
        resources = cls(folder)
        await resources._look(gpus=False)
        task = asyncio.create_task(resources._run(every_seconds), name="resources")
        try:
            yield resources
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            resources._gpus.close()

    def tell(self, listener: Callable[[Sample], None]) -> None:
        """Call it with the latest sample now, and with every one to come."""
        self._listeners.append(listener)
        if self.latest is not None:
            listener(self.latest)

    async def _run(self, every_seconds: float) -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await self._look(gpus=True)

    async def _look(self, *, gpus: bool) -> None:
        try:
            self.latest = await asyncio.to_thread(self.sample, gpus=gpus)
        except (OSError, psutil.Error) as exc:
            if self.latest is not None:
                log.warning("the machine does not say what it uses", reason=str(exc))
            self.latest = None
            return
        for listener in self._listeners:
            listener(self.latest)

    def sample(self, *, gpus: bool) -> Sample:
        """One look. Blocks."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._folder))
        with self._process.oneshot():
            times, own = self._process.cpu_times(), self._process.memory_info().rss
        return Sample(
            at=time.time(),
            cpu_share=psutil.cpu_percent() / 100,
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            server_cpu_seconds=times.user + times.system,
            server_memory_bytes=own,
            stages_memory_bytes=_below(self._process),
            gpus=self._gpus.look() if gpus else (),
        )


class Gpus:
    """NVIDIA's GPUs as the driver tells of them (NVML); none where there is no driver."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[tuple[str, Any]] = []
        self._tried = False

    def look(self) -> tuple[GpuUse, ...]:
        """Blocks, the first time for as long as the driver takes to wake."""
        if not self._tried:
            self._open()
        try:
            return tuple(self._use(index, name, handle) for index, (name, handle) in enumerate(self._handles))
        except self._errors() as exc:
            log.warning("the GPU driver does not answer any more", reason=str(exc))
            self._handles = []
            return ()

    def close(self) -> None:
        if self._nvml is not None:
            with suppress(*self._errors()):
                self._nvml.nvmlShutdown()
            self._nvml = None

    def _open(self) -> None:
        self._tried = True
        import pynvml

        try:
            pynvml.nvmlInit()
            self._nvml = pynvml
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            self._handles = [(_text(pynvml.nvmlDeviceGetName(handle)), handle) for handle in handles]
        except pynvml.NVMLError as exc:
            log.debug("no GPU is watched", reason=str(exc))

    def _use(self, index: int, name: str, handle: Any) -> GpuUse:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuUse(
            index=index,
            name=name,
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            busy_share=self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        )

    def _errors(self) -> tuple[type[Exception], ...]:
        return () if self._nvml is None else (self._nvml.NVMLError,)


def _below(process: psutil.Process) -> int:
    total = 0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            total += child.memory_info().rss
    return total


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
