"""What is said between the server and one stage, from the first word to the last, and what is watched meanwhile."""

import asyncio
import math
import signal
import time
from collections.abc import Callable

import msgspec

from videoannotator.errors import StageBroke, StageDied, StageFailed, StageStalled, StageTooLarge, StageTooSlow
from videoannotator.jobs import Usage
from videoannotator.machine.devices import Devices
from videoannotator.runner.ear import within
from videoannotator.runner.frames import encode
from videoannotator.runner.group import Group, Keeper, Taken, stop
from videoannotator.runner.log_file import LogFile
from videoannotator.runner.messages import Done, Failed, Log, Message, Partial, Progress, Start, Waiting

Ending = Done | Failed

LOOK_SECONDS = 0.25
"""How often time, memory and log of a stage are looked at."""

PROGRESS_SECONDS = 0.05
"""Progress that comes faster is thinned out; the last is always handed on."""

MOST_LOG_LINES = 1000
"""Lines of one stage that are handed on; its log file has room for more."""

LONGEST_LOG_LINE = 2000

_GPU_SHARE = 0.01
"""Of a core, at most, that is spent on asking a driver who holds how much."""

_LEAVE_SECONDS = 1.0
"""A stage that has said all has this long to leave before it is killed."""

_DRAIN_SECONDS = 2.0
"""What a dead stage wrote before is read for so long: a pipe holds little, unless something holds it open."""


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


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Who hears of a running stage."""

    on_progress: Callable[[Progress], None]
    on_log: Callable[[Log], None]
    on_usage: Callable[[Usage], None] = lambda _: None


class Conversation:
    """One stage from its first word to its last."""

    def __init__(
        self,
        group: Group[Message],
        *,
        start: Start,
        limits: Limits,
        log_file: LogFile,
        audience: Audience,
        keeper: Keeper,
        has_worked: bool,
        card: str = "",
        devices: Devices | None = None,
    ) -> None:
        """`has_worked`: the process has not begun for this stage alone. `devices` tell what it holds of its `card`."""
        self.waits = False
        """It has ended well and waits for another stage; nothing was killed."""

        self.resident_bytes = 0
        """At the last look."""

        self._group = group
        self._start = start
        self._who = start.pipeline
        self._limits = limits
        self._log_file = log_file
        self._audience = audience
        self._usage = Usage(0, 0.0)
        self._has_worked = has_worked
        self._before = Taken(0, 0.0)
        self._card = card
        self._devices = devices if card else None
        self._gpu_at = -math.inf
        self._keeper = keeper
        self._latest: Progress | None = None
        self._told_at = -math.inf
        self._lines = 0
        self._furthest = -math.inf
        self._began = self._advanced_at = asyncio.get_running_loop().time()

    async def until_the_end(self) -> Ending | None:
        """What it said last, None where that was nothing; then the group is dead, about to be killed, or `waits`."""
        if self._has_worked:
            self._before = await self._group.takes()
        telling = asyncio.create_task(self._group.tell(encode(self._start)), name=f"start of {self._who}")
        listening = asyncio.create_task(self._listen(), name=f"ear of {self._who}")
        watching = asyncio.create_task(self._watch(), name=f"watch of {self._who}")
        leaving = asyncio.create_task(self._group.leaves(), name=f"exit of {self._who}")
        try:
            await self._measure()  # a stage that is over before the first look took something too
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
        """It has said all it will. What it may still do is leave, or wait where it was asked to."""
        if self._start.stays and isinstance(ending, Done) and await self._comes_to_rest():
            await self._measure()
            self.waits = True
            return ending
        await self._measure()
        left = await self._group.leaves(_LEAVE_SECONDS)
        await self._measure()
        if ending is None and not left:
            raise StageBroke(f"{self._who} closed its side of the conversation without a result.")
        await self._group.end(0)
        return ending

    async def _comes_to_rest(self) -> bool:
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                return isinstance(await self._group.ear.hear(), Waiting)
        except (TimeoutError, StageBroke):
            return False

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
            self._audience.on_progress(latest)

    def _hand_on(self, line: Log) -> None:
        self._lines += 1
        if self._lines < MOST_LOG_LINES:
            self._audience.on_log(Log(line.level, line.message[:LONGEST_LOG_LINE]))
        elif self._lines == MOST_LOG_LINES:
            self._audience.on_log(Log("warning", f"{self._who} says too much: what follows is left out here."))

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
            await self._keeper.in_thread(self._log_file.cut)

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
        """Memory in use now, in bytes; whoever listens hears of the peak so far and of all else that it took."""
        taken = await self._group.takes()
        self.resident_bytes = taken.resident_bytes
        self._usage = _grown(self._usage, taken, self._before, await self._on_gpu(taken.pids))
        if self._usage.peak_memory_bytes or self._usage.cpu_seconds:  # where there is no /proc nothing is known
            self._audience.on_usage(self._usage)
        return taken.resident_bytes

    async def _on_gpu(self, pids: frozenset[int]) -> int | None:
        """Bytes that the processes hold on their card now; None where nobody says, or where it is too early to ask."""
        now = asyncio.get_running_loop().time()
        if self._devices is None or not pids or now < self._gpu_at:
            return None
        held, cost = await self._keeper.in_thread(_ask, self._devices, self._card, pids)
        self._gpu_at = now + cost / _GPU_SHARE
        return held


def _ask(devices: Devices, card: str, pids: frozenset[int]) -> tuple[int | None, float]:
    """What they hold, and the seconds of processor time that it took to ask."""
    began = time.thread_time()
    held = devices.used_by(card, pids)
    return held, time.thread_time() - began


def _grown(usage: Usage, taken: Taken, before: Taken, on_gpu: int | None) -> Usage:
    """What was taken until now; a process that has left, or been ended by force, takes nothing of that back."""
    read, written = (None, None) if taken.disk_bytes is None else taken.disk_bytes
    read_before, written_before = before.disk_bytes or (0, 0)
    return Usage(
        peak_memory_bytes=max(usage.peak_memory_bytes, taken.resident_bytes),
        cpu_seconds=max(usage.cpu_seconds, taken.cpu_seconds - before.cpu_seconds),
        peak_gpu_memory_bytes=_larger(usage.peak_gpu_memory_bytes, on_gpu),
        read_bytes=_larger(usage.read_bytes, None if read is None else read - read_before),
        written_bytes=_larger(usage.written_bytes, None if written is None else written - written_before),
    )


def _larger(known: int | None, now: int | None) -> int | None:
    return max((value for value in (known, now) if value is not None), default=None)


def settle(ending: Ending | None, group: Group[Message], who: str) -> Done:
    """
    Raises:
        StageFailed: the pipeline said so.
        StageDied: it ended without a word.
    """
    match ending:
        case Done():
            return ending
        case Failed(code=code, message=message, hint=hint, retryable=retryable):
            raise StageFailed(message, code=code, hint=hint, retryable=retryable)
        case None:
            status = group.exit_status
            raise StageDied(f"{who} {_how(status)}, without a result.", hint=_why(status))


def _how(exit_status: int) -> str:
    if exit_status >= 0:
        return f"left with exit status {exit_status}"
    names = {int(number): number.name for number in signal.Signals}
    return f"was ended by {names.get(-exit_status, f'signal {-exit_status}')}"


def _why(exit_status: int) -> str:
    log_says = "Its log may say more."
    return f"It may have run out of memory. {log_says}" if exit_status == -signal.SIGKILL else log_says
