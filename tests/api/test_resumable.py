"""Resumable uploads (tus 1.0.0): what is acknowledged is kept, whatever happens in between."""

import asyncio
import base64
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import ADMIN, Served, eventually, send_raw, serving

UPLOADS = "/api/v1/uploads"
TUS = {"tus-resumable": "1.0.0"}
BYTES = {"content-type": "application/offset+octet-stream"} | TUS
MIB = 1024**2


async def begin(http: httpx.AsyncClient, length: int, **headers: str) -> str:
    answer = await http.post(UPLOADS, headers=TUS | {"upload-length": str(length)} | headers)
    assert answer.status_code == 201, answer.text
    location: str = answer.headers["location"]
    return location


async def add(http: httpx.AsyncClient, upload: str, offset: int, content: Any) -> httpx.Response:
    return await http.patch(upload, headers=BYTES | {"upload-offset": str(offset)}, content=content)


async def offset_of(http: httpx.AsyncClient, upload: str) -> int:
    answer = await http.head(upload, headers=TUS)
    assert answer.status_code == 200, answer.headers
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def patch_head(upload: str, offset: int, length: int) -> bytes:
    return (
        b"PATCH %s HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: %d\r\n"
        b"Content-Type: application/offset+octet-stream\r\nContent-Length: %d\r\n\r\n"
        % (upload.encode(), ADMIN.encode(), offset, length)
    )


async def test_an_upload_in_pieces_becomes_the_video_of_one_job(server: Served, clip: Path) -> None:
    """Over a bad line, in as many requests as it takes; the bytes are moved, and the upload is used up."""
    content, name = clip.read_bytes(), base64.b64encode("../<b>Tür</b>.mp4".encode()).decode()
    upload = await begin(server.http, len(content), **{"upload-metadata": f"filetype dmlkZW8,filename {name}"})
    order = {"upload_id": upload.rpartition("/")[2], "selected_pipelines": ["behaves"], "overrides": {"behaves": {}}}

    early = await server.http.post("/api/v1/jobs", json=order)
    for place in range(0, len(content), 50_000):
        assert await offset_of(server.http, upload) == place
        done = await add(server.http, upload, place, content[place : place + 50_000])
        assert (done.status_code, done.headers["upload-offset"]) == (204, str(min(place + 50_000, len(content))))
    inode = (server.storage / "uploads" / order["upload_id"]).stat().st_ino
    refused = await server.http.post("/api/v1/jobs", json=order | {"selected_pipelines": ["nope"]})
    made = await server.http.post("/api/v1/jobs", json=order)
    again = await server.http.post("/api/v1/jobs", json=order)

    (kept,) = (server.storage / "videos" / made.json()["id"]).iterdir()
    assert (early.status_code, early.json()["error"]["code"]) == (409, "UPLOAD_INCOMPLETE")
    assert refused.status_code == 422  # and the upload is still there
    assert (made.status_code, made.json()["video_filename"]) == (201, "b.mp4")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "UPLOAD_NOT_FOUND")
    assert kept.read_bytes() == content
    assert kept.stat().st_ino == inode
    assert list((server.storage / "uploads").iterdir()) == []
    assert (await server.ended(made.json()["id"]))["status"] == "completed"


