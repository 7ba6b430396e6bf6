"""Waiting for what happens by itself, with a limit."""

import asyncio
from collections.abc import Callable

from videoannotator.jobs import Job
from videoannotator.workspace import Workspace


async def happens(holds: Callable[[], object], *, limit_seconds: float = 10.0) -> None:
    """As soon as it holds."""
    async with asyncio.timeout(limit_seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def until(
    workspace: Workspace, job_id: str, holds: Callable[[Job], object], *, limit_seconds: float = 20.0
) -> Job:
    """The job as soon as something holds of it."""
    async with asyncio.timeout(limit_seconds):
        while not holds(job := await workspace.store.get(job_id)):
            await asyncio.sleep(0.005)
    return job


async def until_final(workspace: Workspace, job_id: str, *, limit_seconds: float = 20.0) -> Job:
    return await until(workspace, job_id, lambda job: job.status.is_final, limit_seconds=limit_seconds)
