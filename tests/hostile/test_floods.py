"""HOSTILE.md, "Queue": 10^5 submissions."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.server import ADMIN, Served, send_raw, serving

JOBS = "/api/v1/jobs"
SUBMISSIONS = 100_000
CONNECTIONS = 20
AT_ONCE = 100


@pytest.mark.slow
async def test_a_hundred_thousand_submissions_are_survived(tmp_path: Path, clips: Clips) -> None:
    """Most are told when to come back; what was taken is there, and everybody else is served meanwhile."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clip.mp4").write_bytes(clips.path("h264.mp4").read_bytes())
    async with serving(tmp_path, data_roots=(tmp_path / "data",), submissions_per_minute=300) as server:
        made = await server.http.post("/api/v1/datasets", json={"name": "d", "base_path": str(tmp_path / "data")})
        flood = asyncio.gather(*(submit(server, made.json()["id"]) for _ in range(CONNECTIONS)))
        waited = await others_meanwhile(server, await server.key("write"), flood)
        statuses = [status for connection in await flood for status in connection]
        total = (await server.http.get(JOBS)).json()["total"]

    accepted = statuses.count(201)
    assert len(statuses) == SUBMISSIONS
    assert set(statuses) == {201, 429}
    assert accepted >= 300
    assert accepted == total
    assert sorted(waited)[len(waited) * 95 // 100] < 1.0


async def submit(server: Served, dataset: str) -> list[int]:
    """One connection's share, many requests on their way at once; the statuses that came back."""
    body = f'{{"dataset_id":"{dataset}","path":"clip.mp4","selected_pipelines":["behaves"]}}'.encode()
    head = f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ADMIN}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    reader, writer = await send_raw(server.url)
    statuses: list[int] = []
    try:
        for _ in range(SUBMISSIONS // CONNECTIONS // AT_ONCE):
            writer.write(request * AT_ONCE)
            await writer.drain()
            statuses += [await status_of_next(reader) for _ in range(AT_ONCE)]
    finally:
        writer.close()
    return statuses


async def status_of_next(reader: asyncio.StreamReader) -> int:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    await reader.readexactly(int(length.group(1)))
    status = int(head.split(b" ", 2)[1])
    assert (status == 429) == (b"\r\nretry-after: " in head)
    return status


async def others_meanwhile(server: Served, key: str, flood: "asyncio.Future[list[list[int]]]") -> list[float]:
    """How long somebody else waits for an answer, again and again while the flood lasts."""
    waited: list[float] = []
    async with server.client(key) as other:
        while not flood.done():
            began = time.monotonic()
            assert (await other.get(JOBS)).status_code == 200
            waited.append(time.monotonic() - began)
            await asyncio.sleep(0.2)
    return waited
