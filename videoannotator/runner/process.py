"""The server's side of a stage: start it, hear it, watch it, and make sure that it ends."""

import asyncio
import math
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from videoannotator.errors import StageBroke, StageDied, StageFailed, StageStalled, StageTooLarge, StageTooSlow
from videoannotator.jobs import Usage
from videoannotator.logs import get_logger
from videoannotator.runner import leftovers
from videoannotator.runner.ear import within
from videoannotator.runner.frames import encode
from videoannotator.runner.group import SWEEP_SECONDS, Group, stop, to_its_end
from videoannotator.runner.guard import Guard
from videoannotator.runner.log_file import LogFile
from videoannotator.runner.messages import Done, Failed, Log, Message, Partial, Progress, Start
from videoannotator.runner.surroundings import make_scratch, remove_earlier_scratch, remove_scratch, surroundings

T = TypeVar("T")
Ending = Done | Failed

LOOK_SECONDS = 0.25
"""How often time, memory and log of a stage are looked at."""

PROGRESS_SECONDS = 0.05
"""Progress that comes faster is thinned out; the last is always handed on."""

MOST_LOG_LINES = 1000
"""Lines of one stage that are handed on; its log file has room for more."""

LONGEST_LOG_LINE = 2000

_LEAVE_SECONDS = 1.0
"""A stage that has said all has this long to leave before it is killed."""

_DRAIN_SECONDS = 2.0
"""What a dead stage wrote before is read for so long: a pipe holds little, unless something holds it open."""

log = get_logger(__name__)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage may take. 0 is no limit, except for `grace_seconds` and `log_bytes`."""

    grace_seconds: float
    """Between SIGTERM and SIGKILL."""

    timeout_seconds: float
    """From start to result."""

    stall_seconds: float
    """Without any progress on the video's timeline."""

    memory_bytes: int
    """Resident, of the process and its descendants together."""

    log_bytes: int


class Runner:
    """Runs stages, each in a process group of its own. Made by `open`."""

    def __init__(self, storage_id: str, life: str, guard: Guard, threads: ThreadPoolExecutor) -> None:
        self.guard = guard
        self._storage_id = storage_id
        self._life = life
        self._threads = threads
        self._started = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, storage_id: str) -> AsyncIterator[Self]:
        """
        Kill what an earlier life of this storage directory left, then start the guardian.

        When the block ends, nothing that was started inside it is left.
        """
        life = secrets.token_hex(8)
        begin = f"{leftovers.STAGE_MARK}={life}-".encode()
        # Threads of its own: a kill must not wait behind somebody who hashes a video in the loop's default ones.
        with ThreadPoolExecutor(4, thread_name_prefix="runner") as threads:
            await _kill_all(threads, leftovers.needle(leftovers.STORAGE_MARK, storage_id))
            await asyncio.get_running_loop().run_in_executor(threads, remove_earlier_scratch, storage_id)
            async with Guard.open(begin) as guard:
                try:
                    yield cls(storage_id, life, guard, threads)
                finally:
                    await _kill_all(threads, begin)

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
    ) -> Done:
        """
        Run one stage to its end. However it ends, also by cancellation, no process of it is left then.

        `on_progress` is called at most some twenty times a second, `on_log` at most `MOST_LOG_LINES` times in all,
        `on_usage` at each look and once more at the end.

        Raises:
            StageFailed: the pipeline said so.
            StageDied: the process ended without a word, or could not be started.
            StageTooSlow, StageTooLarge: it went beyond its limits.
            StageBroke: what it sent is no message.
            StorageTrouble: its log, or a temporary folder for it, cannot be written.
        """
        said = encode(start)
        async with self.scratch() as scratch:
            with _log_of(log, limits.log_bytes) as file:
                argv = (str(interpreter), "-P", "-m", "videoannotator.runner.child")
                group: Group[Message] = self.start(
                    argv, errors=file.fd, kind=Message, threads=start.threads, who=start.pipeline, scratch=scratch
                )
                async with ended(group, limits.grace_seconds):
                    conversation = _Conversation(
                        group,
                        start=start,
                        limits=limits,
                        log_file=file,
                        on_progress=on_progress,
                        on_log=on_log,
                        on_usage=on_usage,
                        runner=self,
                    )
                    ending = await conversation.until_the_end(said)
        return _settle(ending, start.pipeline, group.exit_status)

    def start(
        self, argv: tuple[str, ...], *, errors: int, kind: Any, threads: int, who: str, scratch: Path
    ) -> Group[Any]:
        """A process of ours with the marks and the surroundings of a stage. Raises StageDied."""
        self._started += 1
        stage_id = f"{self._life}-{self._started}"
        marks = {leftovers.STORAGE_MARK: self._storage_id, leftovers.STAGE_MARK: stage_id}
        return Group.start(
            (*argv, str(os.getpid())),
            env=surroundings(os.environ, threads, scratch) | marks,
            errors=errors,
            kind=kind,
            keeper=self,
            mark=leftovers.needle(leftovers.STAGE_MARK, stage_id),
            who=who,
        )

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


