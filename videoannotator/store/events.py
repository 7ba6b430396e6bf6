"""
The events table, followed. The writer hands on what each COMMIT brought, one task reads what was not handed on, and the
latest are kept in memory; however many follow, the database is read once at most. A follower whose place is no longer
in memory reads pages from the database until it has caught up. Places are seqs, and a follower moves past a seq only
after it has seen everything up to it.
"""

import asyncio
import logging
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from operator import attrgetter
from typing import Any, Self

from videoannotator.errors import StorageTrouble
from videoannotator.jobs import Event, Heard
from videoannotator.store.bell import Bell
from videoannotator.store.database import Database
from videoannotator.store.writer import EVENTS, News

LOOK_SECONDS = 1.0
"""A bell may be lost, the database may not: so often the one task looks without one."""

FOLLOWER_LOOKS_SECONDS = 15.0
"""Followers look at memory only, where no bell is lost."""

_KEPT = 4096
_PAGE = 500
_TOLD_AT_ONCE = 50
"""What a thousand followers that take nothing hold in memory, each."""

_REPLAYS_AT_ONCE = 2
"""Pages being read at a time, so that other reads wait for two of them at most, however many catch up."""

_log = logging.getLogger(__name__)


class Tail:
    def __init__(self, database: Database) -> None:
        newest = database.newest_event
        self._database = database
        self._kept: list[Event] = []
        self._floor = newest  # every event after it, up to `_seen`, is in `_kept`
        self._seen = newest
        self._growth = Bell()
        self._replays = asyncio.Semaphore(_REPLAYS_AT_ONCE)
        self._trouble: StorageTrouble | None = None
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database) -> AsyncIterator[Self]:
        """Followers end when it closes."""
        tail = cls(database)
        database.listeners.append(tail._take)
        task = asyncio.create_task(tail._run(), name="events-tail")
        try:
            yield tail
        finally:
            tail._closed = True
            database.listeners.remove(tail._take)
            tail._growth.ring()
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    def forget(self, job_id: str) -> None:
        """The rows are gone; nobody shall hear of the job from memory either."""
        self._kept = [event for event in self._kept if event.job_id != job_id]

    def follow(self, after: int | None, job_id: str | None, batch_id: str | None) -> AsyncGenerator[Event, None]:
        """From now on means from this call on, not from the first `anext`."""
        return self._one_by_one(self.batches(after, job_id, batch_id, math.inf))

    def batches(
        self, after: int | None, job_id: str | None, batch_id: str | None, pause_seconds: float
    ) -> AsyncGenerator[Heard, None]:
        """The same, as many at once as there are; an empty one where nothing came for so long."""
        place = self._database.newest_event if after is None else max(0, after)
        return self._follow(place, job_id, batch_id, pause_seconds)

    async def _one_by_one(self, batches: AsyncGenerator[Heard, None]) -> AsyncGenerator[Event, None]:
        async with aclosing(batches):
            async for heard in batches:
                for event in heard.events:
                    yield event
                    # Really to wait, at each event: a stream that only yields would freeze the loop.
                    await asyncio.sleep(0)

    async def _follow(
        self, place: int, job_id: str | None, batch_id: str | None, pause_seconds: float
    ) -> AsyncGenerator[Heard, None]:
        now = asyncio.get_running_loop().time
        quiet_until = now() + pause_seconds
        while not self._closed:
            if self._trouble is not None:
                raise self._trouble
            grown = self._growth.rung
            chunk, reached = await self._after(place, job_id, batch_id)
            if chunk or now() >= quiet_until:
                yield Heard(tuple(chunk), self._seen - reached)
                quiet_until = now() + pause_seconds
            if reached == place:
                await self._growth.wait(min(FOLLOWER_LOOKS_SECONDS, max(0.0, quiet_until - now())), grown)
            else:
                await asyncio.sleep(0)
            place = reached

    async def _after(self, place: int, job_id: str | None, batch_id: str | None) -> tuple[list[Event], int]:
        """Some events after a place that are asked for, and the place up to which there are no others."""
        if place < self._floor:
            return await self._page(place, job_id, batch_id)
        start = bisect_right(self._kept, place, key=attrgetter("seq"))
        chunk = self._kept[start : start + _TOLD_AT_ONCE]
        wanted = [event for event in chunk if job_id in (None, event.job_id) and batch_id in (None, event.batch_id)]
        return wanted, chunk[-1].seq if chunk else place

    async def _page(self, place: int, job_id: str | None, batch_id: str | None) -> tuple[list[Event], int]:
        conditions = {"job_id = ?": job_id, "batch_id = ?": batch_id}
        asked = {condition: value for condition, value in conditions.items() if value is not None}
        sql = " AND ".join([EVENTS, *asked]) + " ORDER BY seq LIMIT ?"
        async with self._replays:
            seen = self._seen  # all up to here was on disk before the page is read
            rows = await self._database.read(sql, (place, *asked.values(), _TOLD_AT_ONCE))
        page = [_event(row) for row in rows]
        if len(page) == _TOLD_AT_ONCE:
            return page, page[-1].seq
        return page, max(seen, page[-1].seq if page else place)

    # -- the one task

    async def _run(self) -> None:
        heard = 0
        while True:
            before, heard = heard, await self._database.commits.wait(LOOK_SECONDS, heard)
            if heard > before and self._seen >= self._database.newest_event:
                continue  # it was handed on
            try:
                while await self._read_on():
                    pass
                self._trouble = None
            except StorageTrouble as exc:
                self._tell(exc)

    async def _read_on(self) -> bool:
        """Take new rows into memory and wake the followers; whether there may be more."""
        rows = await self._database.read(f"{EVENTS} ORDER BY seq LIMIT ?", (self._seen, _PAGE))
        self._keep(rows)
        return len(rows) == _PAGE

    def _take(self, news: News) -> None:
        """What was just written, where nothing is missing before it."""
        if news.since <= self._seen:
            self._keep(news.rows)

    def _keep(self, rows: Sequence[Sequence[Any]]) -> None:
        fresh = [_event(row) for row in rows if row[0] > self._seen]
        if not fresh:
            return
        self._kept += fresh
        self._seen = fresh[-1].seq
        if len(self._kept) > 2 * _KEPT:
            self._floor = self._kept[-_KEPT - 1].seq
            del self._kept[:-_KEPT]
        self._growth.ring()

    def _tell(self, trouble: StorageTrouble) -> None:
        """Followers end with it; reading goes on at the next bell."""
        if self._trouble is None:
            _log.error("Events cannot be read: %s", trouble)
        self._trouble = trouble
        self._growth.ring()


def _event(row: Sequence[Any]) -> Event:
    seq, kind, job_id, batch_id, data = row
    return Event(seq, kind, job_id, batch_id, data.encode())


async def of_job(database: Database, job_id: str, kind: str) -> tuple[Event, ...]:
    sql = f"{EVENTS} AND job_id = ? AND type = ? ORDER BY seq"
    return tuple(_event(row) for row in await database.read(sql, (0, job_id, kind)))
