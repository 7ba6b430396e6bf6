"""
HOSTILE.md, Bodies: whatever comes in behind the headers, and the headers.

Each is answered in the one form of all errors, leaves no file and no row, and keeps nobody else waiting. Offsets beyond
the end, two PATCH at once, negative lengths and uploads that nobody finishes stand in tests/api/test_resumable.py.
"""

import asyncio
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio

from tests.program import Process
from tests.server import ADMIN, Served, answer_to, eventually, send_raw

MIB = 1024**2
BOUNDARY = b"----of-the-tests"
FORM = b"multipart/form-data; boundary=" + BOUNDARY


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (BOUNDARY, name, more)
    return head + content + b"\r\n"


def video(content: bytes) -> bytes:
    return part(b"video", content, b'; filename="clip.mp4"')


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def head(length: int | None, content_type: bytes = FORM, path: bytes = b"/api/v1/jobs", more: bytes = b"") -> bytes:
    size = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\nContent-Type: %s\r\n%s%s\r\n" % (
        path,
        ADMIN.encode(),
        content_type,
        size,
        more,
    )


def code_in(answer: bytes) -> str:
    found = re.search(rb'"code":"(\w+)"', answer)
    return found.group(1).decode() if found else ""


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """After each test on the shared server: no file, no row, no request that hangs."""
    if "shared" not in request.fixturenames:
        yield
        return
    server: Served = request.getfixturevalue("shared")
    yield

    async def clean() -> bool:
        jobs = (await server.http.get("/api/v1/jobs")).json()["total"]
        return server.left_over() == [] and jobs == 0

    await eventually(clean, limit_seconds=10)


@asynccontextmanager
async def others_are_served(server: Served, *, within_seconds: float) -> AsyncIterator[None]:
    """Meanwhile somebody else asks, again and again."""
    slowest, over = 0.0, asyncio.Event()

    async def ask() -> None:
        nonlocal slowest
        while not over.is_set():
            began = time.monotonic()
            assert (await server.http.get("/health")).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        over.set()
        await asking
    assert slowest < within_seconds


# -- forms

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def field_of(server: Served, size: int, name: bytes) -> tuple[bytes, int]:
    """The answer to a field without a filename that is so large, and how much more memory the server had for it."""
    block = b"x" * MIB
    begin, end = part(name, b"")[:-2], b"\r\n--" + BOUNDARY + b"--\r\n"
    process = psutil.Process()
    before = most = process.memory_info().rss
    reader, writer = await send_raw(server.url, head(len(begin) + size + len(end)), begin)
    try:
        for _ in range(size // MIB):
            writer.write(block)
            await writer.drain()
            most = max(most, process.memory_info().rss)
    except ConnectionError:
        pass  # it was refused in the middle, as it should be
    try:
        answer = await asyncio.wait_for(reader.read(65536), 20)
    except ConnectionError:
        answer = b""
    writer.close()
    return answer, most - before


@pytest.mark.parametrize("name", [b"config", b"tags", b"video", b"nothing"])
async def test_a_large_field_without_a_filename_takes_no_memory(shared: Served, name: bytes) -> None:
    """Other parsers collect such a field in memory, whatever the limit for files is."""
    async with others_are_served(shared, within_seconds=1.0):
        _, grown = await field_of(shared, 64 * MIB, name)

    assert grown < 32 * MIB


@pytest.mark.slow
async def test_half_a_gigabyte_in_a_field_takes_no_memory(shared: Served) -> None:
    """The case that took 1 GiB and stalled everybody for 1.2 s elsewhere."""
    async with others_are_served(shared, within_seconds=3.0):  # the sender is in the same loop
        _, grown = await field_of(shared, 512 * MIB, b"config")

    assert grown < 32 * MIB


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([part(b"tags", b"x")] * 1000, "MALFORMED_MULTIPART"),
        ([video(b"x")] * 1000, "DUPLICATE_FIELD"),
        ([b"--" + BOUNDARY + b"\r\n\r\n\r\n"] * 1000, "MALFORMED_MULTIPART"),
        ([part(b"tags", b"x", b"; filename=x" * 500)], "UNKNOWN_FIELD"),
        ([part(b"x" * 100_000, b"x")], "MALFORMED_MULTIPART"),
    ],
)
async def test_a_thousand_parts_are_not_collected(shared: Served, parts: list[bytes], code: str) -> None:
    """Nor parts with a thousand attributes, nor names without end."""
    body = form(*parts)

    status, answer = await answer_to(shared.url, head(len(body)), body)

    assert status in (400, 422)
    assert code_in(answer) == code


