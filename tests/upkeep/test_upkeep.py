"""The end of data: what is old goes where that is wanted, what is to be erased is gone to the last byte."""

import asyncio
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.program import ADMIN, submit, wait_for
from tests.sample_jobs import Clock, new_job, result
from tests.server import LONG, eventually, serving
from videoannotator.artifacts import Artifacts
from videoannotator.jobs import JobStatus
from videoannotator.store import keeping
from videoannotator.store.sqlite import SqliteStore
from videoannotator.store.trouble import DATABASE
from videoannotator.upkeep.erasure import Erasure
from videoannotator.upkeep.removal import Upkeep

DAY = 86_400


async def finished(store: SqliteStore, artifacts: Artifacts, **fields: Any) -> str:
    """A job that ended now, with a video, a result and a log."""
    job = new_job(("scene_detection",), **fields)
    await store.add(job)
    claim = await store.claim("tester")
    assert claim is not None
    assert claim.job.id == job.id
    await store.start_stage(claim, "scene_detection")
    await store.finish_stage(claim, "scene_detection", result("scene_detection", intervals=3))
    await store.finish(claim)
    for folder, name in ((artifacts.video_folder(job.id), "video.mp4"), (artifacts.results(job.id), "a.json")):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(os.urandom(1000))
    return job.id


async def test_only_what_ended_long_ago_goes_and_its_files_with_it(tmp_path: Path) -> None:
    """Never what waits or runs, however old it is, and never what has just ended."""
    clock, artifacts = Clock(), Artifacts(tmp_path)
    async with SqliteStore.open(tmp_path, clock=clock) as store:
        artifacts.prepare()
        old = [await finished(store, artifacts) for _ in range(3)]
        running = new_job()
        await store.add(running)
        await store.claim("tester")
        pending = new_job()
        await store.add(pending)
        clock.now += 40 * DAY
        recent = await ended_now(store, artifacts)
        upkeep, before = Upkeep(store, artifacts), datetime.fromtimestamp(clock.now - 30 * DAY, UTC)

        previewed = await upkeep.preview(before)
        still_there = await store.counts()
        swept = await upkeep.sweep(before)

        left = {job.id for job in (await store.jobs(all_jobs())).jobs}
    assert set(old) == {job.id for job in previewed.jobs} == {job.id for job in swept.jobs}
    assert previewed.bytes_freed == swept.bytes_freed == 6000
    assert (3, 1) == (still_there[JobStatus.COMPLETED], still_there[JobStatus.CANCELLED])
    assert {running.id, pending.id, recent} == left
    assert {recent} == artifacts.job_ids()


async def ended_now(store: SqliteStore, artifacts: Artifacts) -> str:
    """A job that was cancelled before it began, with a video."""
    job = new_job()
    await store.add(job)
    await store.request_cancel(job.id)
    artifacts.video_folder(job.id).mkdir(parents=True)
    return job.id


def all_jobs() -> Any:
    from videoannotator.store import JobQuery

    return JobQuery(limit=100)


async def test_many_old_jobs_go_in_slices_and_others_write_meanwhile(tmp_path: Path) -> None:
    """A sweep after a year must not stop the queue for a minute."""
    clock, artifacts = Clock(), Artifacts(tmp_path)
    async with SqliteStore.open(tmp_path, clock=clock) as store:
        artifacts.prepare()
        jobs = [new_job() for _ in range(60)]
        await store.add(*jobs)
        for job in jobs:
            await store.request_cancel(job.id)
        clock.now += 40 * DAY
        loop, waits = asyncio.get_running_loop(), []

        sweeping = asyncio.create_task(Upkeep(store, artifacts).sweep(datetime.fromtimestamp(clock.now, UTC)))
        while not sweeping.done():
            began = loop.time()
            await store.add(new_job())
            waits.append(loop.time() - began)
        swept = await sweeping
        counts = await store.counts()

    assert 60 == len(swept.jobs)
    assert len(waits) > 10
    assert max(waits) < 1.0
    assert (0, len(waits)) == (counts[JobStatus.CANCELLED], counts[JobStatus.PENDING])


async def test_the_server_sweeps_by_itself_where_that_is_set(tmp_path: Path, clips: Any) -> None:
    """Opt-in: nothing goes by default."""
    clip = clips.path("h264.mp4")
    async with serving(tmp_path) as first:
        job = await first.finished(clip)
    async with serving(tmp_path) as unset:
        await unset.job(job["id"])
    await asyncio.sleep(0.05)

    async with serving(tmp_path, retention_days=0.01 / DAY) as second:

        async def gone() -> bool:
            return (await second.http.get(f"/api/v1/jobs/{job['id']}")).status_code == 404

        await eventually(gone)
        await eventually(lambda: asyncio.to_thread(lambda: not second.workspace.artifacts.job_ids()))


