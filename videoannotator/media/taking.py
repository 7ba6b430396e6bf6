"""Pictures that another stage decodes, as long as they come."""

import fcntl
import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from math import prod

import msgspec
import numpy
from numpy.typing import NDArray

from videoannotator.media.shared import LONGEST_MESSAGE, FromGiver, Given, Sharing, Whole, Wish, Working

MOST_PLACES = 128
"""The giver's messages about so many pictures fit into a socket's buffer, so that saying them never takes time."""

LONGEST_WAIT_SECONDS = 10.0
"""For one message: a giver at work says something five times a second."""

_PAUSE_SECONDS = 0.005


class Taken(msgspec.Struct, frozen=True):
    number: int
    timestamp: float
    pts: int
    image: NDArray[numpy.uint8]
    """Its memory is this process's own."""


class Taker:
    """
    The pictures of `wish` (whose places are filled in here), each of `image_bytes`, from who gives at the address.

    Iterate over `pictures` once. They end early, without an error, where there is nobody, or who gives goes, or is too
    slow.
    """

    def __init__(self, sharing: Sharing, wish: Wish, passing: Callable[[float], None]) -> None:
        self._sharing = sharing
        places = min(MOST_PLACES, sharing.most_bytes // wish.place_bytes)
        self._wish = msgspec.structs.replace(wish, places=places)
        self._passing = passing
        self._waited_seconds = self._worked_seconds = 0.0
        self.whole: Whole | None = None
        """The account of all pictures, when the last has come."""

        self.taken = 0
        """Pictures so far."""

    def pictures(self) -> Generator[Taken, None, None]:
        if self._wish.places < 2:
            return
        with ExitStack() as stack:
            try:
                giver, memory = self._meet(stack)
                yield from self._take(giver, memory)
            except (OSError, ValueError):  # nobody there, gone, or too slow; msgspec's errors are ValueErrors
                return

    def _meet(self, stack: ExitStack) -> tuple[socket.socket, mmap.mmap]:
        giver = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self._knock(giver)
        size = self._wish.places * self._wish.place_bytes
        descriptor = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.truncate(descriptor, size)
            # Who gives writes here, and would die of it if this became shorter.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            socket.send_fds(giver, [msgspec.msgpack.encode(self._wish)], [descriptor])
            return giver, stack.enter_context(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)

    def _knock(self, giver: socket.socket) -> None:
        """Raises OSError where nobody opens in time."""
        until = time.monotonic() + self._sharing.door_seconds
        while True:
            try:
                giver.connect(self._sharing.address)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _take(self, giver: socket.socket, memory: mmap.mmap) -> Generator[Taken, None, None]:
        decoder = msgspec.msgpack.Decoder(FromGiver)
        while said := self._hear(giver):
            match decoder.decode(said):
                case Given(number, timestamp, pts, shape, worked_seconds):
                    self._worked_seconds = worked_seconds
                    at = self.taken % self._wish.places * self._wish.place_bytes
                    image = numpy.frombuffer(memory, numpy.uint8, prod(shape), at).reshape(shape).copy()
                    self.taken += 1
                    self._thank(giver)
                    yield Taken(number, timestamp, pts, image)
                case Working(timestamp, worked_seconds):
                    self._worked_seconds = worked_seconds
                    self._passing(timestamp)
                case Whole() as whole:
                    self.whole = whole
                    return

    def _hear(self, giver: socket.socket) -> bytes:
        """Empty where the giver is gone. Raises TimeoutError where it is too slow."""
        began = time.perf_counter()
        # What was worked for it meanwhile it would have had to do itself; only beyond that it is kept waiting.
        patience = self._sharing.patience_seconds + 2 * self._worked_seconds - self._waited_seconds
        ready = select.select([giver], [], [], max(0.0, min(LONGEST_WAIT_SECONDS, patience)))[0]
        self._waited_seconds += time.perf_counter() - began
        if not ready:
            raise TimeoutError
        try:
            return giver.recv(LONGEST_MESSAGE)
        except ConnectionResetError:  # it has closed without reading our thanks; what it said before is still there
            return giver.recv(LONGEST_MESSAGE)

    def _thank(self, giver: socket.socket) -> None:
        """The place is free again. A giver that has said everything may be gone already."""
        try:
            giver.send(b".", socket.MSG_DONTWAIT)
        except OSError:
            return
