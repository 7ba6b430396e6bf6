"""What happens, told as it happens: nothing missed, nothing twice, and nobody held up by anybody."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx_sse
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server import ADMIN, LONG, Served, eventually, send_raw

STREAM = "/api/v1/events/stream"


@asynccontextmanager
async def listening(server: Served, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
    async with (
        server.client(ADMIN) as client,
        httpx_sse.aconnect_sse(client, "GET", f"{STREAM}?{query}", headers=headers) as source,
    ):
        source.response.raise_for_status()
        yield source.aiter_sse()


async def until(events: AsyncIterator[Any], kind: str) -> list[Any]:
    """All events up to one of that type."""
    heard = []
    async with asyncio.timeout(20):
        async for event in events:
            heard.append(event)
            if event.event == kind:
                return heard
    raise AssertionError(f"the stream ended without {kind}: {heard}")


async def test_a_stream_tells_a_job_from_submission_to_end(server: Served, clip: Path) -> None:
    """With ids that only grow, JSON that the browser client reads, and the job's id in each."""
    async with listening(server) as events:
        job = await server.submit(clip)
        heard = await until(events, "job.complete")

    ids = [int(event.id) for event in heard]
    updates = [json.loads(event.data) for event in heard if event.event == "job.update"]
    assert ids == sorted(set(ids))
    assert {json.loads(event.data)["job_id"] for event in heard} == {job["id"]}
    assert updates[0]["status"] == "pending"
    assert "running" in [update["status"] for update in updates]
    assert any(event.event == "job.log" and json.loads(event.data)["message"] == "hello" for event in heard)
    assert json.loads(heard[-1].data)["outcome"] == "full"


async def test_what_was_missed_is_told_without_gap_or_repeat(server: Served, clip: Path) -> None:
    """A laptop that slept: the browser sends the last id by itself, other programs say `after`."""
    await server.finished(clip)
    async with listening(server, "after=0") as events:
        everything = [event.id for event in await until(events, "job.complete")]

    async with listening(server, **{"Last-Event-ID": everything[2]}) as events:
        by_header = [event.id for event in await until(events, "job.complete")]
    async with listening(server, "after=0", **{"Last-Event-ID": everything[2]}) as events:
        by_both = [event.id for event in await until(events, "job.complete")]
    async with listening(server, f"after={everything[-2]}") as events:
        by_query = [event.id for event in await until(events, "job.complete")]

    assert everything == [str(n) for n in range(1, len(everything) + 1)]
    assert by_header == by_both == everything[3:]
    assert by_query == everything[-1:]


async def test_a_stream_of_one_job_tells_of_no_other(server: Served, clip: Path) -> None:
    """The page of a job must not show another child's data."""
    one, other = await server.finished(clip), await server.finished(clip)

    async with listening(server, f"after=0&job_id={other['id']}") as events:
        heard = await until(events, "job.complete")

    assert {json.loads(event.data)["job_id"] for event in heard} == {other["id"]}
    assert one["id"] != other["id"]


@pytest.mark.parametrize("place", ["-1", "1e99", "';--", "1.5", "\u0661", "9" * 30, "0x10"])
async def test_ids_that_are_none_are_refused(server: Served, place: str) -> None:
    """Taking them for "from now on" would be a gap that nobody notices."""
    answer = await server.http.get(STREAM, params={"after": place})

    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "after")


async def test_an_id_from_another_database_is_answered_with_resync(server: Served, clip: Path) -> None:
    """After a restore from a backup the client's place does not exist: it must look for itself, then hear on."""
    async with listening(server, "after=999999999") as events:
        first = await asyncio.wait_for(anext(events), 10)
        await server.submit(clip)
        heard = await until(events, "job.complete")

    assert (first.event, first.id) == ("resync", "")
    assert len(heard) > 1


