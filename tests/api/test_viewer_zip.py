"""The ZIP holds what the Viewer shows: a video that its browser plays, and no file that it would lose or hide."""

import asyncio
import io
import struct
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from tests.browser import screen
from tests.clips import Clips, ffmpeg
from tests.declared import declare
from tests.server import ADMIN, Served, eventually, send_raw, serving
from videoannotator.media.playable import browsers_play
from videoannotator.media.probe import probe

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def copied(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> AsyncIterator[tuple[Served, str]]:
    """A server, and a job on an HEVC video that ended."""
    async with serving(tmp_path_factory.mktemp("copied")) as server:
        job = await server.finished(clips.path("hevc.mp4"))
        assert job["outcome"] == "full", job
        yield server, job["id"]


async def zip_of(server: Served, job_id: str) -> zipfile.ZipFile:
    answer = await server.http.get(f"/api/v1/jobs/{job_id}/artifacts")
    assert answer.status_code == 200, answer.text
    return zipfile.ZipFile(io.BytesIO(answer.content))


def videos_in(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.lower().endswith((".mp4", ".mov", ".avi", ".mkv", ".webm"))]


async def test_the_zip_holds_the_copy_under_the_originals_name(
    copied: tuple[Served, str], clips: Clips, tmp_path: Path
) -> None:
    """The Viewer takes the last video it finds and shows its name: there must be one, and it must play."""
    server, job_id = copied

    archive = await zip_of(server, job_id)

    (name,) = videos_in(archive)
    (tmp_path / name).write_bytes(archive.read(name))
    assert name == "hevc.mp4"
    assert archive.testzip() is None
    assert browsers_play(probe(tmp_path / name))
    assert not browsers_play(probe(clips.path("hevc.mp4")))


async def test_chromium_plays_the_video_of_the_zip(copied: tuple[Served, str], clips: Clips, tmp_path: Path) -> None:
    """Asked of a real browser: length, size, and the picture it shows after a seek."""
    server, job_id = copied
    archive = await zip_of(server, job_id)
    video = Path(archive.extract("hevc.mp4", tmp_path))

    def watched() -> tuple[dict[str, Any], float]:
        with screen(tmp_path) as browser:
            return browser.load(video), browser.seek(2.53)

    said, shown = await asyncio.to_thread(watched)

    assert said == {"error": "", "duration": pytest.approx(4.0, abs=0.05), "width": 320, "height": 240}
    assert shown == pytest.approx(2.52, abs=0.02)


async def test_the_original_stays_and_the_copy_is_named_for_what_it_is(
    copied: tuple[Served, str], clips: Clips
) -> None:
    """In the manifest and the results; the list of what the user chose does not change."""
    server, job_id = copied

    job = await server.job(job_id)
    original = await server.http.get(f"/api/v1/jobs/{job_id}/video")
    manifest = (await server.http.get(f"/api/v1/jobs/{job_id}/manifest")).json()
    results = (await server.http.get(f"/api/v1/jobs/{job_id}/results")).json()["results"]

    (outputs,) = manifest["outputs"].values()
    (copy,) = [output for output in outputs if output["role"] == "video"]
    made = {stage["pipeline"]: stage for stage in manifest["provenance"]["stages"]}["browser_copy"]
    assert original.content == clips.path("hevc.mp4").read_bytes()
    assert job["selected_pipelines"] == ["behaves"]
    assert [stage["pipeline"] for stage in job["stages"]] == ["behaves", "browser_copy"]
    assert (copy["path"], copy["type"], copy["meta"]) == ("browser_copy.mp4", "video/mp4", {"pipeline": "browser_copy"})
    assert made["ledger"]["processed"] == made["ledger"]["decoded"] == 100
    assert results["browser_copy"]["files"][0]["url"].endswith("/files/browser_copy.mp4")


async def test_nobody_selects_the_copy(copied: tuple[Served, str]) -> None:
    """It is no annotation: not in the list of pipelines, and refused by that name."""
    server, _ = copied

    listed = (await server.http.get("/api/v1/pipelines?all=true")).json()["pipelines"]
    asked = await server.http.post(
        "/api/v1/config/validate", json={"config": {}, "selected_pipelines": ["browser_copy"]}
    )

    assert "browser_copy" not in [pipeline["name"] for pipeline in listed]
    assert asked.json()["errors"][0]["code"] == "PIPELINE_NOT_FOUND"


async def test_what_browsers_play_is_not_copied(copied: tuple[Served, str], clips: Clips) -> None:
    """A copy of everything would double disk and time for nothing."""
    server, _ = copied

    job = await server.finished(clips.path("h264.mkv"))
    archive = await zip_of(server, job["id"])

    assert [stage["pipeline"] for stage in job["stages"]] == ["behaves"]
    assert archive.read("h264.mkv") == clips.path("h264.mkv").read_bytes()


@pytest.mark.slow
async def test_a_retry_takes_the_copy_over(tmp_path: Path, clips: Clips) -> None:
    """It is a finished stage like every other one."""
    async with serving(tmp_path) as server:
        first = await server.finished(clips.path("hevc.mp4"), "behaves,fails")
        answer = await server.http.post(f"/api/v1/jobs/{first['id']}/retry")
        second = await server.ended(answer.json()["id"])
        archive = await zip_of(server, second["id"])

    cached = {stage["pipeline"]: stage["cached"] for stage in second["stages"]}
    assert cached == {"behaves": True, "fails": False, "browser_copy": True}
    assert videos_in(archive) == ["hevc.mp4"]


async def test_a_copy_that_fails_costs_no_annotations(tmp_path: Path, clips: Clips) -> None:
    """The job is completed, and says in the Viewer's orange what is missing; the original is in the ZIP."""
    instead(tmp_path, "fails")
    async with serving(tmp_path, pipeline_dirs=(tmp_path / "pipelines", tmp_path / "instead")) as server:
        job = await server.finished(clips.path("hevc.mp4"))
        nothing = await server.finished(clips.path("hevc.mp4"), "fails")
        archive = await zip_of(server, job["id"])

    assert (job["status"], job["outcome"]) == ("completed", "partial")
    assert job["error_message"].startswith("browser_copy failed: ")
    assert archive.read("out.json") == b"{}"
    assert archive.read("hevc.mp4") == clips.path("hevc.mp4").read_bytes()
    assert nothing["status"] == "failed"


async def test_a_copy_alone_is_no_result(copied: tuple[Served, str], clips: Clips) -> None:
    """Completed would promise annotations."""
    server, _ = copied

    job = await server.finished(clips.path("hevc.mp4"), "fails")

    assert (job["status"], job["stages"][1]["status"]) == ("failed", "completed")
    assert "fails failed" in job["error_message"]


async def test_a_cancel_ends_the_copy_at_once(tmp_path: Path, clips: Clips) -> None:
    """With progress until then, and nothing left after: no process, no half-written file."""
    long = tmp_path / "long.mp4"
    ffmpeg("-stream_loop", "149", "-i", clips.path("hevc.mp4"), "-c", "copy", long)
    async with serving(tmp_path) as server:
        job = await server.submit(long)

        async def copying() -> bool:
            stage = (await server.job(job["id"]))["stages"][1]
            return 0 < stage["progress"] < 1 and stage.get("rate") is not None

        await eventually(copying)
        await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")
        ended = await server.ended(job["id"])
        left = list((server.storage / "results" / job["id"]).rglob("*copy*"))
        processes = [p for p in psutil.Process().children(recursive=True) if "runner.child" in " ".join(p.cmdline())]

    assert (ended["status"], left, processes) == ("cancelled", [], [])
    assert ended["stopped_after_seconds"] < 2


@pytest.mark.slow
async def test_an_operator_may_do_without_copies(tmp_path: Path, clips: Clips) -> None:
    """Who never opens the Viewer saves the time."""
    async with serving(tmp_path, browser_copy=False) as server:
        job = await server.finished(clips.path("hevc.mp4"))

    assert [stage["pipeline"] for stage in job["stages"]] == ["behaves"]
    assert job["error_message"] is None


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("clip.m4v", "clip.m4v.mp4"),
        pytest.param("CLIP.MOV", "CLIP.MOV", marks=pytest.mark.slow),
        pytest.param("clip", "clip.mp4", marks=pytest.mark.slow),
        pytest.param("manifest.yaml", "manifest.yaml.mp4", marks=pytest.mark.slow),
    ],
)
async def test_every_video_has_a_name_that_the_viewer_knows(
    copied: tuple[Served, str], clips: Clips, filename: str, name: str, tmp_path: Path
) -> None:
    """Else it says "No video file found in artifacts ZIP", whatever the file is."""
    server, _ = copied
    (tmp_path / filename).write_bytes(clips.path("h264.mp4").read_bytes())

    job = await server.finished(tmp_path / filename)

    assert videos_in(await zip_of(server, job["id"])) == [name]


