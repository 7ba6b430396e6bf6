"""
The outermost layer, around everything that answers: request ids, the access log, which hosts and web origins are
served, and the headers that every answer carries, errors and streams included.

Plain ASGI, so that it also sees what no route sees. The access line has no query string: keys may stand in it.
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from videoannotator.errors import Forbidden, Refused, VideoAnnotatorError
from videoannotator.jobs import new_id
from videoannotator.logs import bound_contextvars, get_logger
from videoannotator.server.metrics import Metrics
from videoannotator.server.problems import answer
from videoannotator.settings import Settings

Message = Any
App = Callable[[Any, Any, Any], Awaitable[None]]

CLIENT_PORTS = range(19011, 19021)
"""Where the browser client is served from during its development; trusted by default."""

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, X-API-Key, X-Request-ID, Last-Event-ID, Range, If-Range, If-None-Match, "
    "Idempotency-Key, Accept, Tus-Resumable, Upload-Length, Upload-Offset, Upload-Metadata, X-HTTP-Method-Override, "
    "X-Requested-With"
)
_EXPOSED = (
    "Content-Disposition, Content-Length, Content-Range, Accept-Ranges, ETag, Location, Retry-After, WWW-Authenticate, "
    "X-Request-ID, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Upload-Offset, Upload-Length, "
    "Upload-Metadata, Upload-Expires"
)
_UPLOADS = "/api/v1/uploads"
"""Every answer there names the version of tus, refusals too."""

_UNLESS_SAID = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
)
"""What holds for an answer that says nothing else of itself: it is data, no page, and no cache's business."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_QUIET = frozenset({"/health", "/healthz", "/api/v1/health", "/api/v1/system/health"})
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = get_logger(__name__)


class Neighbours:
    """Which host names this server answers to, and which web origins may call it."""

    def __init__(self, settings: Settings, port: int) -> None:
        self._any_address = settings.host in ("0.0.0.0", "::", "")  # noqa: S104 (compared, not bound)
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host.lower(), *map(str.lower, settings.allowed_hosts)}
        ports = (*CLIENT_PORTS, port)
        local = (f"http://{name}:{number}" for name in ("localhost", "127.0.0.1") for number in ports)
        self._origins = {*local, *(origin.rstrip("/").lower() for origin in settings.allowed_origins)}

    def serves(self, host: str) -> bool:
        """A name that somebody else's DNS could point here is refused; an address cannot be rebound."""
        name = _without_port(host.lower())
        return name in self._hosts or (self._any_address and _is_address(name))

    def trusts(self, origin: str) -> bool:
        return origin.lower() in self._origins


class Front:
    def __init__(
        self, app: App, *, neighbours: Neighbours, closing: asyncio.Event, metrics: Metrics | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics or Metrics()
        self._neighbours = neighbours
        self._closing = closing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _first_of_each(scope["headers"])
        if (meant := _meant_method(scope, headers)) is not None:
            scope = {**scope, "method": meant}
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(headers.get("x-request-id", ""))
        out = _Out(scope, send, self._added_headers(state["request_id"], scope["path"], headers.get("origin")))
        began = time.perf_counter()
        self._metrics.begin()
        with bound_contextvars(request_id=state["request_id"], job_id=None):
            try:
                await self._serve(scope, headers, receive, out)
            finally:
                took = time.perf_counter() - began
                self._metrics.end(scope, out.status, took)
                _log_access(scope, out.status, took)

    async def _serve(self, scope: Any, headers: dict[str, str], receive: Any, out: "_Out") -> None:
        try:
            self._refuse_strangers(scope, headers)
            if _is_preflight(scope, headers):
                await out.complete(204, _preflight_headers(headers), b"")
                return
            await self._app(scope, receive, out)
        except VideoAnnotatorError as refusal:
            await out.problem(refusal)
        except Exception as bug:
            if out.status is not None:
                raise
            log.exception("a bug of ours in one request")
            await out.problem(bug)

    def _refuse_strangers(self, scope: Any, headers: dict[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if sum(name == b"host" for name, _ in scope["headers"]) != 1 or not self._neighbours.serves(host):
            hint = "Name the hosts it should answer to in VIDEOANNOTATOR_ALLOWED_HOSTS."
            raise Refused(
                f"This server does not answer to the host {host[:200]!r}.", hint=hint, code="HOST_NOT_ALLOWED"
            )
        if not _can_change_something(scope) and not _is_preflight(scope, headers):
            return
        if origin is not None and not self._neighbours.trusts(origin) and not _same(origin, scope, host):
            hint = "Name the origins that may call it in VIDEOANNOTATOR_ALLOWED_ORIGINS."
            message = f"Pages from {origin[:200]!r} may not call this server."
            raise Forbidden(message, hint=hint, code="ORIGIN_NOT_ALLOWED")
        if self._closing.is_set():
            raise VideoAnnotatorError("The server is shutting down.", hint="Try again soon.", code="SHUTTING_DOWN")

    def _added_headers(self, request_id: str, path: str, origin: str | None) -> list[tuple[bytes, bytes]]:
        added = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"vary", b"Origin"),
        ]
        if path.startswith(_UPLOADS):
            added += [(b"tus-resumable", b"1.0.0"), (b"tus-version", b"1.0.0")]
        if origin is not None and self._neighbours.trusts(origin):
            added += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", _EXPOSED.encode()),
            ]
        return added


