"""Fixtures that every test may use, and how many tests run at once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.declared import declare
from tests.program import ADMIN, Process, programs

_SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "peekaboo_hevc.mp4"


def pytest_xdist_auto_num_workers() -> int | None:
    """One more than there are processors: half of a test's time is waiting for processes that start and end."""
    asked_otherwise = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    return None if asked_otherwise else (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """`clips.path("h264.mp4")`: odd clips by name, each made once, for all of xdist's workers."""
    own = tmp_path_factory.getbasetemp()
    return Clips((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "clips")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start(drain_seconds="20")`: the program as a process, with the admin key and the pipeline `behaves` of tests."""
    declared = declare(tmp_path / "pipelines", "behaves")
    with programs(tmp_path, api_key=ADMIN, pipeline_dirs=str(declared)) as start:
        yield start


@pytest.fixture(scope="session")
def sample() -> Path:
    """The real clip: parent and baby, 10.5 s, HEVC, 150 pictures."""
    if not _SAMPLE.exists():
        pytest.skip("the sample clip ../shared/data/peekaboo_hevc.mp4 is not here")
    return _SAMPLE.resolve()
