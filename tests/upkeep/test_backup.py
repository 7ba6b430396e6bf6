"""A storage directory saved and brought back: whole, verified, also while it is worked on, or not at all."""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.server import serving
from videoannotator.artifacts import sha256
from videoannotator.errors import Refused, StorageTrouble
from videoannotator.store.lock import LOCK
from videoannotator.store.trouble import DATABASE
from videoannotator.upkeep.backup import INDEX, back_up, read_index, restore


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, clips: Any) -> Path:
    """A storage directory with two finished jobs and a pending one; never changed."""

    async def fill(folder: Path) -> None:
        async with serving(folder) as server:
            for name in ("h264.mp4", "h264.mkv"):
                await server.finished(clips.path(name))
            batch = await server.http.post(
                "/api/v1/batches", json={"videos": ["nothing.mp4"], "selected_pipelines": ["behaves"]}
            )
            assert batch.status_code == 201, batch.text
            server.workspace.worker.gate.close()
            await server.submit(clips.path("h264.mp4"))

    folder = tmp_path_factory.mktemp("saved")
    asyncio.run(fill(folder))
    return folder / "storage"


@pytest.fixture
def working(storage: Path, tmp_path: Path) -> Path:
    """A copy that a test may change. Its jobs know their videos under the old path, as after a disk was moved."""
    return Path(shutil.copytree(storage, tmp_path / "working"))


def content(folder: Path) -> dict[str, str]:
    """Every file but the database, the lock, and what only lives with a server."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return {
        name: sha256(file) for name, file in names.items() if not name.startswith((DATABASE, LOCK, "uploads/", INDEX))
    }


def rows(folder: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        return database.execute(sql).fetchall()


async def test_what_was_saved_comes_back_and_works(storage: Path, tmp_path: Path) -> None:
    """Under another path: jobs, results, videos, batches; the pending one is worked on."""
    back_up(storage, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "storage")

    async with serving(tmp_path) as server:
        jobs = (await server.http.get("/api/v1/jobs")).json()["jobs"]
        ended = [await server.ended(job["id"]) for job in jobs]
        videos = [await server.http.get(f"/api/v1/jobs/{job['id']}/video") for job in jobs]
        batches = (await server.http.get("/api/v1/batches")).json()["total"]

    assert content(storage).items() <= content(tmp_path / "storage").items() | content(tmp_path / "backup").items()
    assert content(storage) == content(tmp_path / "backup")
    assert b"\x01\x01" == (tmp_path / "backup" / DATABASE).read_bytes()[18:20], "it needs no log of writes beside it"
    assert ["completed"] * 3 == [job["status"] for job in ended]
    assert [200] * 3 == [video.status_code for video in videos]
    assert 1 == batches


async def test_a_backup_is_consistent_while_jobs_end_and_go(tmp_path: Path, clips: Any) -> None:
    """The lab's server does not stop at night for it. What the saved database knows is in the backup, to the byte."""
    clip = clips.path("h264.mp4")
    async with serving(tmp_path) as server:
        for number in range(2):
            busy = asyncio.create_task(_work_and_remove(server, clip))
            index = await asyncio.to_thread(back_up, server.storage, tmp_path / f"backup{number}")
            await busy
            assert ((), ()) == (index.missing, index.damaged)

    for number in range(2):
        backup = tmp_path / f"backup{number}"
        known = rows(backup, "SELECT 'results/' || id || '/' || name, a.sha256 FROM artifacts a JOIN jobs ON seq = job")
        assert [] == [path for path, digest in known if sha256(backup / path) != digest]
        for saved in read_index(backup).files:
            assert sha256(backup / saved.path) == saved.sha256
        restore(backup, tmp_path / f"restored{number}")


def test_a_job_that_is_removed_while_it_is_saved_is_left_out_whole(working: Path, tmp_path: Path) -> None:
    """Its row without its files would be a job that nobody can open."""
    victim = min(folder.parent for folder in (working / "results").glob("*/out.json"))

    def remove(_: str) -> None:
        if not victim.exists():
            return
        shutil.rmtree(victim)
        with closing(sqlite3.connect(working / DATABASE)) as live, live:
            live.execute("PRAGMA foreign_keys = ON")
            live.execute("DELETE FROM events WHERE job_id = ?", (victim.name,))
            live.execute("DELETE FROM jobs WHERE id = ?", (victim.name,))

    index = back_up(working, tmp_path / "backup", remove)

    assert ((), 2) == (index.missing, index.jobs)
    assert victim.name not in {job_id for (job_id,) in rows(tmp_path / "backup", "SELECT id FROM jobs")}
    assert not any(victim.name in saved.path for saved in index.files)
    assert not any(victim.name in str(path) for path in (tmp_path / "backup").rglob("*"))


async def _work_and_remove(server: Any, clip: Path) -> None:
    jobs = [await server.submit(clip) for _ in range(4)]
    for job in jobs:
        await server.ended(job["id"])
    for job in jobs[:2]:
        await server.http.delete(f"/api/v1/jobs/{job['id']}")


