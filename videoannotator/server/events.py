"""What happens, as it happens: the events table over SSE and over a websocket, with the same ids in both."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import WebSocket, get, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery, HeaderParameter
from litestar.types import ASGIApp

from videoannotator.errors import FieldProblem, InvalidConfig, Refused
from videoannotator.jobs import Event
from videoannotator.server.auth import READ_ALSO_BY_TOKEN
from videoannotator.server.decoding import parse_json, read_struct
from videoannotator.server.streams import Streamed
from videoannotator.workspace import Workspace

HEARTBEAT_SECONDS = 15.0

_CLOSING = "server.closing"
_RESYNC = "resync"
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class Pause(msgspec.Struct, frozen=True):
    """Nothing happened for a while."""


class Notice(msgspec.Struct, frozen=True):
    """Something about the stream itself; it has no id, so that a client's place stays where it is."""

    type: str
    data: dict[str, Any]


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event over the websocket."""

    type: str
    data: dict[str, Any]
    seq: int | None = None


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a websocket's client may say: send me everything after this."""

    after: Annotated[int, msgspec.Meta(ge=0)]


@get("/api/v1/events/stream", opt=READ_ALSO_BY_TOKEN)
async def stream_events(
    *,
    workspace: NamedDependency[Workspace],
    closing: NamedDependency[asyncio.Event],
    job_id: FromQuery[str | None] = None,
    batch_id: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> ASGIApp:
    """
    Server-sent events. Without `after` or `Last-Event-ID` from now on; with one, everything missed since, in order,
    without gap or repeat. The header wins: a browser that reconnects sends it beside the address it began with.
    """
    if job_id is not None:
        await workspace.store.get(job_id)
    if batch_id is not None:
        await workspace.store.batch(batch_id)
    place = _place(after, "after") if last_event_id is None else _place(last_event_id, "Last-Event-ID")
    return Streamed(_sse(_happenings(workspace, closing, place, job_id, batch_id)), headers=_HEADERS)


@websocket("/api/v1/events/ws", opt=READ_ALSO_BY_TOKEN)
async def events_socket(
    *,
    socket: WebSocket[Any, Any, Any],
    workspace: NamedDependency[Workspace],
    closing: NamedDependency[asyncio.Event],
    job_id: FromQuery[str | None] = None,
    batch_id: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> None:
    """The same events as `{seq, type, data}`; the client may say `{"after": seq}` at any time to begin there."""
    if job_id is not None:
        await workspace.store.get(job_id)
    if batch_id is not None:
        await workspace.store.batch(batch_id)
    place = _place(after, "after")
    await socket.accept()
    hearing = asyncio.create_task(_hear(socket), name="websocket: hear")
    try:
        while True:
            happenings = _happenings(workspace, closing, place, job_id, batch_id)
            sending = asyncio.create_task(_tell(socket, happenings), name="websocket: tell")
            try:
                await asyncio.wait({hearing, sending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(sending)
            if not sending.cancelled():
                sending.result()
                await socket.close(code=1001, reason="the server stops")
                return
            place = hearing.result()
            hearing = asyncio.create_task(_hear(socket), name="websocket: hear")
    except WebSocketDisconnect:
        return
    except Refused as refusal:
        await socket.close(code=1008, reason=str(refusal)[:100])
    finally:
        await _end(hearing)


async def _happenings(
    workspace: Workspace, closing: asyncio.Event, place: int | None, job_id: str | None, batch_id: str | None
) -> AsyncGenerator[Event | Notice | Pause, None]:
    """
    Events, a pause where none came for a while, and at the end, when the server stops, a notice of that. Every step
    really waits, so that a long replay leaves room for everybody else.
    """
    if place is not None and place > await workspace.store.last_seq():
        # An id from another database: what was missed cannot be told, so the client must look for itself.
        yield Notice(_RESYNC, {"reason": "unknown event id"})
        place = None
    events = aiter(workspace.store.follow(after=place, job_id=job_id, batch_id=batch_id))
    stop = asyncio.create_task(closing.wait(), name="events: closing")
    upcoming = asyncio.create_task(_following(events), name="events: next")
    try:
        while True:
            await asyncio.wait({upcoming, stop}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                yield Notice(_CLOSING, {})
                return
            if not upcoming.done():
                yield Pause()
                continue
            event = upcoming.result()
            if event is None:
                return
            upcoming = asyncio.create_task(_following(events), name="events: next")
            yield event
    finally:
        await _end(stop, upcoming)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


async def _following(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


async def _sse(happenings: AsyncGenerator[Event | Notice | Pause, None]) -> AsyncGenerator[bytes, None]:
    """The wire format of https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    try:
        yield b": connected\n\n"
        async for happening in happenings:
            match happening:
                case Event(seq=seq, type=kind, data=data):
                    yield b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), msgspec.json.encode(data))
                case Notice(type=kind, data=data):
                    yield b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
                case Pause():
                    yield b": still here\n\n"
    finally:
        await happenings.aclose()


async def _tell(socket: WebSocket[Any, Any, Any], happenings: AsyncGenerator[Event | Notice | Pause, None]) -> None:
    try:
        async for happening in happenings:
            match happening:
                case Event(seq=seq, type=kind, data=data):
                    await socket.send_text(msgspec.json.encode(Frame(kind, data, seq)).decode())
                case Notice(type=kind, data=data):
                    await socket.send_text(msgspec.json.encode(Frame(kind, data)).decode())
                case Pause():
                    pass  # the protocol's own pings keep the connection alive
    finally:
        await happenings.aclose()


async def _hear(socket: WebSocket[Any, Any, Any]) -> int:
    """The place that the client asks for. Raises WebSocketDisconnect when it leaves."""
    return read_struct(parse_json(await socket.receive_text()), Place).after


def _place(text: str | None, field: str) -> int | None:
    """None where nothing is said. What is no id of ours is refused rather than taken for "from now on"."""
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidConfig((FieldProblem(field, f"{text[:50]!r} is not the id of an event.", "INVALID_VALUE"),))
    return int(text)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are over. What they raise now is nobody's concern any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


ROUTES = [stream_events, events_socket]
