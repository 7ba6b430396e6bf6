"""
Waiting for what happens by itself, with a limit that no sound machine reaches. It is no promise about our code: a test
that bounds a time measures it.
"""

import asyncio
from collections.abc import Callable

from videoannotator.jobs import Job
from videoannotator.workspace import Workspace

LIMIT_SECONDS = 60.0


async def happens(holds: Callable[[], object]) -> None:
    """As soon as it holds."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


async def until(workspace: Workspace, job_id: str, holds: Callable[[Job], object]) -> Job:
    """The job as soon as something holds of it."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds(job := await workspace.store.get(job_id)):
            await asyncio.sleep(0.01)
    return job
