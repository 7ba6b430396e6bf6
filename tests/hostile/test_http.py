"""HOSTILE.md, "HTTP": ranges, forged headers, foreign pages, guessed keys, and keys that end up in logs."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clips import Clips
from tests.server import ADMIN, Served, answer_to, eventually, serving
from videoannotator.server.auth import new_secret

JOBS = "/api/v1/jobs"
EVIL = "https://evil.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def holding(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> AsyncIterator[tuple[Served, str, bytes]]:
    """A server with a video: its address, and its bytes."""
    async with serving(tmp_path_factory.mktemp("holding")) as served:
        clip = clips.path("h264.mp4")
        job = await served.finished(clip)
        yield served, f"{JOBS}/{job['id']}/video", clip.read_bytes()


# -- ranges


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(1000)), 200),
        ("bytes=" + ",".join("0-" for _ in range(1000)), 200),
        ("bytes=-0", 416),
        ("bytes=5-2", 200),
        ("bytes=0-99999999999999999999", 206),
        ("bytes=99999999999999999999-", 416),
        ("bytes=-99999999999999999999", 206),
        ("bytes=99999999999999999999-99999999999999999999", 416),
        ("bytes=" + "9" * 5000 + "-", 200),
        ("bytes=-", 200),
        ("bytes=a-b", 200),
        ("bytes=0-0\x00", 400),
        ("lines=0-1", 200),
        ("bytes=\u0661-\u0662", 200),
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_a_range_is_answered_once_or_not_at_all(
    holding: tuple[Served, str, bytes], asked: str, status: int
) -> None:
    """A thousand ranges would be a thousand copies; what is no range is the whole file, once."""
    server, path, content = holding
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\nRange: {asked}\r\n\r\n"

    got, answer = await answer_to(server.url, request.encode())

    _, _, body = answer.partition(b"\r\n\r\n")
    assert got == status
    assert len(body) <= len(content)
    assert status >= 400 or body == content


# -- forged headers


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "localhost,evil"])
async def test_a_forged_host_is_not_served(shared: Served, host: str) -> None:
    """DNS rebinding: a page whose name suddenly points here would be same-origin with this server."""
    request = f"GET {JOBS} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {ADMIN}\r\n\r\n"

    status, answer = await answer_to(shared.url, request.encode())

    assert status == 400
    assert b"HOST_NOT_ALLOWED" in answer or b"MALFORMED_REQUEST" in answer
    assert b"location:" not in answer.lower()


@pytest.mark.asyncio(loop_scope="module")
async def test_forwarded_headers_change_nothing(shared: Served) -> None:
    """Whoever can write a header could otherwise be anybody, from anywhere, to any host."""
    forged = {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "forwarded": "for=127.0.0.1;host=evil.example;proto=https",
        "x-real-ip": "127.0.0.1",
        "x-original-url": "/api/v1/tokens",
        "x-rewrite-url": "/api/v1/tokens",
        "x-http-method-override": "DELETE",
    }

    async with shared.client() as caller:
        open_route = await caller.get("/health", headers=forged)
        closed = await caller.get(JOBS, headers=forged)
    made = await shared.http.put("/api/v1/presets/forged", json={"pipelines": {"behaves": {}}}, headers=forged)

    assert (open_route.status_code, closed.status_code, made.status_code) == (200, 401, 200)
    assert "evil.example" not in str(open_route.headers) + open_route.text + closed.text + str(made.headers)


async def test_a_forged_address_is_no_new_caller(tmp_path: Path) -> None:
    """The limit on wrong keys counts connections' addresses, whatever they claim to forward."""
    async with (
        serving(tmp_path, wrong_keys_per_minute=3) as server,
        server.client("va_wrong_0123456789abcdef") as flood,
    ):
        statuses = [
            (
                await flood.get(JOBS, headers={"x-forwarded-for": f"10.0.0.{n}", "forwarded": f"for=10.0.0.{n}"})
            ).status_code
            for n in range(6)
        ]

    assert statuses == [401] * 3 + [429] * 3


# -- a page from elsewhere


async def test_a_page_from_elsewhere_changes_nothing(tmp_path: Path) -> None:
    """Any page in the user's browser can send forms to localhost, and needs no answer for the harm to be done."""
    tried = [
        ("POST", JOBS, "multipart/form-data; boundary=b"),
        ("POST", JOBS, "text/plain"),
        ("POST", f"{JOBS}/job_x/cancel", "application/x-www-form-urlencoded"),
        ("POST", "/api/v1/tokens", "text/plain"),
        ("DELETE", f"{JOBS}/job_x", ""),
        ("PUT", "/api/v1/presets/mine", "application/json"),
        ("POST", "/api/v1/config/validate", "application/json"),
        ("POST", "/analyze", "application/json"),
        ("POST", "/api/v1/uploads", "application/offset+octet-stream"),
    ]
    async with serving(tmp_path, require_auth=False) as server, server.client(None, origin=EVIL) as page:
        for method, path, content_type in tried:
            answer = await page.request(method, path, content=b"--b--", headers={"content-type": content_type})

            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED"), path
            assert "access-control-allow-origin" not in answer.headers
        left = server.left_over()

    assert left == []


