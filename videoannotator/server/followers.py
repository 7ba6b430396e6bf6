"""
One follower of the events: told as fast as it listens, let go where it does not, and never waited for by anybody else.

A follower pulls: what it has not been told lies in the store, not in a buffer of its own, so a thousand that never read
cost a thousand sockets and no more. One that cannot keep up is told to look for itself (`resync`) and closed; one that
takes nothing at all is cut off.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import anyio.lowlevel
import msgspec

from videoannotator.jobs import Event
from videoannotator.machine.resources import SAMPLE_SECONDS, GpuUse, Sample, StageUse
from videoannotator.server.streams import ABORT, end, until_gone
from videoannotator.store import Store

HEARTBEAT_SECONDS = 15.0

BUFFER_EVENTS = 1000
"""So many may happen while one is being sent; a follower that missed more has to look for itself."""

SLOW_SECONDS = 1.0
"""Shorter waits for a follower do not count: then a burst was too large, not the follower too slow."""

RECHECK_SECONDS = 1.0
"""A follower whose key was revoked or has expired is told nothing more after so long."""

STUCK_SECONDS = 30.0
"""A follower that takes nothing for so long is cut off."""

FAREWELL_SECONDS = 0.5
"""The last word is not waited for any longer: the server is stopping."""

CLOSING = "server.closing"
RESOURCES = "server.resources"
RESYNC = "resync"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]


class Notice(msgspec.Struct, frozen=True):
    """Something about the stream itself; it has no id, so that a client's place stays where it is."""

    type: str
    data: Any
    """What JSON can say."""


Told = tuple[Event, ...] | Notice


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    store: Store
    after: int | None
    job_id: str | None
    batch_id: str | None
    allowed: Callable[[], Awaitable[bool]]
    """Whether the follower's key is still good."""

    resources: Callable[[], Sample | None] | None = None
    """The machine's latest sample, where it is asked for too."""

    async def told(self) -> AsyncGenerator[Told, None]:
        """
        Events, none of them after a pause; it ends after a notice that the follower is too slow, and without a word
        when its key is worth nothing any more: who comes again is told why.
        """
        now, after = asyncio.get_running_loop().time, self.after
        if after is not None and after > await self.store.last_seq():
            # An id from another database: what was missed cannot be told, so the client must look for itself.
            yield Notice(RESYNC, {"reason": "unknown event id"})
            after = None
        pause = HEARTBEAT_SECONDS if self.resources is None else SAMPLE_SECONDS
        batches = self.store.follow_together(
            after=after, job_id=self.job_id, batch_id=self.batch_id, pause_seconds=pause
        )
        waited, checked, sampled_at = 0.0, now(), 0.0
        async with aclosing(batches):
            async for heard in batches:
                if now() - checked >= RECHECK_SECONDS:
                    if not await self.allowed():
                        return
                    checked = now()
                if waited > SLOW_SECONDS and len(heard.events) + heard.behind > BUFFER_EVENTS:
                    yield Notice(RESYNC, {"reason": "too slow"})
                    return
                began = now()
                sample = self.resources() if self.resources is not None else None
                if sample is not None and sample.at > sampled_at:
                    sampled_at = sample.at
                    yield Notice(RESOURCES, resources_told(sample, self.job_id, self.batch_id))
                if heard.events or sample is None:
                    yield heard.events
                waited = now() - began


class ResourcesTold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`server.resources`: what machine, server and stages use. Not kept, and so without an id."""

    timestamp: str
    cpu_share: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    server_cpu_cores: float
    server_memory_bytes: int
    stages_memory_bytes: int
    gpus: tuple[GpuUse, ...]
    stages: tuple[StageUse, ...]
    server_read_bytes: int | None = None
    server_written_bytes: int | None = None


def resources_told(sample: Sample, job_id: str | None, batch_id: str | None) -> ResourcesTold:
    """A stream of one job, or of one batch, hears of no other's stages."""
    stages = [s for s in sample.stages if job_id in (None, s.job_id) and batch_id in (None, s.batch_id)]
    moment = datetime.fromtimestamp(sample.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return ResourcesTold(
        timestamp=moment,
        cpu_share=round(sample.cpu_share, 3),
        memory_used_bytes=sample.memory_used_bytes,
        memory_total_bytes=sample.memory_total_bytes,
        disk_free_bytes=sample.disk_free_bytes,
        disk_total_bytes=sample.disk_total_bytes,
        server_cpu_cores=sample.server_cpu_cores,
        server_memory_bytes=sample.server_memory_bytes,
        server_read_bytes=sample.server_read_bytes,
        server_written_bytes=sample.server_written_bytes,
        stages_memory_bytes=sample.stages_memory_bytes,
        gpus=sample.gpus,
        stages=tuple(stages),
    )


class EventStream:
    """An ASGI application: server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    def __init__(self, following: Following, closing: asyncio.Event) -> None:
        self._following = following
        self._closing = closing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        telling = asyncio.create_task(self._tell(send), name="events: tell")
        leaving = asyncio.create_task(until_gone(receive), name="events: leave")
        stopping = asyncio.create_task(self._closing.wait(), name="events: closing")
        try:
            await asyncio.wait({telling, leaving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(telling, leaving, stopping)
        if leaving.cancelled():
            await until_said(self._last_words(telling, send), FAREWELL_SECONDS, scope)

    async def _tell(self, send: Any) -> None:
        """Raises TimeoutError where the follower takes nothing."""
        await _send(send, b": connected\n\n")
        async with aclosing(self._following.told()) as told:
            async for what in told:
                async with asyncio.timeout(STUCK_SECONDS):
                    await _send(send, _sse(what))

    async def _last_words(self, telling: asyncio.Task[None], send: Any) -> None:
        if telling.cancelled():
            await _send(send, _sse(Notice(CLOSING, {})))
        else:
            telling.result()
        await send({"type": "http.response.body", "body": b""})


async def until_said(words: Awaitable[None], limit_seconds: float, scope: Any) -> None:
    """Say it, or where nobody takes it drop the connection with all that is unsent."""
    try:
        async with asyncio.timeout(limit_seconds):
            await words
    except TimeoutError:
        abort: Callable[[], None] | None = scope.get(ABORT)
        if abort is not None:
            abort()
            await anyio.lowlevel.checkpoint()  # the connection is told in the loop's next turn


async def _send(send: Any, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _sse(what: Told) -> bytes:
    if isinstance(what, Notice):
        return b"event: %s\ndata: %s\n\n" % (what.type.encode(), msgspec.json.encode(what.data))
    if not what:
        return b": still here\n\n"
    return b"".join(b"id: %d\nevent: %s\ndata: %s\n\n" % (e.seq, e.type.encode(), e.json) for e in what)
