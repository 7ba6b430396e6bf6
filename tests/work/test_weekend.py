"""
What the program is for: somebody leaves five hundred videos on Friday and finds every one of them finished or explained
on Monday, though the server was killed twice, the disk filled, one video was poisonous and thirty jobs were cancelled.
"""

import csv
import io
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.clips import Clips
from tests.declared import declare
from tests.program import ADMIN, Process
from tests.stages import is_alive
from videoannotator.artifacts import sha256
from videoannotator.runner import leftovers
from videoannotator.workspace import storage_id

VIDEOS = 500
CANCELLED = 30
MIB = 2**20


class Weekend:
    """A server on a small disk, started as often as it takes, and a client that asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.storage = folder / "storage"
        self.begun: list[Process] = []
        self.http = httpx.Client(headers={"x-api-key": ADMIN}, timeout=60)

    def start(self) -> None:
        port = int(str(self.http.base_url).strip("/").rpartition(":")[2]) if self.begun else 0
        declared = declare(self.folder / "pipelines", "poisoned", warm=True)
        process = Process(
            self.folder,
            port=port,
            api_key=ADMIN,
            pipeline_dirs=str(declared),
            data_roots=str(self.data),
            pause_free_bytes=str(8 * MIB),
            min_free_bytes=str(8 * MIB),
            retry_base_delay="0.2",
        )
        self.begun.append(process)
        self.http.base_url = process.ready()

    def get(self, path: str) -> Any:
        answer = self.http.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.http.post(f"/api/v1{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def until(self, true: Callable[[], Any], *, what: str, limit_seconds: float = 120) -> Any:
        end = time.monotonic() + limit_seconds
        while not (found := true()):
            assert time.monotonic() < end, f"{what}: not so after {limit_seconds:g} s\n{self.log()}"
            time.sleep(0.05)
        return found

    def log(self) -> str:
        return "\n".join((self.folder / "log").read_text().splitlines()[-20:])


@pytest.fixture
def weekend(tmp_path: Path, clips: Clips) -> Iterator[Weekend]:
    one = Weekend(tmp_path)
    for folder in (one.data, one.storage):
        folder.mkdir()
    mounted = os.geteuid() == 0 and _mount(one.storage)
    clip = clips.path("h264.mp4").read_bytes()
    for number in range(VIDEOS):
        (one.data / f"visit{number:03}.mp4").write_bytes(clip + number.to_bytes(2))
    (one.data / "poison.mp4").write_bytes(clip + b"poison")
    (one.data / "broken.mp4").write_bytes(b"\0" * 5000)
    yield one
    one.http.close()
    for process in one.begun:
        process.close()
    if mounted:
        # A server that was killed leaves it to its guardian to end the stages, and their logs lie here.
        one.until(lambda: subprocess.run(["umount", one.storage], check=False).returncode == 0, what="unmounted")


def _mount(folder: Path) -> bool:
    """A disk of 64 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
def test_every_video_of_a_weekend_is_finished_or_explained(weekend: Weekend) -> None:
    """The report names all of them, results are what they say, nothing runs on, and nothing was done twice."""
    weekend.start()
    dataset = weekend.post("/datasets", {"name": "weekend", "base_path": str(weekend.data)})["id"]
    config = {"poisoned": {"steps": 2, "step_seconds": 0.02}}
    order = {"dataset_id": dataset, "selected_pipelines": ["poisoned"], "config": config, "name": "weekend"}
    batch = weekend.post("/batches", order)["id"]

    _kill_in_the_middle(weekend, batch, after=20)
    cancelled = _cancel_some(weekend, batch)
    disk_was_full = _fill_the_disk(weekend, batch)
    _kill_in_the_middle(weekend, batch, after=100)
    _stop_and_start(weekend)
    weekend.until(lambda: weekend.get(f"/batches/{batch}")["state"] == "finished", what="finished")

    told = weekend.get(f"/batches/{batch}")
    lines = {line["video"]: line for line in weekend.get(f"/batches/{batch}/report")["videos"]}
    table = weekend.http.get(f"/api/v1/batches/{batch}/report.csv").content.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(table)))
    states = Counter(line["state"] for line in lines.values())
    assert {path.name for path in weekend.data.iterdir()} == lines.keys() == {row["video"] for row in rows}
    assert {"completed": VIDEOS - cancelled, "cancelled": cancelled, "failed": 1, "rejected": 1} == states
    assert ("failed", "STAGE_DIED") == (lines["poison.mp4"]["state"], lines["poison.mp4"]["error_code"])
    assert lines["broken.mp4"]["error_code"]
    assert disk_was_full
    _check_results(weekend, lines)
    _check_nothing_runs(weekend)

    again = weekend.post("/batches", order | {"skip_done": True})["id"]
    looked_at = weekend.until(lambda: _once_looked_at(weekend, again), what="looked at")
    assert (VIDEOS - cancelled, 1) == (looked_at["skipped"], looked_at["rejected"])
    weekend.until(lambda: weekend.get(f"/batches/{again}")["state"] == "finished", what="the rest done")
    retried = weekend.post(f"/batches/{batch}/retry", {"include_cancelled": True})
    assert cancelled + 1 == len(retried["jobs"])
    weekend.until(lambda: weekend.get(f"/batches/{batch}")["state"] == "finished", what="retried")
    last = weekend.get(f"/batches/{batch}")
    assert (VIDEOS, 1, 0) == (last["counts"]["completed"], last["counts"]["failed"], last["counts"]["cancelled"])
    assert told["videos"] == last["videos"] == VIDEOS + 2


