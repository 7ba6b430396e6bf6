"""
What a process gives up before it touches a stranger's file: the network, its life after its parent, its place before
others when memory runs out.

All calls but one are about the calling process, and all hold for what it starts. Linux has them all; on macOS most do
nothing, and `cut_network` says that it cannot.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""Of 19. Beside the server a stage gets a tenth of a core that both want, and all of one that nobody wants."""

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_OUT_OF_MEMORY_SCORE = 800
"""-1000 never, 1000 first. The kernel shall take a stage and leave the server."""

# Classic BPF, linux/bpf_common.h: load a word of seccomp_data, jump on equal or greater-or-equal, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000
_X32_BIT = 0x40000000
_IO_URING_SETUP = 425
# AUDIT_ARCH_* of linux/audit.h and the number of socket(2).
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}


class CannotCut(Exception):
    """The system has no means to take the network from a process."""


def cut_network() -> None:
    """
    From now on this process and all that it starts cannot make any socket but a UNIX one (EACCES).

    Call it before there is a second thread. io_uring, which makes sockets past the filter, is refused too (ENOSYS), and
    so is every system call in another calling convention than the machine's own.

    Raises:
        CannotCut: not Linux, not a 64-bit x86 or ARM machine, or a kernel without seccomp.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        raise CannotCut(f"the network cannot be taken from a process on {sys.platform} ({machine})")
    program = _program(*_ARCHITECTURES[machine])
    # struct sock_fprog of linux/filter.h: count, pointer; each instruction has 8 bytes.
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
        raise CannotCut(f"the kernel does not give up new privileges: {os.strerror(ctypes.get_errno())}")
    if _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header, len(header))) != 0:
        raise CannotCut(f"the kernel takes no seccomp filter: {os.strerror(ctypes.get_errno())}")


def die_with(parent: int) -> None:
    """Be killed as soon as the parent ends; at once if that has happened already. It is not inherited by children."""
    if sys.platform != "linux":
        return
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, so that the family tree stays whole and can be killed."""
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def go_first_when_memory_runs_out() -> None:
    if sys.platform != "linux":
        return
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_SCORE))
    except OSError:
        return  # a hardened container; the memory watch of the server is still there


def let_others_go_first(pid: int) -> None:
    """
    Have a process, and what it will start, yield the processor to whoever answers people: the server, and the process
    that looks at what they send.

    Each stage is a session of its own, and on desktops the kernel shares the processor between sessions first.
    """
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    if sys.platform == "linux":
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))


def leave_no_core_dump() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_address_space(size_bytes: int) -> None:
    """Allocations beyond it fail. Not for processes with a GPU library: those reserve far more than they use."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))


def _program(arch: int, socket_number: int) -> bytes:
    no_access = _REFUSE | errno.EACCES
    no_call = _REFUSE | errno.ENOSYS
    return b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, _ARCH_AT),
            (_IF_EQUAL, 1, 0, arch),
            (_RETURN, 0, 0, no_call),
            (_LOAD, 0, 0, _NUMBER_AT),
            (_IF_AT_LEAST, 3, 0, _X32_BIT),
            (_IF_EQUAL, 2, 0, _IO_URING_SETUP),
            (_IF_EQUAL, 2, 0, socket_number),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, no_call),
            (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
            (_IF_EQUAL, 0, 1, int(socket.AF_UNIX)),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, no_access),
        )
    )


def _prctl(option: int, value: int, pointer: "ctypes.Array[ctypes.c_char] | None" = None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(option, ctypes.c_ulong(value), pointer, None, None))
