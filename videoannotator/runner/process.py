"""The server's side of a stage: start it, hear it, watch it, and make sure that it ends."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from videoannotator.errors import StageDied
from videoannotator.jobs import Usage
from videoannotator.logs import get_logger
from videoannotator.machine.devices import Devices
from videoannotator.runner import leftovers, sandbox
from videoannotator.runner.births import Births, Child, Started
from videoannotator.runner.conversation import Audience, Conversation, Limits, settle
from videoannotator.runner.group import SWEEP_SECONDS, Group, pipes, to_its_end
from videoannotator.runner.guard import Guard
from videoannotator.runner.log_file import LogFile
from videoannotator.runner.messages import Done, Log, Message, Progress, Start
from videoannotator.runner.standby import Making, Resident, Standby, Warmth
from videoannotator.runner.surroundings import make_scratch, remove_earlier_scratch, remove_scratch, surroundings

__all__ = ["Limits", "Making", "Runner", "Warmth"]

T = TypeVar("T")

RELEASE_SECONDS = 5.0
"""How long the memory of a GPU is waited for when the processes that held it are gone."""

_PAUSE_SECONDS = 0.02
_LIFE_BYTES = 8
"""Written with two characters each. The names of storage directories are of that length too."""

log = get_logger(__name__)


class Runner:
    """Runs stages, each in a process group of its own. Made by `open`."""

    def __init__(
        self,
        storage_id: str,
        life: str,
        guard: Guard,
        threads: ThreadPoolExecutor,
        *,
        scratch: Path,
        devices: Devices | None,
        births: Births | None,
    ) -> None:
        self.guard = guard
        self._standby = Standby(self._end)
        self._births = births or Births()
        self._expected: dict[Making, asyncio.Task[None]] = {}
        self._devices = devices
        self._scratch = scratch
        """Where temporary files go before a process has a stage."""

        self._storage_id = storage_id
        self._life = life
        self._threads = threads
        self._started = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, storage_id: str, devices: Devices | None = None, births: Births | None = None
    ) -> AsyncIterator[Self]:
        """
        Kill what an earlier life of this storage directory left, then start the guardian. With `devices` a process
        that ran on a GPU counts as ended when its memory there is free. `births` are those that `births_ahead` began,
        for storage and life of the usual lengths.

        When the block ends, nothing that was started inside it is left.
        """
        life = secrets.token_hex(_LIFE_BYTES)
        begin = f"{leftovers.STAGE_MARK}={life}-".encode()
        # Threads of its own: a kill must not wait behind somebody who hashes a video in the loop's default ones.
        with ThreadPoolExecutor(4, thread_name_prefix="runner") as threads:
            await _kill_all(threads, leftovers.needle(leftovers.STORAGE_MARK, storage_id))
            await asyncio.get_running_loop().run_in_executor(threads, remove_earlier_scratch, storage_id)
            async with Guard.open(begin) as guard:
                scratch = make_scratch(storage_id)
                runner = cls(storage_id, life, guard, threads, scratch=scratch, devices=devices, births=births)
                try:
                    yield runner
                finally:
                    await to_its_end(asyncio.create_task(runner._close()))
                    await _kill_all(threads, begin)
                    remove_scratch(scratch)

    async def run(
        self,
        start: Start,
        *,
        interpreter: Path,
        log: Path,
        limits: Limits,
        on_progress: Callable[[Progress], None],
        on_log: Callable[[Log], None],
        on_usage: Callable[[Usage], None] = lambda _: None,
        on_process: Callable[[int], None] = lambda _: None,
        warmth: Warmth | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Done:
        """
        Run one stage to its end. However it ends, also by cancellation, no process of it is left then; only with
        `warmth` a process whose stage ended well may wait for the next one. `environ` are variables for it.

        `on_progress` is called at most some twenty times a second, `on_log` at most `MOST_LOG_LINES` times in all,
        `on_usage` at each look and once more at the end, `on_process` once, with the number of its first process.

        Raises:
            StageFailed: the pipeline said so.
            StageDied: the process ended without a word, or could not be started.
            StageTooSlow, StageTooLarge: it went beyond its limits.
            StageBroke: what it sent is no message.
            StorageTrouble: its log, or a temporary folder for it, cannot be written.
        """
        making = Making(
            interpreter=str(interpreter),
            code=start.code,
            pipeline=start.pipeline,
            threads=start.threads,
            network=start.network,
            environ=tuple(sorted((environ or {}).items())),
        )
        async with self.scratch() as scratch:
            with _log_of(log, limits.log_bytes) as file:
                async with self._resident(making, warmth, file.fd, limits.grace_seconds) as (resident, is_new):
                    on_process(resident.group.pid)
                    said = msgspec.structs.replace(
                        start, log="" if is_new else str(log), scratch=str(scratch), stays=warmth is not None
                    )
                    conversation = Conversation(
                        resident.group,
                        start=said,
                        limits=limits,
                        log_file=file,
                        audience=Audience(on_progress=on_progress, on_log=on_log, on_usage=on_usage),
                        keeper=self,
                        has_worked=not is_new,
                        card=making.card,
                        devices=self._devices,
                    )
                    ending = await conversation.until_the_end()
                    if conversation.waits and warmth and resident.may_stay(conversation.resident_bytes, warmth):
                        resident.stays = True
        return settle(ending, resident.group, start.pipeline)

    def expect(self, making: Making) -> None:
        """A stage may follow in a moment: have a process for it that is loading its libraries already."""
        if not self._standby.has_one(making) and making not in self._expected:
            self._expected[making] = asyncio.create_task(self._make_ready(making), name=f"birth for {making.pipeline}")

    async def _make_ready(self, making: Making) -> None:
        try:
            # Where it cannot be started, for want of descriptors say, the stage will say so.
            with suppress(StageDied, OSError), open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230, PTH123  (it does not block)
                self._standby.put_fresh(Resident(await self._begin(making, nowhere.fileno()), making))
        finally:
            del self._expected[making]

    async def _close(self) -> None:
        while self._expected:
            await asyncio.wait(set(self._expected.values()))
        await self._standby.close()
        await self._births.close()

    @property
    def waiting_pids(self) -> tuple[int, ...]:
        """Of the processes that wait for a stage."""
        return self._standby.pids

    @property
    def nursery_pids(self) -> tuple[int, ...]:
        """Of the processes that stage processes are forked from."""
        return self._births.pids

    async def end_warm(self) -> None:
        """End the processes that wait and keep something in memory; it is free when this returns."""
        await self._standby.end_warm()

    @asynccontextmanager
    async def _resident(
        self, making: Making, warmth: Warmth | None, errors: int, grace_seconds: float
    ) -> AsyncIterator[tuple[Resident, bool]]:
        """
        A process for one stage, and whether it is new. When the block is left the process is gone, or waits for
        another stage where it may.
        """
        if making in self._expected:
            await asyncio.wait({self._expected[making]})
        resident = self._standby.take(making, warmth.loaded if warmth else "")
        is_new = resident is None
        if resident is None:
            resident = Resident(await self._begin(making, errors), making)
        resident.stays = False
        try:
            yield resident, is_new
        finally:
            if resident.stays and warmth:
                self._standby.put_back(resident, warmth)
            else:
                await self._end(resident, grace_seconds)

    async def _end(self, resident: Resident, grace_seconds: float) -> None:
        try:
            await resident.group.end(grace_seconds)
            if self._devices is not None and resident.making.card:
                await to_its_end(asyncio.create_task(self._until_released(self._devices, resident.group.pids)))
        finally:
            resident.group.close()

    async def _until_released(self, devices: Devices, pids: frozenset[int]) -> None:
        """Its processes are gone; the driver may need a moment to take back what they held."""
        deadline = asyncio.get_running_loop().time() + RELEASE_SECONDS
        while held := await self.in_thread(devices.held_by, pids):
            if asyncio.get_running_loop().time() > deadline:
                log.error("memory of a GPU is not given back", held_bytes=held, pids=sorted(pids))
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _begin(self, making: Making, errors: int) -> Group[Message]:
        """Raises StageDied. Whoever is cancelled meanwhile leaves no process."""
        birth = asyncio.create_task(self._bear(making, errors), name=f"birth for {making.pipeline}")
        try:
            return await to_its_end(birth)
        except asyncio.CancelledError:
            if birth.exception() is None:
                await to_its_end(asyncio.create_task(self._end(Resident(birth.result(), making), 0)))
            raise

    async def _bear(self, making: Making, errors: int) -> Group[Message]:
        environ, mark = self._environ(making.threads, self._scratch, dict(making.environ))
        with pipes() as ends:
            fds = (ends.inner, ends.out, errors)
            child = await self._births.birth(making.interpreter, fds=fds, environ=environ, who=making.pipeline)
            sandbox.let_others_go_first(child.pid)  # from its first instruction on, or nearly
        return Group(child, ends, kind=Message, keeper=self, mark=mark, who=making.pipeline)

    def start(
        self, argv: tuple[str, ...], *, errors: int, kind: Any, threads: int, who: str, scratch: Path
    ) -> Group[Any]:
        """Another process of ours with the marks and the surroundings of a stage. Raises StageDied."""
        environ, mark = self._environ(threads, scratch, {})
        with pipes() as ends:
            fds = (ends.inner, ends.out, errors)
            child: Child = Started((*argv, str(os.getpid())), fds=fds, environ=environ, who=who)
        return Group(child, ends, kind=kind, keeper=self, mark=mark, who=who)

    def _environ(self, threads: int, scratch: Path, more: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
        """Of the next process, and the mark in it that no other has."""
        self._started += 1
        stage_id = _stage_id(self._life, self._started)
        marks = {leftovers.STORAGE_MARK: self._storage_id, leftovers.STAGE_MARK: stage_id}
        environ = surroundings(os.environ, threads, scratch) | dict(more) | marks
        return environ, leftovers.needle(leftovers.STAGE_MARK, stage_id)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        folder = await self.in_thread(make_scratch, self._storage_id)
        try:
            yield folder
        finally:
            await to_its_end(asyncio.create_task(self.in_thread(remove_scratch, folder)))

    def register(self, pgid: int) -> None:
        self.guard.add(pgid)

    def unregister(self, pgid: int) -> None:
        self.guard.remove(pgid)

    async def in_thread(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))


@contextmanager
def births_ahead() -> Iterator[Births]:
    """For a Runner that will be opened in a moment, in this block: what its processes are forked from starts now."""
    births, nowhere = Births(), Path(os.devnull)
    marks = {leftovers.STORAGE_MARK: "-" * 2 * _LIFE_BYTES, leftovers.STAGE_MARK: _stage_id("-" * 2 * _LIFE_BYTES, 0)}
    births.begin(sys.executable, surroundings(os.environ, 1, nowhere) | marks)
    try:
        yield births
    finally:
        births.abandon()


def _stage_id(life: str, number: int) -> str:
    return f"{life}-{number:08}"  # all of one length; see `nursery.py`


@contextmanager
def _log_of(path: Path, limit_bytes: int) -> Iterator[LogFile]:
    """Open while the stage runs; when it is gone the file keeps its limit."""
    file = LogFile(path, limit_bytes)
    try:
        yield file
    finally:
        try:
            file.cut()
        finally:
            file.close()


async def _kill_all(threads: ThreadPoolExecutor, needle: bytes) -> None:
    sweeping = asyncio.get_running_loop().run_in_executor(
        threads, partial(leftovers.sweep, needle, within_seconds=SWEEP_SECONDS)
    )
    if left := await sweeping:
        log.error("processes of this storage directory survive SIGKILL", pids=left)
