"""
The nursery: `python -m videoannotator.runner.nursery PARENT`. It has imported what every stage process needs and
nothing else, has one thread, opens no file of anybody, and forks stage processes on demand: a few milliseconds each
instead of the eighty that a new interpreter costs.

Its standard input is a socket to the server, one order and one answer at a time (`messages.py`). With `Bear` come the
three descriptors that the new process will have as its first ones. The answer comes when the new process is in a
session of its own, carries its marks and dies with the nursery; before it has read anything of its stage. One that has
ended stays unreaped until the server says `Reap`, so that its number is nobody else's while the server may signal it.

The nursery ends when its server does (PDEATHSIG, and the end of the socket), and what it has born ends with it.
"""

import ctypes
import gc
import importlib.metadata  # noqa: F401  (nearly every stage asks for versions, and the import takes 20 ms)
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import msgspec

from videoannotator.runner import child, leftovers, sandbox
from videoannotator.runner.messages import Bear, Born, NurseryOrder, Reap, Reaped, Stillborn

_MOST_ORDER_BYTES = 256 * 1024
_MARKS = (leftovers.STORAGE_MARK.encode(), leftovers.STAGE_MARK.encode())
_LEFT_TO_SESSION = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(parent: int) -> NoReturn:
    sandbox.die_with(parent)
    sandbox.leave_no_core_dump()
    for number in _LEFT_TO_SESSION:  # who stops the whole service signals every process of it
        signal.signal(number, signal.SIG_IGN)
    server = socket.socket(fileno=0)
    gc.collect()
    gc.freeze()  # what is here now is shared with all that are born, as long as nobody writes to it
    while True:
        said, fds, _, _ = socket.recv_fds(server, _MOST_ORDER_BYTES, 3)
        if not said:
            os._exit(0)
        order: NurseryOrder = msgspec.msgpack.decode(said, type=NurseryOrder)
        match order:
            case Bear():
                answer: Born | Stillborn | Reaped = _bear(order, fds)
            case Reap(pid=pid):
                answer = Reaped(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        try:
            server.send(msgspec.msgpack.encode(answer))
        except OSError:
            os._exit(0)


def _bear(order: Bear, fds: list[int]) -> Born | Stillborn:
    told, telling = os.pipe()
    nursery = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _live(order, fds, telling, nursery)
    except OSError as exc:
        os.close(telling)
        return Stillborn(exc.strerror or str(exc))
    finally:
        for fd in fds:
            os.close(fd)
    os.close(telling)
    is_ready = os.read(told, 1)
    os.close(told)
    if is_ready:
        return Born(pid)
    os.waitpid(pid, 0)
    return Stillborn("it ended before it was ready")


def _live(order: Bear, fds: list[int], telling: int, nursery: int) -> NoReturn:
    """The new process. From its first act on it dies with the nursery, and so with the server."""
    try:
        sandbox.die_with(nursery)
        os.setsid()
        for number in _LEFT_TO_SESSION:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for place, fd in enumerate(fds):
            os.dup2(fd, place)  # the first takes the place of the socket
        os.closerange(3, telling)
        _settle(order.environ)
        _be_called([sys.executable, "-P", "-m", child.__name__, str(nursery)])
        os.write(telling, b"+")
        os.close(telling)
        child.main(nursery)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _settle(environ: dict[bytes, bytes]) -> None:
    """
    This environment instead of the nursery's.

    Others find a process by the marks in the environment that it began with, which is the nursery's, so they are
    written into that memory itself, in the place of as many blanks.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for mark in _MARKS:
        place = libc.getenv(mark)
        if place is None or len(ctypes.string_at(place)) != len(environ[mark]):
            raise RuntimeError(f"there is no room for {mark!r}")
        ctypes.memmove(place, environ[mark], len(environ[mark]))
    began_with = b"\0" + Path("/proc/self/environ").read_bytes()
    if not all(b"\0%s=%s\0" % (mark, environ[mark]) in began_with for mark in _MARKS):
        raise RuntimeError("its marks cannot be seen")
    os.environb.clear()
    os.environb.update(environ)


def _be_called(words: list[str]) -> None:
    """What `ps` shows, in the place of the nursery's own words; left as it is where that is too short."""
    fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    first, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc_pid_stat(5)
    shown = b"".join(os.fsencode(word) + b"\0" for word in words)
    if first and len(shown) <= end - first:
        ctypes.memmove(first, shown.ljust(end - first, b"\0"), end - first)


if __name__ == "__main__":
    main(int(sys.argv[1]))
