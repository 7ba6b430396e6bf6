"""Lives of a server on one storage directory, each ended by `kill -9` or by a fault point, and what must hold after."""

import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.declared import declare
from tests.program import ADMIN
from tests.stages import is_alive
from videoannotator.store.trouble import DATABASE

FINAL = ("completed", "failed", "cancelled")
LIMIT_SECONDS = 60.0
FILES = {"behaves": 1, "counts_in_chunks": 1, "fails_twice": 1, "scene_detection": 3}
"""How many each pipeline makes of a clip with one scene, its picture included."""


class House:
    """A storage directory, and everything that was acknowledged in it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.storage = folder / "storage"
        self.pipelines = declare(folder / "pipelines", "behaves", "fails_twice", "counts_in_chunks")
        self._settings = {"cache": "on", "retry_base_delay_seconds": "0.05", "min_free_bytes": "0"} | settings
        self.acknowledged: dict[str, str] = {}
        """Job to the pipelines that were asked of it."""

    def life(self, fault: str = "", *, under: Sequence[str] = (), **settings: str) -> "Life":
        """`under`: a program that starts the server and leaves it its process number."""
        names = self._settings | {"api_key": ADMIN, "pipeline_dirs": str(self.pipelines)} | settings
        environ = {f"VIDEOANNOTATOR_{name.upper()}": value for name, value in names.items()}
        return Life(self, environ | {"VIDEOANNOTATOR_FAULT": fault}, under)

    # -- what must hold when all is over

    def check(self) -> None:
        """Nothing acknowledged is lost, nothing was published twice, nothing is left over, every byte is right."""
        with closing(sqlite3.connect(self.storage / DATABASE)) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
            jobs = dict(connection.execute("SELECT id, status FROM jobs").fetchall())
            ended = connection.execute("SELECT job_id FROM events WHERE type = 'job.complete'").fetchall()
        assert set(self.acknowledged) <= set(jobs), "an acknowledged job is lost"
        assert {"completed"} == set(jobs.values()), jobs
        assert sorted(jobs) == sorted(job_id for (job_id,) in ended), "a job ended twice, or without a word"
        for job_id in jobs:
            self._check_results(job_id)
        assert [] == self._left_over(set(jobs))
        assert [] == self.processes()

    def _check_results(self, job_id: str) -> None:
        results = self.storage / "results" / job_id
        manifest = json.loads((results / "manifest.json").read_text())
        listed = {entry["path"]: entry["sha256"] for files in manifest["outputs"].values() for entry in files}
        there = {file.name: file for file in results.iterdir() if file.name != "manifest.json"}
        assert sorted(listed) == sorted(there)
        for name, file in there.items():
            assert listed[name] == hashlib.sha256(file.read_bytes()).hexdigest()
        if job_id in self.acknowledged:
            assert len(listed) == sum(FILES[name] for name in self.acknowledged[job_id].split(","))

    def _left_over(self, jobs: set[str]) -> list[str]:
        folders = [f for kind in ("videos", "results", "logs") for f in (self.storage / kind).iterdir()]
        left = [str(folder) for folder in folders if folder.name not in jobs]
        left += [str(file) for file in (self.storage / "uploads").rglob("*.part")]
        return left + [str(file) for job_id in jobs for file in (self.storage / "results" / job_id).glob(".*")]

    def processes(self) -> list[int]:
        """Stages that told of themselves and live."""
        pids = self.pipelines / "pids"
        return [pid for pid in map(int, pids.read_text().split()) if is_alive(pid)] if pids.exists() else []


class Life:
    """One process: `videoannotator serve`. Leaving the block kills it."""

    def __init__(self, house: House, environ: dict[str, str], under: Sequence[str] = ()) -> None:
        self._house = house
        self._fault = environ["VIDEOANNOTATOR_FAULT"]
        command = [*under, sys.executable, "-m", "videoannotator", "serve", "--port", "0"]
        # A file and no pipe: one that nobody reads would stop the server when it is full.
        self._log = house.storage.parent / f"life-{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--storage-dir", str(house.storage)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environ,
            )

    def __enter__(self) -> "Life":
        self.url = self._find_url()
        self.http = httpx.Client(base_url=self.url, headers={"x-api-key": ADMIN}, timeout=20, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()

    def _find_url(self) -> str:
        until = time.monotonic() + LIMIT_SECONDS
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", self._log.read_text())):
            assert time.monotonic() < until, "the server does not start"
            if self.process.poll() is not None:
                died_as_asked = self._fault != "" and self.process.returncode == -signal.SIGKILL
                assert died_as_asked, f"the server ended: {self._log.read_text()}"
                return "http://127.0.0.1:1"  # it died while it started: nobody is there
            time.sleep(0.01)
        return found.group()

    def submit(self, clip: Path, pipelines: str = "behaves", config: dict[str, Any] | None = None) -> str | None:
        """The job if it was acknowledged; None where the server died before it could."""
        data = {"selected_pipelines": pipelines, "config": json.dumps(config or {})}
        try:
            answer = self.http.post("/api/v1/jobs", data=data, files={"video": (clip.name, clip.read_bytes())})
        except httpx.TransportError:
            return None
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["id"]
        self._house.acknowledged[job_id] = pipelines
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()
        return found

    def delete(self, job_id: str) -> None:
        """Asked, and the answer not waited for where the server dies of it."""
        self._house.acknowledged.pop(job_id)
        try:
            self.http.delete(f"/api/v1/jobs/{job_id}").raise_for_status()
        except httpx.TransportError:
            return

    def until_all_are_over(self) -> None:
        """However many there are, as long as they become fewer."""
        before, until = -1, 0.0
        while busy := self._busy():
            if busy != before:
                before, until = busy, time.monotonic() + LIMIT_SECONDS
            assert time.monotonic() < until, f"{busy} jobs do not end"
            time.sleep(0.05)

    def until_over(self, job_id: str) -> dict[str, Any]:
        until = time.monotonic() + LIMIT_SECONDS
        while (job := self.job(job_id))["status"] not in FINAL:
            assert time.monotonic() < until, job
            time.sleep(0.02)
        return job

    def _busy(self) -> int:
        totals = []
        for status in ("pending", "running", "cancelling"):
            listed = self.http.get("/api/v1/jobs", params={"per_page": 1, "status": status}).raise_for_status().json()
            totals.append(listed["total"])
        return sum(totals)

    def dies(self) -> None:
        """Of its fault point, within the limit."""
        assert self.process.wait(LIMIT_SECONDS) == -signal.SIGKILL

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_SECONDS)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)
