"""
One decoder for several stages of a job: what they are told, and what they say to each other.

The one that gives decodes for itself as ever, and meanwhile hands each other one, ready converted, the pictures that it
asked for (`giving.py`). Those that take wait for them instead of decoding (`taking.py`). They meet at a UNIX socket in
a folder of the job; the pictures go through memory that the taker made and that has no name, so that nothing is left of
it when both are gone, killed or not.

Each side may leave at any moment. Who takes and is left without the next picture decodes for itself, from there on, and
gets the same pictures and the same account. Nobody waits for the other for long: see `patience_seconds`.

Nothing but msgspec is imported here: the server knows `Sharing` too.
"""

from typing import Literal

import msgspec

from videoannotator.jobs import Ledger

LONGEST_MESSAGE = 4096
"""Bytes."""


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage is told of the others."""

    address: str
    """Of the socket; the folder is there."""

    gives: bool
    """It decodes for the others. Else it takes."""

    takers: int = 0
    """So many others may come to who gives."""

    most_bytes: int
    """Of pictures on their way to one taker."""

    door_seconds: float = 5.0
    """They wait so long for each other at the beginning."""

    patience_seconds: float = 2.0
    """Who gives is kept waiting this long by each taker, in all, and by a quarter of the time that was decoded: enough
    to load a network. A stage that is slower is better off with a decoder of its own, and a quick one is not held up by
    it. Who takes is kept waiting this long beyond twice the time that was decoded."""


class Wish(msgspec.Struct, frozen=True, tag="wish", kw_only=True):
    """Taker to giver, first of all, with the descriptor of the memory."""

    rate: float | None
    pixel_format: Literal["rgb24", "bgr24", "gray"]
    max_side: int | None
    after: int
    places: int
    """Pictures that the memory has room for. They are filled in turn, and again when they have been taken."""

    place_bytes: int


class Given(msgspec.Struct, frozen=True, tag="given"):
    """Giver to taker: a picture is in the next place. The taker answers with one byte when it has taken it."""

    number: int
    timestamp: float
    pts: int
    shape: tuple[int, ...]
    worked_seconds: float
    """How long has been decoded, and converted for others, by now."""


class Working(msgspec.Struct, frozen=True, tag="working"):
    """Giver to taker: nothing for you, but it goes on."""

    timestamp: float
    worked_seconds: float


class Whole(msgspec.Struct, frozen=True, tag="whole", kw_only=True):
    """Giver to taker: that was all, and this is the account of it."""

    ledger: Ledger
    derived_timestamps: int
    first_trouble: float | None
    """Seconds on the file's timeline up to where all was well; None where nothing was lost."""

    broke_off: bool


FromGiver = Given | Working | Whole
