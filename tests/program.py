"""`videoannotator serve` as users have it: a process of its own, spoken to over HTTP."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ADMIN = "va_the_admin_key_of_the_tests_0123456789"


class Process:
    """A server process; its standard output by line, its log in a file."""

    def __init__(self, folder: Path, *, port: int = 0, more: dict[str, str] | None = None, **settings: str) -> None:
        self.storage = folder / "storage"
        self.log = folder / "log"
        names = {f"VIDEOANNOTATOR_{name.upper()}": value for name, value in settings.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "videoannotator",
                    "serve",
                    "--port",
                    str(port),
                    "--storage-dir",
                    str(self.storage),
                ],
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=log,
                cwd=folder,
                env=_clean_environment() | names | (more or {}),
            )
        self.lines: list[str] = []

    def ready(self) -> str:
        """Its address, once it says that it is ready."""
        assert self.process.stdout is not None
        while True:
            assert select.select([self.process.stdout], [], [], 30)[0], "silence for 30 s"
            line = self.process.stdout.readline().decode("ascii")
            assert line, self.log.read_text()
            self.lines.append(line)
            if found := re.search(r"http://\S+", line):
                return found.group()

    def ends(self, limit_seconds: float = 10) -> int:
        return self.process.wait(limit_seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def programs(folder: Path, **usual: str) -> Iterator[Callable[..., Process]]:
    """Starts one after the other on `folder / "storage"`, with these settings and those of each call; ends them all."""
    begun: list[Process] = []

    def start(**settings: Any) -> Process:
        begun.append(Process(folder, **(usual | settings)))
        return begun[-1]

    try:
        yield start
    finally:
        for process in begun:
            process.close()


def submit(client: httpx.Client, clip: Path, config: dict[str, Any], headers: dict[str, str] | None = None) -> str:
    with clip.open("rb") as video:
        answer = client.post(
            "/api/v1/jobs",
            files={"video": (clip.name, video, "video/mp4")},
            data={"selected_pipelines": "behaves", "config": json.dumps(config)},
            headers=headers,
        )
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


def wait_for(true: Any) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "not so after 30 s"
        time.sleep(0.02)


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIDEOANNOTATOR_")}
