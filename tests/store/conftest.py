"""A store on a real file, with a clock that is moved by hand."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sample_jobs import Clock
from videoannotator.store.sqlite import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path, clock=clock, lease_seconds=30.0) as store:
        yield store
