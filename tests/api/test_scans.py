"""Scans of datasets: every video below a directory, and what it is, without anybody waiting for it."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips
from tests.server import Served, eventually, serving


@pytest.fixture
def data(tmp_path: Path, clips: Clips) -> Path:
    """A directory as a lab has it."""
    data = tmp_path / "data"
    (data / "day 1" / "raw").mkdir(parents=True)
    (data / ".trash").mkdir()
    (tmp_path / "outside").mkdir()
    for name, source in {
        "day 1/clip.MP4": "h264.mp4",
        "day 1/raw/variable.mkv": "variable.mkv",
        "sound.wav": "sound.wav",
        "turned.mp4": "rotated_90.mp4",
        "half.mp4": "half.mkv",
        "no_moov.mp4": "no_moov.mp4",
        "empty.mp4": "empty.mp4",
        ".trash/gone.mp4": "h264.mp4",
        "notes.txt": "text.mp4",
    }.items():
        shutil.copy(clips.path(source), data / name)
    shutil.copy(clips.path("h264.mp4"), tmp_path / "outside" / "secret.mp4")
    (data / "link.mp4").symlink_to(tmp_path / "outside" / "secret.mp4")
    (data / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(data / "fifo.mp4")
    (data / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    return data


async def scanned(server: Served, dataset: str) -> dict[str, Any]:
    """The list after a scan."""
    begun = await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")
    assert begun.status_code == 202, begun.text
    return await over(server, dataset)


async def list_of(server: Served, dataset: str) -> dict[str, Any]:
    listed = (await server.http.get(f"/api/v1/datasets/{dataset}/videos", params={"per_page": 1000})).json()
    assert isinstance(listed, dict)
    return listed


async def over(server: Served, dataset: str) -> dict[str, Any]:
    async def done() -> dict[str, Any] | None:
        listed = await list_of(server, dataset)
        return listed if listed["scan"]["state"] != "running" else None

    found: dict[str, Any] = await eventually(done)
    return found


async def add(server: Served, base: Path, name: str = "study") -> str:
    made = await server.http.post("/api/v1/datasets", json={"name": name, "base_path": str(base)})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def test_a_scan_finds_every_video_and_says_what_it_is(tmp_path: Path, data: Path) -> None:
    """And of those that cannot be read why; a job can name what it found."""
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = await add(server, data)
        before = (await server.http.get(f"/api/v1/datasets/{dataset}/videos")).json()
        listed = await scanned(server, dataset)
        order = {"dataset_id": dataset, "path": "day 1/clip.MP4", "selected_pipelines": ["behaves"]}
        job = await server.http.post("/api/v1/jobs", json=order)

    videos = {video["path"]: video for video in listed["videos"]}
    errors = {path: video["error"]["code"] for path, video in videos.items() if not video["readable"]}
    assert (before["videos"], before["total"], "scan" in before) == ([], 0, False)
    assert set(videos) - set(errors) == {
        "day 1/clip.MP4",
        "day 1/raw/variable.mkv",
        "sound.wav",
        "turned.mp4",
        "half.mp4",
    }
    assert errors == {
        "no_moov.mp4": "VIDEO_TRUNCATED",
        "empty.mp4": "FILE_EMPTY",
        "link.mp4": "PATH_NOT_ALLOWED",
        "folder": "PATH_NOT_ALLOWED",
        "fifo.mp4": "NOT_A_FILE",
        "caf\ufffd.mp4": "PATH_NOT_ALLOWED",
    }
    clip = videos["day 1/clip.MP4"]
    assert (clip["video_codec"], clip["audio_codec"], clip["frame_rate"]) == ("h264", "aac", 25)
    assert clip["duration_seconds"] == pytest.approx(4, abs=0.1)
    assert clip["variable_frame_rate"] is False
    assert videos["day 1/raw/variable.mkv"]["variable_frame_rate"] is True
    assert videos["turned.mp4"]["rotation_degrees"] == 90
    assert (listed["scan"]["state"], listed["scan"]["found"], listed["scan"]["looked_at"]) == ("completed", 11, 11)
    assert listed["scan"]["unreadable"] == 6
    assert str(tmp_path) not in str(listed)
    assert job.status_code == 201


async def test_a_second_scan_follows_what_has_changed(tmp_path: Path, data: Path, clips: Clips) -> None:
    """New, changed and removed files; pages are in the order of paths."""
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = await add(server, data)
        await scanned(server, dataset)
        (data / "sound.wav").unlink()
        shutil.copy(clips.path("h264.mp4"), data / "empty.mp4")
        shutil.copy(clips.path("h264.mkv"), data / "new.mkv")
        listed = await scanned(server, dataset)
        pages = [
            (await server.http.get(f"/api/v1/datasets/{dataset}/videos", params={"per_page": 4, "page": page})).json()
            for page in (1, 2, 3, 4)
        ]

    videos = {video["path"]: video["readable"] for video in listed["videos"]}
    assert "sound.wav" not in videos
    assert (videos["empty.mp4"], videos["new.mkv"]) == (True, True)
    assert [video for page in pages for video in page["videos"]] == listed["videos"]
    assert {page["total"] for page in pages} == {11}


async def test_who_reads_that_a_scan_is_over_reads_all_that_it_found(tmp_path: Path) -> None:
    """However near to its end the list is asked for."""
    data = tmp_path / "data"
    data.mkdir()
    wrong = []
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = await add(server, data)
        for number in range(20):
            (data / f"{number}.mp4").touch()
            (data / f"{number - 1}.mp4").unlink(missing_ok=True)
            assert (await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")).status_code == 202
            while (listed := await list_of(server, dataset))["scan"]["state"] == "running":
                pass
            if [video["path"] for video in listed["videos"]] != [f"{number}.mp4"]:
                wrong.append(listed)

    assert wrong == []


@pytest.mark.slow
async def test_a_scan_of_many_files_delays_nobody_and_runs_once(tmp_path: Path, clip: Path) -> None:
    """Uploads are looked at in between; who asks for it again is told that it runs."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(300):
        os.link(shutil.copy(clip, tmp_path / "clip") if number == 0 else tmp_path / "clip", data / f"{number:03}.mp4")
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = await add(server, data)
        begun = await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")
        again = await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await server.submit(clip)
        seconds = loop.time() - began
        during = (await server.http.get(f"/api/v1/datasets/{dataset}/videos")).json()["scan"]
        listed = await over(server, dataset)

    assert begun.status_code == 202
    assert (again.status_code, again.json()["error"]["code"]) == (409, "SCAN_RUNNING")
    assert during["state"] == "running"
    assert seconds < 3
    assert listed["scan"]["found"] == 300


