"""Keys: who gets in, who does not, and that nothing gives a key away."""

from pathlib import Path

import httpx
import pytest

from tests.server import ADMIN, Served, serving
from videoannotator.server.app import ROUTES


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "KEY_MISSING"),
        ({"authorization": "Bearer"}, "KEY_MISSING"),
        ({"authorization": "Basic dXNlcjpwYXNz"}, "KEY_MALFORMED"),
        ({"authorization": "Bearer va_short"}, "KEY_MALFORMED"),
        ({"authorization": "Bearer dev-token"}, "KEY_MALFORMED"),
        ({"x-api-key": "va_" + "x" * 5000}, "KEY_MALFORMED"),
        ({"authorization": "Bearer va_nobody_has_this_key_0123456789"}, "KEY_UNKNOWN"),
        ({"x-api-key": ADMIN + "x"}, "KEY_UNKNOWN"),
    ],
)
async def test_a_refusal_says_what_is_wrong_with_the_key(server: Served, headers: dict[str, str], code: str) -> None:
    """'401' alone sends people looking in the wrong place."""
    async with server.client(None, **headers) as caller:
        answer = await caller.get("/api/v1/jobs")

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="videoannotator"')
    assert "API key required" in answer.text or "Unauthorized" in answer.text  # the browser client looks for these


async def test_expired_and_revoked_keys_are_refused_as_such(server: Served) -> None:
    """The holder should ask for a new one, not check the spelling."""
    expired, revoked = await server.key("read", expired=True), await server.key("read")
    token = next(t for t in await server.workspace.store.tokens() if t.expires_at is None)
    await server.workspace.store.revoke_token(token.id)

    async with server.client() as caller:
        late = await caller.get("/api/v1/auth/whoami", headers={"x-api-key": expired})
        gone = await caller.get("/api/v1/auth/whoami", headers={"x-api-key": revoked})

    assert (late.status_code, late.json()["error"]["code"]) == (401, "KEY_EXPIRED")
    assert (gone.status_code, gone.json()["error"]["code"]) == (401, "KEY_REVOKED")


async def test_a_scope_includes_those_before_it_and_no_more(server: Served, clip: Path) -> None:
    """A reader's key in a dashboard must not be able to delete a study."""
    job = await server.finished(clip)
    path = f"/api/v1/jobs/{job['id']}"
    async with server.client(await server.key("read")) as reader, server.client(await server.key("write")) as writer:
        seen = await reader.get(path)
        refused = await reader.delete(path)
        deleted = await writer.delete(path)

    assert seen.status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "SCOPE_TOO_SMALL")
    assert deleted.status_code == 204


async def test_every_route_names_its_scope(server: Served) -> None:
    """The default locks a forgotten route up; this finds it."""
    forgotten = [str(route.fn.__name__) for route in ROUTES if "scope" not in route.opt]

    assert forgotten == []


async def test_a_token_in_the_address_opens_media_and_events_only(server: Served, clip: Path) -> None:
    """Addresses end up in histories and logs; only what cannot send headers may use them."""
    job = await server.finished(clip)
    async with server.client() as caller:
        video = await caller.get(f"/api/v1/jobs/{job['id']}/video?token={ADMIN}")
        jobs = await caller.get(f"/api/v1/jobs?token={ADMIN}")
        empty = await caller.get(f"/api/v1/jobs/{job['id']}/video?token=")

    assert video.status_code == 200
    assert (jobs.status_code, jobs.json()["error"]["code"]) == (401, "KEY_MISSING")
    assert (empty.status_code, empty.json()["error"]["code"]) == (401, "KEY_MISSING")


async def test_a_key_is_nowhere_on_disk(server: Served) -> None:
    """A stolen backup must not open the server."""
    secret = await server.key("admin")
    async with server.client(secret) as caller:
        assert (await caller.get("/api/v1/auth/whoami")).status_code == 200

    holding = [f.name for f in server.storage.rglob("*") if f.is_file() and secret.encode() in f.read_bytes()]

    assert holding == []


async def test_without_authentication_everybody_is_an_administrator(tmp_path: Path) -> None:
    """On a laptop of one's own; the health says so to everybody."""
    async with serving(tmp_path, require_auth=False, api_key="") as server, server.client() as anybody:
        jobs = await anybody.get("/api/v1/jobs")
        health = await anybody.get("/api/v1/system/health")

    assert jobs.status_code == 200
    assert health.json()["security"]["auth_required"] is False


async def test_the_first_start_makes_one_admin_key_and_the_second_none(tmp_path: Path) -> None:
    """It is shown once; a second one would be a key that nobody asked for."""
    from videoannotator.server.auth import Keys

    async with serving(tmp_path, api_key="") as server:
        keys = Keys(server.workspace.store, server.workspace.settings)
        first, second = await keys.first(), await keys.first()
        async with httpx.AsyncClient(base_url=server.url, headers={"x-api-key": str(first)}) as caller:
            said = (await caller.get("/api/v1/auth/whoami")).json()

    assert first is not None
    assert first.startswith("va_")
    assert second is None
    assert said["scopes"][-1] == "admin"
