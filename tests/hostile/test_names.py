"""HOSTILE.md, "Names and paths": what strangers call their files, and where they would like to lead the server."""

import asyncio
import itertools
import os
import re
import shutil
import threading
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clips import Clips
from tests.server import ADMIN, Served, answer_to, serving
from videoannotator.server.app import ROUTES

JOBS = "/api/v1/jobs"
LONG_JOB = '{"behaves": {"steps": 3000, "step_seconds": 0.02}}'

NAMES: list[bytes] = [
    b"../../x",
    rb"..\..\x",
    b"%2e%2e%2fx.mp4",
    b"/etc/passwd",
    rb"C:\Windows\system32\x.mp4",
    b"a\x00b.mp4",
    b"a\x0bb.mp4",
    "moc.\u202egnp.mp4".encode(),
    b"x" * 5000 + b".mp4",
    b"CON",
    b"aux.mp4",
    b"clip.mp4.",
    b"clip.mp4 ",
    unicodedata.normalize("NFC", "\u00e9t\u00e9.mp4").encode(),
    unicodedata.normalize("NFD", "\u00e9t\u00e9.mp4").encode(),
    b"-rf",
    b"concat:a|b",
    b"pipe:0",
    b"frame%03d.png",
    b"<img onerror=alert(1)>.mp4",
    b"&lt;script&gt;.mp4",
    b"\xff\xfe.mp4",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> AsyncIterator[tuple[Served, Path]]:
    """A server with a data root, and a dataset `d` in it whose folder others can write to; a secret lies outside."""
    folder = tmp_path_factory.mktemp("lab").resolve()
    (folder / "data" / "d" / "deep").mkdir(parents=True)
    shutil.copy(clips.path("h264.mp4"), folder / "data" / "d" / "clip.mp4")
    shutil.copy(clips.path("h264.mp4"), folder / "data" / "d" / "deep" / "clip.mp4")
    (folder / "secret").mkdir()
    shutil.copy(clips.path("no_sound.mp4"), folder / "secret" / "clip.mp4")
    async with serving(folder, data_roots=(folder / "data",), max_concurrent_jobs=1) as served:
        made = await served.http.post("/api/v1/datasets", json={"name": "d", "base_path": str(folder / "data" / "d")})
        served.dataset = made.json()["id"]  # type: ignore[attr-defined]
        yield served, folder


def order(server: Served, path: str, **more: Any) -> dict[str, Any]:
    return {"dataset_id": server.dataset, "path": path, "selected_pipelines": ["behaves"]} | more  # type: ignore[attr-defined]


# -- names of uploads


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
async def test_the_stored_name_is_ours_and_the_shown_name_is_clean(shared: Served, clip: Path, name: bytes) -> None:
    """The name of a file is the oldest way out of a folder, and into a page."""
    status, answer = await upload(shared, clip, name)

    if status != 201:
        assert status in (400, 422)
        assert b"application/problem+json" in answer
        return
    job_id = re.search(rb'"id":"(job_\w+)"', answer).group(1).decode()  # type: ignore[union-attr]
    job = await shared.job(job_id)
    stored = [path.name for path in (shared.storage / "videos" / job_id).iterdir()]
    shown = job["video_filename"]
    assert stored[0] in ("video", "video.mp4")
    assert len(stored) == 1
    assert 0 < len(shown) <= 120
    assert not re.search(r"""[/\\<>&"'`\x00-\x1f\u202e]""", shown)
    assert shown not in (".", "..")
    assert unicodedata.is_normalized("NFC", shown)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_newline_in_a_name_makes_no_header(shared: Served, clip: Path) -> None:
    """Neither in the form that comes in, nor in the headers that go out."""
    status, answer = await upload(shared, clip, b'x\r\nSet-Cookie: a=b"; y="')

    assert status in (400, 422)
    assert b"set-cookie" not in answer.lower()


@pytest.mark.asyncio(loop_scope="module")
async def test_names_stay_clean_in_the_archive_and_in_headers(shared: Served, clip: Path) -> None:
    """What is unpacked elsewhere must not climb out there."""
    _, answer = await upload(shared, clip, "../<b>\u202e\u00e9%0d%0a.mp4".encode())
    job_id = re.search(rb'"id":"(job_\w+)"', answer).group(1).decode()  # type: ignore[union-attr]
    await shared.ended(job_id)

    archive = await shared.http.get(f"{JOBS}/{job_id}/artifacts")
    video = await shared.http.get(f"{JOBS}/{job_id}/video")

    names = set(re.findall(rb"PK\x01\x02.{42}([ -~\x80-\xff]+?\.(?:mp4|json|yaml))", archive.content, re.DOTALL))
    disposition = video.headers["content-disposition"]
    assert archive.status_code == 200
    assert not [name for name in names if b".." in name or b"/" in name or b"<" in name]
    assert disposition.startswith("attachment;")
    assert not re.search(r"[<>\u202e\r\n]|\.\./", disposition)


# -- ids in addresses


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "bad", ["..", "%2e%2e", "../x", "..%2fx", "%2e%2e%2fx", "%00", "a%0ab", "%5c..", "'--", "x" * 3000]
)
async def test_an_id_is_no_path(shared: Served, bad: str) -> None:
    """On every route that takes one: refused in the one form, and nothing is touched."""
    for method, path in routes_with_ids():
        address = re.sub("{[^}]+}", bad, path)
        request = (
            f"{method} {address} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\nTus-Resumable: 1.0.0\r\n\r\n"
        )

        status, answer = await answer_to(shared.url, request.encode())

        assert 400 <= status < 500, (method, path)
        assert b'"code":"' in answer, (method, path)


