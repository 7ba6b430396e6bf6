"""
A load generator that costs little itself: one thread, bare sockets, one request in flight for each client.

    python load.py HOST PORT CLIENTS SECONDS < request

The request (its head and body, as bytes) is sent over and over on connections that stay open. Prints one JSON object:
requests, seconds, wrong (answers that were not 2xx), p50, p95, p99 in milliseconds.
"""

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rig import percentile


def hammer(url: str, request: bytes, *, clients: int, seconds: float) -> dict[str, Any]:
    """Run the generator in a process of its own, and what it found."""
    host, port = url.removeprefix("http://").split(":")
    command = [sys.executable, str(Path(__file__)), host, port, str(clients), str(seconds)]
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def http_request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class _Client:
    """One connection, with one request in flight."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._got = b""
        self._began = 0.0

    def ask(self) -> None:
        self._began = time.perf_counter()
        self.socket.sendall(self._request)

    def hear(self) -> tuple[float, int] | None:
        """Seconds and status, once the whole answer is here."""
        more = self.socket.recv(1 << 18)
        if not more:
            raise ConnectionError("the server closed the connection")
        self._got += more
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return None
        self._got = b""
        return time.perf_counter() - self._began, int(head[9:12])


def _length(head: bytes) -> int:
    start = head.lower().index(b"content-length:") + 15
    return int(head[start:].split(b"\r\n", 1)[0])


def _run(host: str, port: int, clients: int, seconds: float, request: bytes) -> dict[str, Any]:
    latencies: list[float] = []
    wrong = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = _Client(host, port, request)
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.ask()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for key, _ in selector.select(1):
                if (answer := key.data.hear()) is None:
                    continue
                latencies.append(answer[0])
                wrong += not 200 <= answer[1] < 300
                key.data.ask()
        took = time.perf_counter() - began
    shares = {f"p{share}": round(percentile(latencies, share / 100) * 1e3, 3) for share in (50, 95, 99)}
    return {"requests": len(latencies), "seconds": took, "wrong": wrong, "cpu": os.times()[0] + os.times()[1], **shares}


if __name__ == "__main__":
    print(
        json.dumps(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.stdin.buffer.read()))
    )
