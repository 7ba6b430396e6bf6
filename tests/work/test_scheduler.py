"""Which stage may start: slots, priorities, and the memory of GPUs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.cards import GIB, Cards
from videoannotator.machine.devices import Devices, Nvml
from videoannotator.work.scheduler import Need, Place, Scheduler


class Desk:
    """A scheduler, and who holds which place in it."""

    def __init__(self, devices: Devices, *, cpu_slots: int = 2, gpu_slots: int = 2) -> None:
        self.scheduler = Scheduler(cpu_slots=cpu_slots, gpu_slots=gpu_slots, devices=devices, make_room=self._make_room)
        self.at_work: dict[str, Place] = {}
        self.order: list[str] = []
        self.said: list[str] = []
        self.made_room = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, devices: Devices, **slots: int) -> AsyncIterator["Desk"]:
        desk = cls(devices, **slots)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(desk._close)
            yield desk

    async def ask(self, name: str, **need: int) -> None:
        """A stage asks, and all that can be done about it is done."""
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._work(name, Need(**need)))
        await self._settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await self._settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait({self._tasks[name]})
        await self._settle()

    async def until_at_work(self, name: str) -> Place:
        async with asyncio.timeout(5):
            while name not in self.at_work:
                await asyncio.sleep(0.005)
        return self.at_work[name]

    async def _work(self, name: str, need: Need) -> None:
        async with self.scheduler.room(need, self.said.append) as place:
            self.at_work[name] = place
            self.order.append(name)
            await self._ends[name].wait()
        del self.at_work[name]

    async def _make_room(self) -> None:
        self.made_room += 1

    async def _settle(self) -> None:
        # Threads look at the cards: their answers come back in a few turns of the loop.
        for _ in range(20):
            await asyncio.sleep(0.001)

    async def _close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))


async def test_stages_wait_for_a_slot_and_the_higher_priority_goes_first() -> None:
    """Who asked first goes first among equals."""
    async with Desk.open(Cards(), cpu_slots=1) as desk:
        await desk.ask("first")
        await desk.ask("usual")
        await desk.ask("usual, later")
        await desk.ask("urgent", priority=5)
        for name in ("first", "urgent", "usual"):
            await desk.end(name)

        assert ["first", "urgent", "usual", "usual, later"] == desk.order


async def test_a_waiting_stage_that_is_cancelled_takes_no_slot_with_it() -> None:
    """A slot lost with every cancelled job would stop the queue in the end."""
    async with Desk.open(Cards(), cpu_slots=1) as desk:
        await desk.ask("first")
        await desk.ask("cancelled")
        await desk.ask("next")
        await desk.cancel("cancelled")
        await desk.end("first")

        assert ["next"] == list(desk.at_work)
        await desk.cancel("next")
        assert 1 == desk.scheduler.free


async def test_a_slot_handed_over_to_a_stage_that_is_just_cancelled_goes_on_to_the_next() -> None:
    """Both in the same turn of the loop: the narrowest race there is."""
    async with Desk.open(Cards(), cpu_slots=1) as desk:
        await desk.ask("first")
        await desk.ask("second")
        await desk.ask("third")
        desk._ends["first"].set()
        while not desk._tasks["first"].done():
            await asyncio.sleep(0)
        await desk.cancel("second")

        assert {"third"} == set(desk.at_work) - {"second"}


async def test_without_a_gpu_its_stages_run_on_the_processor() -> None:
    """In a slot of the processor, and no library of theirs looks for a card."""
    async with Desk.open(Cards(), cpu_slots=1) as desk:
        await desk.ask("wants a card", gpu=True, gpu_memory_bytes=GIB)
        await desk.ask("does not")

        assert ["wants a card"] == list(desk.at_work)
        assert ("cpu", {"CUDA_VISIBLE_DEVICES": ""}) == (
            desk.at_work["wants a card"].device,
            desk.at_work["wants a card"].environ,
        )


async def test_stages_on_a_gpu_take_no_slot_of_the_processor() -> None:
    """Scenes are found meanwhile."""
    async with Desk.open(Cards(one=24), cpu_slots=1) as desk:
        await desk.ask("on the card", gpu=True, gpu_memory_bytes=GIB)
        await desk.ask("on the processor")

        assert {"on the card", "on the processor"} == set(desk.at_work)
        assert "one" == desk.at_work["on the card"].environ["CUDA_VISIBLE_DEVICES"]
        assert "" == desk.at_work["on the processor"].environ["CUDA_VISIBLE_DEVICES"]


async def test_memory_that_a_stage_was_promised_is_not_given_again() -> None:
    """The driver still calls it free: the first stage is loading."""
    async with Desk.open(Cards(one=24)) as desk:
        await desk.ask("first", gpu=True, gpu_memory_bytes=14 * GIB)
        await desk.ask("second", gpu=True, gpu_memory_bytes=14 * GIB)
        alone = list(desk.at_work)
        await desk.end("first")
        await desk.until_at_work("second")

        assert ["first"] == alone
        assert ["Waits for 14.0 GiB of GPU memory; 10.0 GiB are free."] == desk.said
        assert desk.made_room > 0


async def test_a_stage_starts_only_when_the_memory_is_really_back() -> None:
    """The last stage has ended, and somebody still holds its memory."""
    cards = Cards(one=24)
    async with Desk.open(cards) as desk:
        cards.used["one"] = 20 * GIB
        await desk.ask("stage", gpu=True, gpu_memory_bytes=14 * GIB)
        before = list(desk.at_work)
        cards.used["one"] = 0
        await desk.until_at_work("stage")

        assert [] == before


async def test_memory_of_other_programs_is_not_promised_to_anybody() -> None:
    """A card that shows a desktop, or that a colleague trains on."""
    cards = Cards(one=24)
    cards.used["one"] = 8 * GIB
    async with Desk.open(cards) as desk:
        await desk.ask("first", gpu=True, gpu_memory_bytes=10 * GIB)
        await desk.ask("second", gpu=True, gpu_memory_bytes=10 * GIB)

        assert ["first"] == list(desk.at_work)


async def test_several_cards_are_filled_side_by_side_up_to_the_slots() -> None:
    """The emptier card first; more stages than slots wait."""
    async with Desk.open(Cards(one=24, two=48), gpu_slots=3) as desk:
        for name in ("first", "second", "third", "fourth"):
            await desk.ask(name, gpu=True, gpu_memory_bytes=20 * GIB)

        assert {"first": "two", "second": "two", "third": "one"} == {k: v.card for k, v in desk.at_work.items()}


async def test_nobody_overtakes_a_stage_that_waits_for_much_memory() -> None:
    """Small ones would keep the card busy for ever."""
    async with Desk.open(Cards(one=24), gpu_slots=3) as desk:
        await desk.ask("runs", gpu=True, gpu_memory_bytes=10 * GIB)
        await desk.ask("large", gpu=True, gpu_memory_bytes=20 * GIB)
        await desk.ask("small", gpu=True, gpu_memory_bytes=1 * GIB)
        meanwhile = list(desk.at_work)
        await desk.end("runs")
        await desk.until_at_work("large")
        await desk.until_at_work("small")

        assert ["runs"] == meanwhile


def test_where_there_is_no_driver_there_are_no_cards_and_it_is_said() -> None:
    """A laptop must not wait for a GPU, and whoever wonders finds the reason."""
    nvml = Nvml()
    try:
        cards = nvml.cards()
        if cards:
            pytest.skip("this machine has a GPU")

        assert 0 == nvml.held_by([1])
        assert nvml.why_none
    finally:
        nvml.close()
