"""A program that queues jobs in a storage directory and says so, one id a line, until somebody kills it."""

import asyncio
import sys
from pathlib import Path

from tests.sample_jobs import new_job
from videoannotator.store.sqlite import SqliteStore


async def main(folder: Path) -> None:
    async with SqliteStore.open(folder) as store:
        await asyncio.gather(*(add_for_ever(store) for _ in range(8)))


async def add_for_ever(store: SqliteStore) -> None:
    while True:
        (job,) = await store.add(new_job())
        print(job.id, flush=True)


asyncio.run(main(Path(sys.argv[1])))