async def test_who_asks_hears_what_machine_and_stages_use(server: Served, clip: Path) -> None:
    """Without an id, since it is not kept; a stream of one job names no other's stages; who does not ask is spared."""
    job = await server.submit(clip, config=json.dumps(LONG))
    query = f"token={ADMIN}&resources=true&job_id={job['id']}"
    async with socket(server, query) as other, listening(server, "resources=true&after=0") as events:
        told = [json.loads((await until(events, "server.resources"))[-1].data)]
        while not told[-1]["stages"]:
            told.append(json.loads((await until(events, "server.resources"))[-1].data))
        own = (await told_until(other, "server.resources"))[-1]
    async with listening(server, "after=0") as events:
        spared = await until(events, "job.log")
    await server.http.delete(f"/api/v1/jobs/{job['id']}")

    (stage,) = told[-1]["stages"]
    assert (job["id"], "behaves") == (stage["job_id"], stage["pipeline"])
    assert stage["memory_bytes"] > 10 * 2**20
    assert 0 < told[-1]["memory_used_bytes"] < told[-1]["memory_total_bytes"]
    assert "seq" not in own
    assert told[-1].keys() == own["data"].keys()
    assert "server.resources" not in [event.event for event in spared]


async def test_a_closing_server_says_so_and_ends_its_streams(server: Served) -> None:
    """Open streams must not keep a server from stopping; who hears it knows that it may come again."""
    async with listening(server, "after=0") as events:
        waiting = asyncio.create_task(until(events, "server.closing"))
        await eventually(lambda: asking(server))
        server.closing.set()
        heard = await asyncio.wait_for(waiting, 2)
        rest = [event async for event in events]

    assert (heard[-1].event, heard[-1].id, rest) == ("server.closing", "", [])


async def test_listeners_that_leave_leave_nothing(server: Served, clip: Path) -> None:
    """Also in the middle of a long replay, which must not freeze the server either."""
    for _ in range(3):
        await server.finished(clip)
    request = f"GET {STREAM}?after=0 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\n\r\n".encode()

    for _ in range(50):
        _, writer = await send_raw(server.url, request)
        writer.transport.abort()

    async def gone() -> bool:
        return not [task for task in asyncio.all_tasks() if task.get_name().startswith("events: ")]

    await eventually(gone)
    assert (await server.http.get("/health")).status_code == 200


async def test_a_hundred_streams_that_never_read_disturb_nobody(server: Served, clip: Path) -> None:
    """A suspended browser tab is such a reader."""
    request = f"GET {STREAM}?after=0 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\n\r\n".encode()
    deaf = [await send_raw(server.url, request) for _ in range(100)]

    async with listening(server) as events:
        await server.submit(clip)
        heard = await until(events, "job.complete")

    for _, writer in deaf:
        writer.close()
    assert len(heard) > 3


async def test_streams_ask_for_a_key(server: Served) -> None:
    """Events name children's videos. An EventSource can only send the key in the address."""
    async with server.client() as anybody:
        refused = await anybody.get(STREAM)
        async with anybody.stream("GET", f"{STREAM}?token={ADMIN}") as taken:
            kind = taken.headers["content-type"]

    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "KEY_MISSING")
    assert (taken.status_code, kind.partition(";")[0]) == (200, "text/event-stream")


@pytest.mark.slow
async def test_a_quiet_stream_says_that_it_is_still_there(server: Served) -> None:
    """Every 15 s: a proxy would otherwise close it, and a dead line would look like a quiet one."""
    request = f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\n\r\n".encode()
    reader, writer = await send_raw(server.url, request)

    heard = await asyncio.wait_for(reader.readuntil(b": still here\n\n"), 20)
    writer.close()

    assert b": connected\n\n" in heard


# -- the websocket


def socket(server: Served, query: str = f"token={ADMIN}") -> connect:
    return connect(f"{server.url.replace('http', 'ws')}/api/v1/events/ws?{query}", proxy=None)


