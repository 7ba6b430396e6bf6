"""A promise to a participant holds for files that no database knows any more, or it is said where it may not hold."""

import hashlib
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.sample_jobs import new_job
from tests.upkeep.test_upkeep import command
from videoannotator.artifacts import MANIFEST, Artifacts
from videoannotator.errors import NotFound
from videoannotator.jobs import Dataset, DatasetVideo, ResumableUpload, Video
from videoannotator.store import keeping
from videoannotator.store.sqlite import SqliteStore
from videoannotator.store.trouble import DATABASE
from videoannotator.upkeep.erasure import Erasure
from videoannotator.upkeep.lost import lost_jobs

MIA, TOM = b"a recording of Mia", b"a recording of Tom"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """With four folders in `lost/`: a copy of Mia, her results, Tom's results, and results that say nothing."""
    folder = tmp_path / "storage"
    artifacts = Artifacts(folder)
    artifacts.prepare()
    put(artifacts, "job_mia_copy", copy=MIA)
    put(artifacts, "job_mia_results", manifest=MIA)
    put(artifacts, "job_tom", manifest=TOM)
    put(artifacts, "job_silent")
    return folder


def put(artifacts: Artifacts, job_id: str, *, copy: bytes = b"", manifest: bytes = b"") -> None:
    folder = artifacts.lost / job_id
    for kind in ("videos", "results"):
        (folder / kind).mkdir(parents=True)
    (folder / "results" / "scene_detection.json").write_text("[]")
    if copy:
        (folder / "videos" / "video.mp4").write_bytes(copy)
    if manifest:
        said = {"job_id": job_id, "provenance": {"input": {"filename": "v.mp4", "sha256": digest(manifest)}}}
        (folder / "results" / MANIFEST).write_text(json.dumps(said))


def left(storage: Path) -> set[str]:
    return {folder.name for folder in Artifacts(storage).lost.iterdir()}


def job(content: bytes, *tags: str, **fields: Any) -> Any:
    video = Video(
        filename="v.mp4", size_bytes=len(content), container="mp4", duration_seconds=1.0, sha256=digest(content)
    )
    return new_job(video=video, tags=tags, **fields)


async def test_a_video_goes_by_its_bytes_or_by_the_manifest_and_what_says_nothing_is_told(storage: Path) -> None:
    """Somebody must look at the rest: a receipt that kept silent about it would be a lie."""
    async with SqliteStore.open(storage) as store:
        erasure = Erasure(store, Artifacts(storage), storage)
        receipt = await erasure.of_video(digest(MIA), originals=False)
        with pytest.raises(NotFound) as nothing:
            await erasure.of_video(digest(MIA), originals=False)

    assert {"job_tom", "job_silent"} == left(storage)
    assert ({"lost"}, 4) == ({file.kind for file in receipt.files}, len(receipt.files))
    assert (0, 1) == (receipt.jobs, receipt.lost_unattributed)
    assert "1 folder in lost/" in nothing.value.hint


async def test_a_tag_takes_with_it_what_has_the_bytes_of_its_videos(storage: Path) -> None:
    """The same recording, submitted before the database was lost. Tom's is known to be another's; one says nothing."""
    async with SqliteStore.open(storage) as store:
        await store.add(job(MIA, "p17"), job(TOM, "p18"))

        receipt = await Erasure(store, Artifacts(storage), storage).of_tag("p17", originals=False)

    assert {"job_tom", "job_silent"} == left(storage)
    assert (1, 1) == (receipt.jobs, receipt.lost_unattributed)


