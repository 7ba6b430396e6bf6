"""Kills the stages of a running workspace at random moments. For the tests and for `scripts/soak.py`."""

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from videoannotator.jobs import Job
from videoannotator.workspace import Workspace

LIMIT_SECONDS = 3600.0


async def killed_until_final(
    workspace: Workspace, job_id: str, *, kills: int, longest_wait: float, chance: random.Random
) -> tuple[Job, int]:
    """The job when it is over, and how often a stage of it was really killed; no more than `kills` times."""
    done = 0
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (job := await workspace.store.get(job_id)).status.is_final:
            await asyncio.sleep(chance.uniform(0, longest_wait))
            if done < kills:
                done += kill_a_stage(chance)
    return job, done


def kill_a_stage(chance: random.Random) -> bool:
    """One of this process's stage processes, by SIGKILL, if there is one."""
    stages = stages_below(psutil.Process())
    if not stages:
        return False
    try:
        os.kill(chance.choice(stages).pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def stages_below(server: psutil.Process) -> list[psutil.Process]:
    """The stage processes of a server: most are children of a nursery, which is a child of the server."""
    with suppress(psutil.Error):
        children = server.children()
        return [process for near in children for process in (near, *_children(near)) if _is_stage(process)]
    return []


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        if "videoannotator.runner.nursery" in process.cmdline():
            return process.children()
    return []


def _is_stage(process: psutil.Process) -> bool:
    try:
        return "videoannotator.runner.child" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def files_of(folder: Path) -> dict[str, bytes]:
    """All but the manifest, which names the job and the seconds."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "manifest.json"}
