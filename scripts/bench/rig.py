"""
What the bench scripts share: a real server in a process of its own, clips, and one JSON line for each figure.

Every script prints lines like `{"figure": "...", "value": 0.61, "unit": "s", "asked": 1.0, "ok": true, ...}`.
"""

import atexit
import contextlib
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

# Machines for development may forbid Python to keep compiled modules; then every process compiles for half a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.path.append(str(Path(__file__).parents[2]))
from tests.declared import declare

__all__ = [
    "KEY",
    "Others",
    "Server",
    "declare",
    "left_out",
    "lives",
    "make_clip",
    "medians",
    "pad",
    "percentile",
    "say",
    "seconds_of",
    "wait_until",
    "workplace",
]

KEY = "va_bench_key_of_this_machine_only"
CONSOLE_COMMAND = str(Path(sys.executable).with_name("videoannotator"))


def say(
    figure: str, value: float, unit: str, *, asked: float | None = None, at_least: bool = False, **more: Any
) -> None:
    """One figure. `asked` is the limit it must keep: at most, or at least."""
    line: dict[str, Any] = {"figure": figure, "value": round(value, 4), "unit": unit}
    if asked is not None:
        line |= {"asked": asked, "ok": value >= asked if at_least else value <= asked}
    print(json.dumps(line | more), flush=True)


def left_out(figure: str, why: str) -> None:
    print(json.dumps({"figure": figure, "left_out": why}), flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def medians(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of the time by the clock and of processor seconds."""
    wall, cpu = zip(*rows, strict=True)
    return percentile(wall, 0.5), round(percentile(cpu, 0.5), 3)


def seconds_of(command: list[str]) -> float:
    """How long it takes from its call to its end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def wait_until(true: Any, *, limit_seconds: float, every_seconds: float = 0.002) -> float:
    """Seconds until `true()` holds; TimeoutError after the limit."""
    began = time.perf_counter()
    while not true():
        if time.perf_counter() - began > limit_seconds:
            raise TimeoutError(f"not so after {limit_seconds} s")
        time.sleep(every_seconds)
    return time.perf_counter() - began


class Others:
    """What the machine did beside the measurement: figures of a busy machine are no figures."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """
        Of all cores, since this was made: taken by processes that are neither this one nor its ended descendants, or
        by other machines on the same hardware.
        """
        taken = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return max(0.0, taken / (time.monotonic() - self._began) / (os.cpu_count() or 1))


def _busy_seconds() -> float:
    now = psutil.cpu_times()
    return sum(now) - now.idle - getattr(now, "iowait", 0.0) - getattr(now, "guest", 0.0)


def _own_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Server:
    """`videoannotator serve` on a storage directory, on a free port of the loopback."""

    def __init__(self, storage: Path, **settings: str) -> None:
        self.storage = storage
        self._log = (storage.parent / f"{storage.name}.log").open("ab+")
        names = {f"VIDEOANNOTATOR_{name.upper()}": value for name, value in settings.items()}
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [CONSOLE_COMMAND, "serve", "--port", "0", "--storage-dir", str(storage)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VIDEOANNOTATOR_API_KEY": KEY, "VIDEOANNOTATOR_CACHE": "off"} | names,
            cwd=storage.parent,
        )
        atexit.register(self.process.kill)  # also when the script ends with an error
        self._from = os.fstat(self._log.fileno()).st_size
        wait_until(self._address, limit_seconds=30)
        self.url = self._address() or ""
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
        wait_until(self._is_healthy, limit_seconds=30)
        self.start_seconds = time.perf_counter() - self.began

    def family(self) -> list[psutil.Process]:
        """The server and everything below it."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def submit(self, video: Path, *pipelines: str, config: dict[str, Any] | None = None) -> str:
        data = {"selected_pipelines": ",".join(pipelines), "config": json.dumps(config or {})}
        with video.open("rb") as content:
            answer = self.http.post("/api/v1/jobs", data=data, files={"video": (video.name, content, "video/mp4")})
        answer.raise_for_status()
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()
        return found

    def stop(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)
        self._log.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self.http.close()
        self._log.close()

    def _address(self) -> str | None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {Path(self._log.name).read_text()}")
        said = Path(self._log.name).read_bytes()[self._from :].decode()
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        return found and found.group()

    def _is_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/health").status_code == 200
        return False


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory that goes when the script ends."""
    folder = Path(tempfile.mkdtemp(prefix="videoannotator-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_clip(target: Path, *, seconds: float, size: str = "320x240", rate: int = 25, more: Sequence[str] = ()) -> Path:
    """A test picture with a tone, H.264 and AAC."""
    sources = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}", "-f", "lavfi", "-i", "sine=f=440"]
    coding = ["-t", str(seconds), "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", *more, str(target)]
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *sources, *coding], check=True)
    return target


def pad(clip: Path, target: Path, size: int) -> Path:
    """The clip with a `free` box of zeros behind it: a legal MP4 of any size."""
    content = clip.read_bytes()
    padding = size - len(content)
    with target.open("wb") as padded:
        padded.write(content + padding.to_bytes(4, "big") + b"free")
        padded.truncate(size)
    return target