async def test_a_copy_of_the_older_database_tells_the_tags_also_when_it_is_gone(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure removes the copies, and the next participant has the same right. Also with `--storage-dir storage`."""
    monkeypatch.chdir(storage.parent)
    storage = Path(storage.name)
    async with SqliteStore.open(storage) as store:
        await store.add(
            job(MIA, "p17", id="job_mia_copy"),
            job(TOM, "p18", id="job_tom"),
            job(TOM, "p18", id="job_silent"),
        )
    older = storage / "videoannotator.version-3.sqlite"
    (storage / DATABASE).rename(older)

    async with SqliteStore.open(storage) as store:
        erasure = Erasure(store, Artifacts(storage), storage)
        first = await erasure.of_tag("p17", originals=False)
        copies = older.exists()
        second = await erasure.of_tag("p18", originals=False)

    assert (1, 0, False) == (first.database_copies, first.lost_unattributed, copies)
    assert (0, set()) == (second.lost_unattributed, left(storage))


async def test_without_such_a_copy_what_may_be_the_participants_is_told(storage: Path) -> None:
    """Nothing is erased on a guess: it may be somebody else's only copy."""
    async with SqliteStore.open(storage) as store:
        await store.add(new_job(tags=("p17",)))

        receipt = await Erasure(store, Artifacts(storage), storage).of_tag("p17", originals=False)

    assert 4 == receipt.lost_unattributed == len(left(storage))


async def test_an_upload_of_the_video_that_no_job_was_made_of_goes_too(tmp_path: Path) -> None:
    """It lies there for a day under a number, with its name in a row."""
    artifacts, upload = Artifacts(tmp_path), resumable(MIA)
    artifacts.prepare()
    (artifacts.uploads / upload.id).write_bytes(MIA)
    async with SqliteStore.open(tmp_path) as store:
        await store.add_upload(upload)

        receipt = await Erasure(store, artifacts, tmp_path).of_video(digest(MIA), originals=False)

        uploads = await store.uploads()
    assert ["upload"] == [file.kind for file in receipt.files]
    assert ((), []) == (uploads, list(artifacts.uploads.iterdir()))


def resumable(content: bytes) -> ResumableUpload:
    now = datetime.now(UTC)
    return ResumableUpload(
        id="up_1",
        owner="",
        filename="Mia.mp4",
        metadata="",
        length=len(content),
        received=len(content),
        created_at=now,
        expires_at=now + timedelta(days=1),
    )


async def test_an_original_that_went_is_named_by_no_scan_of_its_directory(tmp_path: Path) -> None:
    """The name of the file is the name of a child, as often as not."""
    data, storage = tmp_path / "data", tmp_path / "storage"
    (data / "day1").mkdir(parents=True)
    for name, content in (("Mia.mp4", MIA), ("day1/Tom.mp4", TOM)):
        (data / name).write_bytes(content)
    storage.mkdir()
    async with SqliteStore.open(storage) as store:
        await store.add_dataset(Dataset(id="ds_1", name="d", base_path=data, created_at=datetime.now(UTC)))
        scan = await store.begin_scan("ds_1")
        found = [
            DatasetVideo(path=name, size_bytes=1, modified_ns=1, video=new_job().video)
            for name in ("Mia.mp4", "day1/Tom.mp4")
        ]
        await store.note_scanned("ds_1", scan.number, 2, found)
        await store.add(job(MIA, video_path=data / "Mia.mp4", owns_video=False))

        await Erasure(store, Artifacts(storage), storage).of_video(digest(MIA), originals=True)

        left_in_scan = await store.dataset_videos("ds_1")
    assert ["day1/Tom.mp4"] == [video.path for video in left_in_scan]
    assert ["Tom.mp4"] == [file.name for file in data.rglob("*.mp4")]


def test_the_command_says_where_to_look_and_does_not_call_it_done(storage: Path, tmp_path: Path) -> None:
    """Exit code 1: a script of the data protection officer must not tick it off."""
    (storage / "damaged.sqlite").write_bytes(b"SQLite format 3\0" + bytes(84))

    erased = command(tmp_path, "erase", "--video", digest(MIA), "--yes")

    assert 1 == erased.returncode
    assert "1 folder in lost/ could not be attributed to anybody: look there" in erased.stdout
    assert "another database lies in the storage directory" in erased.stdout
    (receipt,) = (storage / "receipts").iterdir()
    assert (1, 1) == tuple(json.loads(receipt.read_text())[n] for n in ("lost_unattributed", "databases_left"))


async def test_a_copy_that_cannot_be_read_is_one_to_look_at(storage: Path, tmp_path: Path) -> None:
    """A disk with bad blocks, or here a link, must not keep all else from being erased."""
    copies = Artifacts(storage).lost / "job_mia_copy" / "videos"
    copies.rename(tmp_path / "elsewhere")
    copies.symlink_to(tmp_path / "elsewhere")

    async with SqliteStore.open(storage) as store:
        receipt = await Erasure(store, Artifacts(storage), storage).of_video(digest(TOM), originals=False)

    assert 2 == receipt.lost_unattributed
    assert {"job_mia_copy", "job_mia_results", "job_silent"} == left(storage)


def test_what_no_database_can_read_is_no_error(storage: Path) -> None:
    """A copy that is damaged knows nothing; a manifest that is cut short says nothing."""
    (storage / "videoannotator.version-3.sqlite").write_bytes(b"no database")
    with closing(sqlite3.connect(storage / "videoannotator.version-4.sqlite")) as other:
        other.execute("CREATE TABLE toys (name)")
    manifest = Artifacts(storage).lost / "job_tom" / "results" / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:40])

    found = lost_jobs(Artifacts(storage), lambda ids: keeping.tags_in_copies(storage, ids))

    assert {"job_mia_copy": 1, "job_mia_results": 1, "job_silent": 0, "job_tom": 0} == {
        lost.folder.name: len(lost.videos) for lost in found
    }
    assert {None} == {lost.tags for lost in found}
