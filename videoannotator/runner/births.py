"""
How stage processes come into the world: forked from a nursery (`nursery.py`), where the system has what that needs, or
as new interpreters.

Whoever starts one ends and reaps it. A nursery that cannot be started or asked is no reason for a stage to fail: its
process is a new interpreter then.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from videoannotator.errors import StageDied
from videoannotator.logs import get_logger
from videoannotator.runner import leftovers
from videoannotator.runner.ear import end_of, exit_of, ready_to_read, ready_to_write
from videoannotator.runner.messages import Bear, Born, NurseryAnswer, NurseryOrder, Reap, Reaped, Stillborn

ANSWER_SECONDS = 60.0
"""Until a nursery has started, from a cold and busy disk, and answered."""

_MOST_ANSWER_BYTES = 65536
_MOST_ENVIRON_BYTES = 64 * 1024
_decode: Callable[[bytes], NurseryAnswer] = msgspec.msgpack.Decoder(NurseryAnswer).decode
_MARKS = (leftovers.STORAGE_MARK, leftovers.STAGE_MARK)

log = get_logger(__name__)


InThread = Callable[..., Awaitable[Any]]
"""Calls a function in a thread."""


class Child(Protocol):
    """A process that was started, leader of a session of its own."""

    @property
    def pid(self) -> int:
        """Its own until `reap`."""

    async def ends(self) -> None:
        """Wait until it has ended, without reaping it."""

    async def reap(self, in_thread: InThread) -> int:
        """Its exit status, negative for a signal; after it has ended."""


class Started:
    """A new program."""

    def __init__(self, argv: Sequence[str], *, fds: tuple[int, int, int], environ: Mapping[str, str], who: str) -> None:
        """`fds` become its first three descriptors. Raises StageDied: it could not be started."""
        stdin, stdout, stderr = fds
        try:
            self._process = subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=stderr, env=environ, close_fds=True, start_new_session=True
            )
        except OSError as exc:
            raise StageDied(f"{who} could not be started: {argv[0]}: {exc.strerror}.") from exc
        self.pid = self._process.pid

    async def ends(self) -> None:
        await exit_of(self._process)

    async def reap(self, in_thread: InThread) -> int:
        # It is dead, and on a busy machine the system takes up to 0.2 s all the same to let go of it.
        status: int = await in_thread(self._process.wait)
        return status


class Forked:
    """Born in a nursery, which also reaps it."""

    def __init__(self, pid: int, nursery: "Nursery") -> None:
        self.pid = pid
        self._nursery = nursery

    async def ends(self) -> None:
        await end_of(self.pid)

    async def reap(self, in_thread: InThread) -> int:
        try:
            answer = await self._nursery.ask(Reap(self.pid))
        except NurseryGone:
            return -signal.SIGKILL  # what a nursery has born ends with it
        assert isinstance(answer, Reaped), answer
        return answer.exit_status


class NurseryGone(Exception):
    """It has ended, or does not answer and was ended."""


class Nursery:
    """The server's side of one. Started at once, from the loop's thread, because PDEATHSIG is about threads."""

    def __init__(self, interpreter: str, environ: Mapping[str, str]) -> None:
        """`environ` is that of some stage. Raises OSError."""
        ours, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inner:
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    [interpreter, "-P", "-m", "videoannotator.runner.nursery", str(os.getpid())],
                    stdin=inner.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=dict(environ) | {mark: leftovers.blank(environ[mark]) for mark in _MARKS},
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        self._turn = asyncio.Lock()
        self.is_gone = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, order: NurseryOrder, fds: Sequence[int] = ()) -> NurseryAnswer:
        """
        Its answer. Not to be cancelled: the answer would be lost, and with it a process.

        Raises:
            NurseryGone: it will never answer again, and whatever it has born has ended or is ending.
        """
        said = msgspec.msgpack.encode(order)
        async with self._turn:
            if self.is_gone:
                raise NurseryGone
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._send(said, fds)
                    answer = await self._receive()
            except (OSError, TimeoutError) as exc:
                await self.end()
                log.warning("the process that stage processes are forked from has ended", reason=str(exc), pid=self.pid)
                raise NurseryGone from exc
        return _decode(answer)

    async def end(self) -> None:
        """It, and with it whatever it has born."""
        if not self.is_gone:
            self.is_gone = True
            self._process.kill()
            await exit_of(self._process)
            self._process.wait()
            self._socket.close()

    def abandon(self) -> None:
        """As `end`, for who has no loop."""
        if not self.is_gone:
            self.is_gone = True
            self._process.kill()
            self._process.wait()
            self._socket.close()

    async def _send(self, said: bytes, fds: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._socket, [said], list(fds))
            except BlockingIOError:
                await ready_to_write(self._socket.fileno())
            else:
                return

    async def _receive(self) -> bytes:
        while True:
            try:
                answer = self._socket.recv(_MOST_ANSWER_BYTES)
            except BlockingIOError:
                await ready_to_read(self._socket.fileno())
            else:
                if not answer:
                    raise ConnectionResetError("it has closed its side")
                return answer


class Births:
    """One nursery for each interpreter, started when the first process is needed."""

    def __init__(self) -> None:
        self._nurseries: dict[Any, Nursery] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the nurseries."""
        return tuple(nursery.pid for nursery in self._nurseries.values() if not nursery.is_gone)

    async def birth(
        self, interpreter: str, *, fds: tuple[int, int, int], environ: Mapping[str, str], who: str
    ) -> Child:
        """
        A stage process of this interpreter, with `fds` as its first three descriptors and just this environment, which
        holds both marks. Not to be cancelled.

        Raises:
            StageDied: it could not be started.
        """
        order = Bear(environ={os.fsencode(name): os.fsencode(value) for name, value in environ.items()})
        if _can_fork() and _fits(order):
            nursery = self._nursery(interpreter, environ, who)
            with suppress(NurseryGone):
                answer = await nursery.ask(order, fds)
                if isinstance(answer, Born):
                    return Forked(answer.pid, nursery)
                assert isinstance(answer, Stillborn), answer
                log.warning("a stage process could not be forked and is started anew", reason=answer.reason, who=who)
        argv = (interpreter, "-P", "-m", "videoannotator.runner.child", str(os.getpid()))
        return Started(argv, fds=fds, environ=environ, who=who)

    def begin(self, interpreter: str, environ: Mapping[str, str]) -> None:
        """Have a nursery for it now, as far as there can be one. `environ` is that of some stage."""
        if _can_fork():
            with suppress(OSError):  # the first birth says so
                self._nurseries[_identity(interpreter)] = Nursery(interpreter, environ)

    async def close(self) -> None:
        while self._nurseries:
            _, nursery = self._nurseries.popitem()
            await nursery.end()

    def abandon(self) -> None:
        """As `close`, for who has no loop; nothing of it is in use."""
        while self._nurseries:
            self._nurseries.popitem()[1].abandon()

    def _nursery(self, interpreter: str, environ: Mapping[str, str], who: str) -> Nursery:
        key = _identity(interpreter)
        nursery = self._nurseries.get(key)
        if nursery is None or nursery.is_gone:
            try:
                nursery = self._nurseries[key] = Nursery(interpreter, environ)
            except OSError as exc:
                raise StageDied(f"{who} could not be started: {interpreter}: {exc.strerror}.") from exc
        return nursery


def _can_fork() -> bool:
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def _identity(interpreter: str) -> tuple[str, int]:
    """Another one where an environment was built anew in the same place."""
    try:
        return interpreter, Path(interpreter).parent.parent.joinpath("pyvenv.cfg").stat().st_mtime_ns
    except OSError:
        return interpreter, 0


def _fits(order: Bear) -> bool:
    """Into one message of a socket, however small its buffer was made; an ordinary environment has some 5 kB."""
    return sum(map(len, (*order.environ, *order.environ.values()))) < _MOST_ENVIRON_BYTES
