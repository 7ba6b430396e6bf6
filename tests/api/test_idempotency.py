"""The same request sent twice is one job: clients that heard no answer send it again."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clips import Clips
from tests.sample_jobs import new_job
from tests.server import Served, serving
from videoannotator.errors import Conflict
from videoannotator.jobs import Idempotency
from videoannotator.store import JobQuery
from videoannotator.store.sqlite import SqliteStore

JOBS = "/api/v1/jobs"


async def send(server: Served, clip: Path, key: str, http: httpx.AsyncClient | None = None, **fields: Any) -> Any:
    with clip.open("rb") as video:
        return await (http or server.http).post(
            JOBS,
            files={"video": (clip.name, video, "video/mp4")},
            data={"selected_pipelines": "behaves"} | fields,
            headers={"idempotency-key": key},
        )


async def jobs_of(server: Served) -> int:
    return (await server.workspace.store.jobs(JobQuery())).total


async def test_the_same_upload_again_is_the_same_job(server: Served, clip: Path) -> None:
    """Also with another multipart boundary, which every client draws anew, and when the job has long ended."""
    first = await send(server, clip, "k-1")
    ended = await server.ended(first.json()["id"])
    again = await send(server, clip, "k-1")

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert ended["video"]["sha256"] == again.json()["video"]["sha256"]
    assert await jobs_of(server) == 1
    assert {name.split("/")[1] for name in server.left_over() if "/" in name} == {first.json()["id"]}


async def test_another_body_under_the_same_key_is_refused(server: Served, clip: Path, clips: Clips) -> None:
    """It would be a job that nobody asked for, or an answer about another video."""
    await send(server, clip, "k-1")

    fields = await send(server, clip, "k-1", tags="other")
    video = await send(server, clips.path("no_sound.mp4"), "k-1")

    for answer in (fields, video):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert await jobs_of(server) == 1


async def test_keys_belong_to_their_caller(server: Served, clip: Path) -> None:
    """Two people may both count from one."""
    async with server.client(await server.key("write")) as other:
        mine = await send(server, clip, "1")
        theirs = await send(server, clip, "1", other)

    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_twins_sent_at_once_are_one_job(server: Served, clip: Path) -> None:
    """An impatient proxy sends the second before the first is answered."""
    answers = await asyncio.gather(*(send(server, clip, "twins") for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await jobs_of(server) == 1
    await server.ended(answers[0].json()["id"])
    assert {name.split("/")[1] for name in server.left_over() if "/" in name} == {answers[0].json()["id"]}


async def test_a_refused_request_does_not_spend_its_key(server: Served, clip: Path) -> None:
    """The caller corrects it and sends it again."""
    refused = await send(server, clip, "k-1", config='{"behaves": {"steps": 0}}')
    corrected = await send(server, clip, "k-1")

    assert (refused.status_code, corrected.status_code) == (422, 201)


async def test_a_deleted_job_does_not_come_back(server: Served, clip: Path) -> None:
    """A repetition that was on its way for long is no new wish."""
    job = (await send(server, clip, "k-1", config='{"behaves": {"steps": 3000, "step_seconds": 0.02}}')).json()
    await server.http.delete(f"{JOBS}/{job['id']}")

    late = await send(server, clip, "k-1", config='{"behaves": {"steps": 3000, "step_seconds": 0.02}}')

    assert (late.status_code, late.json()["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert await jobs_of(server) == 0


async def test_json_orders_are_done_once_too(tmp_path: Path, clip: Path) -> None:
    """Whatever the order of their fields."""
    async with serving(tmp_path, data_roots=(clip.parent,)) as server:
        made = await server.http.post("/api/v1/datasets", json={"name": "d", "base_path": str(clip.parent)})
        order = {"dataset_id": made.json()["id"], "path": clip.name, "selected_pipelines": ["behaves"]}
        headers = {"idempotency-key": "k"}
        first = await server.http.post(JOBS, json=order, headers=headers)
        again = await server.http.post(JOBS, json=dict(reversed(order.items())), headers=headers)
        other = await server.http.post(JOBS, json=order | {"priority": 1}, headers=headers)

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json()["id"] == again.json()["id"]


async def test_a_key_that_is_none_is_refused(server: Served, clip: Path) -> None:
    """Cut or empty it would be the same as another."""
    answers = [await send(server, clip, key) for key in ("", "x" * 201, "a b")]

    assert {(a.status_code, a.json()["error"]["field"]) for a in answers} == {(422, "Idempotency-Key")}
    assert server.left_over() == []


async def test_keys_are_on_disk_with_their_job_and_forgotten_after_a_day(tmp_path: Path) -> None:
    """The answer may be lost with the server; and a table that only grows would be a leak."""
    now = 1_700_000_000.0
    once = Idempotency(caller="tok_1", key="k", body_sha256="a")
    async with SqliteStore.open(tmp_path, clock=lambda: now) as store:
        (job,) = await store.add(new_job(), once=once)
    async with SqliteStore.open(tmp_path, clock=lambda: now + 86_399) as store:
        (again,) = await store.add(new_job(), once=once)
        with pytest.raises(Conflict):
            await store.earlier(Idempotency(caller="tok_1", key="k", body_sha256="b"))
    async with SqliteStore.open(tmp_path, clock=lambda: now + 86_401) as store:
        forgotten = await store.earlier(once)
        (other,) = await store.add(new_job(), once=once)

    assert again.id == job.id
    assert forgotten is None
    assert other.id != job.id