# -- guessed keys


async def test_a_flood_of_wrong_keys_harms_nobody_else(server: Served) -> None:
    """It is told to stop, its keys are not written down, and everybody else is answered as fast as before."""
    stop = asyncio.Event()
    seen: dict[int, int] = {}

    async def flood() -> None:
        async with server.client() as guesser:
            while not stop.is_set():
                answer = await guesser.get(JOBS, headers={"authorization": f"Bearer {new_secret()}"})
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1

    started = time.monotonic()
    flooding = [asyncio.create_task(flood()) for _ in range(4)]

    async def told_to_stop() -> bool:
        return seen.get(429, 0) > 100

    await eventually(told_to_stop)
    began = time.monotonic()
    answers = [(await server.http.get(JOBS)).status_code for _ in range(20)]
    took = time.monotonic() - began
    stop.set()
    await asyncio.gather(*flooding)

    assert answers == [200] * 20
    assert took < 5
    assert set(seen) == {401, 429}
    assert seen[401] <= 300 + 5 * (time.monotonic() - started) + 5


async def test_guessing_takes_as_long_for_a_good_beginning_as_for_a_bad_one(server: Served) -> None:
    """The key from outside is compared in constant time; of others a hash is looked up, which no guess can steer."""
    guesses = {"near": ADMIN[:-1] + "#", "far": "#" * len(ADMIN)}
    took: dict[str, list[float]] = {"near": [], "far": []}
    keys = server.workspace  # the comparison itself, without the noise of a network
    from videoannotator.errors import VideoAnnotatorError
    from videoannotator.server.auth import Keys

    compare = Keys(keys.store, keys.settings)
    for _ in range(300):
        for kind, guess in guesses.items():
            began = time.perf_counter()
            with pytest.raises(VideoAnnotatorError):
                await compare.caller(guess)
            took[kind].append(time.perf_counter() - began)

    near, far = (sorted(times)[len(times) // 2] for times in took.values())
    assert 0.5 < near / far < 2


async def test_a_short_key_from_outside_is_refused_at_the_start(tmp_path: Path) -> None:
    """It is the one key that somebody could guess."""
    from videoannotator.errors import Refused

    with pytest.raises(Refused, match="guessed"):
        async with serving(tmp_path, api_key="secret"):
            pass


# -- keys and logs


def test_keys_reach_no_log(tmp_path: Path, clips: Clips) -> None:
    """Not from an address, a header, a path, an error or a file's name; uvicorn's own access log prints them."""
    import httpx

    outside = "an-outside-key-of-any-form-42"
    log = tmp_path / "log"
    settings = {"API_KEY": outside, "LOG_FORMAT": "console", "LOG_LEVEL": "debug", "MIN_FREE_BYTES": "0"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VIDEOANNOTATOR_")}
    command = [sys.executable, "-m", "videoannotator", "serve", "--port", "0", "--storage-dir", str(tmp_path / "s")]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=environment | {f"VIDEOANNOTATOR_{name}": value for name, value in settings.items()},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, headers={"x-api-key": outside}, timeout=30, trust_env=False) as http:
            made = http.post("/api/v1/tokens", json={"name": "x", "scope": "admin"}).json()["secret"]
            ticket = http.post("/api/v1/tickets", json={"path": "/api/v1/events"}).json()["token"]
            secrets = [outside, made, ticket, new_secret()]
            for secret in secrets:
                http.get(f"/api/v1/jobs/job_x/video?token={secret}")
                http.get(f"/never/{secret}?key={secret}")
                http.get(f"/api/v1/jobs/{secret}")
                http.get("/api/v1/jobs", headers={"authorization": f"Bearer {secret}", "x-request-id": secret[:60]})
                http.get(f"/viewer-connect?token={secret}")
                http.put(f"/api/v1/presets/{secret}", json={"pipelines": {}})
                with clips.path("h264.mp4").open("rb") as video:
                    http.post("/api/v1/jobs", files={"video": (f"{secret}.mp4", video)}, data={"preset": secret})
            with http.stream("GET", f"/api/v1/events/stream?token={ticket}") as stream:
                assert stream.status_code == 200
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()

    written = log.read_text()
    assert written.count("request") > 20
    for secret in secrets:
        assert secret not in written
        assert secret[:50] not in written
