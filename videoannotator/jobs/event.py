"""What happened, and how it is told."""

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Something that happened. `seq` only grows; it is the SSE id and the Last-Event-ID."""

    seq: int
    type: str
    job_id: str | None
    batch_id: str | None
    json: bytes
    """What it says, a JSON object as it is stored and sent: encoded once, however many hear it."""

    @property
    def data(self) -> dict[str, Any]:
        return msgspec.json.decode(self.json, type=dict[str, Any])


class Heard(msgspec.Struct, frozen=True):
    """What a follower is told at once."""

    events: tuple[Event, ...]
    """In order; none where nothing happened for a while."""

    behind: int
    """How many seqs after them are already on disk."""