async def test_a_finished_upload_becomes_one_job_however_many_ask_at_once(server: Served, clip: Path) -> None:
    """Two people press the button in the same second; one gets the job."""
    upload = await begin(server.http, clip.stat().st_size)
    await add(server.http, upload, 0, clip.read_bytes())
    order = {"upload_id": upload.rpartition("/")[2], "selected_pipelines": ["behaves"]}

    answers = await asyncio.gather(*(server.http.post("/api/v1/jobs", json=order) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers)[0] == 201
    assert {answer.status_code for answer in answers[1:]} <= {201, 404, 423}
    assert (await server.http.get("/api/v1/jobs")).json()["total"] == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method", "headers", "status", "code"),
    [
        ("POST", {}, 422, "MISSING_FIELD"),
        ("POST", {"upload-length": "-1"}, 422, "INVALID_VALUE"),
        ("POST", {"upload-length": "1e9"}, 422, "INVALID_VALUE"),
        ("POST", {"upload-length": "9" * 25}, 422, "INVALID_VALUE"),
        ("POST", {"upload-length": str(10**18)}, 413, "VIDEO_TOO_LARGE"),
        ("POST", {"upload-length": "5", "tus-resumable": "0.2.2"}, 412, "TUS_VERSION_NOT_SUPPORTED"),
        ("POST", {"upload-length": "5", "upload-metadata": "filename %%%"}, 422, "INVALID_VALUE"),
        ("POST", {"upload-length": "5", "upload-metadata": "x" * 5000}, 422, "INVALID_VALUE"),
        ("PATCH", {"upload-offset": "0"}, 404, "UPLOAD_NOT_FOUND"),
        ("PATCH", {"upload-offset": "-5"}, 422, "INVALID_VALUE"),
        ("PATCH", {"content-type": "video/mp4", "upload-offset": "0"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("DELETE", {}, 404, "UPLOAD_NOT_FOUND"),
    ],
)
async def test_what_does_not_fit_the_protocol_is_refused(
    shared: Served, method: str, headers: dict[str, str], status: int, code: str
) -> None:
    """In the one form of all errors, and with the version that tus clients look for."""
    path = UPLOADS if method == "POST" else f"{UPLOADS}/up_nope"

    answer = await shared.http.request(method, path, headers=BYTES | headers, content=b"")

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == answer.headers["tus-version"] == "1.0.0"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offset_that_is_not_the_end_is_refused_and_changes_nothing(shared: Served) -> None:
    """Before it, behind it, behind the whole upload, and more bytes than were announced."""
    upload = await begin(shared.http, 10)
    assert (await add(shared.http, upload, 0, b"abc")).status_code == 204

    wrong = [(await add(shared.http, upload, offset, b"x")).status_code for offset in (0, 2, 4, 10, 11)]
    too_many = await add(shared.http, upload, 3, b"x" * 8)

    async def endless() -> Any:
        for _ in range(3):
            yield b"defg"

    streamed = await add(shared.http, upload, 3, endless())
    assert wrong == [409] * 5
    assert (too_many.status_code, streamed.status_code) == (413, 413)
    assert await offset_of(shared.http, upload) == 10  # what fitted of the stream is kept
    assert (shared.storage / "uploads" / upload.rpartition("/")[2]).read_bytes() == b"abcdefgdef"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_arrived_before_the_line_broke_is_kept(shared: Served) -> None:
    """The point of it all; and a second writer meanwhile would mix its bytes in, so it waits."""
    upload, content = await begin(shared.http, 8 * MIB), os.urandom(8 * MIB)
    _, writer = await send_raw(shared.url, patch_head(upload, 0, len(content)), content[: 3 * MIB])
    path = shared.storage / "uploads" / upload.rpartition("/")[2]

    async def writing() -> bool:
        return path.stat().st_size >= 2 * MIB

    await eventually(writing)
    second = await add(shared.http, upload, 0, b"x")
    dropped = await shared.http.delete(upload, headers=TUS)
    writer.close()

    async def noted() -> int:
        return await offset_of(shared.http, upload)

    kept = await eventually(noted)
    rest = await add(shared.http, upload, kept, content[kept:])
    assert (second.status_code, dropped.status_code) == (423, 423)
    assert kept == 3 * MIB
    assert rest.status_code == 204
    assert path.read_bytes() == content


@pytest.mark.asyncio(loop_scope="module")
async def test_an_upload_belongs_to_its_key(shared: Served) -> None:
    """Somebody else's is not even there; an administrator may clear it away."""
    async with shared.client(await shared.key("write")) as mine, shared.client(await shared.key("write")) as theirs:
        upload = await begin(mine, 3)
        seen = [
            (await theirs.head(upload, headers=TUS)).status_code,
            (await add(theirs, upload, 0, b"abc")).status_code,
            (await theirs.delete(upload, headers=TUS)).status_code,
            (await theirs.post("/api/v1/jobs", json={"upload_id": upload.rpartition("/")[2]})).status_code,
        ]
        at = await offset_of(mine, upload)
    removed = await shared.http.delete(upload, headers=TUS)

    assert seen == [404] * 4
    assert at == 0
    assert removed.status_code == 204
    assert not (shared.storage / "uploads" / upload.rpartition("/")[2]).exists()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_of_the_browser_client_may_use_it(shared: Served) -> None:
    """tus-js-client asks first, sends its own headers, and must be able to read those of the answers."""
    origin = {"origin": "http://localhost:19011"}
    asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "upload-offset"} | origin

    async with shared.client() as nobody:
        told = await nobody.options(UPLOADS, headers=origin)
        preflight = await nobody.options(f"{UPLOADS}/up_x", headers=asked)
    begun = await shared.http.post(UPLOADS, headers=TUS | origin | {"upload-length": "3"})

    allowed = preflight.headers["access-control-allow-headers"].lower()
    exposed = begun.headers["access-control-expose-headers"].lower()
    assert (told.status_code, told.headers["tus-extension"]) == (204, "creation,expiration,termination")
    assert int(told.headers["tus-max-size"]) > 0
    assert all(name in allowed for name in ("tus-resumable", "upload-length", "upload-offset", "upload-metadata"))
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert all(name in exposed for name in ("location", "upload-offset", "upload-expires", "tus-resumable"))


async def test_a_client_without_patch_says_it_in_a_header(server: Served) -> None:
    """Some proxies let only GET and POST through; tus has an answer to that."""
    upload = await begin(server.http, 3)
    headers = BYTES | {"upload-offset": "0", "x-http-method-override": "PATCH"}

    added = await server.http.post(upload, headers=headers, content=b"abc")
    at = await offset_of(server.http, upload)
    removed = await server.http.post(upload, headers=TUS | {"x-http-method-override": "DELETE"})
    elsewhere = await server.http.post("/api/v1/jobs/x", headers={"x-http-method-override": "DELETE"})

    assert (added.status_code, at, removed.status_code) == (204, 3, 204)
    assert elsewhere.status_code == 405


async def test_uploads_that_nobody_finishes_expire(tmp_path: Path) -> None:
    """Rows and bytes; going on puts the end off."""
    async with serving(tmp_path, upload_expiry_seconds=0.6) as server:
        left, used = await begin(server.http, 100), await begin(server.http, 100)

        async def gone() -> bool:
            if (at := await offset_of(server.http, used)) < 100:
                await add(server.http, used, at, b"x")
            return (await server.http.head(left, headers=TUS)).status_code == 404

        await eventually(gone)
        await eventually(lambda: _only(server.storage / "uploads", used))
        after = await server.http.head(used, headers=TUS)

    assert after.status_code == 200


async def _only(folder: Path, upload: str) -> bool:
    return [file.name for file in folder.iterdir()] == [upload.rpartition("/")[2]]


async def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path: Path) -> None:
    """At the beginning where it can be known; in the middle as 503, and the client goes on later."""
    async with serving(tmp_path, min_free_bytes=0) as roomy:
        upload = await begin(roomy.http, 8 * MIB)
        await add(roomy.http, upload, 0, b"x" * MIB)
    async with serving(tmp_path, min_free_bytes=2**60) as full:
        refused = await full.http.post(UPLOADS, headers=TUS | {"upload-length": "5"})
        middle = await add(full.http, upload, MIB, b"y" * 3 * MIB)
        at = await offset_of(full.http, upload)
    async with serving(tmp_path, min_free_bytes=0) as roomy:
        rest = await add(roomy.http, upload, at, b"z" * (8 * MIB - at))

    assert [(a.status_code, a.json()["error"]["code"]) for a in (refused, middle)] == [(503, "STORAGE_FULL")] * 2
    assert "retry-after" in middle.headers
    assert at == MIB
    assert rest.status_code == 204


