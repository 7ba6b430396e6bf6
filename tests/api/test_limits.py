"""How often somebody may ask, and that nobody else notices."""

from pathlib import Path

import pytest

from tests.server import serving
from videoannotator.errors import TooManyRequests
from videoannotator.server.limits import Limits, address_of
from videoannotator.settings import Settings

VALIDATE = "/api/v1/config/validate"


async def test_too_many_submissions_are_told_when_to_come_back(tmp_path: Path, clip: Path) -> None:
    """Before the body is read; and another key is served as before."""
    async with serving(tmp_path, submissions_per_minute=2) as server, server.client(await server.key("write")) as other:
        await server.submit(clip)
        await server.submit(clip)
        refused = await server.http.post("/api/v1/jobs", files={"video": b"x"})
        read = await server.http.get("/api/v1/jobs")
        others = await other.post("/api/v1/jobs", files={"video": b"x"})

    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_REQUESTS")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert "submissions_per_minute" in refused.json()["detail"]
    assert read.status_code == 200
    assert others.json()["error"]["code"] != "TOO_MANY_REQUESTS"


@pytest.mark.parametrize(
    ("setting", "path", "body"),
    [
        ("validations_per_minute", VALIDATE, {"config": {}}),
        ("validations_per_minute", "/api/v1/pipelines/behaves/validate", {"config": {}}),
        ("validations_per_minute", "/api/v1/pipelines/validate", {"config": {}, "pipelines": []}),
        ("tickets_per_minute", "/api/v1/tickets", {"path": "/api/v1/jobs"}),
    ],
)
async def test_what_costs_is_limited(tmp_path: Path, setting: str, path: str, body: dict[str, object]) -> None:
    """Each with a limit of its own."""
    async with serving(tmp_path, **{setting: 3}) as server:
        statuses = [(await server.http.post(path, json=body)).status_code for _ in range(4)]

    assert statuses[3] == 429
    assert all(status < 300 for status in statuses[:3])


async def test_a_flood_of_wrong_keys_is_limited_and_right_ones_go_on(tmp_path: Path) -> None:
    """The flood may come through the proxy that everybody comes through."""
    async with serving(tmp_path, wrong_keys_per_minute=5) as server:
        async with server.client("va_nobody_has_this_key_0123456789") as flood:
            statuses = [(await flood.get("/api/v1/jobs")).status_code for _ in range(8)]
            forged = await flood.get("/api/v1/jobs", headers={"x-forwarded-for": "10.9.8.7"})
            last = await flood.get("/api/v1/jobs")
        async with server.client() as nobody:
            without = await nobody.get("/api/v1/jobs")
        right = await server.http.get("/api/v1/jobs")

    assert statuses == [401] * 5 + [429] * 3
    assert (forged.status_code, last.status_code) == (429, 429)
    assert int(last.headers["retry-after"]) >= 1
    assert (without.status_code, right.status_code) == (401, 200)


def test_a_bucket_fills_again_and_no_further_than_full() -> None:
    """A quiet night is no credit for a flood in the morning."""
    now = [0.0]
    limits = Limits(Settings(tickets_per_minute=60), clock=lambda: now[0])
    for _ in range(60):
        limits.spend("tickets", "a")

    with pytest.raises(TooManyRequests) as refused:
        limits.spend("tickets", "a")
    now[0] += 1
    limits.spend("tickets", "a")
    now[0] += 3600
    for _ in range(60):
        limits.spend("tickets", "a")

    assert refused.value.retry_after_seconds == 1
    with pytest.raises(TooManyRequests):
        limits.spend("tickets", "a")


def test_very_many_callers_fill_no_memory() -> None:
    """Addresses cost an attacker nothing."""
    limits = Limits(Settings())

    for number in range(30_000):
        limits.spend("wrong_keys", str(number))

    assert len(limits) <= 10_000


def test_no_limit_is_no_limit() -> None:
    """A machine of one's own."""
    limits = Limits(Settings(validations_per_minute=0))

    for _ in range(100_000):
        limits.spend("validations", "a")

    assert len(limits) == 0


def test_an_ipv6_network_counts_as_one_address() -> None:
    """Every machine there has 2^64 of them."""
    assert address_of(("2001:db8::1", 1)) == address_of(("2001:db8::ffff:1", 2)) == "2001:db8::/64"
    assert address_of(("10.0.0.1", 1)) != address_of(("10.0.0.2", 1))