def test_an_interrupted_backup_goes_on_and_is_no_backup_until_then(working: Path, tmp_path: Path) -> None:
    """What is half there has another name, and what is already there is not copied again."""
    stop = threading.Event()
    told: list[str] = []

    def interrupt(path: str) -> None:
        told.append(path)
        if len(told) == 3:
            stop.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(working, tmp_path / "backup", interrupt)
    first = tmp_path / "backup.part" / told[0]
    inode = first.stat().st_ino
    (tmp_path / "backup.part" / "stranger").write_text("left over")

    assert not (tmp_path / "backup").exists()
    index = back_up(working, tmp_path / "backup")

    assert inode == (tmp_path / "backup" / told[0]).stat().st_ino
    assert content(working) == content(tmp_path / "backup")
    assert not (tmp_path / "backup.part").exists()
    assert 3 == index.jobs


def test_what_is_missing_or_changed_is_named_and_the_rest_saved(working: Path, tmp_path: Path) -> None:
    """A backup of a damaged disk is worth more than none, and must not look like one of a sound disk."""
    results = sorted((working / "results").glob("*/out.json"))
    results[0].unlink()
    results[1].write_text("[1]")

    index = back_up(working, tmp_path / "backup")

    assert [f"results/{results[0].parent.name}/out.json"] == list(index.missing)
    assert [f"results/{results[1].parent.name}/out.json"] == list(index.damaged)
    assert 3 == index.jobs


@pytest.mark.parametrize("damage", ["changed", "gone", "index", "escape"])
def test_a_backup_that_is_not_what_was_saved_is_not_restored(storage: Path, tmp_path: Path, damage: str) -> None:
    """Better to hear it now than in a year; nothing half-restored is left."""
    back_up(storage, tmp_path / "backup")
    victim = next((tmp_path / "backup" / "results").glob("*/out.json"))
    index = tmp_path / "backup" / INDEX
    match damage:
        case "changed":
            victim.write_text("[]")
        case "gone":
            victim.unlink()
        case "index":
            index.write_bytes(index.read_bytes()[:100])
        case "escape":
            told = json.loads(index.read_text())
            outside = tmp_path / "outside"
            outside.write_text("x")
            told["files"].append({"path": "../outside", "size": 1, "sha256": sha256(outside)})
            index.write_text(json.dumps(told))

    with pytest.raises(Refused) as refused:
        restore(tmp_path / "backup", tmp_path / "storage")

    assert refused.value.code == ("BACKUP_DAMAGED" if damage in ("changed", "gone") else "NOT_A_BACKUP")
    assert {"backup"} == {path.name for path in tmp_path.iterdir()} - {"outside"}


def test_nothing_is_overwritten(storage: Path, working: Path, tmp_path: Path) -> None:
    """Neither an earlier backup nor a storage directory."""
    back_up(storage, tmp_path / "backup")
    before = content(working)

    with pytest.raises(Refused, match="is there already"):
        back_up(storage, tmp_path / "backup")
    with pytest.raises(Refused, match="is not empty"):
        restore(tmp_path / "backup", working)

    assert before == content(working)


def test_a_directory_without_a_database_is_not_saved(tmp_path: Path) -> None:
    """An empty backup would look like a good one."""
    with pytest.raises(StorageTrouble) as refused:
        back_up(tmp_path, tmp_path / "backup")

    assert "NO_DATABASE" == refused.value.code


def test_a_backup_of_a_newer_program_is_refused(storage: Path, tmp_path: Path) -> None:
    """Before anything is copied."""
    back_up(storage, tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "backup" / DATABASE)) as database:
        database.execute("PRAGMA user_version = 999")

    with pytest.raises(StorageTrouble) as refused:
        restore(tmp_path / "backup", tmp_path / "storage")

    assert "DATABASE_TOO_NEW" == refused.value.code


def test_a_full_disk_is_told_and_leaves_no_backup(storage: Path, small_disk: Path) -> None:
    """And the same call goes on when there is space."""
    with pytest.raises(StorageTrouble) as refused:
        back_up(storage, small_disk / "backup")

    assert "STORAGE_FULL" == refused.value.code
    assert not (small_disk / "backup").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", folder], check=False).returncode
    ):
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_the_commands_say_what_they_did(storage: Path, tmp_path: Path) -> None:
    """Exit codes and one line each."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "videoannotator", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    saved = run("backup", "backup", "--storage-dir", str(storage))
    again = run("backup", "backup", "--storage-dir", str(storage))
    restored = run("restore", "backup", "--storage-dir", "new")
    migrated = run("migrate", "--storage-dir", "new")
    made = run("migrate", "--storage-dir", "empty")

    assert (0, True) == (saved.returncode, saved.stdout.startswith("[OK] 3 jobs"))
    assert (2, True) == (again.returncode, "is there already" in again.stderr)
    assert (0, True) == (restored.returncode, restored.stdout.startswith("[OK] 3 jobs"))
    assert (0, True) == (migrated.returncode, "nothing was to be done" in migrated.stdout)
    assert (0, True) == (made.returncode, "was made" in made.stdout)