@pytest.mark.slow
async def test_a_stopping_server_keeps_what_it_got(tmp_path: Path) -> None:
    """The client goes on with the next server."""
    async with serving(tmp_path) as server:
        upload = await begin(server.http, 8 * MIB)
        _, writer = await send_raw(server.url, patch_head(upload, 0, 8 * MIB), b"x" * 3 * MIB)
        path = server.storage / "uploads" / upload.rpartition("/")[2]

        async def begun() -> bool:
            return path.stat().st_size >= 2 * MIB

        await eventually(begun)
    writer.close()

    async with serving(tmp_path) as server:
        assert await offset_of(server.http, upload) == 3 * MIB


async def test_after_kill_9_the_offset_is_the_truth(start: Any) -> None:
    """Acknowledged bytes are there, and the tail that nobody acknowledged does not stay in the file."""
    first, content = start(min_free_bytes="0"), os.urandom(6 * MIB)
    url = first.ready()
    async with httpx.AsyncClient(base_url=url, headers={"x-api-key": ADMIN}, trust_env=False) as http:
        upload = await begin(http, len(content))
        await add(http, upload, 0, content[:MIB])
        path = first.storage / "uploads" / upload.rpartition("/")[2]
        _, writer = await send_raw(url, patch_head(upload, MIB, 5 * MIB), content[MIB : 4 * MIB])

        async def written() -> bool:
            return path.stat().st_size >= 2 * MIB

        await eventually(written)
    first.process.send_signal(signal.SIGKILL)
    first.ends()
    writer.close()

    async with httpx.AsyncClient(
        base_url=start(min_free_bytes="0").ready(), headers={"x-api-key": ADMIN}, trust_env=False
    ) as http:
        at = await offset_of(http, upload)
        rest = await add(http, upload, at, content[at:])

    assert at >= MIB
    assert rest.status_code == 204
    assert path.read_bytes() == content


@pytest.mark.asyncio(loop_scope="module")
async def test_a_lying_length_ends_as_what_came(shared: Served) -> None:
    """A body that is shorter than it says is a line that broke."""
    upload = await begin(shared.http, 100)

    first = await add(shared.http, upload, 0, b"x" * 50)
    _, writer = await send_raw(shared.url, patch_head(upload, 50, 50), b"y" * 20)
    writer.close()

    async def free() -> bool:
        return (await add(shared.http, upload, await offset_of(shared.http, upload), b"")).status_code == 204

    await eventually(free)
    at = await offset_of(shared.http, upload)
    assert first.status_code == 204
    assert at in (50, 70)
    kept = (shared.storage / "uploads" / upload.rpartition("/")[2]).read_bytes()
    assert kept[:at] == b"x" * 50 + b"y" * (at - 50)
