"""Writes that wait for the disk: what has happened must be recorded, however late."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from videoannotator.errors import StorageTrouble
from videoannotator.logs import get_logger

PASSING = frozenset({"STORAGE_FULL", "STORAGE_NOT_WRITABLE"})
"""Troubles of the storage that an operator can end while the server runs."""

_TRY_AGAIN_SECONDS = 2.0

T = TypeVar("T")

log = get_logger(__name__)


class Insistence:
    """`await insist(write)` tries again and again while the disk is full, and says so once."""

    def __init__(self) -> None:
        self.trouble: StorageTrouble | None = None
        """Why nothing can be recorded at the moment; None as soon as something could."""

        self.in_trouble = asyncio.Event()

    async def __call__(self, write: Callable[[], Awaitable[T]]) -> T:
        """What `write` returns. Raises what it raises, except the troubles that may pass."""
        while True:
            try:
                written = await write()
            except StorageTrouble as trouble:
                if trouble.code not in PASSING:
                    raise
                self._note(trouble)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
            else:
                self.trouble = None
                self.in_trouble.clear()
                return written

    def _note(self, trouble: StorageTrouble) -> None:
        if self.trouble is None:
            log.warning("the storage cannot be written; trying again", reason=str(trouble))
        self.trouble = trouble
        self.in_trouble.set()