@pytest.mark.parametrize(
    "content_type",
    [
        *(b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=wrong"),
        *(b"multipart/form-data; boundary=" + b"x" * 60_000, b"multipart/form-data; boundary=\xff\xfe"),
        *(b'multipart/form-data; boundary="' + BOUNDARY, b"multipart/mixed; boundary=" + BOUNDARY),
        *(b"", b"application/x-www-form-urlencoded", b"text/plain", b"multipart/form-data; boundary=a; boundary=b"),
    ],
)
async def test_a_wrong_boundary_is_refused(shared: Served, clip: Path, content_type: bytes) -> None:
    """The body cannot be taken apart by it, or was not announced as a form at all."""
    body = form(part(b"selected_pipelines", b"behaves"), video(clip.read_bytes()))

    status, answer = await answer_to(shared.url, head(len(body), content_type), body)

    assert status in (400, 415)
    assert code_in(answer) in ("MALFORMED_MULTIPART", "MALFORMED_REQUEST", "UNSUPPORTED_MEDIA_TYPE")


# -- lengths


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: -5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: 1e3\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
    ],
)
async def test_a_length_that_is_none_is_refused_and_the_line_closed(shared: Served, lengths: bytes) -> None:
    """Two readings of where a request ends are two requests to somebody in between."""
    reader, writer = await send_raw(shared.url, head(None, more=lengths), form(video(b"x")))
    answer = await asyncio.wait_for(reader.read(65536), 10)
    writer.close()

    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 422"))


@pytest.mark.parametrize("body", [b"", form(video(b"x"))])
async def test_a_body_without_a_length_is_no_body(shared: Served, body: bytes) -> None:
    """HTTP says so; what follows is read as another request, which is none."""
    reader, writer = await send_raw(shared.url, head(None), body)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400")


async def last_words(server: Served, *sent: bytes) -> bytes:
    """What comes back to a client that sends this and nothing more, until the server lets the line go."""
    reader, writer = await send_raw(server.url, *sent)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("announced", [10, 10**6, 10**9])
async def test_a_body_shorter_than_it_said_leaves_nothing(shared: Served, clip: Path, announced: int) -> None:
    """The client said more and left, or said less and went on."""
    body = form(part(b"selected_pipelines", b"behaves"), video(clip.read_bytes()[:5000]))

    answer = await last_words(shared, head(len(body) + announced), body[:-8])

    assert not answer.startswith(b"HTTP/1.1 2")


async def test_a_body_longer_than_it_said_ends_where_it_said(shared: Served) -> None:
    """The rest is another request, and no HTTP."""
    body = form(part(b"selected_pipelines", b"behaves"), video(b"x" * 1000))

    status, answer = await answer_to(shared.url, head(len(body) - 500), body)

    assert status == 400
    assert code_in(answer) in ("MALFORMED_MULTIPART", "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\nx\r\n", b"-5\r\nx\r\n", b"ffffffffffffffffffff\r\nx\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"5;" + b"x" * 99_999],
)
async def test_chunks_that_lie_are_refused(shared: Served, chunks: bytes) -> None:
    """Or end with the line; never with a row."""
    answer = await last_words(shared, head(None, more=b"Transfer-Encoding: chunked\r\n"), chunks)

    assert not answer.startswith(b"HTTP/1.1 2")


