"""
Brings a database to the version of this program: numbered SQL files, forward only.

Each file runs in a transaction of its own that also sets `PRAGMA user_version`, so that a crash leaves one version or
the other. Existing data is copied aside first, to `videoannotator.version-N.sqlite`.
"""

import re
import sqlite3
from pathlib import Path

from videoannotator.errors import StorageTrouble
from videoannotator.settings import bundled
from videoannotator.store.trouble import damaged

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def migrate(connection: sqlite3.Connection, folder: Path, scripts: Path) -> None:
    """
    Run what is missing.

    Raises:
        StorageTrouble: DATABASE_TOO_NEW, DATABASE_DAMAGED.
        sqlite3.Error: a script failed; the database is at the version before it.
    """
    known = _numbered(scripts)
    version = version_of(connection)
    if version > len(known):
        raise _too_new(folder, version, len(known))
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise damaged(folder, "it holds tables of another program")
    if 0 < version < len(known):
        copy_aside(connection, folder / f"videoannotator.version-{version}.sqlite")
    for number, script in enumerate(known[version:], start=version + 1):
        _run(connection, number, script, folder)


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def newest_version(scripts: Path) -> int:
    """The version that this program brings a database to."""
    return len(_numbered(scripts))


def require_known(connection: sqlite3.Connection, folder: Path) -> None:
    """Raises StorageTrouble (DATABASE_TOO_NEW)."""
    version, known = version_of(connection), newest_version(bundled("migrations"))
    if version > known:
        raise _too_new(folder, version, known)


def copy_aside(connection: sqlite3.Connection, copy: Path) -> None:
    """The database as it is now, in one file that is there whole or not at all."""
    unfinished = copy.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    try:
        target = sqlite3.connect(unfinished)
        try:
            connection.backup(target)
        finally:
            target.close()
        unfinished.replace(copy)
    finally:
        unfinished.unlink(missing_ok=True)


def _numbered(scripts: Path) -> list[Path]:
    found = sorted(script for script in scripts.glob("*.sql") if _NAME.fullmatch(script.name))
    numbers = [int(script.name[:4]) for script in found]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise RuntimeError(f"{scripts} must hold 0001_….sql, 0002_….sql and so on without a gap, and holds {numbers}.")
    return found


def _run(connection: sqlite3.Connection, number: int, script: Path, folder: Path) -> None:
    # Rebuilding a table means dropping it: references are checked at the end, not on the way.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        connection.executescript("BEGIN IMMEDIATE;\n" + script.read_text(encoding="utf-8"))
        if connection.execute("PRAGMA foreign_key_check").fetchone():
            raise damaged(folder, f"rows refer to rows that do not exist, found while running {script.name}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA foreign_keys = ON")


def _too_new(folder: Path, version: int, known: int) -> StorageTrouble:
    return StorageTrouble(
        f"The database in {folder} is of version {version}; this program knows versions up to {known}.",
        hint="Use the newer program that wrote it, or another directory (VIDEOANNOTATOR_STORAGE_DIR).",
        code="DATABASE_TOO_NEW",
    )
