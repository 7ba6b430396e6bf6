"""The first and the last acts of every process that the server starts for work on a stranger's file."""

import ctypes
import faulthandler
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from signal import SIGKILL
from typing import Any, NoReturn

from videoannotator.runner import frames, sandbox

LONGEST_TEXT = 2000


class Mouth:
    """Where messages to the server leave. Any thread may use it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lock = threading.Lock()

    def say(self, message: Any) -> None:
        """Raises FrameTooLong. When nobody listens any more, this process and its group end here."""
        frame = frames.encode(message)
        try:
            with self._lock:
                frames.write(self.fd, frame)
        except BrokenPipeError:
            end_with_group()


def settle_in(parent: int) -> tuple[int, Mouth]:
    """
    Take the pipes for messages away from everybody else, and see to it that this process ends with its parent.

    Afterwards standard input is empty and standard output is the log: no `print` of a library, and nothing it starts,
    can break into the conversation.

    Returns:
        The descriptor messages from the server come from, and the way to the server. No descendant inherits them.
    """
    saying = os.dup(1)
    os.dup2(2, 1)
    hearing = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sandbox.die_with(parent)
    sandbox.adopt_orphans()
    sandbox.go_first_when_memory_runs_out()
    sandbox.leave_no_core_dump()
    faulthandler.enable()
    return hearing, Mouth(saying)


def load(code: str) -> Callable[..., Any]:
    """The function that `module:function` or `/path/file.py:function` names; a file is run once in each process."""
    place, _, name = code.rpartition(":")
    module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    function: Callable[..., Any] = getattr(module, name)
    return function


def plain(text: str) -> str:
    """Short enough, and with nothing that cannot be encoded, as names of files can have it."""
    return text.encode("utf-8", "backslashreplace").decode()[:LONGEST_TEXT]


def end_with_group() -> NoReturn:
    os.killpg(0, SIGKILL)
    os._exit(1)  # not reached: the group includes this process


def leave(exit_status: int = 0) -> NoReturn:
    """Write out what is buffered and end at once, so that no library's clean-up can spoil what is finished."""
    flush()
    os._exit(exit_status)


def flush() -> None:
    """Write out what Python and C have buffered."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


@cache
def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file", path=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
