"""
Tickets: keys for addresses. An EventSource or a <video> cannot send headers, so what opens the door stands in its URL;
a ticket there opens one path for ten minutes, where a key would open everything until it is revoked.

A ticket names its holder's key, its path and its end, signed with a secret that this process drew and never wrote
down. So nothing is stored for it, it ends with the server, no stolen copy of the database forges one, and it is worth
nothing once the key behind it is revoked.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime

import msgspec

from videoannotator.errors import Forbidden

LASTS_SECONDS = 600
PREFIX = "vt_"

_HINT = "Make a new one with POST /api/v1/tickets."
_LONGEST = 2000
_TAG_BYTES = 32


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    holder: str
    """The id of the caller whose ticket it is."""

    path: str
    ends_at: int
    """Seconds since the epoch."""


class Tickets:
    """All tickets of one life of the server."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(_TAG_BYTES)
        self._decoder = msgspec.msgpack.Decoder(Ticket)

    def issue(self, holder: str, path: str) -> tuple[str, datetime]:
        """A ticket for this path and everything below it, and when it ends."""
        ends_at = int(time.time()) + LASTS_SECONDS
        content = msgspec.msgpack.encode(Ticket(holder, path, ends_at))
        packed = base64.urlsafe_b64encode(self._tag(content) + content).rstrip(b"=").decode()
        return PREFIX + packed, datetime.fromtimestamp(ends_at, UTC)

    def holder(self, offered: str, path: str) -> str:
        """
        The id of the caller whose ticket this is, if it opens this path of a request.

        Raises:
            Forbidden: TICKET_INVALID, TICKET_EXPIRED, TICKET_FOR_ANOTHER_PATH.
        """
        ticket = self._read(offered)
        if ticket.ends_at <= time.time():
            raise Forbidden("Unauthorized: this ticket has expired.", hint=_HINT, code="TICKET_EXPIRED")
        if not covers(ticket.path, path):
            raise Forbidden("This ticket is for another path.", hint=_HINT, code="TICKET_FOR_ANOTHER_PATH")
        return ticket.holder

    def _read(self, offered: str) -> Ticket:
        raw = _unpacked(offered)
        tag, content = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not content or not hmac.compare_digest(tag, self._tag(content)):
            raise Forbidden("Unauthorized: this is no ticket of this server.", hint=_HINT, code="TICKET_INVALID")
        return self._decoder.decode(content)

    def _tag(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, content, hashlib.sha256)


def covers(prefix: str, path: str) -> bool:
    """
    Whether a path is `prefix` or lies below it, by whole names: `/jobs/job_1` covers `/jobs/job_1/video` and not
    `/jobs/job_10`. A path with `.`, `..`, empty names or backslashes is covered by nothing.
    """
    inner, outer = _names(path), _names(prefix)
    return is_plain(path) and is_plain(prefix) and inner[: len(outer)] == outer


def is_plain(path: str) -> bool:
    """Whether a path means the same to everybody who reads it."""
    names = _names(path)
    return path.startswith("/") and bool(names) and not any(name in ("", ".", "..") or _odd(name) for name in names)


def _names(path: str) -> list[str]:
    return path.removeprefix("/").removesuffix("/").split("/")


def _odd(name: str) -> bool:
    return not name.isascii() or not name.isprintable() or any(char in name for char in "\\%?#;")


def _unpacked(offered: str) -> bytes:
    if not offered.startswith(PREFIX) or len(offered) > _LONGEST or not offered.isascii():
        return b""
    packed = offered.removeprefix(PREFIX)
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
