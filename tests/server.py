"""The real server in a test's own loop: a real socket, a real workspace, a real worker."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.declared import declare
from tests.described import as_described
from tests.program import ADMIN
from videoannotator.jobs import Token, new_id
from videoannotator.server.app import building
from videoannotator.server.auth import Keys, Scope, new_secret, secret_hash
from videoannotator.server.listen import Listener, bind, url_of
from videoannotator.settings import Settings
from videoannotator.workspace import Workspace

LONG = {"behaves": {"steps": 3000, "step_seconds": 0.02}}
"""A configuration of `behaves` that takes a minute."""


class Served:
    """A server that runs, and an HTTP client with the admin key."""

    def __init__(self, url: str, workspace: Workspace, closing: asyncio.Event, listener: Listener) -> None:
        self.url = url
        self.workspace = workspace
        self.closing = closing
        self.listener = listener
        self.http = self.client(ADMIN)

    @property
    def storage(self) -> Path:
        return self.workspace.settings.storage_dir

    def client(self, key: str | None = None, **headers: str) -> httpx.AsyncClient:
        given = {"authorization": f"Bearer {key}"} if key else {}
        hooks = {"response": [as_described]}
        return httpx.AsyncClient(
            base_url=self.url, headers=given | headers, timeout=30, trust_env=False, event_hooks=hooks
        )

    async def key(self, scope: Scope, *, expired: bool = False) -> str:
        """A new key with that scope."""
        secret, now = new_secret(), datetime.now(UTC)
        expires = now - timedelta(seconds=1) if expired else None
        token = Token(id=new_id("tok"), name=f"{scope} key", scope=scope, created_at=now, expires_at=expires)
        await self.workspace.store.add_token(token, secret_hash(secret))
        return secret

    async def submit(self, clip: Path, pipelines: str = "behaves", **fields: Any) -> dict[str, Any]:
        with clip.open("rb") as video:
            answer = await self.http.post(
                "/api/v1/jobs",
                files={"video": (clip.name, video, "video/mp4")},
                data={"selected_pipelines": pipelines} | fields,
            )
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/api/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it is over. The store is asked until then: a request costs ten times as much."""

        async def over() -> bool:
            return (await self.workspace.store.status(job_id)).is_final

        await eventually(over)
        return await self.job(job_id)

    async def finished(self, clip: Path, pipelines: str = "behaves", **fields: Any) -> dict[str, Any]:
        """A job that ran to its end."""
        return await self.ended((await self.submit(clip, pipelines, **fields))["id"])

    def left_over(self) -> list[str]:
        """Files of uploads and jobs."""
        return [
            str(f.relative_to(self.storage)) for kind in ("uploads", "videos") for f in (self.storage / kind).rglob("*")
        ]


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    """A server on a free port, with the pipelines `behaves` and `fails` of the tests beside the real ones."""
    declared = declare(folder / "pipelines", "behaves", "fails")
    chosen: dict[str, Any] = {
        "port": 0,
        "api_key": ADMIN,
        "min_free_bytes": 0,
        "retry_base_delay_seconds": 0,
        "cache": "off",
        "storage_dir": folder / "storage",
    }
    given = Settings(**(chosen | {"pipeline_dirs": (declared,)} | settings))
    closing = asyncio.Event()
    with bind(given) as sock:
        async with Workspace.open(given) as workspace:
            keys = Keys(workspace.store, given)
            async with building(workspace, keys, port=sock.getsockname()[1], closing=closing) as app:
                listener = Listener(app)
                running = asyncio.create_task(listener.run_on(sock), name="http")
                await asyncio.wait_for(listener.ready.wait(), 10)
                served = Served(url_of(sock), workspace, closing, listener)
                try:
                    async with served.http:
                        yield served
                finally:
                    closing.set()
                    listener.should_exit = True
                    await running


async def eventually(look: Callable[[], Awaitable[Any]], *, limit_seconds: float = 30) -> Any:
    """What `look` answers once it is true."""
    until = time.monotonic() + limit_seconds
    while not (found := await look()):
        assert time.monotonic() < until, f"not so after {limit_seconds} s"
        await asyncio.sleep(0.02)
    return found


async def send_raw(url: str, *pieces: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Bytes on a connection of their own, for what no HTTP client would send."""
    host, port = re.fullmatch(r"http://([^:]+):(\d+)", url).groups()  # type: ignore[union-attr]
    reader, writer = await asyncio.open_connection(host, int(port))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    return reader, writer


async def answer_to(url: str, *pieces: bytes) -> tuple[int, bytes]:
    """Status and everything else that a raw request was answered with."""
    reader, writer = await send_raw(url, *pieces)
    try:
        got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        length = re.search(rb"content-length: (\d+)", got)
        got += await asyncio.wait_for(reader.readexactly(int(length.group(1))) if length else reader.read(), 20)
    finally:
        writer.close()
    return int(got.split(b" ", 2)[1]), got
