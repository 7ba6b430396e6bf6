"""Is it well, and who am I: what monitors, load balancers and the browser client ask first."""

import socket

import pytest

from tests.server import ADMIN, Served, serving
from videoannotator import __version__


@pytest.mark.parametrize("path", ["/health", "/healthz", "/api/v1/health", "/health/", "/api/v1/health/"])
async def test_health_answers_everybody(server: Served, path: str) -> None:
    """A load balancer has no key, and every path stands with and without a slash."""
    async with server.client() as anybody:
        answer = await anybody.get(path)

    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    assert answer.json()["api_version"]


async def test_health_says_503_while_the_server_closes(server: Served) -> None:
    """Whoever spreads requests over servers must stop sending some here."""
    server.closing.set()

    answer = await server.http.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (503, "shutting_down")
    assert int(answer.headers["retry-after"]) > 0


async def test_new_work_is_refused_while_the_server_closes(server: Served) -> None:
    """What is taken now would be cut off; the caller can come back."""
    server.closing.set()

    answer = await server.http.post("/api/v1/config/validate", json={"config": {}})

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SHUTTING_DOWN")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("key", [None, "va_this_is_nobodys_key_at_all", "nonsense"])
async def test_system_health_answers_whatever_the_key(server: Served, key: str | None) -> None:
    """The browser client asks before anybody has typed a key, and with a stale one; it reads these fields."""
    async with server.client(key) as somebody:
        answer = await somebody.get("/api/v1/system/health")

    said = answer.json()
    assert answer.status_code == 200
    assert said["status"] == "healthy"
    assert said["version"] == __version__
    assert isinstance(said["uptime_seconds"], int)
    assert said["security"] == {"auth_required": True}
    assert isinstance(said["gpu_status"]["available"], bool)
    assert said["worker_info"] == {
        "active_jobs": 0,
        "queued_jobs": 0,
        "max_concurrent_jobs": 4,
        "worker_status": "idle",
    }
    assert said["diagnostics"]["database"]["status"] == "healthy"
    assert 0 <= said["diagnostics"]["storage"]["disk_usage_percent"] <= 100
    assert said["diagnostics"]["ffmpeg"]["available"] is True
    assert "behaves" in said["pipelines"]["available"]
    assert "details" not in said


async def test_details_are_for_holders_of_keys_and_paths_for_administrators(server: Served) -> None:
    """Where things lie on the host is nobody else's business."""
    async with server.client() as anybody, server.client(await server.key("read")) as reader:
        refused = await anybody.get("/api/v1/system/health?detailed=true")
        read = await reader.get("/api/v1/system/health?detailed=true")
    admin = await server.http.get("/api/v1/system/health?detailed=true")

    assert refused.status_code == 401
    assert read.json()["details"]["jobs"]["completed"] == 0
    assert str(server.storage) not in read.text
    assert admin.json()["details"]["storage_dir"] == str(server.storage)
    assert admin.json()["details"]["data_roots"] == []
    assert read.json()["details"].keys() == {"jobs", "free_bytes", "min_free_bytes", "pipelines"}


async def test_a_full_disk_shows(tmp_path) -> None:
    """The operator should learn it from the monitor, not from the users."""
    async with serving(tmp_path, min_free_bytes=2**60) as server:
        said = (await server.http.get("/api/v1/system/health")).json()

    assert said["status"] == "degraded"
    assert said["diagnostics"]["storage"]["status"] == "degraded"


async def test_answers_do_not_wait_for_more_to_send(server: Served) -> None:
    """Nagle's algorithm held every answer back for 40 ms: asyncio turns it off only for sockets that say TCP."""
    await server.http.get("/health")

    (connection,) = server.listener.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_whoami_says_what_a_key_may_do(server: Served) -> None:
    """A key from a colleague: what is it good for?"""
    async with server.client(await server.key("write")) as writer:
        said = (await writer.get("/api/v1/auth/whoami")).json()
    admin = (await server.http.get("/api/v1/auth/whoami")).json()

    assert said == {"name": "write key", "scopes": ["read", "write"]}
    assert admin["scopes"] == ["read", "write", "admin"]
    assert ADMIN not in str(admin)