async def test_erasing_a_video_leaves_no_byte_of_it_and_a_receipt_of_hashes(tmp_path: Path, clips: Any) -> None:
    """Copies, results, logs, rows, what the database file held of them; and every other job is untouched."""
    clip, other = clips.path("h264.mp4"), clips.path("h264.mkv")
    secret = tmp_path / "Mia Mustermann 2019.mp4"
    secret.write_bytes(clip.read_bytes())
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    async with serving(tmp_path) as server:
        kept = await server.finished(other)
        erased = [await server.finished(secret), await server.finished(secret)]
        running = await server.submit(secret, config=json.dumps(LONG))
        files = [file for job in erased for _, file in server.workspace.artifacts.files(job["id"])]

        refused = await server.http.post("/api/v1/system/erase", json={"video_sha256": "0" * 64})
        answer = await server.http.post("/api/v1/system/erase", json={"video_sha256": digest})
        receipt = answer.json()
        gone = [(await server.http.get(f"/api/v1/jobs/{job['id']}")).status_code for job in (*erased, running)]
        last = await server.finished(other)
        told = await events_until(server.workspace.store, last["id"])
        still = await server.job(kept["id"])
        listed = (await server.http.get("/api/v1/system/receipts")).json()
    everything = b"".join(file.read_bytes() for file in (tmp_path / "storage").rglob("*") if file.is_file())

    assert (404, "NOTHING_TO_ERASE") == (refused.status_code, refused.json()["error"]["code"])
    assert (200, 3, True, True) == (
        answer.status_code,
        receipt["jobs"],
        receipt["finished"],
        receipt["database_clean"],
    )
    assert [404, 404, 404] == gone
    assert {kept["id"], last["id"]} == told
    assert "completed" == still["status"]
    assert not any(file.exists() for file in files)
    assert digest in {file["sha256"] for file in receipt["files"]}
    assert {"video", "result", "log"} >= {file["kind"] for file in receipt["files"]}
    assert [receipt["id"]] == [one["id"] for one in listed["receipts"]]
    assert b"Mustermann" not in everything
    assert not any(job["id"].encode() in everything for job in erased)
    assert "Mustermann" not in json.dumps(receipt)


async def events_until(store: Any, job_id: str) -> set[str]:
    """The jobs that a listener hears of who wants to know all, up to the end of one."""
    told = set()
    async with aclosing(store.follow(after=0)) as events:
        async for event in events:
            told.add(event.job_id)
            if (event.job_id, event.type) == (job_id, "job.complete"):
                break
    return told


async def test_erasing_a_participant_takes_the_original_only_when_asked(tmp_path: Path, clips: Any) -> None:
    """The recording belongs to the lab; what is ours goes, and the receipt says what is left."""
    data = tmp_path / "data"
    data.mkdir()
    original = data / "visit.mp4"
    original.write_bytes(clips.path("h264.mp4").read_bytes())
    (data / "broken Mia.mp4").write_bytes(b"0" * 5000)
    async with serving(tmp_path, data_roots=(data,)) as server:
        dataset = (await server.http.post("/api/v1/datasets", json={"name": "d", "base_path": str(data)})).json()["id"]
        order = {"dataset_id": dataset, "selected_pipelines": ["behaves"], "tags": ["participant-17"], "name": "Mia"}
        batch = (await server.http.post("/api/v1/batches", json=order)).json()
        await server.ended(batch["jobs"][0]["id"])

        skipped = (await server.http.post("/api/v1/batches", json=order | {"skip_done": True})).json()["skipped"]
        first = (await server.http.post("/api/v1/system/erase", json={"tag": "participant-17"})).json()
        left = original.exists()
        report = (await server.http.get(f"/api/v1/batches/{batch['id']}/report")).json()
        again = (await server.http.post("/api/v1/batches", json=order)).json()
        await server.ended(again["jobs"][0]["id"])
        second = await server.http.post("/api/v1/system/erase", json={"tag": "participant-17", "originals": True})

    assert (1, 1, True) == (first["jobs"], first["originals_left"], left)
    assert ["visit.mp4"] == [one["video"] for one in skipped]
    assert first["database_clean"]
    assert second.json()["database_clean"]
    assert {("(erased)", "removed"), ("(erased)", "rejected")} == {(v["video"], v["state"]) for v in report["videos"]}
    assert not any(word in json.dumps(report) for word in ("Mia", "participant-17", "visit"))
    assert hashlib.sha256(b"participant-17").hexdigest() == first["tag_sha256"]
    database = (tmp_path / "storage" / DATABASE).read_bytes()
    assert not any(word in database for word in (b"participant-17", b"Mia", b"visit.mp4"))
    assert (0, False) == (second.json()["originals_left"], original.exists())
    assert "original" in {file["kind"] for file in second.json()["files"]}