async def test_what_the_viewer_would_not_show_is_said_before_the_job_is_called_completed(
    tmp_path: Path, clips: Clips
) -> None:
    """It shows no message of its own: a lost track is an empty one. The file is there all the same."""
    folder = declare(tmp_path / "pipelines", "writes_what_never_shows", "behaves")
    async with serving(tmp_path, pipeline_dirs=(folder,)) as server:
        job = await server.finished(clips.path("no_sound.mp4"), "writes_what_never_shows,behaves")
        again = await server.http.post(f"/api/v1/jobs/{job['id']}/retry")
        archive = await zip_of(server, job["id"])

    assert (job["status"], job["outcome"], job["error_code"]) == ("completed", "partial", "VIEWER_CANNOT_SHOW")
    assert "scene_detection.json: it cannot be read: it has no list of results or scenes" in job["error_message"]
    assert "scene_detection.json" in archive.namelist()
    assert (again.status_code, again.json()["error"]["code"]) == (409, "JOB_SUCCEEDED")


async def test_voice_is_in_the_zip_where_nobody_tells_the_speakers_apart(
    copied: tuple[Served, str], sample: Path
) -> None:
    """VIEWER.md: of several RTTM files the last wins, so it may be there only alone."""
    server, _ = copied

    job = await server.finished(sample, "voice_activity")
    archive = await zip_of(server, job["id"])
    manifest = (await server.http.get(f"/api/v1/jobs/{job['id']}/manifest")).json()

    assert archive.read("voice_activity.rttm").startswith(b"SPEAKER peekaboo_hevc 1 ")
    assert "voice_activity.rttm" in manifest["viewer_hint"]["files"]
    assert manifest["provenance"]["stages"][0]["viewer_tracks"] == {"voice_activity.rttm": "speaker_diarization"}
    assert job["error_message"] is None


