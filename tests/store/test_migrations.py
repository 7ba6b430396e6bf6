"""The database at the start: made, brought up to date, or refused in words that help."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.sample_jobs import new_job
from videoannotator.errors import StorageTrouble
from videoannotator.settings import bundled
from videoannotator.store.database import writing_connection
from videoannotator.store.migrations import migrate, version_of
from videoannotator.store.sqlite import SqliteStore
from videoannotator.store.trouble import DATABASE


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Migrations of another program, so that this test needs none of ours to be the newest."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "0001_first.sql").write_text("CREATE TABLE toys (name TEXT NOT NULL) STRICT;")
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as connection:
        yield connection


def test_our_own_migrations_say_what_the_code_expects(tmp_path: Path) -> None:
    """Every table is STRICT, and no migration ends the transaction that it runs in."""
    with writing_connection(tmp_path) as connection:
        tables = connection.execute(
            "SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite%'"
        ).fetchall()

    assert {"jobs", "stages", "events", "batches", "datasets", "presets", "tokens", "artifacts", "annotations"} <= {
        name for name, _ in tables
    }
    assert all(strict for _, strict in tables)
    for script in bundled("migrations").glob("*.sql"):
        assert not {"COMMIT", "ROLLBACK", "PRAGMA"} & set(script.read_text().upper().replace(";", " ").split())


def test_each_script_runs_once_and_in_order(tmp_path: Path, scripts: Path, database: sqlite3.Connection) -> None:
    """A second start finds nothing to do."""
    (scripts / "0002_more.sql").write_text("ALTER TABLE toys ADD COLUMN colour TEXT;")

    migrate(database, tmp_path, scripts)
    migrate(database, tmp_path, scripts)

    assert version_of(database) == 2
    database.execute("INSERT INTO toys (name, colour) VALUES ('ball', 'red')")


def test_existing_data_is_copied_aside_first(tmp_path: Path, scripts: Path, database: sqlite3.Connection) -> None:
    """A migration that turns out wrong a week later must not be the end of the data."""
    migrate(database, tmp_path, scripts)
    database.execute("INSERT INTO toys (name) VALUES ('ball')")
    assert not list(tmp_path.glob("videoannotator.version-*"))
    (scripts / "0002_lossy.sql").write_text("DELETE FROM toys;")

    migrate(database, tmp_path, scripts)

    assert database.execute("SELECT * FROM toys").fetchall() == []
    with closing(sqlite3.connect(tmp_path / "videoannotator.version-1.sqlite")) as copy:
        assert copy.execute("SELECT name FROM toys").fetchall() == [("ball",)]
        assert version_of(copy) == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_script_that_fails_leaves_the_version_before_it(
    tmp_path: Path, scripts: Path, database: sqlite3.Connection
) -> None:
    """Its first half must not stay behind, or the next start would stumble over it."""
    (scripts / "0002_broken.sql").write_text("CREATE TABLE half (x) STRICT; CREATE TABLE toys (name TEXT);")

    with pytest.raises(sqlite3.Error):
        migrate(database, tmp_path, scripts)

    assert version_of(database) == 1
    assert database.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)


def test_a_script_that_breaks_references_is_undone(tmp_path: Path, scripts: Path, database: sqlite3.Connection) -> None:
    """References are off while tables are rebuilt, so they are checked before the COMMIT."""
    (scripts / "0002_orphan.sql").write_text(
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a (id)); INSERT INTO b VALUES (7);"
    )

    with pytest.raises(StorageTrouble) as refused:
        migrate(database, tmp_path, scripts)

    assert refused.value.code == "DATABASE_DAMAGED"
    assert version_of(database) == 1


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An older program would not know what it breaks."""
    async with SqliteStore.open(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE)) as newer:
        newer.execute("PRAGMA user_version = 999")

    with pytest.raises(StorageTrouble) as refused:
        async with SqliteStore.open(tmp_path):
            pass

    assert refused.value.code == "DATABASE_TOO_NEW"
    assert "999" in str(refused.value)


@pytest.mark.parametrize("damage", ["text", "truncated", "overwritten", "not_ours"])
async def test_a_damaged_database_is_refused_with_a_way_out(tmp_path: Path, damage: str) -> None:
    """Going on would lose more; saying nothing but 'malformed' would help nobody."""
    file = tmp_path / DATABASE
    async with SqliteStore.open(tmp_path) as store:
        for _ in range(50):
            await store.add(new_job())
    match damage:
        case "text":
            file.write_text("this is no database, and it is longer than a header of one hundred bytes would be " * 9)
        case "truncated":
            os.truncate(file, file.stat().st_size // 2)
        case "overwritten":
            with file.open("r+b") as bytes_of_it:
                bytes_of_it.seek(file.stat().st_size // 8192 * 4096)
                bytes_of_it.write(b"\xff" * 4096)
        case "not_ours":
            file.unlink()
            with closing(sqlite3.connect(file)) as other:
                other.execute("CREATE TABLE somebody_elses (x)")
    before = file.read_bytes()

    with pytest.raises(StorageTrouble) as refused:
        async with SqliteStore.open(tmp_path):
            pass

    assert refused.value.code == "DATABASE_DAMAGED"
    assert ".recover" in refused.value.hint
    assert damage == "not_ours" or file.read_bytes() == before


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "storage").write_text("a file")

    with pytest.raises(StorageTrouble) as refused:
        async with SqliteStore.open(tmp_path / "storage"):
            pass

    assert refused.value.code == "STORAGE_NOT_WRITABLE"


async def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    """Before anything is accepted that could not be kept."""
    async with SqliteStore.open(tmp_path / "storage"):
        pass

    with read_only(tmp_path / "storage"), pytest.raises(StorageTrouble) as refused:
        async with SqliteStore.open(tmp_path / "storage"):
            pass

    assert refused.value.code == "STORAGE_NOT_WRITABLE"
    assert str(tmp_path / "storage") in str(refused.value)


async def test_a_second_opener_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    """Two servers on one directory would run every job twice."""
    async with SqliteStore.open(tmp_path):
        with pytest.raises(StorageTrouble) as refused:
            async with SqliteStore.open(tmp_path):
                pass

    assert refused.value.code == "STORAGE_IN_USE"
    assert str(os.getpid()) in str(refused.value)
    assert str(tmp_path) in str(refused.value)


async def test_the_lock_goes_with_the_store_and_no_child_keeps_it(tmp_path: Path) -> None:
    """A stage that outlives the server must not keep the next server out."""
    async with SqliteStore.open(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)

    try:
        async with SqliteStore.open(tmp_path) as store:
            await store.add(new_job())
        assert child.poll() is None
    finally:
        child.communicate(b"\n", timeout=10)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Root may write what it likes, so for root the file system itself has to be read-only."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    bind = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if bind.returncode != 0:
        pytest.skip("running as root without the right to mount: no directory can be made read-only")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
