"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

from tests.clips import Clips

_SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "peekaboo_hevc.mp4"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """`clips.path("h264.mp4")`: odd clips by name, each made once, for all of xdist's workers."""
    own = tmp_path_factory.getbasetemp()
    return Clips((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "clips")


@pytest.fixture(scope="session")
def sample() -> Path:
    """The real clip: parent and baby, 10.5 s, HEVC, 150 pictures."""
    if not _SAMPLE.exists():
        pytest.skip("the sample clip ../shared/data/peekaboo_hevc.mp4 is not here")
    return _SAMPLE.resolve()