@pytest.mark.slow
async def test_a_zip_of_500_megabytes_begins_at_once_and_needs_no_memory(tmp_path: Path, clips: Clips) -> None:
    """The number of the issue: first byte in 0.2 s, 32 MiB more memory, for both ends together."""
    large = tmp_path / "data" / "large.mp4"
    large.parent.mkdir()
    content = clips.path("h264.mp4").read_bytes()
    with large.open("wb") as file:
        file.write(content + struct.pack(">I4s", 500 * 2**20, b"free"))
        file.truncate(len(content) + 500 * 2**20)  # an MP4 may hold room that is not used
    async with serving(tmp_path, data_roots=(large.parent,)) as server:
        dataset = await server.http.post("/api/v1/datasets", json={"name": "d", "base_path": str(large.parent)})
        order = {"dataset_id": dataset.json()["id"], "path": large.name, "selected_pipelines": ["behaves"]}
        job = await server.ended((await server.http.post("/api/v1/jobs", json=order)).json()["id"])
        address = f"/api/v1/jobs/{job['id']}/artifacts"
        head = await server.http.head(address)
        process = psutil.Process()
        before = most = process.memory_info().rss
        began = time.monotonic()
        length, first_after = 0, 0.0
        async with server.http.stream("GET", address) as answer:
            async for chunk in answer.aiter_bytes():
                first_after = first_after or time.monotonic() - began
                length += len(chunk)
                most = max(most, process.memory_info().rss)

    assert length == int(answer.headers["content-length"]) == int(head.headers["content-length"]) > 500 * 2**20
    assert head.content == b""
    assert 0 < first_after < 0.2
    assert most - before < 32 * 2**20


async def test_who_leaves_a_download_leaves_nothing_open(copied: tuple[Served, str], clips: Clips) -> None:
    """No file, no task: thirty people who close the tab must not use up the server's descriptors."""
    server, job_id = copied
    process = psutil.Process()
    request = f"GET /api/v1/jobs/{job_id}/artifacts HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\n\r\n"

    async def nothing_open() -> bool:
        open_files = [file.path for file in process.open_files() if job_id in file.path]
        return not open_files and not [t for t in asyncio.all_tasks() if t.get_name() == "send"]

    for _ in range(30):
        reader, writer = await send_raw(server.url, request.encode())
        await reader.readexactly(100)
        writer.transport.abort()

    await eventually(nothing_open)
    assert (await zip_of(server, job_id)).testzip() is None


def instead(folder: Path, misbehaving: str) -> None:
    """A pipeline directory whose copy misbehaves."""
    declare(folder / "instead", misbehaving)
    declaration = (folder / "instead" / f"{misbehaving}.yaml").read_text()
    declaration = declaration.replace(f"name: {misbehaving}", "name: browser_copy\nautomatic: true", 1)
    (folder / "instead" / "browser_copy.yaml").write_text(declaration)
    (folder / "instead" / f"{misbehaving}.py").rename(folder / "instead" / "browser_copy.py")
    (folder / "instead" / f"{misbehaving}.yaml").unlink()