async def told_until(connection: ClientConnection, kind: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or told[-1]["type"] != kind:
        told.append(json.loads(await asyncio.wait_for(connection.recv(), 20)))
    return told


async def test_the_websocket_tells_the_same_events(server: Served, clip: Path) -> None:
    """Same numbers, same data: a client may change from one to the other."""
    await server.finished(clip)
    async with listening(server, "after=0") as events:
        heard = [(int(e.id), e.event, json.loads(e.data)) for e in await until(events, "job.complete")]

    async with socket(server, f"token={ADMIN}&after=0") as connection:
        told = await told_until(connection, "job.complete")

    assert [(frame["seq"], frame["type"], frame["data"]) for frame in told] == heard


async def test_a_client_of_the_websocket_may_choose_its_place(server: Served, clip: Path) -> None:
    """At any time, also back: then it is told again from there."""
    await server.finished(clip)
    async with socket(server) as connection:
        await connection.send('{"after": 0}')
        everything = await told_until(connection, "job.complete")
        await connection.send(json.dumps({"after": everything[-2]["seq"]}))
        last = await told_until(connection, "job.complete")

    assert everything[0]["seq"] == 1
    assert last == everything[-1:]


@pytest.mark.parametrize("said", ["nonsense", "[]", '{"after": -1}', '{"before": 1}', '{"after": "x"}', b"\x00\x01"])
async def test_a_client_that_talks_nonsense_is_told_and_left(server: Served, said: str | bytes) -> None:
    """With a reason, not with silence."""
    async with socket(server) as connection:
        await connection.send(said)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 10)

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, bool(closed.value.rcvd.reason)) == (1008, True)
    assert (await server.http.get("/health")).status_code == 200


async def test_frames_of_16_megabytes_are_not_taken(server: Served) -> None:
    """Nothing that a client has to say is that long."""
    async with socket(server) as connection:
        with suppress(ConnectionClosed):  # it may be closed before all of it is sent
            await connection.send("x" * 16 * 1024**2)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 10)

    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/events/ws", 401, "KEY_MISSING"),
        ("/api/v1/events/ws?token=va_nobody_has_this_key_0123456789", 401, "KEY_UNKNOWN"),
        (f"/api/v1/events/ws?token={ADMIN}&job_id=nope", 404, "JOB_NOT_FOUND"),
        (f"/api/v1/events/ws?token={ADMIN}&after=x", 422, "INVALID_VALUE"),
        (f"/nothing?token={ADMIN}", 404, "PATH_NOT_FOUND"),
    ],
)
async def test_a_websocket_is_refused_in_the_one_form(server: Served, path: str, status: int, code: str) -> None:
    """Before the handshake is over there is still HTTP to say it in."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.url.replace("http", "ws") + path, proxy=None)

    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body or b"{}")["error"]["code"] == code


async def test_a_closing_server_says_so_on_the_websocket(server: Served) -> None:
    """Code 1001, going away, after the notice."""
    async with socket(server) as connection:
        server.closing.set()
        told = await told_until(connection, "server.closing")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), 5)

    assert told == [{"type": "server.closing", "data": {}}]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


async def test_websockets_that_leave_leave_nothing(server: Served, clip: Path) -> None:
    """Without a farewell, while events are sent to them."""
    job = await server.submit(clip, config=json.dumps(LONG))
    for _ in range(30):
        connection = await socket(server, f"token={ADMIN}&after=0")
        connection.transport.abort()

    async def gone() -> bool:
        names = [task.get_name() for task in asyncio.all_tasks()]
        return not [name for name in names if name.startswith(("events: ", "websocket: "))]

    await eventually(gone)
    await server.http.delete(f"/api/v1/jobs/{job['id']}")
    assert (await server.http.get("/health")).status_code == 200


async def asking(server: Served) -> bool:
    """Somebody follows the events."""
    return any(task.get_name() == "events: tell" for task in asyncio.all_tasks())
