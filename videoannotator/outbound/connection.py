"""One HTTP request over a connection to a checked address, by httpcore."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpcore

from videoannotator import __version__
from videoannotator.errors import Refused, Unreachable
from videoannotator.outbound.policy import Policy
from videoannotator.outbound.targets import Target

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
"""The longest silence of the other side."""


@asynccontextmanager
async def requesting(
    policy: Policy, method: str, target: Target, *, headers: Mapping[str, str], content: bytes
) -> AsyncIterator[httpcore.Response]:
    """As `client.requesting`."""
    sent = {"User-Agent": f"videoannotator/{__version__}", "Accept-Encoding": "identity", "Connection": "close"}
    sent |= headers
    limits = {"connect": CONNECT_SECONDS, "read": READ_SECONDS, "write": READ_SECONDS, "pool": CONNECT_SECONDS}
    backend = _Checked(policy, target)
    certificates = await asyncio.to_thread(ssl.create_default_context) if target.scheme == "https" else None
    pool = httpcore.AsyncConnectionPool(network_backend=backend, ssl_context=certificates, retries=0)
    with _translated(target):
        async with (
            pool,
            pool.stream(
                method,
                # In its parts, and not as a text that would be read a second time.
                httpcore.URL(scheme=target.scheme, host=target.bracketed_host, port=target.port, target=target.path),
                headers=list(sent.items()),
                content=content or None,
                extensions={"timeout": limits},
            ) as response,
        ):
            yield response


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to what the policy resolved and checked, and to nothing else."""

    def __init__(self, policy: Policy, target: Target) -> None:
        self._policy = policy
        self._target = target
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the library's signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._policy.resolve(self._target)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, self._target.port, timeout, None, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], self._target.port, timeout, None, socket_options)


@contextmanager
def _translated(target: Target) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as exc:
        raise Unreachable(f"{target.shown} did not answer in time.", hint="Try again later.") from exc
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ssl.SSLError) as exc:
        below = exc.__cause__ or exc.__context__
        if isinstance(below, ssl.SSLCertVerificationError):
            message = f"{target.shown} has no valid certificate: {below.verify_message}."
            raise Refused(message, hint="Try the URL in a browser.", code="FETCH_FAILED") from exc
        reason = str(exc) or type(exc).__name__
        raise Unreachable(f"{target.shown} could not be read: {reason}.", hint="Try again later.") from exc
