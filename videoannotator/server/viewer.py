"""The browser client, from the directory the operator names, at `/viewer/`: files, and its page for every route."""

import asyncio
import base64
import errno
import hashlib
import os
import re
import stat
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec
from litestar import route
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp

from videoannotator.errors import NotFound
from videoannotator.paths.nofollow import are_plain, open_inside
from videoannotator.server.auth import OPEN
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.files import opened
from videoannotator.server.streams import Streamed
from videoannotator.workspace import Workspace

_INDEX = ("index.html",)
_BLOCK_BYTES = 256 * 1024
_MOST_PAGE_BYTES = 1024**2
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
_POLICY = (
    "default-src 'self'; script-src 'self' blob: 'wasm-unsafe-eval'{hashes}; worker-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; "
    "media-src 'self' blob: data:; "
    "connect-src * blob: data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""It may talk to another server, which its user can choose; it runs no script that is not in its own files."""

_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)


class _Found(msgspec.Struct, frozen=True):
    """A file of the directory, as it was looked at."""

    parts: tuple[str, ...]
    size: int
    etag: str
    policy: str = ""


@route(["/viewer", "/viewer/{path:path}"], http_method=["GET", "HEAD"], opt=OPEN)
async def viewer(request: ApiRequest, workspace: NamedDependency[Workspace], path: FromPath[str] = "") -> ASGIApp:
    """A file of the browser client; its page where there is none, so that its own routes can be opened and reloaded."""
    folder = workspace.settings.viewer_dir
    if folder is None:
        hint = "Name the directory of its build in VIDEOANNOTATOR_VIEWER_DIR."
        raise NotFound("This server has no viewer.", hint=hint, code="VIEWER_NOT_SET")
    found = await asyncio.to_thread(_find, folder, tuple(path.strip("/").split("/")) if path.strip("/") else _INDEX)
    headers = _headers(found)
    if found.etag in request.headers.get("if-none-match", ""):
        return Streamed(_blocks(folder, found, 0), status=304, headers=headers)
    return Streamed(_blocks(folder, found, found.size), headers=headers | {"Content-Length": str(found.size)})


def _find(folder: Path, parts: tuple[str, ...]) -> _Found:
    """
    Raises:
        NotFound: FILE_NOT_FOUND, for a way out, a link, an asset that is missing, or a build without a page.
    """
    if not are_plain(parts):
        raise _nothing()
    try:
        return _look(folder, parts)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR) or parts[0] == "assets" or parts == _INDEX:
            raise _nothing() from exc
    return _find(folder, _INDEX)


def _look(folder: Path, parts: tuple[str, ...]) -> _Found:
    descriptor = open_inside(folder, parts)
    try:
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory")
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.ELOOP, "no file")
        page = os.pread(descriptor, _MOST_PAGE_BYTES, 0) if parts[-1].endswith(".html") else None
    finally:
        os.close(descriptor)
    etag = f'"{about.st_mtime_ns:x}-{about.st_size:x}"'
    return _Found(parts, about.st_size, etag, "" if page is None else _policy(page))


def _policy(page: bytes) -> str:
    """Scripts that the page holds itself are the operator's too, and named by their hash."""
    hashes = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    return _POLICY.format(hashes="".join(f" 'sha256-{base64.b64encode(h).decode()}'" for h in hashes))


def _headers(found: _Found) -> dict[str, str]:
    suffix = Path(found.parts[-1]).suffix.lower()
    lasting = found.parts[0] == "assets"  # a build puts a hash of the content into these names
    headers = {
        "Content-Type": _TYPES.get(suffix, "application/octet-stream"),
        "ETag": found.etag,
        "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
    }
    return headers | ({"Content-Security-Policy": found.policy} if found.policy else {})


async def _blocks(folder: Path, found: _Found, length: int) -> AsyncGenerator[bytes, None]:
    """Opened again here: of an answer that is never sent (HEAD) nothing is left open."""
    if length == 0:
        return
    descriptor = await opened(open_inside, folder, found.parts)
    try:
        position = 0
        while position < length:
            block = await asyncio.to_thread(os.pread, descriptor, min(_BLOCK_BYTES, length - position), position)
            if not block:
                raise OSError(f"{'/'.join(found.parts)} became shorter while it was sent")
            position += len(block)
            yield block
    finally:
        os.close(descriptor)


def _nothing() -> NotFound:
    return NotFound("The viewer has no such file.", hint="Its page is at /viewer/.", code="FILE_NOT_FOUND")


ROUTES: Sequence[object] = [viewer]