class _Out:
    """The way back to the caller. `status` is None until an answer has begun."""

    def __init__(self, scope: Any, send: Any, added: list[tuple[bytes, bytes]]) -> None:
        self._scope = scope
        self._send = send
        self._added = added
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self.status = message["status"]
                headers = [*message.get("headers", ()), *self._added]
                names = {name for name, _ in headers}
                headers += [(name, value) for name, value in _UNLESS_SAID if name not in names]
                message = {**message, "headers": headers}
            case "websocket.accept":
                self.status = 101
                message = {**message, "headers": [*message.get("headers", ()), *self._added]}
            case "websocket.close" if self.status is None:
                await self.problem(self._scope["state"].get("refused") or RuntimeError(message.get("reason")))
                return
        await self._send(message)

    async def problem(self, exc: Exception) -> None:
        status, headers, body = answer(exc, self._scope)
        await self.complete(status, headers, body)

    async def complete(self, status: int, headers: dict[str, str], body: bytes) -> None:
        kind = "websocket.http.response" if self._scope["type"] == "websocket" else "http.response"
        raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        if status != 204:
            raw.append((b"content-length", str(len(body)).encode()))
        await self({"type": f"{kind}.start", "status": status, "headers": raw})
        await self({"type": f"{kind}.body", "body": body})


def _first_of_each(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}


def _request_id(given: str) -> str:
    return given if _GIVEN_ID.fullmatch(given) else new_id("req")


def _meant_method(scope: Any, headers: dict[str, str]) -> str | None:
    """tus: clients that cannot send PATCH or DELETE send POST, and say in a header what they mean."""
    meant = headers.get("x-http-method-override", "").upper()
    is_such = scope.get("method") == "POST" and scope["path"].startswith(_UPLOADS) and meant in ("PATCH", "DELETE")
    return meant if is_such else None


def _is_preflight(scope: Any, headers: dict[str, str]) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
    )


def _can_change_something(scope: Any) -> bool:
    """A websocket counts: unlike an answer to fetch(), a foreign page may read what comes over it."""
    return scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS


def _preflight_headers(headers: dict[str, str]) -> dict[str, str]:
    allowed = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": _REQUEST_HEADERS,
        "access-control-max-age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        allowed["access-control-allow-private-network"] = "true"
    return allowed


def _same(origin: str, scope: Any, host: str) -> bool:
    """A page that this server itself served. `host` is one that it answers to."""
    scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
    return origin.lower() == f"{scheme}://{host.lower()}"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _log_access(scope: Any, status: int | None, seconds: float) -> None:
    say = log.debug if scope["path"] in _QUIET else log.info
    caller = scope["state"].get("caller")
    say(
        "request",
        method=scope.get("method", "WEBSOCKET"),
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 1),
        caller=caller.name if caller else None,
    )
