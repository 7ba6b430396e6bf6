"""What was acknowledged is there, whatever happens to the caller, the process or the disk."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.sample_jobs import new_job
from videoannotator.errors import StorageTrouble
from videoannotator.jobs import JobStatus
from videoannotator.store import JobQuery
from videoannotator.store.sqlite import SqliteStore
from videoannotator.store.trouble import DATABASE

_WRITER = Path(__file__).with_name("writes_until_killed.py")


async def test_a_caller_cancelled_in_the_middle_loses_nobodys_rows(tmp_path: Path) -> None:
    """On a shared connection with BEGIN and COMMIT apart, a client that left took another's job with it."""
    chance = random.Random(7)
    acknowledged: list[str] = []

    async def submit(store: SqliteStore) -> None:
        (job,) = await store.add(new_job())
        acknowledged.append(job.id)

    async def impatient(store: SqliteStore, job_id: str) -> None:
        task = asyncio.create_task(store.add(new_job(id=job_id)))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with SqliteStore.open(tmp_path) as store:
        for round_number in range(40):
            gone = [impatient(store, f"job_{round_number}_{n}") for n in range(4)]
            await asyncio.gather(*gone, *(submit(store) for _ in range(4)))

    async with SqliteStore.open(tmp_path) as store:
        jobs = (await store.jobs(JobQuery(limit=1000))).jobs
        assert set(acknowledged) <= {job.id for job in jobs}
        assert all(len(job.stages) == 2 for job in jobs)
        assert await store.last_seq() == len(jobs), "a job without its event, or the reverse"


async def test_a_write_that_raises_undoes_only_itself(tmp_path: Path) -> None:
    """Writes share a COMMIT; a refused one must not take its neighbours along."""
    async with SqliteStore.open(tmp_path) as store:
        (twin,) = await store.add(new_job())

        answers = await asyncio.gather(
            *(store.add(new_job(id=twin.id) if n % 2 else new_job()) for n in range(20)), return_exceptions=True
        )

        assert sum(isinstance(answer, Exception) for answer in answers) == 10
        assert all(answer[0].id != twin.id for answer in answers if not isinstance(answer, BaseException))
        assert (await store.jobs(JobQuery())).total == 11
        assert await store.last_seq() == 11


def killed_after(folder: Path, seconds: float) -> list[str]:
    """What a writing process had acknowledged when kill -9 met it."""
    writer = subprocess.Popen(
        [sys.executable, str(_WRITER), str(folder)],
        stdout=subprocess.PIPE,
        cwd=_WRITER.parents[2],
        env=os.environ | {"PYTHONPATH": str(_WRITER.parents[2])},
    )
    assert writer.stdout is not None
    first = writer.stdout.readline()
    try:
        writer.wait(seconds)
    except subprocess.TimeoutExpired:
        writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate(timeout=10)
    assert writer.returncode == -signal.SIGKILL
    whole_lines = (first + rest).split(b"\n")[:-1]
    return [line.decode() for line in whole_lines]


@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=pytest.mark.slow)])
async def test_kill_9_loses_no_acknowledged_job(tmp_path: Path, rounds: int) -> None:
    """The lock goes with the process, the rows stay, and nothing is half written."""
    chance = random.Random(rounds)
    acknowledged: set[str] = set()

    for _ in range(rounds):
        acknowledged |= set(await asyncio.to_thread(killed_after, tmp_path, chance.uniform(0.05, 0.4)))
        async with SqliteStore.open(tmp_path) as store:
            await store.take_back()
            total = (await store.counts())[JobStatus.PENDING]
            stored = {job.id for job in (await store.jobs(JobQuery(limit=total))).jobs}
            assert acknowledged <= stored
            assert await store.last_seq() == total

    assert len(acknowledged) > 10 * rounds
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root with the right to mount can make a disk that is full")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def add_until_refused(store: SqliteStore, acknowledged: list[str]) -> None:
    for _ in range(5000):
        acknowledged += [job.id for job in await store.add(new_job(), new_job())]


async def test_a_full_disk_refuses_whole_jobs_and_the_queue_goes_on_later(small_disk: Path) -> None:
    """Nothing half written, everything acknowledged kept, and no restart needed once there is room again."""
    ballast = small_disk / "ballast"
    async with SqliteStore.open(small_disk) as store:
        ballast.write_bytes(b"x" * 1024**2)
        acknowledged: list[str] = []
        with pytest.raises(StorageTrouble) as refused:
            await add_until_refused(store, acknowledged)

        assert refused.value.code == "STORAGE_FULL"
        assert str(small_disk) in str(refused.value)
        assert (await store.jobs(JobQuery())).total == len(acknowledged) == await store.last_seq()

        ballast.unlink()
        acknowledged += [job.id for job in await store.add(new_job())]

    async with SqliteStore.open(small_disk) as store:
        jobs = (await store.jobs(JobQuery(limit=100_000))).jobs
        assert {job.id for job in jobs} == set(acknowledged)


async def test_a_disk_without_room_for_a_database_is_refused_at_the_start(small_disk: Path) -> None:
    """In one sentence, before anything is accepted."""
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(b"x" * 1024**2 * 3)

    with pytest.raises(StorageTrouble) as refused:
        async with SqliteStore.open(small_disk):
            pass

    assert refused.value.code == "STORAGE_FULL"


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Rather than wait for ever for a thread that has gone."""
    async with SqliteStore.open(tmp_path) as store:
        pass

    with pytest.raises(StorageTrouble) as refused:
        await store.add(new_job())

    assert refused.value.code == "STORAGE_CLOSED"
