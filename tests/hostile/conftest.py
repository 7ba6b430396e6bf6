"""What tests of hostile input share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clips import Clips
from tests.server import Served, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One server for all tests of a module that change nothing; they are marked with `loop_scope="module"`."""
    async with serving(tmp_path_factory.mktemp("shared")) as served:
        yield served


@pytest.fixture
def clip(clips: Clips) -> Path:
    """Four seconds with sound, some 200 kB."""
    return clips.path("h264.mp4")
