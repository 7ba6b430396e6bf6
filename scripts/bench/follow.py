"""From a stage's report to the clients that follow it: 200 event streams, and the stage's own clock beside theirs."""

import json
import multiprocessing
import re
import selectors
import socket
import sys
import time
from pathlib import Path

from rig import KEY, Server, make_clip, percentile, say, workplace

CLIENTS = 200
STEPS = 100
STEP_SECONDS = 0.15

_NEWS = re.compile(rb"event: job.update\ndata: (\{.*?\})\n\n")


def main() -> None:
    with workplace() as folder:
        clip, times = make_clip(folder / "clip.mp4", seconds=4), folder / "times"
        server = Server(folder / "storage", pipeline_dirs=str(Path(__file__).parent / "pipelines"))
        ready = multiprocessing.Event()
        heard: multiprocessing.Queue[list[tuple[float, float]]] = multiprocessing.Queue()
        listening = multiprocessing.Process(target=_listen, args=(server.url, ready, heard))
        listening.start()
        ready.wait(30)
        config = {"tells_time": {"file": str(times), "steps": STEPS, "step_seconds": STEP_SECONDS}}
        server.submit(clip, "tells_time", config=config)
        arrivals: list[tuple[float, float]] = heard.get(timeout=STEPS * STEP_SECONDS + 60)
        listening.join()
        told = {float(share): float(at) for share, at in (line.split() for line in times.read_text().splitlines())}
        delays = [at - told[share] for share, at in arrivals if share in told and share < 1]
        say(
            f"a stage's report to {CLIENTS} clients, p95",
            percentile(delays, 0.95) * 1e3,
            "ms",
            asked=50,
            p50=round(percentile(delays, 0.5) * 1e3, 1),
            worst=round(max(delays) * 1e3, 1),
            reports=len({share for share, _ in arrivals}),
            arrivals=len(delays),
        )
        server.stop()


def _listen(
    url: str, ready: "multiprocessing.synchronize.Event", heard: "multiprocessing.Queue[list[tuple[float, float]]]"
) -> None:
    """Progress and time of arrival, of every job.update at every client, until the job is complete everywhere."""
    arrivals: list[tuple[float, float]] = []
    left = CLIENTS
    with selectors.DefaultSelector() as selector:
        for _ in range(CLIENTS):
            stream = _Stream(_connect(url))
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        ready.set()
        while left:
            for key, _ in selector.select(30):
                now, got = time.time(), key.data.hear()
                arrivals += [(json.loads(data)["progress"], now) for data in _NEWS.findall(got)]
                left -= b"event: job.complete" in got
    heard.put(arrivals)


class _Stream:
    def __init__(self, stream: socket.socket) -> None:
        self.socket = stream
        self._rest = b""

    def hear(self) -> bytes:
        """Whole events only."""
        whole, _, self._rest = (self._rest + self.socket.recv(1 << 16)).rpartition(b"\n\n")
        return whole + b"\n\n"


def _connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    stream = socket.create_connection((host, int(port)))
    stream.sendall(f"GET /api/v1/events/stream?token={KEY} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    got = b""
    while b": connected" not in got:
        got += stream.recv(4096)
        if got and not got.startswith(b"HTTP/1.1 200"):
            sys.exit(f"no stream: {got!r}")
    return stream


if __name__ == "__main__":
    main()
