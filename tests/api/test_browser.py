"""
Pages in a real browser: our own, one of another origin that does a whole job with `fetch` and `EventSource`, and one of
an origin that nobody allowed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.browser import CHROMIUM
from tests.server import ADMIN, Served
from videoannotator.server.front import CLIENT_PORTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>another program's page</title><link rel="icon" href="data:,"></head>
<body><input id="video" type="file"><pre id="said"></pre>
<script>
const said = {events: [], entries: []};

async function annotate(server, key) {
  const form = new FormData();
  form.append("video", document.getElementById("video").files[0]);
  form.append("selected_pipelines", "behaves");
  form.append("config", JSON.stringify({behaves: {steps: 5, step_seconds: 0.05}}));
  const headers = {Authorization: `Bearer ${key}`};
  const answer = await fetch(`${server}/api/v1/jobs`, {method: "POST", headers, body: form});
  said.submitted = [answer.status, answer.headers.get("X-Request-ID") !== null];
  said.job = (await answer.json()).id;
  await followed(server, key, said.job);
  const zip = await fetch(`${server}/api/v1/jobs/${said.job}/artifacts`, {headers});
  said.length = Number(zip.headers.get("Content-Length"));
  const bytes = await zip.arrayBuffer();
  said.received = bytes.byteLength;
  said.entries = namesIn(new DataView(bytes));
  return said;
}

function followed(server, key, job) {
  return new Promise((good, bad) => {
    const events = new EventSource(`${server}/api/v1/events/stream?job_id=${job}&after=0&token=${key}`);
    const hear = (event) => said.events.push([event.type, Number(event.lastEventId), JSON.parse(event.data).job_id]);
    events.addEventListener("job.update", hear);
    events.addEventListener("job.complete", (event) => { hear(event); events.close(); good(); });
    events.onerror = () => { if (events.readyState === EventSource.CLOSED) bad(new Error("the stream was refused")); };
  });
}

// The names in the central directory of a ZIP.
function namesIn(view) {
  let end = view.byteLength - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end -= 1;
  const names = [];
  let at = view.getUint32(end + 16, true);
  while (view.getUint32(at, true) === 0x02014b50) {
    const [name, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    names.push(new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, name)));
    at += 46 + name + extra + comment;
  }
  return names;
}

async function refused(request) {
  try { await request; return false; } catch (reason) { return reason.name; }
}

async function tryEverything(server, key) {
  const headers = {Authorization: `Bearer ${key}`};
  const form = new FormData();
  form.append("selected_pipelines", "behaves");
  const stream = await new Promise((good) => {
    const events = new EventSource(`${server}/api/v1/events/stream?token=${key}`);
    events.onopen = () => good("open");
    events.onerror = () => good("refused");
  });
  return {
    read: await refused(fetch(`${server}/api/v1/jobs`, {headers})),
    submit: await refused(fetch(`${server}/api/v1/jobs`, {method: "POST", headers, body: form})),
    simple: await refused(fetch(`${server}/api/v1/config/validate`, {method: "POST", body: "{}"})),
    stream,
  };
}
</script></body></html>"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not here")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            await opened.close()


class Watched:
    """A page whose complaints are kept."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on(
            "console", lambda line: self.complaints.append(line.text) if line.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


@asynccontextmanager
async def page_at(browser: Browser, url: str) -> AsyncIterator[Watched]:
    page = await browser.new_page()
    try:
        watched = Watched(page)
        await page.goto(url)
        yield watched
    finally:
        await page.close()


@asynccontextmanager
async def page_of_another_origin(*, allowed: bool) -> AsyncIterator[str]:
    """The address of a server that has the page above and nothing else."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = _PAGE.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    for port in CLIENT_PORTS if allowed else (0,):
        try:
            server = await asyncio.start_server(answer, "127.0.0.1", port)
        except OSError:
            continue
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return
    pytest.skip(f"no port of {CLIENT_PORTS} is free")


async def test_the_docs_page_draws_every_operation_without_a_complaint(shared: Served, browser: Browser) -> None:
    """A policy that is too strict, or a document that is not understood, shows only in a browser."""
    document = (await shared.http.get("/openapi.json")).json()
    operations = sum(len(methods) for methods in document["paths"].values())

    async with page_at(browser, f"{shared.url}/docs") as watched:
        await watched.page.wait_for_selector("html[data-drawn]")
        drawn = await watched.page.locator("section.operation").count()
        await watched.page.fill("#filter", "retry JOB_SUCCEEDED")
        left = await watched.page.locator("section.operation:visible h3").all_inner_texts()
        title = await watched.page.title()

    assert drawn == operations
    assert len(left) == 1
    assert left[0].lower().split() == ["post", "/api/v1/jobs/{job_id}/retry"]
    assert "VideoAnnotator" in title
    assert watched.complaints == []
    assert {url.rsplit("/", 1)[0] for url in watched.requests if not url.startswith("data:")} == {shared.url}


async def test_the_front_page_opens_without_a_complaint(shared: Served, browser: Browser) -> None:
    """It is the first thing that a new user sees."""
    async with page_at(browser, shared.url) as watched:
        await watched.page.wait_for_load_state("networkidle")
        text = await watched.page.inner_text("body")

    assert "VideoAnnotator" in text
    assert watched.complaints == []


async def test_a_page_of_an_allowed_origin_submits_follows_and_downloads(
    shared: Served, browser: Browser, clip: Path
) -> None:
    """What the browser client does, in a page of forty lines: preflights, streams and the ZIP, all across origins."""
    async with page_of_another_origin(allowed=True) as origin, page_at(browser, origin) as watched:
        await watched.page.set_input_files("#video", clip)
        said: dict[str, Any] = await watched.page.evaluate(
            "([server, key]) => annotate(server, key)", [shared.url, ADMIN]
        )

    ids = [number for _, number, _ in said["events"]]
    assert said["submitted"] == [201, True]
    assert said["events"][-1][0] == "job.complete"
    assert {job for _, _, job in said["events"]} == {said["job"]}
    assert ids == sorted(set(ids))
    assert said["received"] == said["length"] > clip.stat().st_size
    assert {clip.name, "out.json"} <= set(said["entries"])
    assert watched.complaints == []


async def test_a_page_of_another_origin_can_do_nothing_even_with_a_key(shared: Served, browser: Browser) -> None:
    """A page that somebody was lured to must not reach the server on their own machine."""
    before = (await shared.http.get("/api/v1/jobs")).json()["total"]

    async with page_of_another_origin(allowed=False) as origin, page_at(browser, origin) as watched:
        said = await watched.page.evaluate("([server, key]) => tryEverything(server, key)", [shared.url, ADMIN])

    assert said == {"read": "TypeError", "submit": "TypeError", "simple": "TypeError", "stream": "refused"}
    assert (await shared.http.get("/api/v1/jobs")).json()["total"] == before
