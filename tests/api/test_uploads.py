"""What comes in through POST /jobs, from whomever, and however it comes."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from tests.server import ADMIN, Served, answer_to, eventually, send_raw, serving

BOUNDARY = b"----of-the-tests"
TYPE = b"multipart/form-data; boundary=" + BOUNDARY
MIB = 1024**2


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (BOUNDARY, name, more)
    return head + content + b"\r\n"


def video(content: bytes, filename: bytes = b"clip.mp4") -> bytes:
    return part(b"video", content, b'; filename="%s"' % filename)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def head(length: int | None, content_type: bytes = TYPE) -> bytes:
    size = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\nContent-Type: %s\r\n%s\r\n\r\n" % (
        ADMIN.encode(),
        content_type,
        size,
    )


async def post(server: Served, body: bytes, content_type: bytes = TYPE) -> tuple[int, bytes]:
    return await answer_to(server.url, head(len(body), content_type), body)


async def test_a_client_that_leaves_leaves_nothing(server: Served, clip: Path) -> None:
    """At any byte: in the boundary, in the headers, in the video, before the last dash."""
    body = form(part(b"selected_pipelines", b"behaves"), video(clip.read_bytes()))
    places = [0, 1, 20, 60, 150, 200, 1000, len(body) // 2, len(body) - 3, len(body) - 1]

    for place in places:
        _, writer = await send_raw(server.url, head(len(body)), body[:place])
        writer.close()

    async def settled() -> bool:
        return server.left_over() == [] and len(server.listener.server_state.tasks) == 0

    await eventually(settled)
    assert (await server.http.get("/api/v1/jobs")).json()["total"] == 0


async def test_a_video_in_single_bytes_arrives(server: Served, clip: Path) -> None:
    """A slow line is no error; boundaries then lie across every chunk."""
    content = clip.read_bytes()[:3000]
    body = form(part(b"selected_pipelines", b"behaves"), video(content))
    reader, writer = await send_raw(server.url, head(len(body)))

    for place in range(0, len(body), 7):
        writer.write(body[place : place + 7])
        await writer.drain()
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 422")  # a cut video: it was received whole and looked at
    assert server.left_over() == []


async def test_what_is_kept_is_what_was_sent(server: Served, clip: Path) -> None:
    """Byte for byte, with lines in it that look like boundaries, and whatever comes behind the file."""
    content = clip.read_bytes() + b"\r\n--" + BOUNDARY[:-1] + b"\r\n\r\n--"
    body = form(video(content), part(b"selected_pipelines", b"behaves"), part(b"selected_pipelines", b"fails"))

    status, _ = await post(server, body)

    (job,) = (await server.http.get("/api/v1/jobs")).json()["jobs"]
    (kept,) = (server.storage / "videos" / job["id"]).iterdir()
    assert status == 201
    assert job["selected_pipelines"] == ["behaves", "fails"]
    assert kept.read_bytes() == content
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        (b"multipart/form-data", form(video(b"x")), 400, b"MALFORMED_MULTIPART"),
        (b"multipart/form-data; boundary=", form(video(b"x")), 400, b"MALFORMED_MULTIPART"),
        (b"multipart/form-data; boundary=" + b"x" * 5000, form(video(b"x")), 400, b"MALFORMED_MULTIPART"),
        (b"multipart/form-data; boundary=other", form(video(b"x")), 400, b"MALFORMED_MULTIPART"),
        (TYPE, b"", 400, b"MALFORMED_MULTIPART"),
        (TYPE, b"nothing of the sort", 400, b"MALFORMED_MULTIPART"),
        (TYPE, video(b"x"), 400, b"MALFORMED_MULTIPART"),
        (TYPE, form(video(b"x"))[:-10], 400, b"MALFORMED_MULTIPART"),
        (TYPE, form(*[part(b"tags", b"x")] * 1000), 400, b"MALFORMED_MULTIPART"),
        (TYPE, form(video(b"x", b"y" * 50_000)), 400, b"MALFORMED_MULTIPART"),
        (TYPE, form(part(b"tags", b"\xff\xfe"), video(b"x")), 400, b"MALFORMED_MULTIPART"),
        (TYPE, form(part(b"config", b"x" * 2 * MIB), video(b"x")), 413, b"BODY_TOO_LARGE"),
        (TYPE, form(part(b"tags", b"a")), 422, b"MISSING_FIELD"),
        (TYPE, form(part(b"video", b"x")), 422, b"WRONG_TYPE"),
        (TYPE, form(video(b"x", b"")), 422, b"WRONG_TYPE"),
        (TYPE, form(video(b"x"), video(b"y")), 422, b"DUPLICATE_FIELD"),
        (TYPE, form(part(b"film", b"x", b'; filename="f"'), video(b"x")), 422, b"UNKNOWN_FIELD"),
        (TYPE, form(part(b"tags", b"x", b'; filename="f"'), video(b"x")), 422, b"UNKNOWN_FIELD"),
        (TYPE, form(part(b"preset", b"a"), part(b"preset", b"b"), video(b"x")), 422, b"DUPLICATE_FIELD"),
    ],
)
async def test_forms_that_are_wrong_are_refused_and_not_kept(
    shared: Served, content_type: bytes, body: bytes, status: int, code: bytes
) -> None:
    """Each with the code that says what is wrong."""
    kept = shared.left_over()

    got, answer = await post(shared, body, content_type)

    assert got == status, answer
    assert b'"code":"%s"' % code in answer
    assert shared.left_over() == kept


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "name",
    [
        *(b"../../x.mp4", rb"..\\..\\x.mp4", b"%2e%2e%2fx.mp4", b"/etc/cron.d/x.mp4", b"a\xc2\x80\xe2\x80\xaegpj.mp4"),
        *(
            b"CON",
            b"aux.mp4",
            b"x.mp4. ",
            b"-rf.mp4",
            b"concat:x.mp4",
            b"pipe:",
            b"%03d.mp4",
            b"<img onerror=alert(1)>.mp4",
        ),
        *(b"y" * 5000 + b".mp4", "e\u0301.mp4".encode(), b"x.php"),
    ],
)
async def test_the_stored_name_is_ours_and_the_shown_one_is_clean(shared: Served, clip: Path, name: bytes) -> None:
    """Names of strangers are read by people, never by the file system."""
    status, answer = await post(shared, form(video(clip.read_bytes(), name), part(b"selected_pipelines", b"behaves")))

    (job, *_) = (await shared.http.get("/api/v1/jobs")).json()["jobs"]
    (kept,) = (shared.storage / "videos" / job["id"]).iterdir()
    assert status == 201, answer
    assert kept.name in ("video", "video.mp4")
    assert 1 <= len(job["video_filename"]) <= 200
    assert not set(job["video_filename"]) & set('<>"/\\\0\r\n')
    assert job["video_filename"].isprintable()


async def test_a_video_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path, clip: Path) -> None:
    """By its announced length; and where none is announced, at the first byte too many."""
    async with serving(tmp_path, max_upload_bytes=100_000) as server:
        body = form(video(clip.read_bytes()))
        announced, _ = await answer_to(server.url, head(10 * MIB))
        counted, answer = await post(server, body)
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        streamed, _ = await answer_to(server.url, head(None), chunk)
        left = server.left_over()

    assert (announced, counted, streamed) == (413, 413, 413)
    assert b"VIDEO_TOO_LARGE" in answer
    assert left == []


async def test_a_full_disk_is_said_before_and_while_it_is_filled(tmp_path: Path, clip: Path) -> None:
    """503 and when to come again; what runs can still write its results."""
    async with serving(tmp_path, min_free_bytes=2**60) as server:
        announced, answer = await answer_to(server.url, head(len(clip.read_bytes())))
        begun = video(b"x" * 3 * MIB)[:-2]
        streamed, _ = await answer_to(server.url, head(None), b"%x\r\n%s\r\n" % (len(begun), begun))
        left = server.left_over()

    assert (announced, streamed) == (503, 503)
    assert b"STORAGE_FULL" in answer
    assert b"retry-after: " in answer
    assert str(tmp_path).encode() not in answer
    assert left == []


async def test_a_stopping_server_leaves_no_half_upload(tmp_path: Path) -> None:
    """The client will send it again; nobody comes back for the half."""
    async with serving(tmp_path) as server:
        _, writer = await send_raw(server.url, head(100 * MIB), video(b"x" * 3 * MIB)[:-2])

        async def begun() -> bool:
            return server.left_over() != []

        await eventually(begun)
        storage = server.storage

    writer.close()
    assert list((storage / "uploads").iterdir()) == []


async def test_uploads_side_by_side_keep_apart(server: Served, clip: Path) -> None:
    """Twenty people press the button in the same second."""
    contents = [clip.read_bytes() + os.urandom(1000 + n) for n in range(20)]

    answers = await asyncio.gather(
        *(post(server, form(video(content), part(b"selected_pipelines", b"behaves"))) for content in contents)
    )

    kept = sorted(file.read_bytes() for file in (server.storage / "videos").rglob("video.mp4"))
    assert [status for status, _ in answers] == [201] * 20
    assert kept == sorted(contents)


@pytest.mark.slow
async def test_a_large_upload_needs_no_memory_and_delays_nobody(server: Served, clip: Path) -> None:
    """Half a gigabyte, and the health still answers at once. `scripts/bench/submit.py` measures the server's own."""
    block, blocks = clip.read_bytes() + os.urandom(MIB), 400
    begin = part(b"selected_pipelines", b"behaves") + video(block)[:-2]
    end = b"\r\n--" + BOUNDARY + b"--\r\n"
    process = psutil.Process()
    reader, writer = await send_raw(server.url, head(len(begin) + len(end) + blocks * len(block)), begin)
    before, most, slowest = process.memory_info().rss, 0, 0.0
    loop = asyncio.get_running_loop()

    for number in range(blocks):
        writer.write(block)
        await writer.drain()
        if number % 20 == 0:
            most = max(most, process.memory_info().rss)
            began = loop.time()
            assert (await server.http.get("/health")).status_code == 200
            slowest = max(slowest, loop.time() - began)
    writer.write(end)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 201")
    assert most - before < 64 * MIB
    assert slowest < 1.0
