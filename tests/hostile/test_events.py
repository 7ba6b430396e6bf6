"""HOSTILE.md, Events: places that are none, readers that never read, clients that leave, floods, a stop."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.sample_jobs import new_job
from tests.server import ADMIN, LONG, Served, eventually, send_raw, serving
from videoannotator.jobs import Claim

STREAM = "/api/v1/events/stream"
EVENT = re.compile(rb"^id: (\d+)\n(?:[^\n]+\n)+\n", re.MULTILINE)
on_one_server = pytest.mark.asyncio(loop_scope="module")


class Stream:
    """A connection of its own, read when the test wants to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.heard = bytearray()

    async def until(self, what: bytes, limit_seconds: float = 20) -> bytearray:
        """Everything heard, up to the first chunk that completes `what`."""
        async with asyncio.timeout(limit_seconds):
            looked = 0
            while self.heard.find(what, looked) < 0:
                looked = max(0, len(self.heard) - len(what))
                chunk = await self.reader.read(1 << 18)
                if not chunk:
                    raise EOFError(self.heard[-500:])
                self.heard += chunk
        return self.heard

    async def to_its_end(self) -> bytearray:
        while chunk := await self.reader.read(1 << 20):
            self.heard += chunk
        return self.heard

    @property
    def ids(self) -> list[int]:
        """Of events that came whole."""
        return [int(seq) for seq in EVENT.findall(self.heard)]


@asynccontextmanager
async def streaming(server: Served, query: str = "", last_event_id: int | None = None) -> AsyncIterator[Stream]:
    place = b"" if last_event_id is None else b"Last-Event-ID: %d\r\n" % last_event_id
    key = f"Host: localhost\r\nX-API-Key: {ADMIN}\r\n".encode()
    reader, writer = await send_raw(
        server.url, b"GET %s?%s HTTP/1.1\r\n" % (STREAM.encode(), query.encode()), key, place, b"\r\n"
    )
    try:
        yield Stream(reader, writer)
    finally:
        writer.transport.abort()


async def held_job(server: Served) -> Claim:
    """A job to write about, which no worker touches; the server has no room for jobs of its own."""
    await server.workspace.store.add(new_job())
    claim = await server.workspace.store.claim("test")
    assert claim is not None
    return claim


