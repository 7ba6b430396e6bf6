"""Which pages and which host names reach the server: what keeps a foreign web page from using it."""

from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.server import ADMIN, Served, answer_to, serving

CLIENT = "http://localhost:19011"
EVIL = "https://evil.example"


@pytest.mark.parametrize("origin", [CLIENT, "http://127.0.0.1:19020", "own localhost", "own address"])
async def test_the_browser_client_may_call_from_its_own_port(server: Served, origin: str) -> None:
    """Also on the server's own port: the client turns localhost into 127.0.0.1, which is another origin."""
    port = server.url.rpartition(":")[2]
    origin = {"own localhost": f"http://localhost:{port}", "own address": server.url}.get(origin, origin)

    answer = await server.http.get("/api/v1/jobs", headers={"origin": origin})

    assert answer.headers["access-control-allow-origin"] == origin
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]


async def test_preflights_are_answered_for_trusted_origins_only(server: Served) -> None:
    """The browser asks first; without a yes it does not send the key."""
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    async with server.client() as browser:
        yes = await browser.options("/api/v1/jobs", headers=asking | {"origin": CLIENT})
        no = await browser.options("/api/v1/jobs", headers=asking | {"origin": EVIL})

    assert (yes.status_code, yes.headers["access-control-allow-origin"]) == (204, CLIENT)
    assert "POST" in yes.headers["access-control-allow-methods"]
    assert "Authorization" in yes.headers["access-control-allow-headers"]
    assert no.status_code == 403
    assert "access-control-allow-origin" not in no.headers


async def test_errors_downloads_and_streams_may_be_read_across_origins(server: Served, clip: Path) -> None:
    """Without the header a browser hides the message, and the user sees 'network error'."""
    job = await server.finished(clip)
    headers = {"origin": CLIENT}
    async with server.client(None, **headers) as anybody, server.client(ADMIN, **headers) as client:
        answers = [
            await anybody.get("/api/v1/jobs"),
            await client.get("/nothing"),
            await client.get("/api/v1/jobs?per_page=0"),
            await client.get(f"/api/v1/jobs/{job['id']}/artifacts"),
            await client.get(f"/api/v1/jobs/{job['id']}/video", headers={"range": "bytes=0-1"}),
            await client.get(f"/api/v1/jobs/{job['id']}/video", headers={"range": "bytes=99999999-"}),
        ]
        async with client.stream("GET", "/api/v1/events/stream") as stream:
            answers.append(stream)

    assert [answer.headers.get("access-control-allow-origin") for answer in answers] == [CLIENT] * 7
    assert [answer.status_code for answer in answers] == [401, 404, 422, 200, 206, 416, 200]


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:8000", "http://localhost:19011.evil.example"])
async def test_a_foreign_page_changes_nothing(tmp_path: Path, origin: str) -> None:
    """With authentication off, any page in the user's browser could otherwise submit and delete."""
    async with serving(tmp_path, require_auth=False) as server, server.client(None, origin=origin) as page:
        changed = await page.delete("/api/v1/presets/mine")
        read = await page.get("/api/v1/jobs")

    assert (changed.status_code, changed.json()["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert "access-control-allow-origin" not in read.headers


async def test_a_foreign_page_hears_nothing(tmp_path: Path) -> None:
    """The same-origin policy does not hold for websockets; the server must look at the origin itself."""
    async with serving(tmp_path, require_auth=False) as server:
        address = server.url.replace("http", "ws") + "/api/v1/events/ws"
        with pytest.raises(InvalidStatus) as refused:
            await connect(address, origin=EVIL)  # type: ignore[arg-type]

    assert refused.value.response.status_code == 403


async def test_origins_can_be_added(tmp_path: Path) -> None:
    """A lab serves the client from a machine of its own."""
    async with serving(tmp_path, allowed_origins=("https://annotations.lab.example",)) as server:
        answer = await server.http.get("/health", headers={"origin": "https://annotations.lab.example"})

    assert answer.headers["access-control-allow-origin"] == "https://annotations.lab.example"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "10.1.2.3"]
)
async def test_other_host_names_are_not_answered(server: Served, host: str) -> None:
    """DNS rebinding: a page's own host name, pointed at 127.0.0.1, would be same-origin with this server."""
    status, answer = await answer_to(server.url, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert status == 400
    assert b"HOST_NOT_ALLOWED" in answer


async def test_two_host_headers_are_not_answered(server: Served) -> None:
    """Two programs in a row could each believe another one of them."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"

    assert (await answer_to(server.url, request))[0] == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:18011", "[::1]:18011"])
async def test_the_usual_names_are_answered(server: Served, host: str) -> None:
    """With any port: a tunnel or a container maps it."""
    status, _ = await answer_to(server.url, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert status == 200
