"""URLs that strangers give, taken apart once: what is connected to is what was checked, by one reading of the text."""

import re
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from videoannotator.errors import Refused

_LONGEST = 2048
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_PORTS = {"http": 80, "https": 443}
_KEPT = "/%:@!$&'()*+,;=~-._?"


class Target(msgspec.Struct, frozen=True):
    """Where a request goes."""

    scheme: str
    host: str
    """A name in ASCII, or an address without brackets."""

    port: int
    path: str
    """With the query, percent-encoded."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bracketed_host}:{self.port}{self.path}"

    @property
    def bracketed_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def shown(self) -> str:
        """Fit for messages and logs: without the query, in which secrets may stand."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.bracketed_host}{port}{self.path.partition('?')[0]}"


def target_of(url: str, base: Target | None = None) -> Target:
    """
    What a URL means; with `base` it may be relative, as in a redirect.

    Raises:
        Refused: URL_NOT_ALLOWED: no http or https, a user name in it, or no URL at all.
    """
    if base is not None:
        url = urljoin(base.url, url)
    if len(url) > _LONGEST or _FORBIDDEN.search(url):
        raise refused(f"A URL has up to {_LONGEST} characters, without blanks and control characters.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refused("This is not a URL.") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise refused("Only http and https URLs are taken.")
    if "@" in parts.netloc:
        raise refused("A URL must not have a user name or password in it.")
    if port == 0:
        raise refused("This is not a URL.")
    path = quote(parts.path or "/", safe=_KEPT) + (f"?{quote(parts.query, safe=_KEPT)}" if parts.query else "")
    return Target(scheme, _host(parts.hostname or ""), port or _PORTS[scheme], path)


def refused(message: str, hint: str = "") -> Refused:
    return Refused(message, hint=hint, code="URL_NOT_ALLOWED")


def _host(host: str) -> str:
    try:
        plain = host.encode("idna").decode("ascii").lower().rstrip(".") if not host.isascii() else host.lower()
    except UnicodeError:
        plain = ""
    plain = plain.rstrip(".")
    if not _HOST.fullmatch(plain):
        raise refused("The URL names no host.")
    return plain