def routes_with_ids() -> Iterator[tuple[str, str]]:
    for handler in ROUTES:
        for path, method in itertools.product(handler.paths, getattr(handler, "http_methods", ())):
            if "{" in path and method != "HEAD" and not path.startswith("/viewer"):
                yield str(method), path


# -- paths of the server


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    ["../secret/clip.mp4", "/etc/passwd", "..", "deep/../../x", r"..\x", "", "a\x00b", "./clip.mp4", "deep//clip.mp4"],
)
async def test_a_path_stays_in_its_dataset(lab: tuple[Served, Path], path: str) -> None:
    """Also where it would come back in the end: one name for one file."""
    server, _ = lab

    answer = await server.http.post(JOBS, json=order(server, path))

    assert (answer.status_code, answer.json()["error"]["code"]) in ((422, "PATH_NOT_ALLOWED"), (422, "INVALID_VALUE"))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "base", ["{lab}/secret", "/", "/etc", "{lab}/data/../secret", "relative", "{lab}/data/way", "\x00"]
)
async def test_a_dataset_lies_in_the_allowed_roots(lab: tuple[Served, Path], base: str) -> None:
    """Whatever the path looks like: what counts is where it ends."""
    server, folder = lab
    if not (folder / "data" / "way").exists():
        (folder / "data" / "way").symlink_to(folder / "secret")

    answer = await server.http.post(
        "/api/v1/datasets", json={"name": "outside", "base_path": base.replace("{lab}", str(folder))}
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "PATH_NOT_ALLOWED")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_output_lies_in_the_allowed_roots(lab: tuple[Served, Path]) -> None:
    """Results written elsewhere could overwrite what others rely on."""
    server, folder = lab

    for output in (str(folder / "secret"), "/etc", "relative", str(folder / "data" / ".." / "secret")):
        put = await server.http.put("/api/v1/preferences", json={"output_directory": output})
        assert (put.status_code, put.json()["error"]["code"]) == (422, "PATH_NOT_ALLOWED"), output


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("what", ["link out", "linked folder", "link within", "loop", "fifo", "device", "folder"])
async def test_only_a_file_of_the_dataset_is_a_video(lab: tuple[Served, Path], what: str) -> None:
    """A FIFO must not hang the server, a device not be read, a link not be followed, not even within."""
    server, folder = lab
    place = folder / "data" / "d" / f"{what.replace(' ', '_')}.mp4"
    make_odd(place, what, folder)

    name = f"{place.name}/clip.mp4" if what == "linked folder" else place.name
    answer = await asyncio.wait_for(server.http.post(JOBS, json=order(server, name)), 5)

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "PATH_NOT_ALLOWED")


