"""Keys that administrators make, tickets that stand in addresses, and what belongs to the holder of a key."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.server import LONG, Served, serving
from videoannotator.server.tickets import LASTS_SECONDS, Tickets, covers

TOKENS, TICKETS, PREFERENCES = "/api/v1/tokens", "/api/v1/tickets", "/api/v1/preferences"


# -- keys


async def test_a_key_works_and_its_secret_is_shown_once(server: Served) -> None:
    """Whoever loses it makes another; nobody can read it out of the server."""
    made = await server.http.post(TOKENS, json={"name": "Ana's dashboard", "scope": "read", "expires_in_seconds": 60})
    secret = made.json()["secret"]
    listed = await server.http.get(TOKENS)
    async with server.client(secret) as ana:
        said = (await ana.get("/api/v1/auth/whoami")).json()

    assert made.status_code == 201
    assert made.headers["location"] == f"{TOKENS}/{made.json()['id']}"
    assert secret.startswith("va_")
    assert secret not in listed.text
    assert [token["name"] for token in listed.json()["tokens"]] == ["Anas dashboard"]
    assert said == {"name": "Anas dashboard", "scopes": ["read"], "expires_at": made.json()["expires_at"]}


async def test_a_revoked_key_and_its_tickets_are_refused_at_once(server: Served, clip: Path) -> None:
    """A key that leaked must be worth nothing the moment somebody notices."""
    job = await server.finished(clip)
    made = (await server.http.post(TOKENS, json={"name": "lost", "scope": "read"})).json()
    path = f"/api/v1/jobs/{job['id']}"
    async with server.client(made["secret"]) as holder, server.client() as anybody:
        ticket = (await holder.post(TICKETS, json={"path": path})).json()["token"]
        before = await anybody.get(f"{path}/video", params={"token": ticket})
        revoked = await server.http.delete(f"{TOKENS}/{made['id']}")
        by_key = await holder.get("/api/v1/auth/whoami")
        by_ticket = await anybody.get(f"{path}/video", params={"token": ticket})

    assert (before.status_code, revoked.status_code) == (200, 204)
    assert (by_key.status_code, by_key.json()["error"]["code"]) == (401, "KEY_REVOKED")
    assert (by_ticket.status_code, by_ticket.json()["error"]["code"]) == (401, "KEY_REVOKED")
    assert (await server.http.delete(f"{TOKENS}/{made['id']}")).status_code == 204
    assert (await server.http.delete(f"{TOKENS}/tok_nobody")).json()["error"]["code"] == "TOKEN_NOT_FOUND"


@pytest.mark.parametrize("way", ["key", "ticket"])
async def test_an_open_stream_ends_with_its_key(server: Served, clip: Path, way: str) -> None:
    """Whoever listened when the key was revoked must not go on listening for days."""
    made = (await server.http.post(TOKENS, json={"name": "lost", "scope": "read"})).json()
    path = "/api/v1/events/stream"
    async with server.client(made["secret"]) as holder, server.client() as anybody:
        ticket = (await holder.post(TICKETS, json={"path": path})).json()["token"]
        job = await server.submit(clip, config=msgspec.json.encode(LONG).decode())
        token = made["secret"] if way == "key" else ticket
        async with anybody.stream("GET", f"{path}?token={token}") as stream:
            lines = stream.aiter_lines()
            async for line in lines:
                if line.startswith("event: job.update"):
                    break
            await server.http.delete(f"{TOKENS}/{made['id']}")
            async with asyncio.timeout(10):
                async for _ in lines:
                    pass
        again = await anybody.get(f"{path}?token={token}")
    await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")

    assert (again.status_code, again.json()["error"]["code"]) == (401, "KEY_REVOKED")


async def test_only_administrators_see_or_make_keys(server: Served) -> None:
    """Otherwise every key would be an admin key."""
    async with server.client(await server.key("write")) as writer:
        answers = [
            await writer.get(TOKENS),
            await writer.post(TOKENS, json={"name": "mine", "scope": "admin"}),
            await writer.delete(f"{TOKENS}/tok_x"),
        ]

    assert [answer.status_code for answer in answers] == [403] * 3


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name"}),
        (
            {"name": "", "scope": "root", "expires_in_seconds": 0, "colour": 1},
            {"name", "scope", "expires_in_seconds", "colour"},
        ),
        ({"name": "\u202e\u0000<>"}, {"name"}),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, {"expires_at"}),
        ({"name": "x", "expires_at": "2999-01-01T00:00:00"}, {"expires_at"}),
        ({"name": "x", "expires_at": "2030-01-01T00:00:00Z", "expires_in_seconds": 5}, {"expires_at"}),
    ],
)
async def test_a_key_that_cannot_be_made_is_refused_field_by_field(
    shared: Served, body: dict[str, Any], fields: set[str]
) -> None:
    """All that is wrong at once; and a name is cleaned before anybody sees it."""
    answer = await shared.http.post(TOKENS, json=body)

    assert answer.status_code == 422
    assert {problem["field"] for problem in answer.json()["errors"]} == fields


async def test_the_last_administrator_cannot_lock_everybody_out(tmp_path: Path) -> None:
    """Keys could be made by nobody any more, and only the owner of the machine could help."""
    async with serving(tmp_path, api_key="") as server:
        admin = await server.key("admin")
        (token,) = await server.workspace.store.tokens()
        async with server.client(admin) as holder:
            refused = await holder.delete(f"{TOKENS}/{token.id}")
            still = await holder.get("/api/v1/auth/whoami")
            await holder.post(TOKENS, json={"name": "second", "scope": "admin"})
            revoked = await holder.delete(f"{TOKENS}/{token.id}")

    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "LAST_ADMIN_TOKEN")
    assert (still.status_code, revoked.status_code) == (200, 204)


# -- tickets


async def test_a_ticket_opens_its_path_and_all_below_it(server: Served, clip: Path) -> None:
    """A <video>, a download link and an EventSource: what cannot send headers."""
    job = await server.finished(clip)
    path = f"/api/v1/jobs/{job['id']}"
    made = await server.http.post(TICKETS, json={"path": path})
    events = (await server.http.post(TICKETS, json={"path": "/api/v1/events/stream"})).json()["token"]
    ticket = made.json()["token"]
    until = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)

    async with server.client() as anybody:
        statuses = [
            (await anybody.get(f"{path}/{what}?token={ticket}")).status_code
            for what in ("video", "video/", "files/out.json", "artifacts")
        ]
        async with anybody.stream("GET", f"/api/v1/events/stream?token={events}") as stream:
            statuses.append(stream.status_code)

    assert statuses == [200] * 5
    assert timedelta(seconds=LASTS_SECONDS - 30) < until <= timedelta(seconds=LASTS_SECONDS)


async def test_a_ticket_opens_nothing_else(server: Served, clip: Path) -> None:
    """It stands in histories and logs: whoever finds it there must find little."""
    one, other = await server.finished(clip), await server.finished(clip)
    path = f"/api/v1/jobs/{one['id']}"
    ticket = (await server.http.post(TICKETS, json={"path": path})).json()["token"]
    elsewhere = [
        f"/api/v1/jobs/{other['id']}/video",
        f"{path}/../{other['id']}/video",
        f"{path}/%2e%2e/{other['id']}/video",
        f"{path}%2f..%2f{other['id']}/video",
        f"//api/v1/jobs/{other['id']}/video",
        f"{path}/files/..%2fout.json",
    ]

    async with server.client() as finder:
        async with finder.stream("GET", f"/api/v1/events/stream?token={ticket}") as stream:
            assert stream.status_code == 403
        answers = [await finder.get(f"{address}?token={ticket}") for address in elsewhere]
        changing = [
            await finder.delete(f"{path}?token={ticket}"),
            await finder.get(f"{path}?token={ticket}"),
            await finder.post(f"{TICKETS}?token={ticket}", json={"path": path}),
            await finder.post(TICKETS, json={"path": path}, headers={"authorization": f"Bearer {ticket}"}),
        ]

    assert {answer.status_code for answer in answers} <= {401, 403, 404}
    assert answers[0].json()["error"]["code"] == "TICKET_FOR_ANOTHER_PATH"
    assert [answer.status_code for answer in changing] == [401] * 4
    assert (await server.job(one["id"]))["status"] == "completed"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/api/v1/../x",
        "/api/v1//jobs",
        "/api/v1/jobs/%2e%2e",
        "https://evil.example/api/v1/jobs",
        "/viewer",
        "/api/v1/jobs?x=1",
        "/api/v1/jo\nbs",
        "/api/v1/" + "x" * 600,
    ],
)
async def test_a_ticket_is_made_for_a_plain_path_only(shared: Served, path: str) -> None:
    """What two readers could read differently is refused before it is signed."""
    answer = await shared.http.post(TICKETS, json={"path": path})

    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["errors"]] == ["path"]


async def test_a_changed_foreign_or_expired_ticket_is_refused(server: Served, clip: Path) -> None:
    """The signature covers all of it; and a ticket of another life of the server is none of this one."""
    job = await server.finished(clip)
    path = f"/api/v1/jobs/{job['id']}/video"
    ticket = (await server.http.post(TICKETS, json={"path": path})).json()["token"]
    middle = len(ticket) // 2
    changed = ticket[:middle] + ("A" if ticket[middle] != "A" else "B") + ticket[middle + 1 :]
    foreign, _ = Tickets().issue("outside", path)

    async with server.client() as holder:
        for wrong in (changed, foreign, ticket[:-4], ticket + "AAAA", "vt_", "vt_\u00e9", "vt_" + "A" * 5000):
            answer = await holder.get(path, params={"token": wrong})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "TICKET_INVALID"), wrong


def test_what_a_path_covers() -> None:
    """By whole names: job_1 is no part of job_10."""
    assert covers("/api/v1/jobs/job_1", "/api/v1/jobs/job_1/video")
    assert covers("/api/v1/jobs/job_1/", "/api/v1/jobs/job_1")
    assert not covers("/api/v1/jobs/job_1", "/api/v1/jobs/job_10")
    assert not covers("/api/v1/jobs/job_1", "/api/v1/jobs")
    assert not covers("/api/v1/jobs/job_1", "/api/v1/jobs/job_1/../job_2")
    assert not covers("/api/v1/jobs/job_1", "/api/v1/jobs/job_1/%2e%2e/job_2")


# -- preferences


async def test_preferences_belong_to_the_key(server: Served) -> None:
    """Two people on one server do not change each other's defaults."""
    async with server.client(await server.key("write")) as one, server.client(await server.key("write")) as other:
        empty = await one.get(PREFERENCES)
        put = await one.put(PREFERENCES, json={"default_preset": "quick"})
        kept = await one.get(PREFERENCES)
        others = await other.get(PREFERENCES)
        cleared = await one.put(PREFERENCES, json={})

    assert (empty.json(), put.json(), kept.json()) == ({}, {"default_preset": "quick"}, {"default_preset": "quick"})
    assert (others.json(), cleared.json()) == ({}, {})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"default_preset": "nope"}, {"default_preset"}),
        ({"default_preset": "", "colour": "red"}, {"default_preset", "colour"}),
        ({"output_directory": "/" + "x" * 5000}, {"output_directory"}),
        ({"output_directory": "/etc"}, {"output_directory"}),
        ({"output_directory": "../.."}, {"output_directory"}),
    ],
)
async def test_preferences_that_would_fail_later_are_refused_now(
    shared: Served, body: dict[str, Any], fields: set[str]
) -> None:
    """A wrong default would fail every job after it."""
    answer = await shared.http.put(PREFERENCES, json=body)

    assert answer.status_code == 422
    assert {problem["field"] for problem in answer.json()["errors"]} == fields


async def test_a_job_that_says_nothing_runs_the_callers_default_preset(server: Served, clip: Path) -> None:
    """And one that says something runs what it says."""
    await server.http.put("/api/v1/presets/ours", json={"pipelines": {"behaves": {"steps": 2}}})
    await server.http.put(PREFERENCES, json={"default_preset": "ours"})

    with clip.open("rb") as video:
        answer = await server.http.post("/api/v1/jobs", files={"video": video})
    said = await server.submit(clip, "fails")

    assert (answer.json()["preset"], answer.json()["selected_pipelines"]) == ("ours", ["behaves"])
    assert said["selected_pipelines"] == ["fails"]
    assert "preset" not in said
