"""
The server's ends of a conversation: hearing a process it does not trust, and telling it something without waiting in a
system call. Nothing is read ahead, so a process that floods its pipe is held up by it, and costs neither memory here
nor the loop's time.
"""

import asyncio
import os
import select
import subprocess
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from videoannotator.errors import StageBroke
from videoannotator.runner.frames import HEADER_BYTES
from videoannotator.runner.messages import MAX_FRAME_BYTES

M = TypeVar("M")

_CHUNK_BYTES = 32 * 1024
_BURST_FRAMES = 100
_BURST_BYTES = 1024**2
_REST_SECONDS = 0.05


class Ear(Generic[M]):
    """Hears messages of one kind on a pipe, at most some 2,000 a second and 20 MiB a second."""

    def __init__(self, fd: int, kind: Any, *, who: str) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._decode: Callable[[bytes], M] = msgspec.msgpack.Decoder(kind).decode
        self._who = who
        self._buffer = bytearray()
        self._frames = 0
        self._bytes = 0
        self.unhurried = True
        """Rest after a burst. Off when no writer is left and what is in the pipe is all that will ever come."""

    @property
    def has_more(self) -> bool:
        """Something has come that was not heard yet, or the other side has closed."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        return bool(self._buffer) or bool(waiting.poll(0))

    async def hear(self) -> M | None:
        """
        The next message; None when every writer has closed, half a message at the end counting as none.

        Raises:
            StageBroke: what came is no message.
        """
        while (frame := self._take()) is None:
            chunk = await self._read()
            if not chunk:
                return None
            self._buffer += chunk
        try:
            return self._decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise self._broke(f"it cannot be read ({exc})") from exc

    def _take(self) -> bytes | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        size = int.from_bytes(self._buffer[:HEADER_BYTES], "little")
        if size > MAX_FRAME_BYTES:
            raise self._broke(f"it announces {size} bytes, and {MAX_FRAME_BYTES} are the most")
        if len(self._buffer) < HEADER_BYTES + size:
            return None
        frame = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + size])
        del self._buffer[: HEADER_BYTES + size]
        self._frames += 1
        return frame

    async def _read(self) -> bytes:
        await self._rest()
        while True:
            try:
                chunk = os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                await ready_to_read(self._fd)
            else:
                self._bytes += len(chunk)
                return chunk

    async def _rest(self) -> None:
        if not self.unhurried or (self._frames < _BURST_FRAMES and self._bytes < _BURST_BYTES):
            await asyncio.sleep(0)
            return
        self._frames = self._bytes = 0
        await asyncio.sleep(_REST_SECONDS)

    def _broke(self, why: str) -> StageBroke:
        hint = "This is a bug in it, or in a library it uses; its log says more."
        return StageBroke(f"{self._who} sent something that is no message: {why}.", hint=hint)


async def tell(fd: int, frame: bytes) -> None:
    """Write all of it to a pipe that does not block. Raises BrokenPipeError when nobody reads any more."""
    rest = memoryview(frame)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            await ready_to_write(fd)


async def exit_of(process: subprocess.Popen[bytes]) -> None:
    """
    Wait until a process has ended, without reaping it: until somebody does, its number stays its own.

    Where the system has no handles for processes (macOS) it is looked at, and reaped, every few milliseconds.
    """
    if not hasattr(os, "pidfd_open"):
        while process.poll() is None:  # noqa: ASYNC110  (nothing here tells us)
            await asyncio.sleep(0.01)
        return
    if process.returncode is None:
        await end_of(process.pid)


async def end_of(pid: int) -> None:
    """Wait until any process has ended; at once where there is none with this number. Only where there are handles."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await ready_to_read(handle)
    finally:
        os.close(handle)


async def within(seconds: float, event: asyncio.Future[Any]) -> bool:
    """Whether the future is done in time; it is not cancelled when it is not."""
    if seconds > 0:
        await asyncio.wait({event}, timeout=seconds)
    return event.done()


async def ready_to_read(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_reader, loop.remove_reader)


async def ready_to_write(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_writer, loop.remove_writer)


async def _ready(fd: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(fd, _set, ready)
    try:
        await ready
    finally:
        remove(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