def make_odd(place: Path, what: str, folder: Path) -> None:
    match what:
        case "link out":
            place.symlink_to(folder / "secret" / "clip.mp4")
        case "linked folder":
            place.symlink_to(folder / "secret")
        case "link within":
            place.symlink_to("clip.mp4")
        case "loop":
            place.symlink_to(place.name)
        case "fifo":
            os.mkfifo(place)
        case "device":
            try:
                os.mknod(place, 0o20666, os.makedev(1, 5))  # /dev/zero
            except PermissionError:
                pytest.skip("this user makes no devices")
        case "folder":
            place.mkdir()


# -- swapped between check and open


@pytest.mark.asyncio(loop_scope="module")
async def test_a_link_swapped_in_while_a_job_is_submitted_leads_nowhere(lab: tuple[Served, Path]) -> None:
    """The file is looked up, probed, hashed and read: each time it may be another one. It is never the secret."""
    server, folder = lab
    inside = (folder / "data" / "d" / "clip.mp4").stat().st_size
    target = folder / "data" / "d" / "swapped.mp4"
    with swapping(target, folder / "data" / "d" / "clip.mp4", folder / "secret" / "clip.mp4"):
        answers = [await server.http.post(JOBS, json=order(server, target.name)) for _ in range(40)]

    accepted = [answer.json() for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    for job in accepted:
        await server.http.post(f"{JOBS}/{job['id']}/cancel")
    assert {job["video_size_bytes"] for job in accepted} <= {inside}
    assert {answer.status_code for answer in refused} <= {422}
    assert accepted


@contextmanager
def swapping(target: Path, good: Path, secret: Path) -> Iterator[None]:
    """The file and a link to the secret take turns at one name, as fast as a thread can."""
    stop = threading.Event()

    def swap() -> None:
        for number in itertools.count():
            for kind in ("file", "link"):
                new = target.with_name(f".{number}{kind}")
                os.link(good, new) if kind == "file" else new.symlink_to(secret)
                new.replace(target)
                if stop.is_set():
                    return

    os.link(good, target)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("what", ["the file", "a folder on the way"])
async def test_a_link_swapped_in_while_a_job_waits_is_not_followed(
    lab: tuple[Served, Path], clip: Path, what: str
) -> None:
    """It waits for hours; then a stage opens the video by its name, and so does whoever downloads it."""
    server, folder = lab
    place = folder / "data" / "d" / ("later.mp4" if what == "the file" else "later/clip.mp4")
    place.parent.mkdir(exist_ok=True)
    shutil.copy(clip, place)
    before = await server.submit(clip, config=LONG_JOB)
    waiting = (
        await server.http.post(
            JOBS,
            json=order(server, str(place.relative_to(folder / "data" / "d")))
            | {"selected_pipelines": ["scene_detection"]},
        )
    ).json()
    if what == "the file":
        place.unlink()
        place.symlink_to(folder / "secret" / "clip.mp4")
    else:
        shutil.rmtree(place.parent)
        place.parent.symlink_to(folder / "secret")

    await server.http.post(f"{JOBS}/{before['id']}/cancel")
    ended = await server.ended(waiting["id"])
    video = await server.http.get(f"{JOBS}/{waiting['id']}/video")
    archive = await server.http.get(f"{JOBS}/{waiting['id']}/artifacts")

    secret = (folder / "secret" / "clip.mp4").read_bytes()
    assert (ended["status"], ended["error_code"]) == ("failed", "FILE_NOT_FOUND")
    assert "sha256" not in ended["video"]
    assert (video.status_code, video.json()["error"]["code"]) == (404, "FILE_GONE")
    assert secret[1000:2000] not in archive.content


async def upload(server: Served, clip: Path, name: bytes) -> tuple[int, bytes]:
    """A form with exactly these bytes as the file's name."""
    form = (
        b'--b\r\nContent-Disposition: form-data; name="selected_pipelines"\r\n\r\nbehaves\r\n'
        b'--b\r\nContent-Disposition: form-data; name="video"; filename="'
        + name
        + b'"\r\nContent-Type: video/mp4\r\n\r\n'
        + clip.read_bytes()
        + b"\r\n--b--\r\n"
    )
    head = (
        f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\nContent-Length: {len(form)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    return await answer_to(server.url, head.encode() + form)