def _once_looked_at(weekend: Weekend, batch: str) -> dict[str, int] | None:
    """How many of its videos are in which state; None while one waits to be looked at."""
    counts: dict[str, int] = weekend.get(f"/batches/{batch}")["counts"]
    return None if counts["waiting"] else counts


def _done(weekend: Weekend, batch: str) -> int:
    return int(weekend.get(f"/batches/{batch}")["counts"]["completed"])


def _kill_in_the_middle(weekend: Weekend, batch: str, *, after: int) -> None:
    weekend.until(lambda: _done(weekend, batch) >= after, what=f"{after} done")
    weekend.begun[-1].process.send_signal(signal.SIGKILL)
    weekend.begun[-1].ends()
    weekend.start()


def _cancel_some(weekend: Weekend, batch: str) -> int:
    """How many were cancelled by hand."""
    found = weekend.get(f"/jobs?batch_id={batch}&status=pending&per_page=100")["jobs"]
    chosen = [job for job in found if "poison" not in job["video_filename"]][-CANCELLED:]
    answers = [weekend.http.post(f"/api/v1/jobs/{job['id']}/cancel").status_code for job in chosen]
    assert [200] * CANCELLED == answers
    return len(answers)


def _fill_the_disk(weekend: Weekend, batch: str) -> bool:
    """Until nothing fits any more; the queue waits and goes on. True also where no small disk could be made."""
    if psutil.disk_usage(str(weekend.storage)).total > 100 * MIB:
        return True
    hog = weekend.storage / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * MIB):
                pass
        except OSError:
            pass  # it is full now
    paused = weekend.until(
        lambda: weekend.get("/system/health")["worker_info"]["worker_status"] == "paused", what="paused"
    )
    refused = weekend.http.post("/api/v1/batches", json={"videos": ["up_x"], "selected_pipelines": ["poisoned"]})
    assert refused.status_code in (201, 503), refused.text
    before = _done(weekend, batch)
    time.sleep(1)
    assert _done(weekend, batch) <= before + 4  # what ran may have ended
    hog.unlink()
    weekend.until(lambda: _done(weekend, batch) > before + 4, what="goes on")
    return bool(paused)


def _stop_and_start(weekend: Weekend) -> None:
    weekend.begun[-1].process.terminate()
    assert 0 == weekend.begun[-1].ends()
    weekend.start()


def _check_results(weekend: Weekend, lines: dict[str, dict[str, Any]]) -> None:
    for video, line in lines.items():
        if line["state"] != "completed":
            continue
        files = weekend.get(f"/jobs/{line['job_id']}/results")["results"]["poisoned"]["files"]
        stored = [weekend.storage / "results" / line["job_id"] / file["name"] for file in files]
        assert [file["sha256"] for file in files] == [sha256(file) for file in stored], video
        assert line["sha256"] == sha256(weekend.data / video)


def _check_nothing_runs(weekend: Weekend) -> None:
    mark = leftovers.needle(leftovers.STORAGE_MARK, storage_id(weekend.storage))
    weekend.until(lambda: not _stages(mark), what="no stage is left")


def _stages(mark: bytes) -> list[int]:
    found = [pid for pid in leftovers.carrying(mark) if is_alive(pid)]
    return [pid for pid in found if "runner.child" in " ".join(psutil.Process(pid).cmdline())]
