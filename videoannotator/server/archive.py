"""
A ZIP that is never built: it is written while it is sent, and its exact length is known before the first byte.

Everything is stored, not deflated (video does not shrink, and a length known beforehand is worth more than the rest),
with sizes and checksums behind each entry. Format: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5; ZIP64 from 4 GiB on.
"""

import struct
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

import msgspec

from videoannotator.server.files import read_blocks

_LIMIT = 0xFFFFFFFF
_FLAGS = 0x0808  # sizes follow the data; names are UTF-8


class Entry(msgspec.Struct, frozen=True):
    """A file that goes in under `name`; its size must not change until it is sent."""

    name: str
    size: int
    content: Path | bytes


def zip_length(entries: Sequence[Entry]) -> int:
    """Bytes of the whole archive."""
    position, central = 0, 0
    for entry in entries:
        name = len(entry.name.encode())
        central += 46 + name + len(_extra(_large_fields(entry.size, position)))
        position += 30 + name + (20 if _is_large(entry) else 0) + entry.size + (24 if _is_large(entry) else 16)
    return position + central + len(_end(len(entries), central, position))


async def zip_chunks(entries: Sequence[Entry], made_at: datetime) -> AsyncGenerator[bytes, None]:
    """The archive's bytes, a few hundred kilobytes at a time."""
    position, directory = 0, []
    for entry in entries:
        header = _local_header(entry, made_at)
        yield header
        checksum = 0
        async with aclosing(_content(entry)) as blocks:
            async for block in blocks:
                checksum = zlib.crc32(block, checksum)
                yield block
        descriptor = struct.pack("<IIQQ" if _is_large(entry) else "<IIII", 0x08074B50, checksum, entry.size, entry.size)
        yield descriptor
        directory.append(_central_header(entry, made_at, checksum, position))
        position += len(header) + entry.size + len(descriptor)
    central = b"".join(directory)
    yield central
    yield _end(len(entries), len(central), position)


async def _content(entry: Entry) -> AsyncGenerator[bytes, None]:
    if isinstance(entry.content, bytes):
        yield entry.content
        return
    async with aclosing(read_blocks(entry.content, 0, entry.size)) as blocks:
        async for block in blocks:
            yield block


def _local_header(entry: Entry, made_at: datetime) -> bytes:
    name, large = entry.name.encode(), _is_large(entry)
    extra = struct.pack("<HHQQ", 1, 16, 0, 0) if large else b""
    size = _LIMIT if large else 0
    fields = (0x04034B50, 45 if large else 20, _FLAGS, 0, *_dos_time(made_at), 0, size, size, len(name), len(extra))
    return struct.pack("<IHHHHHIIIHH", *fields) + name + extra


def _central_header(entry: Entry, made_at: datetime, checksum: int, position: int) -> bytes:
    name, extra = entry.name.encode(), _extra(_large_fields(entry.size, position))
    version = 45 if extra else 20
    size = min(entry.size, _LIMIT)
    fields = (0x02014B50, 0x0300 | version, version, _FLAGS, 0, *_dos_time(made_at), checksum, size, size, len(name))
    rest = (len(extra), 0, 0, 0, 0o100644 << 16, min(position, _LIMIT))
    return struct.pack("<IHHHHHHIIIHHHHHII", *fields, *rest) + name + extra


def _end(count: int, central: int, position: int) -> bytes:
    large = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, central, position)
    locator = struct.pack("<IIQI", 0x07064B50, 0, position + central, 1)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, min(central, _LIMIT), min(position, _LIMIT), 0)
    return large + locator + end if position >= _LIMIT or central >= _LIMIT else end


def _is_large(entry: Entry) -> bool:
    return entry.size >= _LIMIT


def _large_fields(size: int, position: int) -> list[int]:
    """What does not fit into 32 bits of the central header, in the order the format wants."""
    return ([size, size] if size >= _LIMIT else []) + ([position] if position >= _LIMIT else [])


def _extra(fields: list[int]) -> bytes:
    return struct.pack(f"<HH{len(fields)}Q", 1, 8 * len(fields), *fields) if fields else b""


def _dos_time(at: datetime) -> tuple[int, int]:
    """Two-second steps since 1980, as the format has it."""
    return at.hour << 11 | at.minute << 5 | at.second // 2, max(0, at.year - 1980) << 9 | at.month << 5 | at.day