async def test_a_client_that_leaves_at_any_chunk_leaves_nothing(shared: Served, clip: Path) -> None:
    """In the headers of a part, in the video, in the last boundary: forty places."""
    body = form(part(b"selected_pipelines", b"behaves"), video(clip.read_bytes()))
    places = [len(body) * n // 30 for n in range(30)] + list(range(len(body) - 10, len(body)))

    answers = await asyncio.gather(*(last_words(shared, head(len(body)), body[:place]) for place in places))

    assert len(answers) == 40
    assert not any(answer.startswith(b"HTTP/1.1 2") for answer in answers)


@pytest.mark.slow
async def test_one_byte_a_second_keeps_nobody_waiting(shared: Served, clip: Path) -> None:
    """Fifty of them, for ten seconds; they hold a connection and a few kilobytes each."""
    body = form(part(b"selected_pipelines", b"behaves"), video(clip.read_bytes()))
    lines = [await send_raw(shared.url, head(len(body)), body[:300]) for _ in range(50)]

    async with others_are_served(shared, within_seconds=1.0):
        for second in range(10):
            for _, writer in lines:
                writer.write(body[300 + second : 301 + second])
            await asyncio.sleep(1)
    for _, writer in lines:
        writer.close()


# -- JSON

ROUTES = [
    ("POST", "/api/v1/jobs"),
    ("POST", "/analyze"),
    ("POST", "/api/v1/config/validate"),
    *(
        pytest.param(method, path, marks=pytest.mark.slow)
        for method, path in (
            ("POST", "/api/v1/batches"),
            ("POST", "/api/v1/datasets"),
            ("POST", "/api/v1/pipelines/behaves/validate"),
            ("POST", "/api/v1/tokens"),
            ("POST", "/api/v1/tickets"),
            ("PUT", "/api/v1/preferences"),
            ("PUT", "/api/v1/presets/mine"),
        )
    ),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "MALFORMED_JSON"),
        (b'{"config":' * 100_000 + b"1" + b"}" * 100_000, "MALFORMED_JSON BODY_TOO_LARGE"),
        (b"[" * 100_000, "MALFORMED_JSON"),
        (b'{"config": "' + b"x" * 10 * MIB + b'"}', "BODY_TOO_LARGE"),
        (b'{"' + b"x" * 900_000 + b'": 1}', "UNKNOWN_FIELD MISSING_FIELD"),
        (b"{%s}" % b",".join(b'"x%d": 1' % n for n in range(80_000)), "MALFORMED_JSON"),
        (b'{"config": NaN}', "MALFORMED_JSON"),
        (b'{"config": -Infinity}', "MALFORMED_JSON"),
        (b'{"priority": 1e999}', "MALFORMED_JSON"),
        (b'{"priority": 9223372036854775808}', "MALFORMED_JSON"),
        (b'{"priority": -9223372036854775809}', "MALFORMED_JSON"),
        (b'{"priority": ' + b"9" * 5000 + b"}", "MALFORMED_JSON"),
        (b'{"config": "\xff\xfe"}', "MALFORMED_JSON"),
        (b'{"config": "\\ud800"}', "MALFORMED_JSON"),
        (b"\xef\xbb\xbf{}", "MALFORMED_JSON"),
        (b'{"a": 1} {"b": 2}', "MALFORMED_JSON"),
        (b"null", ""),
        (b"[]", ""),
        (b"5", ""),
        (b'"x"', ""),
        (b"", ""),
    ],
    ids=range(21),
)
async def test_json_that_no_client_sends_is_refused(
    shared: Served, method: str, path: str, body: bytes, codes: str
) -> None:
    """Nested without end, too long, not a number, beyond 64 bits, no UTF-8, or of another kind than an object."""
    answer = await shared.http.request(method, path, content=body, headers={"content-type": "application/json"})

    problem = answer.json()
    assert answer.status_code in (400, 413, 422), answer.text[:500]
    assert problem["error"]["code"] in codes.split() or not codes, problem["detail"][:300]
    assert len(answer.content) < 100_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("config", text) for text in ("[" * 100_000, "NaN", "9" * 5000, '{"behaves": {"steps": 1e400}}', "\0")),
        *(("priority", text) for text in ("NaN", "9" * 5000, "1e2", "0x1", "[1]", "\0")),
        *(("tags", text) for text in ("\u202e", "\0", "x" * 101, ",".join(map(str, range(33))))),
        *(("selected_pipelines", text) for text in ("\0", "../../x", "x" * 5000)),
        *(("preset", text) for text in ("\0", "../../x", "x" * 5000)),
    ],
    ids=range(21),
)
async def test_json_in_a_form_is_held_to_the_same(shared: Served, clip: Path, field: str, value: str) -> None:
    """`config` is JSON in a string; what cannot be used is refused with the form."""
    given = {"selected_pipelines": "behaves", field: value}

    answer = await shared.http.post("/api/v1/jobs", files={"video": ("a.mp4", clip.read_bytes())}, data=given)

    assert answer.status_code in (400, 422), answer.text[:500]


