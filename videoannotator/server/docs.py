"""The API about itself: its OpenAPI document, and a page made from it that needs nothing from anywhere else."""

import asyncio
import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from videoannotator.server.auth import OPEN
from videoannotator.server.decoding import ApiRequest

_PAGE = Path(__file__).parent / "web"


class Document(msgspec.Struct, frozen=True):
    content: bytes
    etag: str


@get("/openapi.json", opt=OPEN)
async def get_openapi(request: ApiRequest) -> Response[bytes]:
    """Composed when it is asked for the first time, in a thread."""
    state = request.app.state
    document: Document | None = state.get("openapi")
    if document is None:
        document = state.openapi = await asyncio.to_thread(_document, _handlers(request.app))
    headers = {"etag": document.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match", "").strip() == document.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(document.content, headers=headers, media_type="application/json")


@get("/docs", opt=OPEN)
async def get_docs() -> Response[bytes]:
    """One file: script and style stand in it, and its policy allows these two and no others."""
    page, policy = await asyncio.to_thread(_page)
    headers = {"content-security-policy": policy, "cache-control": "no-cache", "x-frame-options": "DENY"}
    return Response(page, headers=headers, media_type="text/html; charset=utf-8")


def _document(handlers: list[Any]) -> Document:
    from videoannotator.server.openapi.document import compose

    content = msgspec.json.encode(compose(handlers))
    return Document(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _handlers(app: Any) -> list[Any]:
    """Every handler once. Litestar has one of its own at each path, for OPTIONS."""
    found = {id(h): h for r in app.routes for h in getattr(r, "route_handlers", None) or [r.route_handler]}
    return [handler for handler in found.values() if is_ours(handler)]


def is_ours(handler: BaseRouteHandler) -> bool:
    """Not one that Litestar made, to answer OPTIONS."""
    return handler.fn.__module__ != HTTPRoute.__module__


@cache
def _page() -> tuple[bytes, str]:
    script, style = ((_PAGE / f"docs.{kind}").read_text() for kind in ("js", "css"))
    page = (_PAGE / "docs.html").read_text().replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page.encode(), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


ROUTES = [get_openapi, get_docs]
