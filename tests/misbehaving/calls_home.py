"""Tries every way to the network, itself and in a grandchild, and says in its log what it got."""

import ctypes
import os
import socket
import subprocess
import sys

from tests.misbehaving import behaves


def run(stage):
    port = stage.config["port"]
    own = attempts(port)
    command = [sys.executable, __file__, str(port)]
    grandchild = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout
    stage.report.log("info", f"own: {own}")
    stage.report.log("info", f"grandchild: {grandchild.strip()}")
    return behaves.write(stage)


def attempts(port: int) -> str:
    ways = {
        "inet": lambda: socket.create_connection(("127.0.0.1", port), 2),
        "inet6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "unix": lambda: socket.socketpair(socket.AF_UNIX),
        "io_uring": lambda: _system_call(425, 1),
    }
    return " ".join(f"{name}={_try(way)}" for name, way in ways.items())


def _try(way) -> str:
    try:
        got = way()
    except OSError as exc:
        return exc.strerror.replace(" ", "_")
    for end in got if isinstance(got, tuple) else (got,):
        end.close()
    return "open"


def _system_call(*arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*arguments, None) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    print(attempts(int(sys.argv[1])))
