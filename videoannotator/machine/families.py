"""
What processes take, each together with all that it started. Read from the system at one moment; blocks.

psutil is imported by who has a process of psutil's already; see `resources.py`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """By one process, or by a family."""

    memory_bytes: int
    """Resident; pages that several share count for each."""

    cpu_seconds: float
    """Since it began, with the children that it has waited for."""

    read_bytes: int | None = None
    """From disks; None where the system does not say."""

    written_bytes: int | None = None


class Families:
    """The processes below one, at one moment."""

    def __init__(self, top: Any) -> None:
        """`top` is a `psutil.Process`."""
        import psutil

        self._taken: dict[int, Taken] = {}
        self._children: Mapping[int, list[int]] = defaultdict(list)
        for process in top.children(recursive=True):
            with suppress(psutil.Error), process.oneshot():
                taken, parent = _taken(process), process.ppid()
                self._taken[process.pid] = taken
                self._children[parent].append(process.pid)

    @property
    def memory_bytes(self) -> int:
        """Of all of them."""
        return sum(taken.memory_bytes for taken in self._taken.values())

    def members(self, pid: int) -> tuple[int, ...]:
        """A process and its descendants; nobody where it has left."""
        if pid not in self._taken:
            return ()
        return (pid, *(member for child in self._children[pid] for member in self.members(child)))

    def of(self, pid: int) -> Taken:
        taken = [self._taken[member] for member in self.members(pid)]
        return Taken(
            memory_bytes=sum(one.memory_bytes for one in taken),
            cpu_seconds=sum(one.cpu_seconds for one in taken),
            read_bytes=_sum(one.read_bytes for one in taken),
            written_bytes=_sum(one.written_bytes for one in taken),
        )


def disk_bytes(process: Any) -> tuple[int | None, int | None]:
    """Read and written since it began. None on macOS, and where the kernel does not count."""
    import psutil

    with suppress(psutil.AccessDenied, NotImplementedError, AttributeError, OSError):
        counted = process.io_counters()
        return counted.read_bytes, counted.write_bytes
    return None, None


def _taken(process: Any) -> Taken:
    times = process.cpu_times()
    read, written = disk_bytes(process)
    return Taken(
        memory_bytes=process.memory_info().rss,
        cpu_seconds=times.user + times.system + times.children_user + times.children_system,
        read_bytes=read,
        written_bytes=written,
    )


def _sum(values: Iterable[int | None]) -> int | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
