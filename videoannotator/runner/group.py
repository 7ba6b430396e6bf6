"""
One process in a session of its own, the two pipes to it, and the certainty that it and all that it started ends.

Not asyncio's processes: asyncio reaps a child the moment it dies, in another thread, and from then on its number may be
somebody else's while its group is still to be killed. Here the dead leader is kept unreaped, and its number with it,
until the last signal is sent. It is started from the loop's thread, because PDEATHSIG is about threads.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from videoannotator.logs import get_logger
from videoannotator.runner import leftovers
from videoannotator.runner.births import Child
from videoannotator.runner.ear import Ear, tell, within

M = TypeVar("M")
T = TypeVar("T")

SWEEP_SECONDS = 5.0
"""How long leftovers are killed again and again. What survives SIGKILL for so long is stuck inside the kernel."""

_PAUSE_SECONDS = 0.003

log = get_logger(__name__)


class Taken(msgspec.Struct, frozen=True):
    """By a process and its living descendants at one moment."""

    resident_bytes: int
    cpu_seconds: float
    """Since the first process began."""

    disk_bytes: tuple[int, int] | None = None
    """Read and written since then; None where the system does not say."""

    pids: frozenset[int] = frozenset()
    """Of those that live."""


class Keeper(Protocol):
    """What a group needs of the Runner it belongs to."""

    def register(self, pgid: int) -> None: ...

    def unregister(self, pgid: int) -> None: ...

    async def in_thread(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...


class Pipes(NamedTuple):
    """Two pipes: to a process and from it."""

    inner: int
    """Its standard input."""

    out: int
    """Its standard output."""

    hearing: int
    telling: int


@contextmanager
def pipes() -> Iterator[Pipes]:
    """When the block ends well the server's ends stay open, else none; those of the process are its own by then."""
    with ExitStack() as on_failure, ExitStack() as inner_ends:
        hearing, out = os.pipe()
        on_failure.callback(os.close, hearing)
        inner_ends.callback(os.close, out)
        inner, telling = os.pipe()
        on_failure.callback(os.close, telling)
        inner_ends.callback(os.close, inner)
        os.set_blocking(telling, False)
        yield Pipes(inner, out, hearing, telling)
        on_failure.pop_all()


class Group(Generic[M]):
    """Whoever makes it ends it."""

    def __init__(self, process: Child, pipes: Pipes, *, kind: Any, keeper: Keeper, mark: bytes, who: str) -> None:
        """A process that has just been started with these pipes, on which it says messages of `kind`."""
        keeper.register(process.pid)
        self.pid = process.pid
        self.ear: Ear[M] = Ear(pipes.hearing, kind, who=who)
        self._process = process
        self._keeper = keeper
        self._mark = mark
        self._hearing, self._telling = pipes.hearing, pipes.telling
        self._family: frozenset[leftovers.Seen] = frozenset()
        self._exit = asyncio.ensure_future(process.ends())
        self._exit_status: int | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def has_left(self) -> bool:
        return self._exit.done()

    @property
    def pids(self) -> frozenset[int]:
        """Of the first process and of all descendants that were seen."""
        return frozenset({self.pid, *(member.pid for member in self._family)})

    @property
    def is_quiet(self) -> bool:
        """It lives, and has said nothing that was not heard."""
        return not self.has_left and not self.ear.has_more

    @property
    def exit_status(self) -> int:
        """Of the first process, negative for a signal; only after `end`."""
        assert self._exit_status is not None
        return self._exit_status

    async def tell(self, frame: bytes) -> None:
        """Say something to it; lost without a word when it has closed its ear, since what it says decides."""
        with suppress(BrokenPipeError):
            await tell(self._telling, frame)

    async def leaves(self, within_seconds: float | None = None) -> bool:
        """Whether the first process ends, by itself, in time."""
        if within_seconds is None:
            await asyncio.wait({self._exit})
            return True
        return await within(within_seconds, self._exit)

    async def resident_bytes(self) -> int:
        """Memory of the process and its descendants, all of which it also remembers, to end them one day."""
        return (await self.takes()).resident_bytes

    async def takes(self) -> "Taken":
        """What the process and its descendants take now; also where it has just ended by itself."""
        members, taken = await self._keeper.in_thread(_look, self.pid)
        self._family |= frozenset(members)
        return taken

    async def end(self, grace_seconds: float) -> None:
        """
        SIGTERM, up to `grace_seconds` for those that changed its action, SIGKILL; returns when nothing is left.

        Once begun it goes on to its end, however often the caller is cancelled. Only the first call's grace counts.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace_seconds), name=f"end of process group {self.pid}")
        await to_its_end(self._ending)

    def close(self) -> None:
        """Close the pipes. After `end`."""
        os.close(self._hearing)
        os.close(self._telling)

    async def _end(self, grace_seconds: float) -> None:
        try:
            await self.resident_bytes()
            if grace_seconds > 0 and not self.has_left:
                self._signal(signal.SIGTERM)
                await self.leaves(grace_seconds)
        finally:
            self._signal(signal.SIGKILL)
        # No limit: a process that SIGKILL does not end is stuck inside the kernel, on a dead network drive say, and to
        # call it gone would be a lie. Everything else goes on meanwhile.
        await self.leaves()
        self._signal(signal.SIGKILL)
        await self._sweep()
        self._keeper.unregister(self.pid)
        self._exit_status = await self._process.reap(self._keeper.in_thread)
        await self._until_empty()

    def _signal(self, number: int) -> None:
        """To the whole group. The leader is not reaped yet, so that the number is still its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _sweep(self) -> None:
        """Those that left the group."""
        others = frozenset(member for member in self._family if member.pid != self.pid)
        left = await self._keeper.in_thread(leftovers.sweep, self._mark, others, within_seconds=SWEEP_SECONDS)
        if left:
            log.error("processes survive SIGKILL", pids=left, group=self.pid)

    async def _until_empty(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SWEEP_SECONDS
        while not await self._keeper.in_thread(leftovers.group_is_empty, self.pid):
            if loop.time() > deadline:
                log.error("a process group survives SIGKILL", group=self.pid)
                return
            await asyncio.sleep(_PAUSE_SECONDS)


def _look(pid: int) -> tuple[tuple[leftovers.Seen, ...], Taken]:
    members = leftovers.family(pid)
    return members, Taken(
        resident_bytes=leftovers.resident_bytes(members),
        cpu_seconds=leftovers.cpu_seconds(pid, members),
        disk_bytes=leftovers.disk_bytes(pid, members),
        pids=frozenset(member.pid for member in members),
    )


async def to_its_end(task: asyncio.Task[T]) -> T:
    """Wait for a task that must not be cut short: a cancellation is kept back until it is over, and then let out."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as exc:
            cancelled = exc
        except Exception:
            break
    if cancelled is not None and not task.cancelled():
        if (bug := task.exception()) is not None:
            raise bug
        raise cancelled
    return task.result()


async def stop(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they are over; whoever needs what they raise has looked before."""
    for task in tasks:
        task.cancel()
    await to_its_end(asyncio.create_task(asyncio.wait(tasks)))
    for task in tasks:
        if not task.cancelled():
            task.exception()