async def test_thousands_of_mistakes_cost_no_more_than_a_hundred(shared: Served) -> None:
    """A megabyte of names that nobody knows, each told with all that are known, would keep everybody waiting."""
    asked = {"config": {}, "selected_pipelines": [f"x{n}" for n in range(80_000)]}

    async with others_are_served(shared, within_seconds=1.0):
        answers = [
            await shared.http.post(path, json=asked)
            for path in ("/api/v1/config/validate", "/api/v1/jobs", "/api/v1/batches")
        ]

    assert all(len(answer.content) < 500_000 for answer in answers)


async def test_of_keys_that_stand_twice_the_last_counts(shared: Served) -> None:
    """As for every reader of JSON here: validation and the job that follows must not see different ones."""
    body = b'{"config": {"behaves": {"steps": 0}}, "config": {"behaves": {"steps": 2, "steps": 3}}}'

    answer = await shared.http.post(
        "/api/v1/config/validate", content=body, headers={"content-type": "application/json"}
    )

    assert (answer.status_code, answer.json()["valid"]) == (200, True)
    assert answer.json()["validated_config"]["behaves"]["steps"] == 3


# -- headers


@pytest.mark.parametrize(
    "more",
    [
        b"X-Huge: " + b"x" * 10 * MIB + b"\r\n",
        b"X-Many: x\r\n" * 100_000,
        b"".join(b"X-%d: x\r\n" % n for n in range(20_000)),
        b"X" * 200_000 + b": x\r\n",
        b"Cookie: " + b"a=b; " * 50_000 + b"\r\n",
        b"X-Folded: a\r\n " + b"b" * 100_000 + b"\r\n",
        b"Accept: " + b"a/b;q=0.1," * 20_000 + b"*/*\r\n",
    ],
    ids=range(7),
)
async def test_huge_headers_end_the_connection(shared: Served, more: bytes) -> None:
    """With a refusal, or in the middle; without the memory for them."""
    before = psutil.Process().memory_info().rss
    reader, writer = await send_raw(shared.url)
    try:
        writer.write(head(0, more=more))
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(65536), 10)
    except ConnectionError:
        answer = b""
    writer.close()

    assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert psutil.Process().memory_info().rss - before < 32 * MIB


async def test_a_huge_path_or_query_is_refused(shared: Served) -> None:
    """Megabytes in the first line."""
    for target in (b"/" + b"x" * 200_000, b"/api/v1/jobs?q=" + b"x" * 200_000):
        try:
            status, _ = await answer_to(shared.url, b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
        except (ConnectionError, asyncio.IncompleteReadError):
            continue
        assert status in (400, 414)


# -- the disk


@pytest.fixture
def full_disk(start: Callable[..., Process]) -> tuple[Process, str]:
    """A server that can write no file longer than 4 MiB: what a quota, or the end of a disk, looks like."""
    if sys.platform != "linux":
        pytest.skip("limits of another process can be set on Linux only")
    process = start(min_free_bytes="0")
    url = process.ready()
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))
    return process, url


async def test_a_disk_that_is_full_in_the_middle_is_said_and_left_as_it_was(full_disk: tuple[Process, str]) -> None:
    """503 for the form and nothing kept; for a resumable upload what was written is kept, and the truth is told."""
    process, url = full_disk
    body, tus = form(video(b"x" * 8 * MIB)), {"tus-resumable": "1.0.0"}
    async with httpx.AsyncClient(base_url=url, headers={"x-api-key": ADMIN}, trust_env=False, timeout=30) as http:
        sent = await http.post("/api/v1/jobs", content=body, headers={"content-type": FORM.decode()})
        left = list((process.storage / "uploads").iterdir()) + list((process.storage / "videos").iterdir())
        begun = await http.post("/api/v1/uploads", headers=tus | {"upload-length": str(8 * MIB)})
        upload = begun.headers["location"]
        headers = tus | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        more = await http.patch(upload, headers=headers, content=b"y" * 8 * MIB)
        at = int((await http.head(upload, headers=tus)).headers["upload-offset"])
        alive = await http.get("/health")

    file = process.storage / "uploads" / upload.rpartition("/")[2]
    assert [(a.status_code, a.json()["error"]["code"]) for a in (sent, more)] == [(503, "STORAGE_FULL")] * 2
    assert left == []
    assert 0 < at <= file.stat().st_size == 4 * MIB
    assert file.read_bytes()[:at] == b"y" * at
    assert alive.status_code == 200
