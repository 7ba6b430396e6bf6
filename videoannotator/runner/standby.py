"""
Stage processes that wait for a stage.

Fresh ones are started while it is still being found out whether there is a job for them, and load their libraries
meanwhile. Warm ones have ended a stage well and keep what they loaded for the next of the same kind. Each is a stage
process like any other, with the same marks, guardian and limits, and ends by itself when nobody comes for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from videoannotator.logs import get_logger
from videoannotator.runner.frames import encode
from videoannotator.runner.group import Group, stop
from videoannotator.runner.messages import Message, Prepare

FRESH_SECONDS = 10.0
"""How long a fresh process waits: a job follows at once, or was refused."""

log = get_logger(__name__)


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """How a process is made. It fits a stage that would make one in just this way."""

    interpreter: str
    code: str
    pipeline: str
    threads: int
    network: Any
    environ: tuple[tuple[str, str], ...] = ()
    """Variables beside those that every stage has."""

    @property
    def card(self) -> str:
        """The GPU that it sees; empty where it sees none."""
        return dict(self.environ).get("CUDA_VISIBLE_DEVICES", "")


class Warmth(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms a process stays after a stage."""

    loaded: str
    """What it then keeps in memory. A stage that needs just this, and is made in the same way, may have it."""

    idle_seconds: float
    most_stages: int
    """After so many it ends, however well they went."""

    most_growth_bytes: int
    """Memory it may hold after a stage, beyond what it held after its first."""

    most_waiting: int
    """Processes that wait at the same time; of more than these the one that waits longest ends."""


class Resident:
    """A stage process and what is known of its life."""

    def __init__(self, group: Group[Message], making: Making) -> None:
        self.group = group
        self.making = making
        self.loaded = ""
        """What it keeps in memory, of its last stage; empty before its first."""

        self.stages = 0
        self.stays = False
        self._first_bytes = 0

    def may_stay(self, resident_bytes: int, warmth: Warmth) -> bool:
        """After a stage that ended well, holding so much memory."""
        self.stages += 1
        self.loaded = warmth.loaded
        self._first_bytes = self._first_bytes or resident_bytes
        grown = resident_bytes - self._first_bytes
        if grown > warmth.most_growth_bytes:
            log.info("a warm stage process ends: its memory grows", pipeline=self.making.pipeline, grown_bytes=grown)
        return self.stages < warmth.most_stages and grown <= warmth.most_growth_bytes


class Standby:
    def __init__(self, end: Callable[[Resident, float], Awaitable[None]]) -> None:
        """`end` ends a process, with so many seconds of grace, and closes what belongs to it."""
        self._end = end
        self._waiting: dict[Resident, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(resident.group.pid for resident in self._waiting)

    def has_one(self, making: Making) -> bool:
        return any(resident.making == making for resident in self._waiting)

    def take(self, making: Making, loaded: str) -> Resident | None:
        """One that fits, the warmest first. From now on the caller ends it, or gives it back."""
        for wanted in (loaded, "") if loaded else ("",):
            for resident in self._waiting:
                if resident.making == making and resident.loaded == wanted and resident.group.is_quiet:
                    self._waiting.pop(resident).cancel()
                    return resident
        return None

    def put_fresh(self, resident: Resident) -> None:
        prepare = encode(Prepare(code=resident.making.code, network=resident.making.network))
        self._put(resident, FRESH_SECONDS, prepare)

    def put_back(self, resident: Resident, warmth: Warmth) -> None:
        warm = [r for r in self._waiting if r.loaded]
        for oldest in warm[: max(0, len(warm) + 1 - warmth.most_waiting)]:
            self._let_go(oldest)
        self._put(resident, warmth.idle_seconds, b"")

    async def end_warm(self) -> None:
        """End what waits and keeps something in memory, and return when it is gone and the memory is free."""
        for resident in [r for r in self._waiting if r.loaded]:
            self._let_go(resident)
        if self._ending:
            await asyncio.wait(set(self._ending))

    async def close(self) -> None:
        """End all of them. Nothing is put here any more."""
        for resident in list(self._waiting):
            self._let_go(resident)
        while self._ending:
            await asyncio.wait(set(self._ending))

    def _put(self, resident: Resident, seconds: float, said: bytes) -> None:
        name = f"waiting stage process {resident.group.pid}"
        self._waiting[resident] = asyncio.create_task(self._watch(resident, seconds, said), name=name)

    async def _watch(self, resident: Resident, seconds: float, said: bytes) -> None:
        if said:
            await resident.group.tell(said)
        await resident.group.leaves(seconds)
        if resident in self._waiting:
            self._let_go(resident)

    def _let_go(self, resident: Resident) -> None:
        watch = self._waiting.pop(resident)
        ending = asyncio.create_task(self._see_off(resident, watch), name=f"end of stage process {resident.group.pid}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _see_off(self, resident: Resident, watch: asyncio.Task[None]) -> None:
        await stop(watch)
        await self._end(resident, 0)
