"""
The pages that come with the server: one to submit and follow jobs, one that hands a key to the browser client.

Each is one static file without anything from elsewhere. Its Content-Security-Policy names the hashes of its own script
and style, so nothing else can run in it, and nothing of a request ever gets into it.
"""

import base64
import hashlib
import re
from pathlib import Path

from litestar import Response, route

from videoannotator.server.auth import OPEN

_WEB = Path(__file__).parent / "web"
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Page:
    """A file of `web/`, read once, with the policy that fits it."""

    def __init__(self, name: str) -> None:
        self._content = (_WEB / name).read_bytes()
        self._headers = {
            "content-security-policy": _POLICY.format(scripts=self._hashes("script"), styles=self._hashes("style")),
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-cache",
        }

    def answer(self) -> Response[bytes]:
        return Response(self._content, headers=self._headers, media_type="text/html", status_code=200)

    def _hashes(self, tag: str) -> str:
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), self._content, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in inside)


_JOBS = _Page("page.html")
_CONNECT = _Page("connect.html")


@route("/", http_method=["GET", "HEAD"], opt=OPEN)
async def web_page() -> Response[bytes]:
    """The built-in page: submit videos, see jobs live, cancel them, download results."""
    return _JOBS.answer()


@route("/viewer-connect", http_method=["GET", "HEAD"], opt=OPEN)
async def viewer_connect() -> Response[bytes]:
    """
    Hands a key to the embedded browser client: `/viewer-connect#va_...`. What stands behind the # stays in the browser,
    so the key is in no log; the page stores it where the client looks for it, and opens `/viewer/`.
    """
    return _CONNECT.answer()


ROUTES = [web_page, viewer_connect]
