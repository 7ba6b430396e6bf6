"""
What the machine, the server and each stage use: processor, memory, GPUs, disk.

`Resources.latest` is at most SAMPLE_SECONDS old and costs nothing to read. A sample takes some 2 ms without a GPU, and
all of them 0.15 % of a core (scripts/bench/resources.py), in a thread: a disk that hangs does not hold up the server.

psutil is imported there too: it takes 25 ms, while which a command has other things to begin.
"""

import asyncio
import ctypes
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from videoannotator.logs import get_logger
from videoannotator.machine.devices import refusals, users_of
from videoannotator.machine.families import Families, disk_bytes

SAMPLE_SECONDS = 2.0

log = get_logger(__name__)


class GpuUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    index: int
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    busy_share: float | None = None
    """0 to 1, of the last second or so, as the driver tells it; None where it does not, of a card in MIG mode say."""


class AtWork(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that has a process now."""

    pid: int
    job_id: str
    pipeline: str
    batch_id: str | None = None


class StageUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By all processes of one stage together."""

    job_id: str
    pipeline: str
    batch_id: str | None = None
    cpu_cores: float
    """Busy since the sample before: 1.0 is one whole core."""

    memory_bytes: int
    gpu_memory_bytes: int | None = None
    """None where it holds none, or the driver does not say whose memory is whose."""

    read_bytes: int | None = None
    """From disks, since the first process began; None where the system does not say."""

    written_bytes: int | None = None


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

    server_cpu_cores: float
    """Since the sample before: 1.0 is one whole core."""

    server_memory_bytes: int
    server_read_bytes: int | None = None
    """From disks, since it began; None where the system does not say."""

    server_written_bytes: int | None = None
    stages_memory_bytes: int
    """Resident, of all processes below this one; pages that several share count for each."""

    gpus: tuple[GpuUse, ...] = ()
    stages: tuple[StageUse, ...] = ()
    """Those at work."""


class Resources:
    def __init__(self, folder: Path) -> None:
        """Blocks."""
        import psutil

        self.latest: Sample | None = None
        """None while none can be taken."""

        self._listeners: list[Callable[[Sample], None]] = []
        self._at_work: Callable[[], tuple[AtWork, ...]] = tuple
        self._folder = folder
        self._process = psutil.Process()
        self._gpus = Gpus()
        self._busy = _Busy()
        self._cores = _Cores()

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, *, every_seconds: float = SAMPLE_SECONDS) -> AsyncIterator[Self]:
        """
        Sampled for as long as the block runs. The first sample is there when it begins, without the GPUs: to wake
        their driver may take seconds.
        """
        resources = await asyncio.to_thread(cls, folder)
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

    def watch(self, at_work: Callable[[], tuple[AtWork, ...]]) -> None:
        """From the next sample on it tells of the stages that `at_work` names."""
        self._at_work = at_work

    async def _run(self, every_seconds: float) -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await self._look(gpus=True)

    async def _look(self, *, gpus: bool) -> None:
        import psutil

        try:
            self.latest = await asyncio.to_thread(self.sample, self._at_work(), gpus=gpus)
        except (OSError, psutil.Error) as exc:
            if self.latest is not None:
                log.warning("the machine does not say what it uses", reason=str(exc))
            self.latest = None
            return
        for listener in self._listeners:
            listener(self.latest)

    def sample(self, at_work: tuple[AtWork, ...] = (), *, gpus: bool) -> Sample:
        """One look. Blocks."""
        import psutil

        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._folder))
        with self._process.oneshot():
            times, own = self._process.cpu_times(), self._process.memory_info().rss
            read, written = disk_bytes(self._process)
        server_seconds, families = times.user + times.system, Families(self._process)
        spent = {stage.pid: families.of(stage.pid).cpu_seconds for stage in at_work}
        cores = self._cores.since_before({self._process.pid: server_seconds} | spent)
        on_gpus = self._gpus.held() if gpus and at_work else {}
        return Sample(
            at=time.time(),
            cpu_share=self._busy.since_before(),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            server_cpu_seconds=server_seconds,
            server_cpu_cores=cores[self._process.pid],
            server_memory_bytes=own,
            server_read_bytes=read,
            server_written_bytes=written,
            stages_memory_bytes=families.memory_bytes,
            gpus=self._gpus.look() if gpus else (),
            stages=tuple(_use(stage, families, cores[stage.pid], on_gpus) for stage in at_work),
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

    def held(self) -> dict[int, int]:
        """Bytes of GPU memory by process, where the driver says whose memory is whose. Blocks."""
        found: dict[int, int] = {}
        try:
            for _, handle in self._handles:
                for user in users_of(self._nvml, handle):
                    if user.usedGpuMemory is not None:
                        found[user.pid] = found.get(user.pid, 0) + user.usedGpuMemory
        except self._errors() as exc:
            log.warning("the GPU driver does not say who uses it", reason=str(exc))
        return found

    def close(self) -> None:
        if self._nvml is not None:
            with suppress(*self._errors()):
                self._nvml.nvmlShutdown()
            self._nvml = None

    def _open(self) -> None:
        self._tried = True
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as exc:
            log.debug("no GPU is watched", reason=str(exc))
            return
        import pynvml  # 50 ms of a processor

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
            busy_share=self._busy_share(handle),
        )

    def _busy_share(self, handle: Any) -> float | None:
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except refusals(self._nvml):
            return None

    def _errors(self) -> tuple[type[Exception], ...]:
        return () if self._nvml is None else (self._nvml.NVMLError,)


class _Busy:
    """All processors together. psutil's own `cpu_percent` remembers one look for each thread, and threads vary here."""

    def __init__(self) -> None:
        self._all, self._idle = _all_and_idle()

    def since_before(self) -> float:
        """0 to 1."""
        before, (self._all, self._idle) = (self._all, self._idle), _all_and_idle()
        passed = self._all - before[0]
        return 0.0 if passed <= 0 else min(1.0, max(0.0, 1 - (self._idle - before[1]) / passed))


def _all_and_idle() -> tuple[float, float]:
    """Seconds of all processors; guests' are among the users' already, and who waits for a disk is idle."""
    import psutil

    now = psutil.cpu_times()
    waits = getattr(now, "iowait", 0.0)
    return sum(now) - getattr(now, "guest", 0.0) - getattr(now, "guest_nice", 0.0), now.idle + waits


class _Cores:
    """Processor time of processes, as cores that they kept busy from one look to the next."""

    def __init__(self) -> None:
        self._before: Mapping[int, float] = {}
        self._at = -math.inf

    def since_before(self, seconds: Mapping[int, float]) -> dict[int, float]:
        """`seconds`: by process, since it began. The first look is 0; who was not there before began in between."""
        now = time.monotonic()
        passed, before = max(0.001, now - self._at), self._before
        self._before, self._at = dict(seconds), now
        return {pid: round(max(0.0, spent - before.get(pid, 0.0)) / passed, 3) for pid, spent in seconds.items()}


def _use(stage: AtWork, families: Families, cores: float, on_gpus: Mapping[int, int]) -> StageUse:
    taken = families.of(stage.pid)
    held = [on_gpus[pid] for pid in families.members(stage.pid) if pid in on_gpus]
    return StageUse(
        job_id=stage.job_id,
        pipeline=stage.pipeline,
        batch_id=stage.batch_id,
        cpu_cores=cores,
        memory_bytes=taken.memory_bytes,
        gpu_memory_bytes=sum(held) if held else None,
        read_bytes=taken.read_bytes,
        written_bytes=taken.written_bytes,
    )


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
