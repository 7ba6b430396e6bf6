"""The server dies at every step of a job's way, and the next one takes it from there."""

import re
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.faults.lives import House
from videoannotator.faults import POINTS

TOP = Path(__file__).parents[2]
COMMITS = tuple(f"store.{when}:{number}" for number in range(1, 13) for when in ("committing", "committed"))
"""From the first transaction of a start to the last of a job."""

TIMES = {"artifact.moved": ("artifact.moved", "artifact.moved:2")}


def _all() -> list[str]:
    single = [p for p in POINTS if not p.startswith("store.")]
    return [named for point in single for named in TIMES.get(point, (point,))] + list(COMMITS)


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("point", _all())
def test_a_death_at_this_point_loses_nothing_and_leaves_nothing(point: str, tmp_path: Path, clip: Path) -> None:
    """Acknowledged jobs are finished, once, with the right bytes; what was not acknowledged is there whole or not."""
    house = House(tmp_path)
    with house.life() as before:
        first = before.submit(clip)
        assert first is not None
        before.until_over(first)
        before.kill()

    with house.life(fault=point) as life:
        # Another name, so that it is computed and not taken from the cache.
        twin = clip.with_name("twin.mp4")
        twin.unlink(missing_ok=True)
        twin.hardlink_to(clip)
        life.submit(twin, "scene_detection,fails_twice")
        if point == "job.forgotten":
            life.delete(first)
        life.dies()

    with house.life() as after:
        after.until_all_are_over()
        again = after.submit(clip)
        assert again is not None
        after.until_over(again)
        after.kill()
    house.check()


def test_every_point_is_in_the_list_and_reached_somewhere() -> None:
    """A point that nobody goes through proves nothing."""
    source = "".join(file.read_text() for file in (TOP / "videoannotator").rglob("*.py"))

    assert sorted(POINTS) == sorted(re.findall(r'reach\("([a-z._]+)"\)', source))