async def test_a_server_that_stops_says_that_the_scan_was_interrupted(tmp_path: Path, data: Path) -> None:
    """Otherwise it would run for ever in the books."""
    many = [data / f"{number:04}.mp4" for number in range(2000)]  # ten seconds' work, and the stop is a matter of one
    for link in many:
        os.link(data / "turned.mp4", link)
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = await add(server, data)
        await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")
    for link in many:
        link.unlink()

    async with serving(tmp_path, data_roots=(data,)) as server:
        scan = (await server.http.get(f"/api/v1/datasets/{dataset}/videos")).json()["scan"]
        listed = await scanned(server, dataset)

    assert scan["state"] == "interrupted"
    assert listed["scan"]["state"] == "completed"


async def test_a_directory_that_is_gone_is_said(tmp_path: Path, data: Path) -> None:
    """A disk that is not plugged in; and a dataset that nobody made."""
    async with serving(tmp_path, data_roots=(tmp_path,)) as server:
        dataset = await add(server, data)
        shutil.rmtree(data)
        gone = await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")
        unknown = await server.http.post("/api/v1/datasets/nope/videos/scan")
        listed = await server.http.get("/api/v1/datasets/nope/videos")

    assert (gone.status_code, gone.json()["error"]["code"]) == (422, "PATH_NOT_ALLOWED")
    assert (unknown.status_code, listed.status_code) == (404, 404)


async def test_a_dataset_may_be_forgotten_while_it_is_scanned(tmp_path: Path, data: Path) -> None:
    """The scan ends quietly, and nothing of it stays."""
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = await add(server, data)
        await server.http.post(f"/api/v1/datasets/{dataset}/videos/scan")
        removed = await server.http.delete(f"/api/v1/datasets/{dataset}")
        again = await add(server, data)
        listed = await scanned(server, again)

    assert removed.status_code == 204
    assert listed["scan"]["state"] == "completed"
