"""Files that the database does not know: what a crash left goes, what another database knew is nobody's to delete."""

from pathlib import Path

import pytest

from tests.sample_jobs import new_job
from videoannotator.artifacts import Artifacts
from videoannotator.store.sqlite import SqliteStore
from videoannotator.upkeep.orphans import Orphans, mark
from videoannotator.upkeep.removal import remove_job

KINDS = ("videos", "results", "logs")


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    made = Artifacts(tmp_path)
    made.prepare()
    return made


def leave(folder: Path, job_id: str, *kinds: str) -> None:
    for kind in kinds or KINDS:
        (folder / kind / job_id).mkdir()
        (folder / kind / job_id / "file").write_text(f"{kind} of {job_id}")


def there(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and "sqlite" not in file.name}


async def settle(store: SqliteStore, artifacts: Artifacts) -> None:
    orphans = Orphans(store, artifacts)
    await orphans.settle(await orphans.find())


async def test_with_an_empty_database_in_place_of_the_old_one_nothing_is_deleted(
    tmp_path: Path, artifacts: Artifacts
) -> None:
    """DATABASE_DAMAGED says that one may start with an empty one: years of results lie beside it."""
    leave(tmp_path, "job_a")
    leave(tmp_path, "job_b", "videos")

    async with SqliteStore.open(tmp_path) as store:
        await settle(store, artifacts)

    kept = {f"lost/job_a/{kind}/file" for kind in KINDS} | {"lost/job_b/videos/file"}
    assert kept == there(tmp_path) - {"videoannotator.lock"}


async def test_with_an_older_database_put_back_only_what_it_knows_stays_in_place(
    tmp_path: Path, artifacts: Artifacts
) -> None:
    """The copy from before an upgrade: jobs of since then, done or still waiting, are put aside with their videos."""
    async with SqliteStore.open(tmp_path) as store:
        (known,) = await store.add(new_job())
        leave(tmp_path, known.id)
        leave(tmp_path, "job_done_since")
        leave(tmp_path, "job_waiting_since", "videos")

        await settle(store, artifacts)

    assert {known.id} == artifacts.job_ids()
    assert {"job_done_since", "job_waiting_since"} == {folder.name for folder in artifacts.lost.iterdir()}


async def test_what_a_crash_left_goes(tmp_path: Path, artifacts: Artifacts) -> None:
    """An upload without an answer, and a job whose rows were removed: to keep the second would break a promise."""
    async with SqliteStore.open(tmp_path) as store:
        (known,) = await store.add(new_job())
        leave(tmp_path, known.id)
        mark(artifacts, known.id)  # it died before the rows were removed
        leave(tmp_path, "job_not_acknowledged", "videos")
        leave(tmp_path, "job_deleted")
        mark(artifacts, "job_deleted")

        await settle(store, artifacts)

    assert {known.id} == artifacts.job_ids()
    assert not artifacts.lost.exists()
    assert [] == list(artifacts.marks.iterdir())


async def test_a_removed_job_leaves_no_mark(tmp_path: Path, artifacts: Artifacts) -> None:
    """A mark that stays would take the files of a job with it one day."""
    async with SqliteStore.open(tmp_path) as store:
        (job,) = await store.add(new_job())
        leave(tmp_path, job.id)

        await remove_job(store, artifacts, job.id)

    assert set() == artifacts.job_ids()
    assert [] == list(artifacts.marks.iterdir())
