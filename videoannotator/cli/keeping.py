"""
`cleanup` and `erase`: what is old, and what somebody wants gone. They work on the storage directory itself; where a
server holds it, that server does the work, asked over HTTP with an administrator's key.
"""

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from videoannotator.cli.reach import add_server_to, add_storage_to, client_of, settings_of


def add_to(commands: Any) -> None:
    cleanup = commands.add_parser("cleanup", help="remove jobs that ended long ago, with their files")
    cleanup.add_argument(
        "--older-than", type=float, metavar="DAYS", help="days since their end (default: the setting retention_days)"
    )
    cleanup.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    add_storage_to(cleanup)
    add_server_to(cleanup)
    cleanup.set_defaults(run=clean_up)
    erase = commands.add_parser(
        "erase",
        help="remove everything of one video or one participant",
        description="Copies, results, logs and rows are gone afterwards, and a receipt of hashes says so. It cannot be "
        "undone. Backups of yours are not touched.",
    )
    what = erase.add_mutually_exclusive_group(required=True)
    what.add_argument("--video", metavar="FILE|SHA256", help="a video's file, or the SHA-256 of its bytes")
    what.add_argument("--participant-tag", metavar="TAG", help="all jobs that have this tag")
    erase.add_argument(
        "--originals", action="store_true", help="also the files that were annotated in place, outside of the storage"
    )
    erase.add_argument("--yes", action="store_true", help="do not ask")
    add_storage_to(erase)
    add_server_to(erase)
    erase.set_defaults(run=erase_all)


def clean_up(given: argparse.Namespace) -> int:
    import asyncio

    from videoannotator.errors import Refused
    from videoannotator.workspace import is_in_use

    settings = settings_of(given)
    days = settings.retention_days if given.older_than is None else given.older_than
    if not 0 < days <= 100_000:
        hint = "Say --older-than DAYS, or set retention_days."
        raise Refused("Nothing says how old a job must be to go.", hint=hint, code="NO_RETENTION")
    if is_in_use(settings.storage_dir):
        with client_of(given, settings) as client:
            answer = client.cleanup(older_than_days=days, dry_run=given.dry_run)
        jobs, freed = [(job["filename"], job["finished_at"]) for job in answer["jobs"]], answer["bytes_freed"]
    else:
        swept = asyncio.run(_sweep(settings.storage_dir, days, dry_run=given.dry_run))
        jobs, freed = [(job.filename, job.finished_at.isoformat()) for job in swept.jobs], swept.bytes_freed
    for filename, finished in jobs:
        _say(f"{finished[:10]}  {filename}")
    verb = "would be removed" if given.dry_run else "removed"
    _say(f"[OK] {len(jobs)} job{'' if len(jobs) == 1 else 's'} {verb}, {freed / 2**20:.1f} MiB")
    return 0


def erase_all(given: argparse.Namespace) -> int:
    import asyncio

    from videoannotator.workspace import is_in_use

    order = _order(given)
    if not given.yes and not _agreed(order):
        _say("Nothing was erased.")
        return 1
    settings = settings_of(given)
    if is_in_use(settings.storage_dir):
        with client_of(given, settings) as client:
            receipt = client.erase(order)
    else:
        receipt = asyncio.run(_erase(settings.storage_dir, order))
    _tell(receipt)
    return 0 if _is_complete(receipt) else 1


def _order(given: argparse.Namespace) -> dict[str, Any]:
    if given.participant_tag is not None:
        return {"tag": given.participant_tag, "originals": given.originals}
    return {"video_sha256": _digest(given.video), "originals": given.originals}


def _digest(said: str) -> str:
    from videoannotator.artifacts import sha256
    from videoannotator.errors import Refused

    if re.fullmatch(r"[0-9a-fA-F]{64}", said):
        return said.lower()
    file = Path(said)
    if not file.is_file():
        raise Refused(f"{said} is no file and no SHA-256.", hint="Check the path.", code="FILE_NOT_FOUND")
    return sha256(file)


def _agreed(order: dict[str, Any]) -> bool:
    what = f"the tag {order['tag']!r}" if "tag" in order else f"the video {order['video_sha256'][:12]}..."
    also = ", the original files too" if order["originals"] else ""
    sys.stdout.write(f"Everything of {what} will be gone for good{also}. Type yes to go on: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() == "yes"


async def _sweep(folder: Path, days: float, *, dry_run: bool) -> Any:
    from videoannotator.artifacts import Artifacts
    from videoannotator.store.sqlite import SqliteStore
    from videoannotator.upkeep.removal import Upkeep

    before = datetime.now(UTC) - timedelta(days=days)
    async with SqliteStore.open(folder) as store:
        upkeep = Upkeep(store, Artifacts(folder))
        return await (upkeep.preview(before) if dry_run else upkeep.sweep(before))


async def _erase(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    import msgspec

    from videoannotator.artifacts import Artifacts
    from videoannotator.store.sqlite import SqliteStore
    from videoannotator.upkeep.erasure import Erasure

    async with SqliteStore.open(folder) as store:
        await store.take_back(max_attempts=sys.maxsize)  # what a crash left running is nobody's
        erasure = Erasure(store, Artifacts(folder), folder)
        if "tag" in order:
            receipt = await erasure.of_tag(order["tag"], originals=order["originals"])
        else:
            receipt = await erasure.of_video(order["video_sha256"], originals=order["originals"])
    told: dict[str, Any] = msgspec.to_builtins(receipt)
    return told


def _is_complete(receipt: dict[str, Any]) -> bool:
    """Nothing is left that it could be among, as far as this program can know."""
    left = receipt["lost_unattributed"] + receipt["databases_left"]
    return bool(receipt["finished"] and receipt["database_clean"] and not left)


def _tell(receipt: dict[str, Any]) -> None:
    from videoannotator.upkeep.erasure import unattributed

    size = sum(file["size"] for file in receipt["files"])
    _say(f"[OK] erased {receipt['jobs']} jobs and {len(receipt['files'])} files, {size / 2**20:.1f} MiB")
    if not receipt["database_clean"]:
        _say("[WARNING] the database still holds traces of them; run it again when nothing else works on it")
    if receipt["lost_unattributed"]:
        _say(f"[WARNING] {unattributed(receipt['lost_unattributed'])}")
    if receipt["databases_left"]:
        number = receipt["databases_left"]
        what = "another database lies" if number == 1 else f"{number} other databases lie"
        _say(f"[WARNING] {what} in the storage directory and may hold the same rows: remove what you do not need")
    if receipt["originals_left"]:
        _say(f"[NOTE] {receipt['originals_left']} original files outside of the storage are still there (--originals)")
    _say(f"Receipt: receipts/{receipt['id']}.json in the storage directory. Backups of yours are not touched.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
