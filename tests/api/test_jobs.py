"""Submitting, listing, cancelling, retrying and deleting, from outside."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.server import LONG, Served, eventually, serving


async def test_a_form_with_a_video_becomes_a_job_that_runs(server: Served, clip: Path) -> None:
    """The way the browser client does it: ids joined by commas, the config as a JSON string."""
    config = json.dumps({"behaves": {"steps": 2}})

    with clip.open("rb") as video:
        answer = await server.http.post(
            "/api/v1/jobs",
            files={"video": ("../<b>Clip</b> 1.mp4", video, "video/mp4")},
            data={"selected_pipelines": "behaves, fails", "config": config, "tags": "a,b", "priority": "5"},
        )

    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["status"], job["error_message"], job["progress"]) == ("pending", None, 0)
    assert job["selected_pipelines"] == ["behaves", "fails"]
    assert job["config"] == {"behaves": {"steps": 2}}
    assert (job["tags"], job["priority"]) == (["a", "b"], 5)
    assert job["video_size_bytes"] == clip.stat().st_size
    assert job["video"]["has_audio"] is True
    assert not set(job["video_filename"]) & set('<>"/')
    assert job["created_at"].endswith("Z")

    ended = await server.ended(job["id"])
    assert (ended["status"], ended["outcome"], ended["progress_pct"]) == ("completed", "partial", 100)
    assert "fails" in ended["error_message"]  # with `completed` this is the browser client's "Partial Success"
    assert {s["pipeline"]: s["status"] for s in ended["stages"]} == {"behaves": "completed", "fails": "failed"}
    assert ended["video"]["sha256"]


async def test_a_job_without_pipelines_runs_the_default_preset(server: Served, clip: Path) -> None:
    """The first try of a new user names nothing."""
    with clip.open("rb") as video:
        answer = await server.http.post("/api/v1/jobs", files={"video": ("clip.mp4", video, "video/mp4")})

    job = answer.json()
    await server.http.delete(f"/api/v1/jobs/{job['id']}")
    assert job["preset"] == "quick"
    assert set(job["selected_pipelines"]) == {"scene_detection", "face_analysis", "voice_activity"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"selected_pipelines": "nope"}, 422, "selected_pipelines"),
        ({"selected_pipelines": "behaves", "config": '{"behaves": {"steps": 0}}'}, 422, "behaves.steps"),
        ({"selected_pipelines": "behaves", "config": '{"behaves": {"nope": 1}}'}, 422, "behaves.nope"),
        ({"selected_pipelines": "behaves", "config": '{"fails": {}}'}, 422, "fails"),
        ({"selected_pipelines": "behaves", "config": "{"}, 400, None),
        ({"selected_pipelines": "behaves", "config": "[1]"}, 422, "config"),
        ({"preset": "nope"}, 422, "preset"),
        ({"selected_pipelines": "behaves", "priority": "high"}, 422, "priority"),
        ({"selected_pipelines": "behaves", "priority": "1000"}, 422, "priority"),
        ({"selected_pipelines": "behaves", "tags": "x" * 101}, 422, "tags"),
        ({"selected_pipelines": "behaves", "tags": "a\x1bb"}, 422, "tags"),
        ({"selected_pipelines": "behaves", "callback_url": "http://localhost"}, 422, "callback_url"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_anything_is_queued(
    shared: Served, clip: Path, fields: dict[str, str], status: int, field: str | None
) -> None:
    """And the video that came with it is not kept."""
    with clip.open("rb") as video:
        answer = await shared.http.post("/api/v1/jobs", files={"video": ("c.mp4", video, "video/mp4")}, data=fields)

    said = answer.json()
    assert answer.status_code == status, said
    assert field is None or field in [problem["field"] for problem in said["errors"]]
    assert (await shared.http.get("/api/v1/jobs")).json()["total"] == 0
    assert shared.left_over() == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("content", [b"", b"no video at all", b"#EXTM3U\n/etc/passwd\n", b"<html><script>"])
async def test_what_is_no_video_is_refused_and_not_kept(shared: Served, content: bytes) -> None:
    """Nor is it opened by anything that would follow what stands in it."""
    answer = await shared.http.post(
        "/api/v1/jobs", files={"video": ("clip.mp4", content)}, data={"selected_pipelines": "behaves"}
    )

    assert (answer.status_code, shared.left_over()) == (422, [])
    assert str(shared.storage) not in answer.text


async def test_lists_are_newest_first_paged_and_filtered(server: Served, clip: Path) -> None:
    """Ten per page, the last ones on the first page; a page past the end is empty and still knows the total."""
    ids = [(await server.submit(clip, tags=f"n{n},all"))["id"] for n in range(3)]
    for job_id in ids:
        await server.ended(job_id)

    async def listed(query: str) -> list[str]:
        answer = await server.http.get(f"/api/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    first = (await server.http.get("/api/v1/jobs?page=1&per_page=2")).json()
    past = (await server.http.get("/api/v1/jobs/?page=9&per_page=2")).json()
    assert [job["id"] for job in first["jobs"]] == ids[:0:-1]
    assert (first["total"], first["page"], first["per_page"]) == (3, 1, 2)
    assert (past["jobs"], past["total"]) == ([], 3)
    assert await listed("sort=created_at") == ids
    assert await listed("tag=n1") == [ids[1]]
    assert await listed("status=completed&q=h264") == ids[::-1]
    assert await listed("status=failed") == []
    assert await listed("q=%25") == []
    assert await listed("created_after=2999-01-01T00:00:00Z") == []
    assert await listed("created_before=2999-01-01T00:00:00%2B02:00") == ids[::-1]


async def test_a_cancelled_job_stays_cancelled(server: Served, clip: Path) -> None:
    """Sent as the browser client does, without body and type; twice, because people click twice."""
    job = await server.submit(clip, config=json.dumps(LONG))
    await eventually(lambda: running(server, job["id"]))

    first = await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")
    ended = await server.ended(job["id"])
    again = await server.http.post(f"/api/v1/jobs/{job['id']}/cancel", json={"reason": "really"})

    assert first.status_code == 200
    assert first.json()["status"] in ("cancelling", "cancelled")
    assert (first.json()["job_id"], bool(first.json()["message"])) == (job["id"], True)
    assert ended["status"] == "cancelled"
    assert ended["cancelled_at"]
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    assert again.json()["cancelled_at"] == ended["cancelled_at"]


async def test_a_finished_job_cannot_be_cancelled(server: Served, clip: Path) -> None:
    """What is final stays final."""
    job = await server.finished(clip)

    answer = await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "JOB_ALREADY_FINISHED")


async def test_a_retry_repeats_only_what_failed(server: Served, clip: Path) -> None:
    """On the stored video: nobody uploads a gigabyte twice."""
    job = await server.finished(clip, "behaves,fails")

    answer = await server.http.post(f"/api/v1/jobs/{job['id']}/retry")
    retried = await server.ended(answer.json()["id"])

    stages = {stage["pipeline"]: stage for stage in retried["stages"]}
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/jobs/{retried['id']}"
    assert retried["retry_of"] == job["id"]
    assert (stages["behaves"]["status"], stages["behaves"]["cached"]) == ("completed", True)
    assert (stages["fails"]["status"], stages["fails"]["cached"]) == ("failed", False)
    assert (await server.job(job["id"]))["outcome"] == "partial"


async def test_a_job_that_succeeded_is_retried_only_from_scratch(server: Served, clip: Path) -> None:
    """A slip must not cost a night of computing; who means it says so."""
    job = await server.finished(clip)

    refused = await server.http.post(f"/api/v1/jobs/{job['id']}/retry")
    taken = await server.http.post(f"/api/v1/jobs/{job['id']}/retry", json={"from_scratch": True})
    wrong = await server.http.post(f"/api/v1/jobs/{job['id']}/retry", json={"from_scratch": "perhaps"})

    assert (refused.status_code, taken.status_code, wrong.status_code) == (409, 201, 422)
    assert (await server.ended(taken.json()["id"]))["stages"][0]["cached"] is False


async def test_a_deleted_job_is_gone_with_everything_it_had(server: Served, clip: Path) -> None:
    """Videos of children: deleted means deleted. Also while it runs."""
    job = await server.submit(clip, config=json.dumps(LONG))
    await eventually(lambda: running(server, job["id"]))

    answer = await server.http.delete(f"/api/v1/jobs/{job['id']}")

    files = [f.name for f in server.storage.rglob("*") if job["id"] in str(f)]
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await server.http.get(f"/api/v1/jobs/{job['id']}")).status_code == 404
    assert (await server.http.delete(f"/api/v1/jobs/{job['id']}")).status_code == 404
    assert files == []


@pytest.fixture
def data(tmp_path: Path, clip: Path) -> Path:
    """A data root with a video in a folder, and traps."""
    root = tmp_path / "data"
    (root / "day 1").mkdir(parents=True)
    (root / "day 1" / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "outside.mp4").write_bytes(clip.read_bytes())
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "fifo.mp4")
    return root


async def test_a_video_of_a_dataset_is_annotated_in_place(tmp_path: Path, data: Path) -> None:
    """Terabytes on a share are not uploaded; and what is not ours is never removed."""
    async with serving(tmp_path, data_roots=(data,)) as server:
        made = await server.http.post("/api/v1/datasets", json={"name": "study", "base_path": str(data)})
        order = {"dataset_id": made.json()["id"], "path": "day 1/clip.mp4", "selected_pipelines": ["behaves"]}
        answer = await server.http.post("/api/v1/jobs", json=order)
        ended = await server.ended(answer.json()["id"])
        await server.http.delete(f"/api/v1/jobs/{ended['id']}")
        left = server.left_over()

    assert (made.status_code, answer.status_code, ended["status"]) == (201, 201, "completed")
    assert ended["video_filename"] == "clip.mp4"
    assert left == []
    assert (data / "day 1" / "clip.mp4").exists()


@pytest.mark.parametrize(
    "path",
    [
        *("../outside.mp4", "day 1/../../outside.mp4", "/etc/passwd", "link.mp4", "folder/outside.mp4", "fifo.mp4"),
        *("day 1", "", "nothing.mp4", "day 1//clip.mp4", "a\x00b", "day 1\\clip.mp4", "x" * 5000, "./day 1/clip.mp4"),
    ],
)
async def test_no_path_leads_out_of_a_dataset(tmp_path: Path, data: Path, path: str) -> None:
    """Links are not followed, wherever they lead; a FIFO does not hang the server."""
    async with serving(tmp_path, data_roots=(data,)) as server:
        made = await server.http.post("/api/v1/datasets", json={"name": "study", "base_path": str(data)})
        order = {"dataset_id": made.json()["id"], "path": path, "selected_pipelines": ["behaves"]}
        answer = await asyncio.wait_for(server.http.post("/api/v1/jobs", json=order), 10)

    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "path")
    assert str(tmp_path) not in answer.text


async def test_datasets_lie_in_the_roots_that_the_operator_named(tmp_path: Path, data: Path) -> None:
    """A key must not open the whole disk."""
    async with serving(tmp_path, data_roots=(data,)) as server:
        answers = [
            await server.http.post("/api/v1/datasets", json={"name": "x", "base_path": str(base)})
            for base in ("/", "/etc", tmp_path, data / "folder", data / "day 1" / "clip.mp4", "nowhere", "\0")
        ]

    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [
        (422, "PATH_NOT_ALLOWED")
    ] * 7


async def test_datasets_are_listed_and_forgotten_and_hide_their_path(tmp_path: Path, data: Path) -> None:
    """Who may write is still no administrator of the host."""
    async with serving(tmp_path, data_roots=(data,)) as server, server.client(await server.key("write")) as writer:
        made: dict[str, Any] = (
            await writer.post("/api/v1/datasets", json={"name": "study", "base_path": str(data)})
        ).json()
        taken = await writer.post("/api/v1/datasets", json={"name": "study", "base_path": str(data)})
        listed = (await writer.get("/api/v1/datasets")).json()
        seen_by_admin = (await server.http.get(f"/api/v1/datasets/{made['id']}")).json()
        removed = await writer.delete(f"/api/v1/datasets/{made['id']}")
        gone = await writer.get(f"/api/v1/datasets/{made['id']}")

    assert "base_path" not in made
    assert (listed["datasets"], listed["total"]) == ([made], 1)
    assert seen_by_admin["base_path"] == str(data)
    assert (taken.status_code, removed.status_code, gone.status_code) == (409, 204, 404)


async def running(server: Served, job_id: str) -> bool:
    return (await server.job(job_id))["status"] == "running"
