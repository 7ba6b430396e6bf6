"""Frames, `u32 little-endian length | msgpack`, for the side that may block. The server's side is `ear.py`."""

import os
from typing import Any

import msgspec

from videoannotator.runner.messages import MAX_FRAME_BYTES

HEADER_BYTES = 4


class FrameTooLong(ValueError):
    """The message does not fit in a frame."""


def encode(message: Any) -> bytes:
    """One message as a frame. Raises FrameTooLong."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLong(f"a message of {len(body)} bytes; a frame holds {MAX_FRAME_BYTES}")
    return len(body).to_bytes(HEADER_BYTES, "little") + body


def write(fd: int, frame: bytes) -> None:
    """Write all of it, waiting where the pipe is full."""
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read(fd: int, kind: Any) -> Any:
    """The next message, one of `kind`, waiting for it; None when the other side has closed."""
    header = _read_exactly(fd, HEADER_BYTES)
    if header is None:
        return None
    body = _read_exactly(fd, int.from_bytes(header, "little"))
    return None if body is None else msgspec.msgpack.decode(body, type=kind)


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        chunk = os.read(fd, min(size - len(parts), 65536))
        if not chunk:
            return None
        parts += chunk
    return bytes(parts)
