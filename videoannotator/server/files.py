"""
One file over HTTP: whole or a range of it (RFC 9110 section 14), unchanged or not (ETag), with constant memory.

What came from strangers is an attachment in a sandbox: it can be saved and played, never run as a page of this server.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import ParamSpec
from urllib.parse import quote

import msgspec

from videoannotator.errors import NotFound, Refused
from videoannotator.paths.nofollow import look_at, open_file
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.problems import answer
from videoannotator.server.streams import Streamed

P = ParamSpec("P")

BLOCK_BYTES = 256 * 1024

_RANGE = re.compile(r"bytes=(\d{0,30})-(\d{0,30})[ \t]*")


class Span(msgspec.Struct, frozen=True):
    """Bytes `first` to `last`, both included."""

    first: int
    last: int


async def serve_file(path: Path, request: ApiRequest, *, name: str, media_type: str, etag: str = "") -> Streamed:
    """
    200, 206, 304 or 416.

    Raises:
        NotFound: FILE_GONE.
    """
    headers = request.headers
    size, made_etag = await asyncio.to_thread(_look, path)
    tag = etag or made_etag
    about = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if _names(headers.get("if-none-match", ""), tag):
        return Streamed(_nothing(), status=304, headers=about)
    try:
        span = asked_span(headers.get("range"), size) if headers.get("if-range", tag) == tag else None
    except Refused as refusal:
        status, told, body = answer(refusal, request.scope)
        about_it = {"Content-Range": f"bytes */{size}", "Content-Length": str(len(body))}
        return Streamed(_only(body), status=status, headers=told | about_it)
    about |= {"Content-Type": media_type, "Content-Disposition": attachment(name)}
    if span is None:
        whole = Span(0, size - 1)
        return Streamed(_read(path, whole), headers=about | {"Content-Length": str(size)})
    about |= {"Content-Range": f"bytes {span.first}-{span.last}/{size}"}
    return Streamed(_read(path, span), status=206, headers=about | {"Content-Length": str(span.last - span.first + 1)})


def asked_span(header: str | None, size: int) -> Span | None:
    """
    The one range that was asked for; None where the whole file is the answer: none asked, several, or nonsense.

    Raises:
        Refused: RANGE_NOT_SATISFIABLE, a well-formed range that begins behind the end.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        span = Span(max(size - int(last), 0), size - 1)
    else:
        span = Span(int(first), min(int(last), size - 1) if last else size - 1)
        if last and int(last) < int(first):
            return None
    if span.first > span.last:
        raise Refused(
            f"The file has {size} bytes.", hint=f"Ask for a range in it: {header}.", code="RANGE_NOT_SATISFIABLE"
        )
    return span


def attachment(name: str) -> str:
    """A Content-Disposition (RFC 6266) with the name in UTF-8, and in ASCII for old programs."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%;' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _look(path: Path) -> tuple[int, str]:
    try:
        found = look_at(path)
    except OSError:
        raise NotFound("The file is gone.", code="FILE_GONE") from None
    return found.st_size, f'"{found.st_mtime_ns:x}-{found.st_size:x}"'


def _names(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}


async def _only(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


async def _read(path: Path, span: Span) -> AsyncGenerator[bytes, None]:
    async for block in read_blocks(path, span.first, span.last - span.first + 1):
        yield block


async def read_blocks(path: Path, start: int, length: int) -> AsyncGenerator[bytes, None]:
    """
    Exactly `length` bytes from `start`, read in a thread. No link is followed, at the end of the path or on the way.

    Raises:
        OSError: the file cannot be read, or is shorter than it was: better a broken answer than a wrong one.
    """
    descriptor = await opened(open_file, path)
    try:
        while length:
            block = await asyncio.to_thread(os.pread, descriptor, min(BLOCK_BYTES, length), start)
            if not block:
                raise OSError(f"{path} ended {length} bytes early")
            start, length = start + len(block), length - len(block)
            yield block
    finally:
        os.close(descriptor)


async def opened(open_it: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    """
    The descriptor that a blocking function opens, in a thread. The thread goes on when nobody waits for it any more:
    then what it opened is closed.
    """
    opening = asyncio.get_running_loop().run_in_executor(None, partial(open_it, *args, **kwargs))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: "asyncio.Future[int]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
