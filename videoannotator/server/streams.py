"""Answers that are sent piece by piece, and that stop being made the moment nobody listens any more."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

ABORT = "videoannotator.abort"
"""In the scope of a connection: the function that drops it at once, with all that is unsent."""


class Streamed:
    """
    An ASGI application that sends what `chunks` yields. `chunks` is closed on every path: sent, client gone, server
    stopping. It begins only after the headers are out, and never for HEAD.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], *, status: int = 200, headers: Mapping[str, str]) -> None:
        self._chunks = chunks
        self._status = status
        self._headers = [(name.lower().encode(), _encoded(value)) for name, value in headers.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with aclosing(self._chunks):
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            sending = asyncio.create_task(self._send(send), name="send")
            leaving = asyncio.create_task(until_gone(receive), name="watch for the client leaving")
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end(sending, leaving)
            if not sending.cancelled():
                sending.result()

    async def _send(self, send: Any) -> None:
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def until_gone(receive: Any) -> None:
    """Until the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are over; what they raise is for who asks them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _encoded(value: str) -> bytes:
    """Header values are Latin-1, and a line break would begin a header of the sender's choice."""
    return value.replace("\r", "").replace("\n", "").encode("latin-1", "replace")
