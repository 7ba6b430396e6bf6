"""
The guardian: ends what a server started when the server itself can no longer do so.

Run as `python -I -S guardian.py`, in a session of its own, with one pipe from the server as standard input. Lines on
it: `=NEEDLE` once (what the environment of every process of this server contains), `+PGID` when a group begins, `-PGID`
when it is over. The end of the pipe means that the server is gone, in whatever way: every group still registered and
every process with the needle is killed, again and again until none is left, at most `PATIENCE_SECONDS` long.

It imports two small modules and nothing of ours, so that it costs some 9 MiB. What it can do about processes is here
and not in `leftovers.py` for that reason.
"""

import os
import signal
import sys
import time

PATIENCE_SECONDS = 2.0
"""A process that survives SIGKILL for so long is stuck inside the kernel, and nobody can do more."""

_PAUSE_SECONDS = 0.01


def carrying(needle: bytes) -> list[int]:
    """
    Processes whose initial environment contains `needle`, without this one and without zombies.

    A needle is `NAME=VALUE` followed by a NUL byte, or without it to find all values that begin so. Only on systems
    with /proc; elsewhere nothing is found, and groups and closed pipes must do.
    """
    try:
        names = os.listdir("/proc")  # noqa: PTH208  (pathlib would double the guardian's memory)
    except FileNotFoundError:
        return []
    own = os.getpid()
    return [int(name) for name in names if name.isdecimal() and int(name) != own and _carries(int(name), needle)]


def kill_carrier(pid: int, needle: bytes) -> None:
    """Kill the process if it is (still) one with `needle`; a number given to somebody else meanwhile is safe."""
    if not hasattr(os, "pidfd_open"):
        if _carries(pid, needle):
            _kill(pid)
        return
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return  # it has left
    try:
        if _carries(pid, needle):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(handle)


def kill_group(pgid: int) -> bool:
    """Kill a process group; False when it has no member any more, except ones that are not ours to signal."""
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _carries(pid: int, needle: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123
            return b"\0" + needle in b"\0" + file.read()
    except OSError:
        return False  # it has left, or belongs to somebody else


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _listen() -> tuple[set[int], bytes]:
    """Keep the list until the server is gone: the groups still registered then, and the needle."""
    groups: set[int] = set()
    needle = rest = b""
    while chunk := os.read(0, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            match line[:1]:
                case b"=":
                    needle = line[1:]
                case b"+":
                    groups.add(int(line[1:]))
                case b"-":
                    groups.discard(int(line[1:]))
    return groups, needle


def _end(groups: set[int], needle: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for pgid in groups:
        # Once only: what is in the group now dies of it, and the number may belong to somebody else afterwards.
        kill_group(pgid)
    while time.monotonic() < deadline and (left := carrying(needle) if needle else []):
        for pid in left:
            kill_carrier(pid, needle)
        time.sleep(_PAUSE_SECONDS)


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _end(*_listen())
    return 0


if __name__ == "__main__":
    sys.exit(main())