@asynccontextmanager
async def ended(group: Group[Any], grace_seconds: float) -> AsyncIterator[None]:
    """When the block is left, in whatever way, the group is gone and its pipes are closed."""
    try:
        yield
    finally:
        try:
            await group.end(grace_seconds)
        finally:
            group.close()


class _Conversation:
    """One stage from its first word to its last."""

    def __init__(
        self,
        group: Group[Message],
        *,
        start: Start,
        limits: Limits,
        log_file: LogFile,
        on_progress: Callable[[Progress], None],
        on_log: Callable[[Log], None],
        on_usage: Callable[[Usage], None],
        runner: Runner,
    ) -> None:
        self._group = group
        self._who = start.pipeline
        self._limits = limits
        self._log_file = log_file
        self._on_progress = on_progress
        self._on_log = on_log
        self._on_usage = on_usage
        self._usage = Usage(0, 0.0)
        self._runner = runner
        self._latest: Progress | None = None
        self._told_at = -math.inf
        self._lines = 0
        self._furthest = -math.inf
        self._began = self._advanced_at = asyncio.get_running_loop().time()

    async def until_the_end(self, said: bytes) -> Ending | None:
        """What it said last, None where that was nothing; then the group is dead or about to be killed."""
        telling = asyncio.create_task(self._group.tell(said), name=f"start of {self._who}")
        listening = asyncio.create_task(self._listen(), name=f"ear of {self._who}")
        watching = asyncio.create_task(self._watch(), name=f"watch of {self._who}")
        leaving = asyncio.create_task(self._group.leaves(), name=f"exit of {self._who}")
        try:
            await asyncio.wait({listening, watching, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                ending = await self._see_off(listening.result())
            elif watching.done():
                raise watching.exception() or AssertionError("the watch ends by raising only")
            else:
                ending = await self._last_words(listening)
        except (StageBroke, StageTooLarge):
            await self._group.end(0)
            raise
        finally:
            await stop(telling, listening, watching, leaving)
        self._tell_progress()
        return ending

    async def _listen(self) -> Ending | None:
        while (message := await self._group.ear.hear()) is not None:
            match message:
                case Progress():
                    self._note(message)
                case Log():
                    self._hand_on(message)
                case Partial(_, until_seconds):
                    self._advance(until_seconds)
                case Done() | Failed():
                    return message
        return None

    async def _see_off(self, ending: Ending | None) -> Ending | None:
        """It has said all it will. What it may still do is leave."""
        left = await self._group.leaves(_LEAVE_SECONDS)
        await self._measure()
        if ending is None and not left:
            raise StageBroke(f"{self._who} closed its side of the conversation without a result.")
        await self._group.end(0)
        return ending

    async def _last_words(self, listening: "asyncio.Task[Ending | None]") -> Ending | None:
        """It has left. Something may still stand in the pipe, and something it started may hold the pipe open."""
        await self._measure()
        await self._group.end(0)
        self._group.ear.unhurried = False
        return listening.result() if await within(_DRAIN_SECONDS, listening) else None

    def _note(self, progress: Progress) -> None:
        if not (math.isfinite(progress.done_seconds) and math.isfinite(progress.total_seconds)):
            raise StageBroke(f"{self._who} reported progress that is no number.")
        self._latest = progress
        self._advance(progress.done_seconds)
        if asyncio.get_running_loop().time() - self._told_at >= PROGRESS_SECONDS:
            self._tell_progress()

    def _tell_progress(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None:
            self._told_at = asyncio.get_running_loop().time()
            self._on_progress(latest)

    def _hand_on(self, line: Log) -> None:
        self._lines += 1
        if self._lines < MOST_LOG_LINES:
            self._on_log(Log(line.level, line.message[:LONGEST_LOG_LINE]))
        elif self._lines == MOST_LOG_LINES:
            self._on_log(Log("warning", f"{self._who} says too much: what follows is left out here."))

    def _advance(self, seconds: float) -> None:
        if seconds > self._furthest:
            self._furthest = seconds
            self._advanced_at = asyncio.get_running_loop().time()

    async def _watch(self) -> None:
        """Raises StageTooSlow or StageTooLarge, and never returns."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._tell_progress()
            self._check_time()
            await self._check_memory()
            await self._runner.in_thread(self._log_file.cut)

    def _check_time(self) -> None:
        now, limits = asyncio.get_running_loop().time(), self._limits
        if 0 < limits.timeout_seconds < now - self._began:
            hint = "The setting stage_timeout_seconds is its limit."
            raise StageTooSlow(f"{self._who} was ended after {limits.timeout_seconds:g} s, too long a run.", hint=hint)
        if 0 < limits.stall_seconds < now - self._advanced_at:
            hint = "The setting stage_stall_seconds is the limit."
            raise StageStalled(f"{self._who} was ended: no progress for {limits.stall_seconds:g} s.", hint=hint)

    async def _check_memory(self) -> None:
        used, most = await self._measure(), self._limits.memory_bytes
        if 0 < most < used:
            hint = "The setting stage_memory_bytes is the limit."
            raise StageTooLarge(
                f"{self._who} was ended: it used {used / 2**20:.0f} MiB of memory and may use {most / 2**20:.0f} MiB.",
                hint=hint,
            )

    async def _measure(self) -> int:
        """Memory in use now, in bytes; whoever listens hears of the peak so far and of the processor time."""
        taken, before = await self._group.takes(), self._usage
        peak, cpu = max(before.peak_memory_bytes, taken.resident_bytes), max(before.cpu_seconds, taken.cpu_seconds)
        self._usage = Usage(peak, cpu)
        if self._usage != Usage(0, 0.0):  # where there is no /proc nothing is known
            self._on_usage(self._usage)
        return taken.resident_bytes


def _settle(ending: Ending | None, who: str, exit_status: int) -> Done:
    match ending:
        case Done():
            return ending
        case Failed(code=code, message=message, hint=hint, retryable=retryable):
            raise StageFailed(message, code=code, hint=hint, retryable=retryable)
        case None:
            raise StageDied(f"{who} {_how(exit_status)}, without a result.", hint=_why(exit_status))


def _how(exit_status: int) -> str:
    if exit_status >= 0:
        return f"left with exit status {exit_status}"
    names = {int(number): number.name for number in signal.Signals}
    return f"was ended by {names.get(-exit_status, f'signal {-exit_status}')}"


def _why(exit_status: int) -> str:
    log_says = "Its log may say more."
    return f"It may have run out of memory. {log_says}" if exit_status == -signal.SIGKILL else log_says


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
