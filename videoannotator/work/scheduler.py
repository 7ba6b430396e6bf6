"""
Which stage may start now.

There are slots for stages on the processor and slots for stages on a GPU. Within a kind the higher priority goes first,
then who asked first. A stage on a GPU also needs its memory there: it waits until a card has as much free as its
declaration asks for, beside what the stages that run there may still take. Where there is no GPU, or nobody who knows
of one, such a stage is one on the processor.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import msgspec

from videoannotator.logs import get_logger
from videoannotator.machine.devices import Card, Devices

LOOK_AGAIN_SECONDS = 0.25
"""How often it is looked whether memory of a GPU has become free."""

log = get_logger(__name__)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage asks for."""

    priority: int = 0
    gpu: bool = False
    """It runs on a GPU where there is one."""

    gpu_memory_bytes: int = 0
    """At most what it will take there."""


class Place(msgspec.Struct, frozen=True):
    """Where a stage runs."""

    card: str | None = None

    @property
    def device(self) -> str:
        return "cpu" if self.card is None else "gpu"

    @property
    def environ(self) -> dict[str, str]:
        """It sees its own card only; a stage on the processor sees none, and cannot take memory that nobody counts."""
        return {"CUDA_VISIBLE_DEVICES": self.card or ""}


class Scheduler:
    """
    Room for stage processes, over all jobs.

    `make_room` is called before a stage waits for the memory of a GPU: it ends what holds some without working.
    """

    def __init__(
        self, *, cpu_slots: int, gpu_slots: int, devices: Devices, make_room: Callable[[], Awaitable[None]]
    ) -> None:
        self._cpu = _Slots(cpu_slots)
        self._gpu = _Slots(gpu_slots)
        self._devices = devices
        self._make_room = make_room
        self._choosing = asyncio.Lock()
        self._taken: dict[str, list[int]] = {}
        """By card: what each stage there may take."""

        self._others: dict[str, int] = {}
        """By card: what was in use when no stage of ours was there."""

    @property
    def free(self) -> int:
        """Slots on the processor that nobody holds."""
        return self._cpu.free

    @asynccontextmanager
    async def room(self, need: Need, on_wait: Callable[[str], None] = lambda _: None) -> AsyncIterator[Place]:
        """
        Wait for a place and hold it; it is free again when the block ends, on every path.

        `on_wait` hears, once, why memory of a GPU is waited for.
        """
        if not need.gpu or not await self._cards():
            async with self._cpu.one(need.priority):
                yield Place()
            return
        async with self._gpu.one(need.priority):
            async with self._choosing:
                card = await self._choose(need, on_wait)
                self._taken.setdefault(card, []).append(need.gpu_memory_bytes)
            try:
                yield Place(card)
            finally:
                self._taken[card].remove(need.gpu_memory_bytes)

    async def _choose(self, need: Need, on_wait: Callable[[str], None]) -> str:
        """The card with the most room. Nobody overtakes who waits here: a stage that needs much would never start."""
        has_waited = False
        while True:
            rooms = {card.name: self._room_on(card) for card in await self._cards()}
            best = max(rooms, key=lambda name: rooms[name], default=None)
            if best is not None and rooms[best] >= need.gpu_memory_bytes:
                return best
            await self._make_room()
            if has_waited:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
            if not has_waited and best is not None:
                asked, free = need.gpu_memory_bytes / 2**30, rooms[best] / 2**30
                on_wait(f"Waits for {asked:.1f} GiB of GPU memory; {free:.1f} GiB are free.")
            has_waited = True

    def _room_on(self, card: Card) -> int:
        taken = self._taken.get(card.name, [])
        in_use = card.total_bytes - card.free_bytes
        if not taken:
            self._others[card.name] = in_use
        # What a stage was promised and has not taken yet is free in the driver's eyes, and is not.
        promised = self._others.get(card.name, 0) + sum(taken)
        return card.total_bytes - max(in_use, promised)

    async def _cards(self) -> tuple[Card, ...]:
        return await asyncio.to_thread(self._devices.cards)


class _Slots:
    """So many at once; who waits goes by priority, then by turn."""

    def __init__(self, number: int) -> None:
        self.free = number
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._turn = count()

    @asynccontextmanager
    async def one(self, priority: int) -> AsyncIterator[None]:
        await self._take(priority)
        try:
            yield
        finally:
            self._give()

    async def _take(self, priority: int) -> None:
        if self.free > 0:
            self.free -= 1
            return
        handed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._turn), handed))
        try:
            await handed
        except asyncio.CancelledError:
            if handed.done() and not handed.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        """To the next who still waits."""
        while self._waiting:
            _, _, handed = heapq.heappop(self._waiting)
            if not handed.done():
                handed.set_result(None)
                return
        self.free += 1
