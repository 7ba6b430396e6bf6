"""HTTP requests that go to checked addresses only."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from videoannotator.outbound.policy import Policy
from videoannotator.outbound.targets import Target


class Response(Protocol):
    """An answer whose body is unread."""

    status: int

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]: ...

    def aiter_stream(self) -> AsyncIterable[bytes]: ...


@asynccontextmanager
async def requesting(
    policy: Policy, method: str, target: Target, *, headers: Mapping[str, str] | None = None, content: bytes = b""
) -> AsyncIterator[Response]:
    """
    The answer to one request. Redirects are not followed, nothing is unpacked, no proxy is used. The connection is
    closed when the block ends.

    Raises:
        Refused: URL_NOT_ALLOWED; FETCH_FAILED where the certificate is not the host's.
        Unreachable: the other side cannot be connected to, breaks off, or is silent for too long.
    """
    # 30 ms of import, which only those pay who call out.
    from videoannotator.outbound import connection

    async with connection.requesting(policy, method, target, headers=headers or {}, content=content) as response:
        yield response


def header(response: Response, name: str) -> str:
    wanted = name.lower().encode()
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == wanted), "")
