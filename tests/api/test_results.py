"""What comes out: results, manifest, the ZIP, files in pieces, logs."""

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.clips import Clips
from tests.server import LONG, Served, serving
from videoannotator.errors import Refused
from videoannotator.server.files import Span, asked_span

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> AsyncIterator[tuple[Served, str]]:
    """A server and a job on it that ended: scenes found, one stage failed."""
    async with serving(tmp_path_factory.mktemp("results")) as server:
        job = await server.finished(clips.path("h264.mp4"), "scene_detection,behaves,fails")
        assert job["outcome"] == "partial", job
        yield server, job["id"]


async def test_results_list_each_stage_with_its_files(done: tuple[Served, str]) -> None:
    """And every address in them answers with the file that was hashed."""
    server, job_id = done

    said = (await server.http.get(f"/api/v1/jobs/{job_id}/results")).json()

    scenes = said["results"]["scene_detection"]
    assert (said["job_id"], said["status"]) == (job_id, "completed")
    assert (scenes["status"], scenes["annotations"] >= 1, scenes["seconds"] > 0) == ("completed", True, True)
    assert said["results"]["fails"] == {"status": "failed", "files": [], "seconds": said["results"]["fails"]["seconds"]}
    for file in scenes["files"]:
        content = (await server.http.get(file["url"])).content
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])


async def test_the_manifest_names_every_file_and_is_one_itself(done: tuple[Served, str]) -> None:
    """The record that goes into a paper's supplement."""
    server, job_id = done

    manifest = (await server.http.get(f"/api/v1/jobs/{job_id}/manifest")).json()
    as_file = await server.http.get(f"/api/v1/jobs/{job_id}/files/manifest.json")
    by_accept = await server.http.get(f"/api/v1/jobs/{job_id}/artifacts", headers={"accept": "application/json"})

    (outputs,) = manifest["outputs"].values()
    assert {"scene_detection.json", "out.json"} <= {output["path"] for output in outputs}
    assert manifest == as_file.json() == by_accept.json()


async def test_the_zip_holds_the_files_and_the_video(done: tuple[Served, str], clip: Path) -> None:
    """VIEWER.md section 7: its length is known before the first byte, nothing is compressed, the video is in it."""
    server, job_id = done

    async with server.http.stream("GET", f"/api/v1/jobs/{job_id}/artifacts") as answer:
        content = await answer.aread()

    archive = zipfile.ZipFile(io.BytesIO(content))
    names = archive.namelist()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert int(answer.headers["content-length"]) == len(content)
    assert "content-encoding" not in answer.headers
    assert archive.testzip() is None
    assert {"scene_detection.json", "h264.mp4"} <= set(names)
    assert archive.read("h264.mp4") == clip.read_bytes()
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    assert json.loads(archive.read("manifest.yaml"))["job_id"] == job_id
    assert not [name for name in names if "/" in name or name == "manifest.json"]


async def test_head_tells_the_length_and_sends_nothing(done: tuple[Served, str]) -> None:
    """Download programs ask first."""
    server, job_id = done

    for path in ("artifacts", "video", "files/manifest.json"):
        head = await server.http.head(f"/api/v1/jobs/{job_id}/{path}")
        whole = await server.http.get(f"/api/v1/jobs/{job_id}/{path}")

        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))


async def test_the_zip_of_a_job_that_runs_is_not_ready(tmp_path: Path, clip: Path) -> None:
    """Half an archive would look like a whole one."""
    async with serving(tmp_path) as server:
        job = await server.submit(clip, config=json.dumps(LONG))
        answer = await server.http.get(f"/api/v1/jobs/{job['id']}/artifacts")

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "JOB_NOT_FINISHED")


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-19", 206, 10, 19),
        ("bytes=10-", 206, 10, -1),
        ("bytes=-5", 206, -5, -1),
        ("bytes=0-99999999999999999999", 206, 0, -1),
        ("bytes=-99999999999999999999", 206, 0, -1),
        ("bytes=5-2", 200, 0, -1),
        ("bytes=0-1,5-6", 200, 0, -1),
        ("bytes=" + ",".join("0-1" for _ in range(1000)), 200, 0, -1),
        ("bytes=-", 200, 0, -1),
        ("lines=1-2", 200, 0, -1),
        ("bytes=a-b", 200, 0, -1),
    ],
)
async def test_a_video_is_served_in_pieces(
    done: tuple[Served, str], clip: Path, asked: str, status: int, first: int, last: int
) -> None:
    """Without this a browser cannot jump in a video. What is no single range is answered with the whole."""
    server, job_id = done
    content = clip.read_bytes()
    size = len(content)
    first, last = first % size, last % size

    answer = await server.http.get(f"/api/v1/jobs/{job_id}/video", headers={"range": asked})

    assert (answer.status_code, answer.content == content[first : last + 1]) == (status, True)
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers.get("content-range") == (f"bytes {first}-{last}/{size}" if status == 206 else None)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
async def test_a_range_behind_the_end_is_416_with_the_size(done: tuple[Served, str], clip: Path, asked: str) -> None:
    """The player learns how long the file is."""
    server, job_id = done

    answer = await server.http.get(f"/api/v1/jobs/{job_id}/video", headers={"range": asked})

    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["content-range"] == f"bytes */{clip.stat().st_size}"