async def say(server: Served, claim: Claim, lines: int, text: str = "line") -> None:
    await asyncio.gather(*(server.workspace.store.log(claim, None, "info", f"{text} {n}") for n in range(lines)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def quiet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One server for many tests, whose worker takes no jobs, so that they write the events."""
    async with serving(tmp_path_factory.mktemp("quiet"), max_concurrent_jobs=0) as served:
        yield served


@on_one_server
@pytest.mark.parametrize("place", ["-1", "1e99", "';--", "1;DROP TABLE events", "1 OR 1=1", "\u0661", "9" * 30, "0x10"])
async def test_a_place_that_is_none_is_refused(quiet: Served, place: str) -> None:
    """In the header as in the address. Taking it for "from now on" would be a gap that nobody notices."""
    by_header = await quiet.http.get(STREAM, headers={"Last-Event-ID": place.encode()})
    by_query = await quiet.http.get(STREAM, params={"after": place})

    assert (by_header.status_code, by_header.json()["error"]["field"]) == (422, "Last-Event-ID")
    assert (by_query.status_code, by_query.json()["error"]["field"]) == (422, "after")


@on_one_server
@pytest.mark.parametrize("place", [b"1\r\n 2", b"1\n2", b"1\r2", b"\0", b"1\r\nX-API-Key: forged"])
async def test_line_breaks_in_a_place_reach_nobody(quiet: Served, place: bytes) -> None:
    """The header ends there or the request is none; a line break in the address is a place that is none."""
    await held_job(quiet)
    reader, writer = await send_raw(
        quiet.url,
        f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\n".encode(),
        b"Last-Event-ID: %s\r\n\r\n" % place,
    )
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    by_query = await quiet.http.get(f"{STREAM}?after=1%0A2")

    assert int(answer.split(b" ", 2)[1]) in (200, 400, 401, 422)
    assert answer.count(b"\r\n\r\n") == 1
    assert by_query.status_code == 422
    assert (await quiet.http.get("/health")).status_code == 200


@on_one_server
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(1, 120), min_size=1, max_size=5), pause=st.sampled_from([0.0, 0.01]))
async def test_a_client_that_comes_back_again_and_again_misses_and_repeats_nothing(
    quiet: Served, cuts: list[int], pause: float
) -> None:
    """Cut off anywhere, also in the middle of an event, while others write: what EventSource does on a bad line."""
    claim = await held_job(quiet)
    first = await quiet.workspace.store.last_seq()
    last = first + 400
    writing = asyncio.create_task(say(quiet, claim, 400))
    heard = [first]
    for cut in [*cuts, last]:
        async with streaming(quiet, last_event_id=heard[-1]) as stream:
            while len(stream.ids) < cut and stream.ids[-1:] != [last]:
                stream.heard += await asyncio.wait_for(stream.reader.read(700), 20)
            heard += stream.ids
        if heard[-1] == last:
            break
        await asyncio.sleep(pause)
    await writing

    assert heard == list(range(first, last + 1))


@on_one_server
async def test_a_client_that_leaves_a_long_replay_holds_nobody_up(quiet: Served) -> None:
    """A generator that yields without waiting would freeze the server for all of it."""
    claim = await held_job(quiet)
    await say(quiet, claim, 6000, "x" * 300)
    slowest = 0.0
    for _ in range(20):
        async with streaming(quiet, "after=0") as stream:
            await stream.until(b"id: ")
        began = time.monotonic()
        assert (await quiet.http.get("/health")).status_code == 200
        slowest = max(slowest, time.monotonic() - began)

    async def gone() -> bool:
        return not [task for task in asyncio.all_tasks() if task.get_name().startswith("events: ")]

    await eventually(gone)
    assert slowest < 0.5


@on_one_server
async def test_a_slow_reader_gets_resync_and_everybody_else_everything(quiet: Served) -> None:
    """Its buffer is bounded, and its next visit tells it what it missed."""
    claim = await held_job(quiet)
    first = await quiet.workspace.store.last_seq()
    async with streaming(quiet) as slow, streaming(quiet) as quick:
        await slow.until(b"connected")
        await quick.until(b"connected")
        reading = asyncio.create_task(quick.until(b"done 0"))
        slow.writer.transport.pause_reading()
        await say(quiet, claim, 130, "x" * 60_000)  # more than the sockets between hold
        await asyncio.sleep(1.1)  # only longer waits count as slow
        await say(quiet, claim, 1100)
        await say(quiet, claim, 1, "done")
        await reading
        slow.writer.transport.resume_reading()

        told = await asyncio.wait_for(slow.to_its_end(), 20)

    async with streaming(quiet, last_event_id=slow.ids[-1]) as back:
        await back.until(b"done 0")
    assert quick.ids == list(range(first + 1, first + 1232))
    assert b'event: resync\ndata: {"reason":"too slow"}\n\n' in told
    assert slow.ids + back.ids == quick.ids


@pytest.mark.slow
@on_one_server
async def test_a_reader_that_takes_nothing_is_cut_off(quiet: Served) -> None:
    """Half a minute is long for a laptop's network and short for a leak."""
    claim = await held_job(quiet)
    async with streaming(quiet) as deaf:
        await deaf.until(b"connected")
        deaf.writer.transport.pause_reading()
        await say(quiet, claim, 250, "x" * 60_000)

        async def gone() -> bool:
            return not [task for task in asyncio.all_tasks() if task.get_name() == "events: tell"]

        began = time.monotonic()
        await eventually(gone, limit_seconds=40)

    assert 20 < time.monotonic() - began < 36


async def test_a_server_stops_in_time_with_streams_open(tmp_path: Path) -> None:
    """Those that read hear it; those that never read, with full sockets, and websockets do not hold it up."""
    async with AsyncExitStack() as stack:
        async with serving(tmp_path, max_concurrent_jobs=0) as server:
            await say(server, await held_job(server), 250, "x" * 60_000)
            listening = [await stack.enter_async_context(streaming(server)) for _ in range(40)]
            deaf = [await stack.enter_async_context(streaming(server, "after=0")) for _ in range(10)]
            sockets = [await stack.enter_async_context(socket(server)) for _ in range(10)]
            for stream in (*listening, *deaf):
                await stream.until(b"connected")
            for stream in deaf:
                stream.writer.transport.pause_reading()
            hearing = [asyncio.create_task(stream.to_its_end()) for stream in listening]
            told = [asyncio.create_task(last_frame(connection)) for connection in sockets]
            await asyncio.sleep(0.5)
            asyncio.get_running_loop().call_soon(time.sleep, 0.3)  # a busy machine: everything about the end is late
            began = time.monotonic()
        took = time.monotonic() - began
        heard = await asyncio.gather(*hearing)
        frames = await asyncio.gather(*told)

    assert took < 3
    assert all(b"event: server.closing\n" in text for text in heard)
    assert [frame["type"] for frame in frames] == ["server.closing"] * 10


@pytest.mark.slow
async def test_five_hundred_streams_hear_everything_at_once(server: Served, clip: Path) -> None:
    """A classroom, or one page with too many tabs."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streaming(server)) for _ in range(500)]
        await asyncio.gather(*(stream.until(b"connected") for stream in streams))

        job = await server.submit(clip, config=json.dumps({"behaves": {"steps": 20, "step_seconds": 0.05}}))
        await asyncio.gather(*(stream.until(b"event: job.complete", 60) for stream in streams))

    assert (await server.job(job["id"]))["status"] == "completed"
    assert {tuple(stream.ids) for stream in streams} == {tuple(streams[0].ids)}
    assert streams[0].ids == list(range(1, streams[0].ids[-1] + 1))


@pytest.mark.slow
async def test_a_thousand_streams_that_never_read_cost_little(tmp_path: Path) -> None:
    """No events wait for them in memory; others are served as before; the server stops as before."""
    process = psutil.Process()
    async with AsyncExitStack() as stack:
        async with serving(tmp_path, max_concurrent_jobs=0) as server:
            claim = await held_job(server)
            await say(server, claim, 2000, "x" * 1000)
            before = process.memory_info().rss
            deaf = [await stack.enter_async_context(streaming(server, "after=0")) for _ in range(1000)]
            for stream in deaf:
                stream.writer.transport.pause_reading()
            await say(server, claim, 1000, "x" * 1000)
            async with streaming(server) as quick:
                await quick.until(b"connected")
                began = time.monotonic()
                await say(server, claim, 1, "now")
                await quick.until(b"now 0")
                heard_after = time.monotonic() - began
            began = time.monotonic()
            listed = await server.http.get("/api/v1/jobs")
            answered_after = time.monotonic() - began
            grown = process.memory_info().rss - before
            began = time.monotonic()
        stopped_after = time.monotonic() - began

    assert listed.status_code == 200
    assert heard_after < 1
    assert answered_after < 1
    assert grown < 400 * 2**20  # both ends of a thousand sockets, with what they have read, are in this process
    assert stopped_after < 3


# -- websockets


@asynccontextmanager
async def socket(server: Served, query: str = "") -> AsyncIterator[ClientConnection]:
    address = f"{server.url.replace('http', 'ws')}/api/v1/events/ws?token={ADMIN}&{query}"
    async with connect(address, proxy=None, close_timeout=0.1) as connection:
        yield connection


async def last_frame(connection: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = {}
    with suppress(ConnectionClosed):
        while True:
            frame = json.loads(await connection.recv())
    return frame


@on_one_server
async def test_a_flood_of_places_is_ended(quiet: Served) -> None:
    """Each one means telling everything again."""
    claim = await held_job(quiet)
    await say(quiet, claim, 500)
    async with socket(quiet) as connection:

        async def flood() -> None:
            with suppress(ConnectionClosed):
                for _ in range(5000):
                    await connection.send('{"after": 0}')

        flooding = asyncio.create_task(flood())
        await last_frame(connection)
        await flooding

    assert connection.close_code == 1008
    assert "20 places" in str(connection.close_reason)
    assert (await quiet.http.get("/health")).status_code == 200


@on_one_server
async def test_a_flood_of_pings_by_who_never_reads_is_ended(quiet: Served) -> None:
    """Every ping is answered; the answers must not pile up in memory."""
    address = f"GET /api/v1/events/ws?token={ADMIN} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    reader, writer = await send_raw(quiet.url, (address + upgrade).encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    ping = b"\x89\xfd\0\0\0\0" + b"x" * 125

    async def flood() -> None:
        for _ in range(2000):
            writer.write(ping * 100)
            await asyncio.wait_for(writer.drain(), 10)

    with pytest.raises(ConnectionError):
        await flood()
    writer.transport.abort()

    assert (await quiet.http.get("/health")).status_code == 200


@on_one_server
@pytest.mark.parametrize("said", ["x" * 16 * 2**20, "x" * (64 * 1024 + 1), b"\xff" * 16 * 2**20])
async def test_long_frames_are_refused(quiet: Served, said: str | bytes) -> None:
    """Nothing that a client has to say is that long; the limit holds before the frame is in memory."""
    async with socket(quiet) as connection:
        with suppress(ConnectionClosed):  # it may be closed before all of it is sent
            await connection.send(said)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), 10)

    assert (await quiet.http.get("/health")).status_code == 200


async def test_events_of_a_job_that_runs_go_on_under_all_of_this(server: Served, clip: Path) -> None:
    """Ten deaf streams, ten that left, a websocket that floods: the listener that behaves hears its job to the end."""
    async with AsyncExitStack() as stack:
        for _ in range(10):
            deaf = await stack.enter_async_context(streaming(server, "after=0"))
            deaf.writer.transport.pause_reading()
            async with streaming(server, "after=0"):
                pass
        noisy = await stack.enter_async_context(socket(server))
        await noisy.send("{")
        listener = await stack.enter_async_context(streaming(server))
        await listener.until(b"connected")
        job = await server.submit(clip, config=json.dumps(LONG))
        await listener.until(b'"status":"running"')
        async with httpx.AsyncClient(base_url=server.url, headers={"x-api-key": ADMIN}, trust_env=False) as other:
            await other.post(f"/api/v1/jobs/{job['id']}/cancel")
        heard = await listener.until(b"event: job.cancelled")

    assert job["id"].encode() in heard
