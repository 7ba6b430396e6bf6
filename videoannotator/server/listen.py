"""The port: a socket that is ours before anything else is touched, and uvicorn on it."""

import asyncio
import ipaddress
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from videoannotator.errors import Refused
from videoannotator.server.followers import FAREWELL_SECONDS
from videoannotator.server.front import App
from videoannotator.server.streams import ABORT
from videoannotator.settings import Settings

GRACE_SECONDS = 3
"""How long requests in flight may go on when the server stops."""

_MOST_HEADER_BYTES = 64 * 1024
_HEADER_OVERHEAD_BYTES = 32
"""What a header costs beside its letters, so that very many empty ones come to an end too."""

_WEBSOCKET_BYTES = 64 * 1024


def bind(settings: Settings) -> socket.socket:
    """
    A bound socket that does not listen yet.

    Raises:
        Refused: PORT_IN_USE, or CANNOT_LISTEN where there is no such address or no right to it.
    """
    try:
        family, _, _, _, address = _resolve(settings)
    except OSError as exc:
        raise _cannot(settings, exc) from exc
    # With the protocol named: asyncio turns Nagle's delay off only then, and each answer would wait 40 ms for it.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)  # two servers may both bind, only one may listen
    except OSError as exc:
        sock.close()
        raise _cannot(settings, exc) from exc
    return sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Listener(uvicorn.Server):
    """Signals are the caller's: uvicorn would raise them again, over everything that still has to be closed."""

    def __init__(self, app: App) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws=_WebSocket,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws_max_size=_WEBSOCKET_BYTES,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self.ready = asyncio.Event()
        """Set when requests are answered."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def run_on(self, sock: socket.socket) -> None:
        """Serve until `should_exit` is set; when it returns, no request is being served any more."""
        await self._serve(sockets=[sock])
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=GRACE_SECONDS)


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with an end to headers, and with refusals of what is no HTTP in the form of all other errors."""

    _header_bytes = 0

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        super().on_message_begin()
        scope: Any = self.scope
        scope[ABORT] = self.transport.abort

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _HEADER_OVERHEAD_BYTES)
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        body = _NOT_HTTP
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()

    def _count(self, more: int) -> None:
        self._header_bytes += more
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise ValueError("headers too large")  # httptools turns it into a refusal


class _WebSocket(WebSocketsSansIOProtocol):
    """
    uvicorn's, without patience for who takes nothing: neither pongs nor a farewell wait in memory for it. And where it
    would hang up when the server stops, the application has the last word.
    """

    def shutdown(self) -> None:
        if self.close_sent or not self.handshake_complete:
            super().shutdown()
            return
        self.stop_keepalive()
        self.close_timeout = FAREWELL_SECONDS

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        scope: Any = getattr(self, "scope", {})  # none where the handshake was refused
        scope[ABORT] = self.transport.abort

    def handle_ping(self) -> None:
        super().handle_ping()
        if not self.writable.is_set():
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


_NOT_HTTP = (
    b'{"type":"urn:videoannotator:error:malformed-request","title":"Malformed request","status":400,'
    b'"detail":"This is not HTTP that can be read, or its headers are too large.",'
    b'"error":{"code":"MALFORMED_REQUEST","message":"This is not HTTP that can be read, or its headers are too large.",'
    b'"hint":null,"field":null,"detail":null,"timestamp":null,"request_id":null}}'
)


def _resolve(settings: Settings) -> Any:
    """IPv4 first: the browser client turns localhost into 127.0.0.1."""
    host = settings.host or "0.0.0.0"  # noqa: S104
    found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def _cannot(settings: Settings, exc: OSError) -> Refused:
    where = f"{settings.host}:{settings.port}"
    if exc.errno == 98 or "in use" in str(exc):
        hint = "Stop the program that listens there, or choose another port with --port."
        return Refused(f"{where} is in use by another program.", hint=hint, code="PORT_IN_USE")
    return Refused(f"Cannot listen on {where}: {exc.strerror}.", hint="Choose with --host.", code="CANNOT_LISTEN")
