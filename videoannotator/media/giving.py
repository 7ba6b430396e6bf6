"""Decodes for others too: each picture that another stage asked for is converted here and handed to it."""

import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import msgspec
import numpy
from numpy.typing import NDArray

from videoannotator.media.shared import LONGEST_MESSAGE, Given, Sharing, Whole, Wish, Working

T = TypeVar("T")

_Form = tuple[str, int | None]
_Images = dict[_Form, NDArray[numpy.uint8]]

WORKING_SECONDS = 0.2
"""A taker that gets no picture hears so often that it goes on."""

LONGEST_WAIT_SECONDS = 10.0
"""For one place to become free: who takes longer hangs."""

_INTRODUCTION_SECONDS = 1.0


class Picture(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def timestamp(self) -> float: ...
    @property
    def pts(self) -> int: ...
    @property
    def decoded(self) -> Any: ...


class Sampling(Protocol):
    def takes(self, timestamp: float) -> bool: ...


class Conversion(Protocol):
    def __call__(self, frame: Any, /) -> NDArray[numpy.uint8]: ...


class Giver:
    """
    Made for one pass over the pictures. On leaving nobody is connected any more.

    `sampling` and `conversion` make, from a wish, what chooses the pictures and what converts them.
    """

    def __init__(
        self,
        sharing: Sharing,
        *,
        sampling: Callable[[Wish], Sampling],
        conversion: Callable[[Wish], Conversion],
    ) -> None:
        self._sharing = sharing
        self._sampling = sampling
        self._conversion = conversion
        self._conversions: dict[_Form, Conversion] = {}
        self._takers: list[_Taker] = []
        self._worked_seconds = 0.0
        self._last = -1
        self.most_takers = 0
        """That were here at the same time."""

    def __enter__(self) -> Self:
        with suppress(OSError):  # then everybody decodes for themselves
            self._open_the_door()
        self.most_takers = len(self._takers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for taker in tuple(self._takers):
            self._part_with(taker)

    def timed(self, decoding: Iterable[T]) -> Iterator[T]:
        """The same, with an eye on the time that it takes."""
        items = iter(decoding)
        while True:
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._worked_seconds += time.perf_counter() - began
            yield item

    def give(self, picture: Picture) -> None:
        """The next one that decoded well, to those that want it. One that was given before is passed over."""
        if picture.number <= self._last:
            return
        self._last = picture.number
        images: _Images = {}
        for taker in tuple(self._takers):
            try:
                if taker.wants(picture):
                    self._wait_for(taker)
                    self._hand_over(taker, picture, images)
                else:
                    taker.hear_of(Working(picture.timestamp, self._worked_seconds))
            except (OSError, ValueError):
                self._part_with(taker)

    def finish(self, whole: Callable[[int], Whole]) -> None:
        """There are no more. `whole` makes the account of a taker that was given so many."""
        for taker in tuple(self._takers):
            with suppress(OSError):
                taker.say(whole(taker.sampled))
            self._part_with(taker)

    def _open_the_door(self) -> None:
        with ExitStack() as stack:
            door = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            door.bind(self._sharing.address)
            stack.callback(Path(self._sharing.address).unlink, missing_ok=True)
            door.listen()
            until = time.monotonic() + self._sharing.door_seconds
            while len(self._takers) < self._sharing.takers and (left := until - time.monotonic()) > 0:
                if select.select([door], [], [], left)[0]:
                    self._let_in(door.accept()[0])

    def _let_in(self, guest: socket.socket) -> None:
        guest.settimeout(_INTRODUCTION_SECONDS)
        try:
            said, descriptors, *_ = socket.recv_fds(guest, LONGEST_MESSAGE, 1)
            wish = msgspec.msgpack.decode(said, type=Wish)
            with ExitStack() as stack:
                for descriptor in descriptors:
                    stack.callback(os.close, descriptor)
                memory = mmap.mmap(descriptors[0], wish.places * wish.place_bytes)
        except (OSError, ValueError, IndexError):  # msgspec's errors are ValueErrors
            guest.close()
            return
        self._takers.append(_Taker(guest, wish, memory, self._sampling(wish)))

    def _wait_for(self, taker: "_Taker") -> None:
        """Raises OSError where it has gone, or takes too long."""
        began = time.perf_counter()
        patience = self._sharing.patience_seconds + self._worked_seconds / 4 - taker.waited_for_seconds
        taker.wait_for_a_place(min(LONGEST_WAIT_SECONDS, patience))
        taker.waited_for_seconds += time.perf_counter() - began

    def _hand_over(self, taker: "_Taker", picture: Picture, images: _Images) -> None:
        began = time.perf_counter()
        image = self._converted(taker.wish, picture.decoded, images)
        taker.put(image)
        self._worked_seconds += time.perf_counter() - began
        taker.say(Given(picture.number, picture.timestamp, picture.pts, image.shape, self._worked_seconds))

    def _converted(self, wish: Wish, decoded: Any, images: _Images) -> NDArray[numpy.uint8]:
        """Once for all that want it in the same form."""
        form = (wish.pixel_format, wish.max_side)
        if form not in self._conversions:
            self._conversions[form] = self._conversion(wish)
        if form not in images:
            images[form] = self._conversions[form](decoded)
        return images[form]

    def _part_with(self, taker: "_Taker") -> None:
        self._takers.remove(taker)
        taker.close()


class _Taker:
    """Another stage, as the giver knows it."""

    def __init__(self, guest: socket.socket, wish: Wish, memory: mmap.mmap, sampling: Sampling) -> None:
        guest.settimeout(LONGEST_WAIT_SECONDS)
        self.wish = wish
        self.sampled = 0
        self.waited_for_seconds = 0.0
        self._guest = guest
        self._memory = memory
        self._sampling = sampling
        self._put = self._taken = 0
        self._told_at = time.monotonic()

    def wants(self, picture: Picture) -> bool:
        """To be asked once of each picture, in order."""
        if not self._sampling.takes(picture.timestamp):
            return False
        self.sampled += 1
        return picture.number > self.wish.after

    def wait_for_a_place(self, seconds: float) -> None:
        """Raises TimeoutError, or another OSError where it has gone."""
        until = time.monotonic() + seconds
        self._note_what_was_taken(0)
        while self._put - self._taken >= self.wish.places:
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError
            self._note_what_was_taken(left)

    def put(self, image: NDArray[numpy.uint8]) -> None:
        """Into the next place, which is free. Raises ValueError where it does not fit."""
        if image.nbytes > self.wish.place_bytes:
            raise ValueError(f"a picture of {image.nbytes} bytes, and a place has {self.wish.place_bytes}")
        at = self._put % self.wish.places * self.wish.place_bytes
        place = numpy.frombuffer(self._memory, numpy.uint8, image.nbytes, at).reshape(image.shape)
        place[:] = image
        self._put += 1

    def say(self, message: Given | Whole) -> None:
        self._guest.send(msgspec.msgpack.encode(message))
        self._told_at = time.monotonic()

    def hear_of(self, message: Working) -> None:
        """If it is time for that. Raises OSError where it has gone."""
        if time.monotonic() - self._told_at < WORKING_SECONDS:
            return
        self._told_at = time.monotonic()
        with suppress(BlockingIOError):  # it has much to hear already
            self._guest.send(msgspec.msgpack.encode(message), socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._guest.close()
        self._memory.close()

    def _note_what_was_taken(self, seconds: float) -> None:
        while select.select([self._guest], [], [], seconds)[0]:
            if not self._guest.recv(1):
                raise ConnectionResetError("the taker has gone")
            self._taken += 1
            seconds = 0