async def test_rows_that_were_deleted_without_overwriting_are_found_and_written_over(tmp_path: Path) -> None:
    """A database from before this rule still holds them in its free pages; a receipt must not call that clean."""
    artifacts = Artifacts(tmp_path)
    async with SqliteStore.open(tmp_path) as store:
        artifacts.prepare()
        job_id = await finished(store, artifacts, tags=("p1",))
    with closing(sqlite3.connect(tmp_path / DATABASE)) as careless:
        careless.execute("PRAGMA secure_delete = OFF")
        careless.execute("CREATE TABLE notes (x)")
        careless.executemany("INSERT INTO notes VALUES (?)", [(job_id * 100,)] * 50)
        careless.execute("DROP TABLE notes")
        careless.commit()
    assert keeping.remains(tmp_path, [job_id])

    async with SqliteStore.open(tmp_path) as store:
        receipt = await Erasure(store, artifacts, tmp_path).of_tag("p1", originals=False)

    assert receipt.database_clean
    assert not keeping.remains(tmp_path, [job_id])


async def test_what_is_deleted_is_overwritten_without_writing_all_anew(tmp_path: Path) -> None:
    """An erasure must not need a VACUUM, which stops all other writes and needs the space once more."""
    artifacts = Artifacts(tmp_path)
    async with SqliteStore.open(tmp_path) as store:
        artifacts.prepare()
        ids = [await finished(store, artifacts) for _ in range(5)]
        there = await asyncio.to_thread(store.remains, ids)

        for job_id in ids:
            await store.remove(job_id)
        emptied = await store.truncate_wal()
        left = await asyncio.to_thread(store.remains, ids)

    assert (True, True, False) == (there, emptied, left)


def test_a_text_across_two_blocks_is_found(tmp_path: Path) -> None:
    """The search reads pieces of four MiB."""
    (tmp_path / DATABASE).write_bytes(b"x" * (4 * 2**20 - 3) + b"needle" + b"x" * 100)

    assert keeping.remains(tmp_path, ["needle"])
    assert not keeping.remains(tmp_path, ["noodle"])


def command(folder: Path, *words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "videoannotator", *words, "--storage-dir", str(folder / "storage")],
        cwd=folder,
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_the_commands_work_beside_a_server_and_without_one(start: Any, clips: Any, tmp_path: Path) -> None:
    """With the same words: whoever holds the directory does the work."""
    import httpx

    clip = clips.path("h264.mp4")
    server = start()
    url = server.ready()
    with httpx.Client(base_url=url, headers={"x-api-key": ADMIN}, timeout=30) as client:
        ids = [submit(client, clip, {}) for _ in range(2)]
        wait_for(lambda: all(client.get(f"/api/v1/jobs/{i}").json()["status"] == "completed" for i in ids))
    reach = ("--server", url, "--key", ADMIN)

    beside = command(tmp_path, "cleanup", "--older-than", "30", "--dry-run", *reach)
    forbidden = command(tmp_path, "cleanup", "--older-than", "30", "--server", url)
    server.process.terminate()
    assert 0 == server.ends()
    alone = command(tmp_path, "cleanup", "--older-than", "0.0000001", "--dry-run")
    asked = command(tmp_path, "erase", "--video", str(clip), said="no\n")
    erased = command(tmp_path, "erase", "--video", str(clip), "--yes")
    nothing = command(tmp_path, "erase", "--video", str(clip), "--yes")
    unclear = command(tmp_path, "cleanup")

    assert (0, True) == (beside.returncode, "[OK] 0 jobs would be removed" in beside.stdout)
    assert (1, True) == (forbidden.returncode, "API key required" in forbidden.stderr)
    assert (0, True) == (alone.returncode, "[OK] 2 jobs would be removed" in alone.stdout)
    assert (1, True) == (asked.returncode, "Nothing was erased." in asked.stdout)
    assert (0, True) == (erased.returncode, "[OK] erased 2 jobs" in erased.stdout)
    assert (2, True) == (nothing.returncode, "No job has this video" in nothing.stderr)
    assert (2, True) == (unclear.returncode, "--older-than" in unclear.stderr)
    assert not list((tmp_path / "storage" / "results").iterdir())
