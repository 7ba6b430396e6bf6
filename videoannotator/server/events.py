"""What happens, as it happens: the events table over SSE and over a websocket, with the same ids in both."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import WebSocket, get, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery, HeaderParameter
from litestar.types import ASGIApp

from videoannotator.errors import FieldProblem, InvalidConfig, Refused
from videoannotator.server.auth import READ_ALSO_BY_TOKEN, Caller, Keys
from videoannotator.server.decoding import parse_json, read_struct
from videoannotator.server.followers import (
    CLOSING,
    FAREWELL_SECONDS,
    STUCK_SECONDS,
    EventStream,
    Following,
    Notice,
    Told,
    until_said,
)
from videoannotator.server.streams import end
from videoannotator.workspace import Workspace

_MOST_ASKS = 20
_ASKS_SECONDS = 10.0
"""A client may choose its place so often in so long: each time it is told everything again."""


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event over the websocket."""

    type: str
    data: msgspec.Raw
    seq: int | None = None


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a websocket's client may say: send me everything after this."""

    after: Annotated[int, msgspec.Meta(ge=0)]


@get("/api/v1/events/stream", opt=READ_ALSO_BY_TOKEN)
async def stream_events(
    *,
    workspace: NamedDependency[Workspace],
    closing: NamedDependency[asyncio.Event],
    api_keys: NamedDependency[Keys],
    caller: NamedDependency[Caller],
    job_id: FromQuery[str | None] = None,
    batch_id: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    resources: FromQuery[bool] = False,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> ASGIApp:
    """
    Server-sent events. Without `after` or `Last-Event-ID` from now on; with one, everything missed since, in order,
    without gap or repeat. The header wins: a browser that reconnects sends it beside the address it began with.
    With `resources=true` also `server.resources`, every two seconds.
    """
    place = _place(after, "after") if last_event_id is None else _place(last_event_id, "Last-Event-ID")
    allowed = partial(api_keys.is_still_good, caller)
    following = await _following(workspace, allowed, place, job_id, batch_id)
    return EventStream(_with_resources(following, workspace, asked=resources), closing)


@websocket("/api/v1/events/ws", opt=READ_ALSO_BY_TOKEN)
async def events_socket(
    *,
    socket: WebSocket[Any, Any, Any],
    workspace: NamedDependency[Workspace],
    closing: NamedDependency[asyncio.Event],
    api_keys: NamedDependency[Keys],
    job_id: FromQuery[str | None] = None,
    batch_id: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    resources: FromQuery[bool] = False,
) -> None:
    """The same events as `{seq, type, data}`; the client may say `{"after": seq}` at any time to begin there."""
    allowed = partial(api_keys.is_still_good, socket.scope["state"]["caller"])
    following = await _following(workspace, allowed, _place(after, "after"), job_id, batch_id)
    following = _with_resources(following, workspace, asked=resources)
    await socket.accept()
    stopping = asyncio.create_task(closing.wait(), name="websocket: closing")
    try:
        code, reason = await _converse(socket, following, stopping)
        await until_said(_close(socket, code, reason), FAREWELL_SECONDS, socket.scope)
    except (WebSocketDisconnect, OSError):
        return  # it left, or left while something was being sent
    finally:
        await end(stopping)


async def _converse(socket: WebSocket[Any, Any, Any], following: Following, stopping: asyncio.Task[Any]) -> Any:
    """Tell and listen until one of three ends it; with which code and why. Raises WebSocketDisconnect."""
    asked: deque[float] = deque(maxlen=_MOST_ASKS)
    while True:
        telling = asyncio.create_task(_tell(socket, following), name="websocket: tell")
        hearing = asyncio.create_task(_hear(socket, asked), name="websocket: hear")
        try:
            await asyncio.wait({telling, hearing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(telling, hearing)
        if not hearing.cancelled():
            try:
                following = msgspec.structs.replace(following, after=hearing.result())
            except Refused as refusal:
                return 1008, str(refusal)[:100]
        elif not telling.cancelled():
            if (trouble := telling.exception()) is not None and not isinstance(trouble, TimeoutError):
                raise trouble
            return 1013, "too slow, or the key is good no longer"
        else:
            return 1001, "the server stops"


async def _tell(socket: WebSocket[Any, Any, Any], following: Following) -> None:
    """Raises TimeoutError where the client takes nothing."""
    async with aclosing(following.told()) as told:
        async for what in told:
            async with asyncio.timeout(STUCK_SECONDS):
                await _send(socket, what)


async def _send(socket: WebSocket[Any, Any, Any], what: Told) -> None:
    """A pause needs no words: the protocol's own pings keep the connection alive."""
    if isinstance(what, Notice):
        notice = Frame(what.type, msgspec.Raw(msgspec.json.encode(what.data)))
        await socket.send_text(msgspec.json.encode(notice).decode())
        return
    for event in what:
        await socket.send_text(msgspec.json.encode(Frame(event.type, msgspec.Raw(event.json), event.seq)).decode())


async def _close(socket: WebSocket[Any, Any, Any], code: int, reason: str) -> None:
    if code == 1001:
        await _send(socket, Notice(CLOSING, {}))
    await socket.close(code=code, reason=reason)


async def _hear(socket: WebSocket[Any, Any, Any], asked: deque[float]) -> int:
    """The place that the client asks for. Raises WebSocketDisconnect when it leaves, Refused for anything else."""
    place = read_struct(parse_json(await socket.receive_text()), Place).after
    now = asyncio.get_running_loop().time()
    if len(asked) == _MOST_ASKS and now - asked[0] < _ASKS_SECONDS:
        raise Refused(f"No more than {_MOST_ASKS} places in {_ASKS_SECONDS:g} s.", code="TOO_MANY_REQUESTS")
    asked.append(now)
    return place


async def _following(
    workspace: Workspace, allowed: Callable[[], Awaitable[bool]], place: int | None, job: str | None, batch: str | None
) -> Following:
    """Raises NotFound."""
    if job is not None:
        await workspace.store.get(job)
    if batch is not None:
        await workspace.store.batch(batch)
    return Following(store=workspace.store, after=place, job_id=job, batch_id=batch, allowed=allowed)


def _with_resources(following: Following, workspace: Workspace, *, asked: bool) -> Following:
    return msgspec.structs.replace(following, resources=lambda: workspace.resources.latest) if asked else following


def _place(text: str | None, field: str) -> int | None:
    """None where nothing is said. What is no id of ours is refused rather than taken for "from now on"."""
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidConfig((FieldProblem(field, f"{text[:50]!r} is not the id of an event.", "INVALID_VALUE"),))
    return int(text)


ROUTES = [stream_events, events_socket]
