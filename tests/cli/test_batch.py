"""`videoannotator batch` as a user runs it, against a real server, also one that goes away in the middle."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clips import Clips
from tests.program import ADMIN, wait_for
from videoannotator.client import Client
from videoannotator.errors import Forbidden, NotFound, Refused


@pytest.fixture
def videos(tmp_path: Path, clips: Clips) -> Path:
    folder = tmp_path / "videos"
    (folder / "day2").mkdir(parents=True)
    for name in ("a.mp4", "day2/b.mp4"):
        shutil.copy(clips.path("h264.mp4"), folder / name)
    (folder / "broken.mp4").write_bytes(b"\0" * 5000)
    return folder


def words(url: str, *more: str | Path) -> list[str]:
    return [sys.executable, "-m", "videoannotator", "batch", *map(str, more), "--server", url, "--key", ADMIN]


def batch(url: str, *more: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words(url, *more), cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_a_directory_that_the_server_does_not_see_is_sent_to_it(start: Any, videos: Path, tmp_path: Path) -> None:
    """
    The report names files and not uploads; the results come back in folders; a broken file is exit code 1; and where
    that is asked nothing is remembered.
    """
    url = start().ready()
    arguments = ("--pipelines", "behaves", "--report", "out.csv", "--output", "results", "--no-cache")

    done = batch(url, videos, *arguments, cwd=tmp_path)

    rows = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8-sig").splitlines()))
    assert 1 == done.returncode, done.stderr
    assert {"a.mp4": "completed", "broken.mp4": "rejected", "day2/b.mp4": "completed"} == {
        row["video"]: row["state"] for row in rows
    }
    assert "[REJECTED] broken.mp4" in done.stdout
    assert not list((tmp_path / "storage" / "cache").rglob("entry.json"))
    assert "[ERROR] videos: 2 completed, 1 rejected" in done.stdout
    assert {"out.json", "manifest.json"} == set(os.listdir(tmp_path / "results" / "day2" / "b"))


@pytest.mark.slow
def test_a_directory_below_the_data_roots_is_annotated_in_place(start: Any, videos: Path, tmp_path: Path) -> None:
    """Nothing is copied; the second time all of it was done before, which is a success."""
    url = start(data_roots=str(tmp_path)).ready()
    arguments = (videos, "--pipelines", "behaves", "--pattern", "*[ab].mp4", "--skip-done")

    first = batch(url, *arguments, "--report", "one.json", cwd=tmp_path)
    second = batch(url, *arguments, "--report", "two.json", cwd=tmp_path)
    typo = batch(url, videos, "--pipelines", "behaves", "--pattern", "*.mp5", cwd=tmp_path)

    states = [
        [line["state"] for line in json.loads((tmp_path / name).read_text())["videos"]]
        for name in ("one.json", "two.json")
    ]
    assert (0, 0) == (first.returncode, second.returncode), first.stdout + second.stdout
    assert [["completed"] * 2, ["skipped"] * 2] == states
    assert (2, True) == (typo.returncode, "There is no video in" in typo.stderr), typo.stdout
    assert not list((tmp_path / "storage" / "videos").iterdir())
    assert "sending" not in first.stdout


@pytest.fixture
def on_a_terminal() -> Iterator[None]:
    """What a shell runs in the background, tests too, is made to ignore Ctrl-C, and hands that down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("on_a_terminal")
def test_ctrl_c_leaves_the_batch_to_the_server_and_follow_comes_back(start: Any, videos: Path, tmp_path: Path) -> None:
    """Whoever closes the laptop in the evening finds the report in the morning, over a restart of the server too."""
    server = start(data_roots=str(tmp_path))
    url = server.ready()
    slow = ("--set", "behaves.steps=40", "--set", "behaves.step_seconds=0.1")
    begun = subprocess.Popen(
        words(url, videos, "--pipelines", "behaves", "--pattern", "a.mp4", *slow),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"VIDEOANNOTATOR_PIPELINE_DIRS": str(tmp_path / "pipelines")},
    )
    with httpx.Client(base_url=url, headers={"x-api-key": ADMIN}) as http:
        wait_for(lambda: http.get("/api/v1/batches").json()["total"] == 1)
        batch_id = http.get("/api/v1/batches").json()["batches"][0]["id"]
    time.sleep(1)
    begun.send_signal(signal.SIGINT)
    said, _ = begun.communicate(timeout=20)
    port = int(url.rpartition(":")[2])
    following = subprocess.Popen(words(url, "--follow", batch_id), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    server.process.send_signal(signal.SIGKILL)
    server.ends()
    start(data_roots=str(tmp_path), port=port).ready()
    report, _ = following.communicate(timeout=60)

    assert 130 == begun.returncode
    assert f"--follow {batch_id}" in said
    assert (0, True) == (following.returncode, "[OK] videos: 1 completed" in report)
    assert (tmp_path / f"{batch_id}_report.csv").exists()


@pytest.mark.slow
def test_a_call_that_cannot_work_is_one_line_and_exit_code_2(start: Any, videos: Path, tmp_path: Path) -> None:
    """Before anything is sent."""
    url = start().ready()

    unreachable = batch("http://127.0.0.1:9", videos, cwd=tmp_path)
    unknown = batch(url, "no-such-thing", cwd=tmp_path)
    wrong = batch(url, videos, "--pipelines", "mind_reading", "--pattern", "a.mp4", cwd=tmp_path)
    report = batch(url, videos, "--report", "report.xls", cwd=tmp_path)

    for done, says in (
        (unreachable, "cannot be reached"),
        (unknown, "no directory here and no dataset there"),
        (wrong, "No pipeline is called 'mind_reading'"),
        (report, "A report is a .csv or a .json"),
    ):
        assert (2, True) == (done.returncode, says in done.stderr), done.stderr
        assert 1 == len(done.stderr.splitlines())


@pytest.mark.slow
def test_the_client_serves_a_notebook(start: Any, videos: Path, tmp_path: Path) -> None:
    """Submit, follow, fetch; and what the server refuses is an error of its kind with its code."""
    url = start(data_roots=str(tmp_path)).ready()

    with Client(url, key=ADMIN) as client:
        dataset = client.add_dataset("study", videos)
        submitted = client.submit_batch(
            {"dataset_id": dataset["id"], "videos": ["a.mp4"], "selected_pipelines": ["behaves"]}
        )
        types = []
        for event in client.follow(batch_id=submitted["id"], after=0):
            types.append(event.type)
            if event.type == "job.complete":
                break
        files = client.fetch(submitted["jobs"][0]["id"], tmp_path / "fetched")
        with pytest.raises(NotFound) as missing:
            client.batch("batch_x")
        with pytest.raises(Refused) as refused:
            client.submit_batch({"videos": []})
    with Client(url) as stranger, pytest.raises(Forbidden) as forbidden:
        stranger.batches()

    assert {"job.update", "job.complete"} <= set(types)
    assert {"out.json", "manifest.json"} == {file.name for file in files}
    assert ("BATCH_NOT_FOUND", "MISSING_FIELD") == (missing.value.code, refused.value.code)
    assert "KEY_MISSING" == forbidden.value.code
