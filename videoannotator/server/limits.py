"""
How often somebody may ask for what costs much.

A bucket for each caller and kind of request: it holds a minute's worth, and fills again at that rate. Buckets that
nobody has touched for longest are forgotten first, so that a flood of addresses fills no memory.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from videoannotator.errors import TooManyRequests
from videoannotator.settings import Settings

Kind = Literal["submissions", "validations", "tickets", "analyses", "wrong_keys"]

_MOST_BUCKETS = 10_000
_WORDS: dict[Kind, str] = {
    "submissions": "submissions",
    "validations": "validations",
    "tickets": "tickets",
    "analyses": "analyses",
    "wrong_keys": "wrong keys from this address",
}


class Limits:
    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._per_minute: dict[Kind, int] = {
            "submissions": settings.submissions_per_minute,
            "validations": settings.validations_per_minute,
            "tickets": settings.tickets_per_minute,
            "analyses": settings.analyses_per_minute,
            "wrong_keys": settings.wrong_keys_per_minute,
        }
        self._buckets: OrderedDict[tuple[Kind, str], tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def spend(self, kind: Kind, who: str) -> None:
        """
        One more request of this kind by this caller.

        Raises:
            TooManyRequests: with the seconds after which one is allowed again.
        """
        most = self._per_minute[kind]
        if most == 0:
            return
        now = self._clock()
        left, since = self._buckets.pop((kind, who), (float(most), now))
        left = min(float(most), left + (now - since) * most / 60)
        allowed = left >= 1
        self._keep((kind, who), left - 1 if allowed else left, now)
        if not allowed:
            raise _too_many(kind, most, (1 - left) * 60 / most)

    def _keep(self, bucket: tuple[Kind, str], left: float, now: float) -> None:
        self._buckets[bucket] = (left, now)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)


def address_of(client: tuple[str, int] | None) -> str:
    """Who is at the other end of the connection. What a header claims does not count; IPv6 counts by its network."""
    host = client[0] if client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _too_many(kind: Kind, most: int, wait: float) -> TooManyRequests:
    seconds = max(1, math.ceil(wait))
    hint = f"Try again in {seconds} s. The operator sets {kind}_per_minute."
    message = f"More than {most} {_WORDS[kind]} in a minute are not taken."
    return TooManyRequests(message, hint=hint, retry_after_seconds=seconds)
