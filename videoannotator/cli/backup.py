"""`backup`, `restore`, `migrate`: the storage directory as a whole. They need no server and no key."""

import argparse
import sys
from pathlib import Path
from typing import Any

from videoannotator.cli.reach import add_storage_to, settings_of


def add_to(commands: Any) -> None:
    backup = commands.add_parser("backup", help="copy the storage directory, also while a server works on it")
    backup.add_argument("target", type=Path, help="a folder that does not exist yet")
    add_storage_to(backup)
    backup.set_defaults(run=back_up)
    restoring = commands.add_parser("restore", help="make a storage directory of a backup")
    restoring.add_argument("source", type=Path, help="a folder that `backup` made")
    add_storage_to(restoring)
    restoring.set_defaults(run=restore)
    migrating = commands.add_parser("migrate", help="bring the database up to date, with a copy of it aside")
    add_storage_to(migrating)
    migrating.set_defaults(run=migrate)


def back_up(given: argparse.Namespace) -> int:
    from videoannotator.upkeep.backup import back_up as make
    from videoannotator.upkeep.backup import trouble_of

    index = make(settings_of(given).storage_dir, given.target)
    size = sum(file.size for file in index.files)
    _say(f"[OK] {index.jobs} jobs, {len(index.files)} files, {size / 2**20:.1f} MiB in {given.target}, verified")
    if index.videos_elsewhere:
        _say(f"[NOTE] {index.videos_elsewhere} jobs have a video outside of the storage directory; save those yourself")
    if (trouble := trouble_of(index)) is not None:
        _say(f"[WARNING] {trouble}")
        return 1
    return 0


def restore(given: argparse.Namespace) -> int:
    from videoannotator.upkeep.backup import restore as make

    folder = settings_of(given).storage_dir
    index = make(given.source, folder)
    _say(f"[OK] {index.jobs} jobs of {index.made_at:%Y-%m-%d %H:%M} UTC are in {folder}, verified")
    return 0


def migrate(given: argparse.Namespace) -> int:
    from videoannotator.store.copies import newest_known_version
    from videoannotator.store.database import migrate_folder

    folder = settings_of(given).storage_dir
    before = migrate_folder(folder)
    now = newest_known_version()
    if before == now:
        _say(f"[OK] the database in {folder} is of version {now}, the newest; nothing was to be done")
    elif before == 0:
        _say(f"[OK] a database of version {now} was made in {folder}")
    else:
        copy = f"videoannotator.version-{before}.sqlite"
        _say(f"[OK] the database in {folder} was of version {before} and is of version {now}; {copy} is the old one")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
