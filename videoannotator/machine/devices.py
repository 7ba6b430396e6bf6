"""
The GPUs of this machine: how much of their memory is free, and what a process still holds.

`Devices` is what the scheduler and the runner need to know; `Nvml` asks NVIDIA's driver. Calls block, the first one for
as long as the driver takes to wake: call them in a thread.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from videoannotator.logs import get_logger

log = get_logger(__name__)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """As CUDA_VISIBLE_DEVICES takes it."""

    free_bytes: int
    total_bytes: int


class Devices(Protocol):
    def cards(self) -> tuple[Card, ...]:
        """As they are now; none where there is no GPU, or nobody who could tell."""

    def held_by(self, pids: Iterable[int]) -> int:
        """Bytes of GPU memory that these processes hold; 0 too where the driver does not say whose memory is whose."""

    def used_by(self, card: str, pids: Iterable[int]) -> int | None:
        """Bytes that they hold on this card; None where the driver does not name them, or not how much."""


class Nvml(Devices):
    """In a container the driver may know processes by other numbers, or not at all: then `held_by` is 0."""

    def __init__(self) -> None:
        self.why_none = ""
        """Why there are no cards; empty where there are some, or nobody has asked yet."""

        self._nvml: Any = None
        self._handles: tuple[Any, ...] = ()
        self._asked = False

    def cards(self) -> tuple[Card, ...]:
        self._open()
        try:
            return tuple(self._card(handle) for handle in self._handles)
        except self._errors() as exc:
            self._give_up(f"the driver does not answer any more: {exc}")
            return ()

    def held_by(self, pids: Iterable[int]) -> int:
        self._open()
        wanted = frozenset(pids)
        try:
            users = [user for handle in self._handles for user in self._users(handle)]
        except self._errors() as exc:
            self._give_up(f"the driver does not answer any more: {exc}")
            return 0
        return sum(user.usedGpuMemory or 1 for user in users if user.pid in wanted)

    def used_by(self, card: str, pids: Iterable[int]) -> int | None:
        self._open()
        wanted = frozenset(pids)
        try:
            users = [user for handle in self._handles if self._name(handle) == card for user in self._users(handle)]
        except self._errors() as exc:
            self._give_up(f"the driver does not answer any more: {exc}")
            return None
        held = [int(user.usedGpuMemory) for user in users if user.pid in wanted and user.usedGpuMemory is not None]
        return sum(held) if held else None

    def close(self) -> None:
        if self._nvml is not None:
            with suppress(*self._errors()):
                self._nvml.nvmlShutdown()
        self._nvml, self._handles = None, ()

    def _open(self) -> None:
        if self._asked:
            return
        self._asked = True
        import pynvml

        try:
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = tuple(pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount()))
        except pynvml.NVMLError as exc:
            self._give_up(str(exc))

    def _give_up(self, why: str) -> None:
        self.why_none = why
        self._handles = ()
        log.info("no GPU is used: stages run on the processor", reason=why)

    def _card(self, handle: Any) -> Card:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return Card(name=self._name(handle), free_bytes=int(memory.free), total_bytes=int(memory.total))

    def _name(self, handle: Any) -> str:
        name = self._nvml.nvmlDeviceGetUUID(handle)
        return name.decode() if isinstance(name, bytes) else str(name)

    def _users(self, handle: Any) -> list[Any]:
        return users_of(self._nvml, handle)

    def _errors(self) -> tuple[type[Exception], ...]:
        return () if self._nvml is None else (self._nvml.NVMLError,)


def users_of(nvml: Any, handle: Any) -> list[Any]:
    """Who holds memory of a card, as pynvml says it; nobody where the driver does not tell, and all else goes on."""
    try:
        return [*nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except refusals(nvml):
        return []


def refusals(nvml: Any) -> tuple[type[Exception], ...]:
    """What a driver that works says to a question that it does not answer: of this card, to this user, at its age."""
    return nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_FunctionNotFound
