"""
A small imitation of the Hugging Face Hub and of a plain file server, on a real socket.

It speaks as much of the hub's protocol as `huggingface_hub` asks for: the description of a repository with its files'
checksums, and the files with ranges. It can break off, lie, and ask for a token.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What it serves, how it misbehaves, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.token = "hf_the_token_of_the_tests"
        self.files: dict[str, bytes] = {}
        self.break_after: dict[str, int] = {}
        """Path to the number of bytes after which the next answer with it breaks off."""

        self.always_break: dict[str, int] = {}
        """Path to the byte that no answer with it goes beyond."""

        self.lies: dict[str, bytes] = {}
        """Path to what is sent instead of the content, of the same length."""

        self.stalls: set[str] = set()
        """Paths whose content does not come after the first half, until the server ends."""

        self.ended = threading.Event()
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []

    def ranges_asked(self, path: str) -> list[str]:
        return [h["range"] for method, p, h in self.asked if p.endswith(path) and method == "GET" and "range" in h]


def is_large(path: str) -> bool:
    """As git LFS has it on the hub."""
    return path.endswith((".bin", ".npz", ".safetensors"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        return None

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        if "authorization" in self.headers and not self._has_token():
            self._whole(401, b"{}", {"x-error-message": "Invalid credentials in Authorization header"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._describe(match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self.hub.repositories.get(match[1], {})
            if self._may(match[1]):
                self._send(match[3], files.get(match[3]), with_body, commit=COMMIT)
        else:
            self._send(path, self.hub.files.get(path.removeprefix("/")), with_body)

    def _describe(self, name: str) -> None:
        if name not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
        elif name in self.hub.gated and not self._has_token():
            # The hub itself describes gated repositories to everybody; this is what it says of private ones.
            self._refuse(401, "GatedRepo")
        else:
            siblings = [_sibling(path, content) for path, content in self.hub.repositories[name].items()]
            body = json.dumps({"id": name, "sha": COMMIT, "siblings": siblings, "private": False}).encode()
            self._whole(200, body, {"content-type": "application/json"})

    def _may(self, name: str) -> bool:
        if name in self.hub.gated and not self._has_token():
            self._refuse(401, "GatedRepo")
            return False
        return True

    def _has_token(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {self.hub.token}"

    def _refuse(self, status: int, code: str) -> None:
        self._whole(status, b"{}", {"x-error-code": code, "x-error-message": code})

    def _send(self, path: str, content: bytes | None, with_body: bool, commit: str = "") -> None:
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        tag = hashlib.sha256(content).hexdigest() if is_large(path) or not commit else _blob(content)
        headers = {"etag": f'"{tag}"', "accept-ranges": "bytes"} | ({"x-repo-commit": commit} if commit else {})
        sent = self.hub.lies.get(path, content)
        start, status = 0, 200
        asked = self.headers.get("range")
        if asked and self.headers.get("if-range", f'"{tag}"') == f'"{tag}"':
            start, status = int(re.fullmatch(r"bytes=(\d+)-(\d*)", asked)[1]), 206
            if start >= len(content):
                self._whole(416, b"", {"content-range": f"bytes */{len(content)}"})
                return
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = sent[start:]
        limit = self.hub.break_after.pop(path, None) if with_body else None
        if path in self.hub.always_break:
            limit = max(0, self.hub.always_break[path] - start)
        if with_body and path in self.hub.stalls:
            self._head(status, headers, len(body))
            self.wfile.write(body[: len(body) // 2])
            self.hub.ended.wait(60)
            return
        if with_body and limit is not None:
            self._head(status, headers, len(body))
            self.wfile.write(body[:limit])
            self.close_connection = True
            return
        self._whole(status, body, headers, with_body=with_body)

    def _whole(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
        self._head(status, headers, len(body))
        if with_body and self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(length))
        self.end_headers()


def _sibling(path: str, content: bytes) -> dict[str, object]:
    found: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": _blob(content)}
    if is_large(path):
        found["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return found


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving_hub() -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        handler.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="hub")
        thread.start()
        try:
            yield handler.hub
        finally:
            handler.hub.ended.set()
            server.shutdown()
            thread.join()
