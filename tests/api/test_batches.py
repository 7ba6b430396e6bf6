"""Many videos submitted as one: none is lost, none holds up the others, and the report names them all."""

import asyncio
import csv
import io
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips
from tests.server import LONG, Served, eventually, serving


@pytest.fixture
def videos(tmp_path: Path, clips: Clips) -> Path:
    """A directory with three videos in two folders, one broken file, a hidden one and a letter."""
    folder = tmp_path / "data" / "pilot"
    (folder / "day2").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "day2/c.mp4"):
        shutil.copy(clips.path("h264.mp4"), folder / name)
        with (folder / name).open("ab") as file:  # same pictures, other bytes
            file.write(name.encode())
    (folder / "broken.mp4").write_bytes(b"\0" * 5000)
    (folder / ".hidden.mp4").write_bytes(b"\0")
    (folder / "notes.txt").write_text("a letter")
    return folder


@pytest.fixture
async def server(tmp_path: Path, videos: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, data_roots=(tmp_path / "data",), max_concurrent_jobs=2, retry_attempts=1) as served:
        yield served


async def dataset(server: Served, folder: Path) -> str:
    answer = await server.http.post("/api/v1/datasets", json={"name": folder.name, "base_path": str(folder)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def submit(server: Served, folder: Path, **order: Any) -> dict[str, Any]:
    known = (await server.http.get("/api/v1/datasets")).json()["datasets"]
    found = [one["id"] for one in known if one["name"] == folder.name]
    body = {
        "dataset_id": found[0] if found else await dataset(server, folder),
        "selected_pipelines": ["behaves"],
    } | order
    answer = await server.http.post("/api/v1/batches", json=body)
    assert answer.status_code == 201, answer.text
    submitted: dict[str, Any] = answer.json()
    return submitted


async def batch(server: Served, batch_id: str) -> dict[str, Any]:
    answer = await server.http.get(f"/api/v1/batches/{batch_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def finished(server: Served, batch_id: str) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        found = await batch(server, batch_id)
        return found if found["state"] == "finished" else None

    return await eventually(over)


async def report(server: Served, batch_id: str) -> dict[str, dict[str, Any]]:
    answer = await server.http.get(f"/api/v1/batches/{batch_id}/report")
    assert answer.status_code == 200, answer.text
    return {line["video"]: line for line in answer.json()["videos"]}


async def test_a_directory_becomes_a_batch_and_its_report_names_every_video(server: Served, videos: Path) -> None:
    """The broken one too: a study must be able to say what it left out."""
    submitted = await submit(server, videos, name="pilot, first wave", tags=["pilot"])
    done = await finished(server, submitted["id"])
    lines = await report(server, submitted["id"])
    table = await server.http.get(f"/api/v1/batches/{submitted['id']}/report.csv")
    manifest = (await server.http.get(f"/api/v1/batches/{submitted['id']}/manifest")).json()

    assert ["a.mp4", "b.mp4", "day2/c.mp4"] == [job["video"] for job in submitted["jobs"]]
    assert ["broken.mp4"] == [one["video"] for one in submitted["rejected"]]
    assert (0, []) == (submitted["waiting"], submitted["skipped"])
    assert ("pilot, first wave", 4) == (done["name"], done["videos"])
    assert (3, 1, 1.0, 0.75) == (
        done["counts"]["completed"],
        done["counts"]["rejected"],
        done["progress"],
        done["success_rate"],
    )
    assert done["videos_per_hour"] > 0
    assert {"completed": 3} == done["pipelines"]["behaves"]["counts"]
    assert done["pipelines"]["behaves"]["seconds"] > 0
    assert done["pipelines"]["behaves"]["peak_memory_bytes"] > 2**20
    assert {submitted["rejected"][0]["error"]["code"]: 1} == done["failures"]
    assert {"a.mp4": "completed", "b.mp4": "completed", "broken.mp4": "rejected", "day2/c.mp4": "completed"} == {
        video: line["state"] for video, line in lines.items()
    }
    assert 64 == len(lines["a.mp4"]["sha256"])
    rows = list(csv.DictReader(io.StringIO(table.content.decode("utf-8-sig"))))
    assert ["a.mp4", "b.mp4", "broken.mp4", "day2/c.mp4"] == [row["video"] for row in rows]
    assert ("completed", "") == (rows[0]["behaves.status"], rows[2]["behaves.status"])
    assert 3 == len(manifest["jobs"])


@pytest.mark.slow
async def test_a_pattern_and_named_videos_choose(server: Served, videos: Path) -> None:
    """Only what was asked for; a name that is not there is rejected by name."""
    by_pattern = await submit(server, videos, pattern="day2/*")
    at_the_top = await submit(server, videos, recursive=False, pattern="[ab].mp4")
    named = await submit(server, videos, videos=["b.mp4", "nothing.mp4", "../../pilot/a.mp4"])

    assert ["day2/c.mp4"] == [job["video"] for job in by_pattern["jobs"]]
    assert ["a.mp4", "b.mp4"] == [job["video"] for job in at_the_top["jobs"]]
    assert ["b.mp4"] == [job["video"] for job in named["jobs"]]
    assert {"nothing.mp4": "PATH_NOT_ALLOWED", "../../pilot/a.mp4": "PATH_NOT_ALLOWED"} == {
        one["video"]: one["error"]["code"] for one in named["rejected"]
    }


async def test_what_was_done_before_is_skipped_by_its_content(server: Served, videos: Path) -> None:
    """A renamed copy is the same video; the same name with other bytes is not; another parameter is other work."""
    first = await submit(server, videos, videos=["a.mp4"])
    await finished(server, first["id"])
    shutil.copy(videos / "a.mp4", videos / "copy of a.mp4")
    other = bytearray((videos / "a.mp4").read_bytes())
    other[-1] ^= 1
    (videos / "alike.mp4").write_bytes(other)

    again = await submit(server, videos, videos=["copy of a.mp4", "alike.mp4"], skip_done=True)
    changed = await submit(server, videos, videos=["a.mp4"], skip_done=True, config={"behaves": {"steps": 2}})
    done = await finished(server, again["id"])

    assert [{"video": "copy of a.mp4", "job_id": first["jobs"][0]["id"]}] == again["skipped"]
    assert ["alike.mp4"] == [job["video"] for job in again["jobs"]]
    assert ["a.mp4"] == [job["video"] for job in changed["jobs"]]
    assert (1, 1, 1.0) == (done["counts"]["skipped"], done["counts"]["completed"], done["success_rate"])


async def test_a_paused_batch_begins_nothing_more_until_it_is_resumed(server: Served, videos: Path) -> None:
    """What is behind it in the queue goes on: only the batch waits."""
    submitted = await submit(server, videos, config=LONG)

    async def two_run() -> bool:
        return bool((await batch(server, submitted["id"]))["counts"]["running"] == 2)

    await eventually(two_run)
    paused = (await server.http.post(f"/api/v1/batches/{submitted['id']}/pause")).json()
    jobs = [await server.job(job["id"]) for job in submitted["jobs"]]
    (last,) = [job["id"] for job in jobs if job["status"] == "pending"]
    for job in jobs:
        if job["id"] != last:
            await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")

    behind = await submit(server, videos, videos=["b.mp4"])
    await finished(server, behind["id"])
    waiting = await server.job(last)
    resumed = (await server.http.post(f"/api/v1/batches/{submitted['id']}/resume")).json()

    async def begun() -> bool:
        return bool((await server.job(last))["status"] == "running")

    assert "paused" == paused["state"]
    assert ("pending", 0) == (waiting["status"], waiting["attempts"])
    assert ("running", None) == (resumed["state"], resumed.get("paused_at"))
    assert await eventually(begun)


async def test_cancelling_a_batch_ends_all_that_is_not_over(server: Served, videos: Path) -> None:
    """And says so of each."""
    submitted = await submit(server, videos, config=LONG)

    answer = await server.http.post(f"/api/v1/batches/{submitted['id']}/cancel")
    done = await finished(server, submitted["id"])

    assert 200 == answer.status_code
    assert (3, 1, 0.0) == (done["counts"]["cancelled"], done["counts"]["rejected"], done["success_rate"])
    assert {"cancelled", "rejected"} == {line["state"] for line in (await report(server, submitted["id"])).values()}


async def test_a_retry_takes_the_failed_ones_only_and_counts_by_the_latest(server: Served, videos: Path) -> None:
    """What is done is not done again, and a video counts once however often it was tried."""
    submitted = await submit(server, videos, selected_pipelines=["fails"], videos=["a.mp4", "b.mp4"])
    failed = await finished(server, submitted["id"])

    again = await server.http.post(f"/api/v1/batches/{submitted['id']}/retry")
    await finished(server, submitted["id"])
    after = await batch(server, submitted["id"])
    lines = await report(server, submitted["id"])

    assert (2, 0.0, {"MODEL_DAMAGED": 2}) == (failed["counts"]["failed"], failed["success_rate"], failed["failures"])
    assert (201, 2, []) == (again.status_code, len(again.json()["jobs"]), again.json()["rejected"])
    assert (2, 2) == (after["videos"], after["counts"]["failed"])
    assert {job["id"] for job in again.json()["jobs"]} == {line["job_id"] for line in lines.values()}


@pytest.mark.slow
async def test_a_retry_of_what_succeeded_does_nothing(server: Served, videos: Path) -> None:
    """Cancelled ones only where that is asked for."""
    done = await submit(server, videos, videos=["a.mp4"])
    await finished(server, done["id"])
    cancelled = await submit(server, videos, videos=["b.mp4"], config=LONG)
    await server.http.post(f"/api/v1/batches/{cancelled['id']}/cancel")
    await finished(server, cancelled["id"])

    retries = [
        await server.http.post(f"/api/v1/batches/{done['id']}/retry"),
        await server.http.post(f"/api/v1/batches/{cancelled['id']}/retry"),
        await server.http.post(f"/api/v1/batches/{cancelled['id']}/retry", json={"include_cancelled": True}),
    ]

    assert [0, 0, 1] == [len(answer.json()["jobs"]) for answer in retries]


@pytest.mark.slow
async def test_a_deleted_job_stays_in_the_report(server: Served, videos: Path) -> None:
    """Otherwise a report from last week and one from today would disagree without a word."""
    submitted = await submit(server, videos, videos=["a.mp4", "b.mp4"])
    await finished(server, submitted["id"])

    await server.http.delete(f"/api/v1/jobs/{submitted['jobs'][0]['id']}")

    after = await batch(server, submitted["id"])
    lines = await report(server, submitted["id"])
    assert (2, 1, 1) == (after["videos"], after["counts"]["removed"], after["counts"]["completed"])
    assert ("removed", "completed") == (lines["a.mp4"]["state"], lines["b.mp4"]["state"])


async def test_finished_uploads_become_jobs_that_own_their_video(server: Served, clip: Path) -> None:
    """For labs whose videos are not on the server; a made-up id is rejected, not guessed at."""
    tus = {"Tus-Resumable": "1.0.0"}
    made = await server.http.post("/api/v1/uploads", headers=tus | {"Upload-Length": str(clip.stat().st_size)})
    upload_id = made.headers["location"].rpartition("/")[2]
    sent = await server.http.patch(
        f"/api/v1/uploads/{upload_id}",
        content=clip.read_bytes(),
        headers=tus | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
    )
    assert (201, 204) == (made.status_code, sent.status_code)

    body = {"videos": [upload_id, "up_00000000000000000000000000"], "selected_pipelines": ["behaves"]}
    submitted = (await server.http.post("/api/v1/batches", json=body)).json()
    done = await finished(server, submitted["id"])

    assert [upload_id] == [job["video"] for job in submitted["jobs"]]
    assert ["UPLOAD_NOT_FOUND"] == [one["error"]["code"] for one in submitted["rejected"]]
    assert 1 == done["counts"]["completed"]
    assert (await server.http.get(f"/api/v1/jobs/{submitted['jobs'][0]['id']}/video")).status_code == 200


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "MISSING_FIELD"),
    ({"videos": ["a.mp4", "a.mp4"]}, "DUPLICATE_VIDEO"),
    ({"videos": ["a.mp4"], "pattern": "*"}, "INVALID_VALUE"),
    ({"videos": ["a.mp4"], "selected_pipelines": ["mind_reading"]}, "PIPELINE_NOT_FOUND"),
    ({"videos": ["a.mp4"], "config": {"behaves": {"steps": -1}}}, "OUT_OF_RANGE"),
    ({"videos": ["a.mp4"], "surprise": 1}, "UNKNOWN_FIELD"),
    ({"dataset_id": "ds_nothing"}, "DATASET_NOT_FOUND"),
]


async def test_a_batch_that_cannot_be_is_refused_whole(server: Served) -> None:
    """Before anything is on record."""
    answers = [
        await server.http.post("/api/v1/batches", json={"selected_pipelines": ["behaves"]} | order)
        for order, _ in REFUSED
    ]

    assert [422] * 6 + [404] == [answer.status_code for answer in answers]
    assert [] == [code for answer, (_, code) in zip(answers, REFUSED, strict=True) if code not in answer.text]
    assert 0 == (await server.http.get("/api/v1/batches")).json()["total"]


@pytest.mark.slow
async def test_an_empty_directory_is_a_finished_batch(server: Served, tmp_path: Path) -> None:
    """And its success rate is 0.0, not a division by zero."""
    (tmp_path / "data" / "empty").mkdir()

    submitted = await submit(server, tmp_path / "data" / "empty")
    found = await batch(server, submitted["id"])

    assert ("finished", 0, 0.0, 1.0) == (found["state"], found["videos"], found["success_rate"], found["progress"])
    assert {} == await report(server, submitted["id"])


@pytest.mark.slow
async def test_videos_can_be_added_while_it_runs(server: Served, videos: Path) -> None:
    """For lists that are too long for one request."""
    submitted = await submit(server, videos, videos=["a.mp4"])

    more = await server.http.post(f"/api/v1/batches/{submitted['id']}/videos", json={"videos": ["b.mp4", "broken.mp4"]})
    done = await finished(server, submitted["id"])

    assert (["b.mp4"], ["broken.mp4"]) == (
        [job["video"] for job in more.json()["jobs"]],
        [one["video"] for one in more.json()["rejected"]],
    )
    assert (3, 2) == (done["videos"], done["counts"]["completed"])


async def test_what_nobody_has_looked_at_is_looked_at_after_a_restart(tmp_path: Path, videos: Path) -> None:
    """The names are on disk before the first of them is opened: kill -9 in the middle loses none."""
    from videoannotator.batches import BatchPlan

    async with serving(tmp_path, data_roots=(tmp_path / "data",)) as first:
        dataset_id = await dataset(first, videos)
        plan = BatchPlan(dataset_id=dataset_id, selected_pipelines=("behaves",))
        batch_id = await first.workspace.store.add_batch("interrupted", plan, ["a.mp4", "broken.mp4", "day2/c.mp4"])
        assert (await batch(first, batch_id))["state"] == "queueing"

    async with serving(tmp_path, data_roots=(tmp_path / "data",)) as second:
        done = await finished(second, batch_id)

    assert (2, 1, 0) == (done["counts"]["completed"], done["counts"]["rejected"], done["counts"]["waiting"])


async def test_a_text_that_looks_like_a_formula_is_none_in_the_table(server: Served, videos: Path) -> None:
    """A file name must not run as a formula on the desk of whoever opens the report."""
    os.rename(videos / "a.mp4", videos / '=HYPERLINK("http:x")&.mp4')

    submitted = await submit(server, videos, pattern="=*")
    await finished(server, submitted["id"])
    table = await server.http.get(f"/api/v1/batches/{submitted['id']}/report", headers={"accept": "text/csv"})

    (row,) = csv.DictReader(io.StringIO(table.content.decode("utf-8-sig")))
    assert row["video"].startswith("'=HYPERLINK")
    assert table.headers["content-type"].startswith("text/csv")


@pytest.mark.slow
async def test_batches_are_listed_newest_first_in_pages(server: Served, videos: Path) -> None:
    """And a key that may only read may look, but not submit."""
    ids = [(await submit(server, videos, videos=["a.mp4"], name=str(n)))["id"] for n in range(3)]
    reader = server.client(await server.key("read"))

    async with reader:
        page = (await reader.get("/api/v1/batches?per_page=2")).json()
        rest = (await reader.get("/api/v1/batches?per_page=2&page=2")).json()
        refused = await reader.post(f"/api/v1/batches/{ids[0]}/cancel")

    assert (3, [ids[2], ids[1]]) == (page["total"], [one["id"] for one in page["batches"]])
    assert [ids[0]] == [one["id"] for one in rest["batches"]]
    assert 403 == refused.status_code


@pytest.mark.slow
async def test_five_hundred_videos_do_not_block_the_server(server: Served, videos: Path) -> None:
    """While they are looked at, others are answered in a blink, and a file that hangs holds up nobody."""
    for number in range(500):
        os.link(videos / "a.mp4", videos / "day2" / f"{number:03}.mp4")
    dataset_id = await dataset(server, videos)
    body = {"dataset_id": dataset_id, "pattern": "day2/*", "selected_pipelines": ["behaves"]}
    loop, waits = asyncio.get_running_loop(), []

    submitting = asyncio.create_task(server.http.post("/api/v1/batches", json=body))
    while not submitting.done():
        began = loop.time()
        await server.http.get("/api/v1/health")
        waits.append(loop.time() - began)
        await asyncio.sleep(0.02)
    answer = (await submitting).json()
    await server.http.post(f"/api/v1/batches/{answer['id']}/cancel")

    assert 501 == len(answer["jobs"]) + answer["waiting"]
    assert sorted(waits)[int(len(waits) * 0.95)] < 0.5
    assert json.dumps(answer).isascii()
