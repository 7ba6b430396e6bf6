"""What people open in a browser: the built-in page, the browser client, and the way of a key into it."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server import ADMIN, Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

INDEX = "<!doctype html><script>boot()</script><script type=module src=/viewer/assets/app-1a2b.js></script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with a build of the browser client, and with what somebody could have put beside it."""
    folder = tmp_path_factory.mktemp("hosting")
    build = folder / "build"
    (build / "assets").mkdir(parents=True)
    (build / "index.html").write_text(INDEX)
    (build / "assets" / "app-1a2b.js").write_text("1")
    (folder / "secret.txt").write_text("secret")
    (build / "link.txt").symlink_to(folder / "secret.txt")
    (build / "way").symlink_to(folder)
    async with serving(folder, viewer_dir=build) as served:
        yield served


async def get(server: Served, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    async with server.client(None, **headers) as anybody:
        answer = await anybody.get(path)
    return answer.status_code, answer.text, dict(answer.headers)


@pytest.mark.parametrize("path", ["/", "/viewer-connect", "/viewer-connect/"])
async def test_a_page_runs_its_own_script_and_nothing_else(shared: Served, path: str) -> None:
    """A name in a list must never become a script, whatever else went wrong."""
    status, text, headers = await get(shared, path)

    policy = headers["content-security-policy"]
    scripts = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text.replace("no innerHTML", ""))
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)  # nothing from elsewhere


@pytest.mark.parametrize("path", ["/", "/viewer-connect"])
async def test_a_page_reflects_nothing(shared: Served, path: str) -> None:
    """Its bytes are the same whatever is asked with it."""
    plain = await get(shared, path)
    asked = await get(shared, f"{path}?token={ADMIN}&url=https://evil.example&x=<script>", referer="<script>")

    assert plain[1] == asked[1]
    assert ADMIN not in str(asked)


@pytest.mark.parametrize(
    "path", ["/viewer", "/viewer/", "/viewer/index.html", "/viewer/view/job_1", "/viewer/jobs/new/"]
)
async def test_every_route_of_the_client_opens_its_page(hosting: Served, path: str) -> None:
    """It may be reloaded anywhere; 200, because it is what was asked for."""
    status, text, headers = await get(hosting, path)

    hashed = base64.b64encode(hashlib.sha256(b"boot()").digest()).decode()
    assert (status, text) == (200, INDEX)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert f"script-src 'self' blob: 'wasm-unsafe-eval' 'sha256-{hashed}'" in headers["content-security-policy"]


async def test_assets_keep_for_ever_and_pages_are_asked_for_again(hosting: Served) -> None:
    """The names of a build's assets change with their content, that of its page does not."""
    status, text, headers = await get(hosting, "/viewer/assets/app-1a2b.js")
    _, _, page = await get(hosting, "/viewer/")
    again = await get(hosting, "/viewer/", **{"if-none-match": page["etag"]})

    assert (status, text, headers["content-type"]) == (200, "1", "text/javascript; charset=utf-8")
    assert "immutable" in headers["cache-control"]
    assert page["cache-control"] == "no-cache"
    assert (again[0], again[1]) == (304, "")
    assert again[2]["content-security-policy"] == page["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "assets/gone.js",
        "assets",
        "link.txt",
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "assets/..%2f..%2fsecret.txt",
        "..%5csecret.txt",
        "%00",
        "x" * 5000,
    ],
)
async def test_nothing_outside_the_build_is_served(hosting: Served, path: str) -> None:
    """Neither by a path nor by a link; and a missing asset is no page, or a browser would run HTML as a script."""
    status, text, _ = await get(hosting, f"/viewer/{path}")

    assert status in (404, 400)
    assert '"secret"' not in text
    assert text != "secret"


async def test_a_linked_folder_is_no_folder(hosting: Served) -> None:
    """What lies behind it is no file of the build, so its path is a route of the client like any other."""
    _, text, _ = await get(hosting, "/viewer/way/secret.txt")

    assert text == INDEX


async def test_without_a_build_the_answer_says_what_to_set(shared: Served) -> None:
    """The operator meets it first."""
    status, text, _ = await get(shared, "/viewer/")

    assert status == 404
    assert "VIEWER_NOT_SET" in text
    assert "VIDEOANNOTATOR_VIEWER_DIR" in text
