"""
Finds processes that a stage left behind, also those that left its group, and kills them.

Two ways, because each can be evaded and hardly both: the mark in the environment, which everything inherits that does
not throw its environment away, and the family tree, which stays whole while the stage lives since a stage adopts its
orphaned descendants (see `sandbox.adopt_orphans`). All of this reads /proc and blocks for milliseconds: call it in a
thread. Where there is no /proc nothing is found.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from videoannotator.runner.guardian import carrying, kill_carrier

STORAGE_MARK = "VIDEOANNOTATOR_STORAGE_ID"
"""In the environment of every process of every server on one storage directory."""

STAGE_MARK = "VIDEOANNOTATOR_STAGE_ID"
"""In the environment of one stage and all that it starts: `LIFE-NUMBER`, LIFE being one opened Runner."""

_PAUSE_SECONDS = 0.005


class Seen(msgspec.Struct, frozen=True):
    """A process at one moment. Numbers are given out again; number and start time together are not."""

    pid: int
    started_ticks: int


def needle(mark: str, value: str) -> bytes:
    """What the environment of a process with exactly this mark contains."""
    return f"{mark}={value}\0".encode()


def blank(value: str) -> str:
    """What stands in the nursery's own environment where a stage's mark will be: as long, and found by nobody."""
    return "-" * len(value)


def family(pid: int) -> tuple[Seen, ...]:
    """A process and its living descendants, whatever group or session they are in."""
    found: dict[int, Seen] = {}
    ahead = [pid]
    while ahead:
        member = ahead.pop()
        if member in found or (seen := _look(member)) is None:
            continue
        found[member] = seen
        ahead += _children(member)
    return tuple(found.values())


def resident_bytes(members: Iterable[Seen]) -> int:
    """Memory the processes hold together; pages that several share count for each."""
    return sum(_resident_pages(member.pid) for member in members) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int, descendants: Iterable[Seen]) -> float:
    """
    Processor time of a process, of the children it has waited for, and of its living descendants.

    It is still told of a process that has ended, until somebody reaps it.
    """
    living = (member.pid for member in descendants if member.pid != pid)
    return sum(_ticks(number) for number in (pid, *living)) / os.sysconf("SC_CLK_TCK")


def disk_bytes(pid: int, descendants: Iterable[Seen]) -> tuple[int, int] | None:
    """
    Bytes that these read from disks and wrote to them, counted like `cpu_seconds`; None where the system does not say.
    """
    living = (member.pid for member in descendants if member.pid != pid)
    counted = [disk for number in (pid, *living) if (disk := _disk(number)) is not None]
    return (sum(read for read, _ in counted), sum(written for _, written in counted)) if counted else None


def sweep(mark: bytes, known: Iterable[Seen] = (), *, within_seconds: float) -> tuple[int, ...]:
    """
    Kill everything with the mark and every known process, until none is left.

    Returns:
        The numbers of those that are still there after `within_seconds`; empty when all is well.
    """
    known = tuple(known)
    deadline = time.monotonic() + within_seconds
    while True:
        marked = carrying(mark)
        alive = [member for member in known if _look(member.pid) == member]
        for pid in marked:
            kill_carrier(pid, mark)
        for member in alive:
            _kill_seen(member)
        left = {*marked, *(member.pid for member in alive)}
        if not left or time.monotonic() >= deadline:
            return tuple(sorted(left))
        time.sleep(_PAUSE_SECONDS)
        for pid in left:
            _reap_adopted(pid)


def end_descendants(*, within_seconds: float) -> None:
    """Kill whatever this process has started and its descendants too, until none is left or time is up."""
    own = os.getpid()
    deadline = time.monotonic() + within_seconds
    while (below := [m for m in family(own) if m.pid != own]) and time.monotonic() < deadline:
        for member in below:
            _kill_seen(member)
        time.sleep(_PAUSE_SECONDS)


def group_is_empty(pgid: int) -> bool:
    """Whether nobody but zombies is in the group. Sends nothing."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return True  # macOS says so of a group of zombies; a group of ours is never somebody else's
    with suppress(ChildProcessError):
        os.waitpid(-pgid, os.WNOHANG)
    proc = Path("/proc")
    return proc.is_dir() and not any(_lives_in(pgid, entry.name) for entry in proc.iterdir())


def _lives_in(pgid: int, name: str) -> bool:
    fields = _stat(int(name)) if name.isdecimal() else None
    return fields is not None and int(fields[2]) == pgid and fields[0] not in "ZX"


def _look(pid: int) -> Seen | None:
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else Seen(pid, int(fields[19]))


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold blanks and brackets: state, ppid, pgrp, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _ticks(pid: int) -> int:
    """utime, stime, cutime and cstime of /proc/PID/stat; proc_pid_stat(5)."""
    fields = _stat(pid)
    return 0 if fields is None else sum(map(int, fields[11:15]))


def _disk(pid: int) -> tuple[int, int] | None:
    """read_bytes and write_bytes of /proc/PID/io; proc_pid_io(5). Not every kernel counts them."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    said = {name: int(value) for name, _, value in (line.partition(":") for line in lines)}
    return said["read_bytes"], said["write_bytes"]


def _kill_seen(member: Seen) -> None:
    try:
        handle = os.pidfd_open(member.pid)
    except OSError:
        return
    try:
        if _look(member.pid) == member:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(handle)


def _reap_adopted(pid: int) -> None:
    """In a container whose first process is the server, orphans become its children and stay zombies otherwise."""
    if os.getpid() != 1:
        return
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
