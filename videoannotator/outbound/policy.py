"""Which addresses may be called on somebody's behalf: public ones, and what the operator allowed by name."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from videoannotator.errors import Unreachable
from videoannotator.outbound.targets import Target, refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name, as texts; raises OSError where there are none."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RESOLVE_SECONDS = 10.0
_NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # carriers' own, and one cloud's metadata
        "168.63.129.16/32",  # another cloud's metadata, although it looks public
        "192.0.0.0/24",
        "192.88.99.0/24",  # a relay to 6to4
        "198.18.0.0/15",
        "64:ff9b::/96",  # IPv4 in disguise: what the last bits say is not looked at by everybody
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "fec0::/10",
        "::/96",
    )
)


class Policy:
    """
    `allowed` has what may be called although it is not public: names (`media.lab`), names with a port
    (`127.0.0.1:8000`), networks (`10.1.0.0/16`).
    """

    def __init__(self, allowed: Sequence[str] = (), *, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or _system_lookup
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in allowed:
            self._allow(entry.strip().lower())
        self.own_ports: set[int] = set()
        """Where this server listens: it never calls itself, whatever is allowed."""

    def refuse_plain(self, target: Target) -> None:
        """
        What needs no resolving: a host that is an address, in whatever spelling, or this machine's own name.

        Raises:
            Refused: URL_NOT_ALLOWED.
        """
        if target.host == "localhost" or target.host.endswith(".localhost"):
            self._check(target, [ipaddress.ip_address("127.0.0.1")])
            return
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:
            return
        self._check(target, _parsed(_texts(found)))

    async def resolve(self, target: Target) -> list[str]:
        """
        The addresses of a target, every one of them allowed, in the order to try them.

        Raises:
            Refused: URL_NOT_ALLOWED.
            Unreachable: FETCH_FAILED, there is no such name.
        """
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self._lookup(target.host, target.port)
        except (OSError, UnicodeError) as exc:
            raise Unreachable(f"The host {target.host} cannot be found.", hint="Check the URL.") from exc
        addresses = _parsed(found)
        self._check(target, addresses)
        return [str(address) for address in addresses]

    def _allow(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            self._names.add(entry)

    def _check(self, target: Target, addresses: Sequence[Address]) -> None:
        if not addresses:
            raise Unreachable(f"The host {target.host} has no address.", hint="Check the URL.")
        if target.port in self.own_ports and any(_is_here(address) for address in addresses):
            raise refused("The server does not call itself.")
        if {target.host, f"{target.host}:{target.port}"} & self._names:
            return
        if not all(is_public(address) or self._is_allowed(address) for address in addresses):
            hint = "The operator can allow hosts of an intranet in VIDEOANNOTATOR_OUTBOUND_ALLOWED."
            raise refused(f"{target.host} is not a host on the public internet.", hint)

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)


def is_public(address: Address) -> bool:
    """Whether it belongs to the internet at large: to no local, private, reserved or translated range."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(address in network for network in _NEVER if network.version == address.version)


async def _system_lookup(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    return _texts(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _texts(found: Sequence[tuple[object, ...]]) -> list[str]:
    return [str(entry[4][0]) for entry in found if isinstance(entry[4], tuple)]


def _parsed(texts: Sequence[str]) -> list[Address]:
    return [_plain(ipaddress.ip_address(text.partition("%")[0])) for text in dict.fromkeys(texts)]


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _is_here(address: Address) -> bool:
    """An address of this machine."""
    if address.is_loopback or address.is_unspecified:
        return True
    import psutil  # 25 ms, which only those pay who call out

    own = (entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries)
    return str(address) in own