@given(st.from_regex(r"bytes=\d{0,21}-\d{0,21}", fullmatch=True), st.integers(0, 1000))
async def test_no_range_reaches_outside_the_file(header: str, size: int) -> None:
    """Whatever the numbers."""
    try:
        span = asked_span(header, size)
    except Refused:
        return

    assert span is None or 0 <= span.first <= span.last < size


async def test_if_range_and_if_none_match_follow_the_etag(done: tuple[Served, str]) -> None:
    """A download goes on only if the file is still the same, and one that is not needed is not sent."""
    server, job_id = done
    path = f"/api/v1/jobs/{job_id}/files/scene_detection.json"
    whole = await server.http.get(path)
    etag = whole.headers["etag"]

    same = await server.http.get(path, headers={"range": "bytes=0-3", "if-range": etag})
    other = await server.http.get(path, headers={"range": "bytes=0-3", "if-range": '"other"'})
    known = await server.http.get(path, headers={"if-none-match": f'"x", {etag}'})

    assert etag == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    assert (same.status_code, len(same.content)) == (206, 4)
    assert (other.status_code, len(other.content) > 4) == (200, True)
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fvideoannotator.sqlite",
        "%2e%2e",
        "h264.mp4",
        "video.mp4",
        ".attempt-1",
        "scene_detection.json%00",
        "%2fetc%2fpasswd",
    ],
)
async def test_only_names_in_the_manifest_are_served(done: tuple[Served, str], name: str) -> None:
    """Nothing beside the results, and nothing above them."""
    server, job_id = done

    answer = await server.http.get(f"/api/v1/jobs/{job_id}/files/{name}")

    assert answer.status_code == 404


async def test_files_of_strangers_cannot_run_as_pages_of_this_server(done: tuple[Served, str]) -> None:
    """A video that is also HTML, opened in a tab, would have the key that the browser client keeps."""
    server, job_id = done

    for path in ("video", "files/scene_detection.json"):
        headers = (await server.http.get(f"/api/v1/jobs/{job_id}/{path}")).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"].startswith("attachment")
        assert "sandbox" in headers["content-security-policy"]


async def test_what_a_stage_has_to_say_of_its_result_stands_in_the_job_and_in_its_log(
    done: tuple[Served, str], clips: Clips
) -> None:
    """That a video has no sound is no error, and whoever reads no manifest must see it all the same."""
    server, _ = done

    job = await server.finished(clips.path("no_sound.mp4"), "voice_activity")
    lines = (await server.http.get(f"/api/v1/jobs/{job['id']}/logs")).json()["lines"]

    note = "no_sound.mp4 has no sound track: nothing was listened to."
    assert (job["status"], job["outcome"], job["error_message"]) == ("completed", "full", None)
    assert [stage["warnings"] for stage in job["stages"]] == [[note]]
    assert [line["message"] for line in lines if line["level"] == "warning"] == [note]


async def test_logs_come_as_lines_and_as_text(done: tuple[Served, str]) -> None:
    """What the stages said, and what their processes printed."""
    server, job_id = done
    path = f"/api/v1/jobs/{job_id}/logs"

    lines = (await server.http.get(path)).json()["lines"]
    one = (await server.http.get(f"{path}?tail=1&stage=behaves")).json()["lines"]
    none = (await server.http.get(f"{path}?stage=scene_detection")).json()["lines"]
    text = await server.http.get(path, headers={"accept": "text/plain"})
    wrong = await server.http.get(f"{path}?stage=nope")

    assert [(line["level"], line["stage"], line["message"]) for line in one] == [("info", "behaves", "hello")]
    assert one[0] in lines
    assert one[0] not in none
    assert one[0]["at"].endswith("Z")
    assert (text.status_code, text.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert "== behaves" in text.text
    assert wrong.status_code == 404


async def test_logs_tell_paths_to_administrators_only(done: tuple[Served, str]) -> None:
    """Tracebacks of libraries are full of them."""
    server, job_id = done
    log = server.workspace.artifacts.log(job_id, "behaves")
    log.write_text(f'File "{server.storage}/videos/{job_id}/video.mp4" is odd\n')

    async with server.client(await server.key("read")) as reader:
        seen = await reader.get(f"/api/v1/jobs/{job_id}/logs", headers={"accept": "text/plain"})
    admin = await server.http.get(f"/api/v1/jobs/{job_id}/logs", headers={"accept": "text/plain"})

    assert "is odd" in seen.text
    assert str(server.storage) not in seen.text
    assert str(server.storage) in admin.text


async def test_a_listener_that_leaves_a_download_leaves_nothing_open(done: tuple[Served, str]) -> None:
    """Descriptors are few; a player opens and drops connections all the time."""
    import psutil

    from tests.server import eventually

    server, job_id = done
    place = str(server.storage / "videos")

    for _ in range(20):
        async with server.http.stream("GET", f"/api/v1/jobs/{job_id}/video") as answer:
            await anext(answer.aiter_raw(10))

    async def closed() -> bool:
        return not [file for file in psutil.Process().open_files() if file.path.startswith(place)]

    await eventually(closed)


async def test_spans_are_inclusive() -> None:
    """As in the header; an off-by-one would cost the last byte of each piece."""
    assert asked_span("bytes=0-9", 100) == Span(0, 9)
    assert asked_span("bytes=90-", 100) == Span(90, 99)
    assert asked_span("bytes=-1", 100) == Span(99, 99)
