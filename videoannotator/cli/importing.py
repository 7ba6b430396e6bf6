"""`videoannotator import`: a folder of older results becomes completed jobs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from videoannotator.cli.reach import add_storage_to, settings_of


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="take a folder of older results into the storage directory",
        description="One file for each video and pipeline: FOLDER/VIDEO/scene_detection.json, or "
        "FOLDER/VIDEO_scene_detection.json; JSON, WebVTT and RTTM. Their bytes stay as they are. No server may run on "
        "the storage directory meanwhile. Exit code 1 where a file was no result.",
    )
    parser.add_argument("folder", type=Path, help="where the results are")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="where the video files are (default: FOLDER)")
    parser.add_argument("--tag", action="append", default=[], help="a tag for each job, beside `imported`")
    add_storage_to(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    import asyncio

    from videoannotator.logs import configure_for_a_command

    configure_for_a_command()
    imported = asyncio.run(_import(settings_of(given).storage_dir, given))
    for video, job_id in imported.jobs:
        _say(f"[OK] {video} -> {job_id}")
    for video in imported.known:
        _say(f"[KNOWN] {video}: imported before")
    for file, why in imported.refused:
        _say(f"[REFUSED] {file}: {why}")
    _say(f"{len(imported.jobs)} imported, {len(imported.known)} known, {len(imported.refused)} refused")
    return 1 if imported.refused else 0


async def _import(storage: Path, given: argparse.Namespace) -> Any:
    from videoannotator.artifacts import Artifacts
    from videoannotator.runner.probers import Probers
    from videoannotator.runner.process import Runner
    from videoannotator.store.sqlite import SqliteStore
    from videoannotator.upkeep.importing import Import
    from videoannotator.workspace import storage_id

    artifacts = Artifacts(storage)
    async with (
        SqliteStore.open(storage) as store,
        Runner.open(storage_id(storage)) as runner,
        Probers.open(runner) as probers,
    ):
        artifacts.prepare()
        return await Import(store, artifacts, probers.probe).run(given.folder, videos=given.videos, tags=given.tag)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
