"""`kill -9` of the server at any moment, again and again, with 201 as the acknowledgement that counts."""

import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.faults.lives import House, Life


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


def crash_again_and_again(house: House, clip: Path, *, rounds: int, chance: random.Random) -> int:
    """How many jobs were acknowledged. After it everything that `House.check` asks holds, or it raises."""
    for number in range(rounds):
        with house.life(max_attempts="1000") as life:
            submitting = threading.Thread(target=_submit_until_it_dies, args=(life, clip, f"round{number}", chance))
            submitting.start()
            time.sleep(chance.uniform(0.05, 2.0))
            life.kill()
            submitting.join()
    with house.life(max_attempts="1000") as life:
        life.until_all_are_over()
        life.kill()
    house.check()
    return len(house.acknowledged)


def _submit_until_it_dies(life: Life, clip: Path, name: str, chance: random.Random) -> None:
    """Each under a name of its own, so that it is computed; now and then the same again, which the cache serves."""
    number = 0
    while life.process.poll() is None:
        named = clip.with_name(f"{name}-{number // 2}.mp4")
        if not named.exists():
            shutil.copyfile(clip, named)
        config = {"counts_in_chunks": {"steps": chance.randrange(1, 30), "step_seconds": 0.02}}
        if life.submit(named, "counts_in_chunks", config) is None:
            return
        number += 1


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_and_publishes_nothing_twice(tmp_path: Path, clip: Path) -> None:
    """`scripts/soak.py server` does it for as long as you like."""
    shutil.copyfile(clip, here := tmp_path / "clip.mp4")

    acknowledged = crash_again_and_again(House(tmp_path), here, rounds=4, chance=random.Random(3))

    assert acknowledged >= 4


@pytest.mark.slow
def test_a_server_that_was_stopped_for_longer_than_every_limit_goes_on(tmp_path: Path, clip: Path) -> None:
    """SIGSTOP, a debugger, a machine that swaps: the lease runs out and the stage looks silent, and all is well."""
    house = House(tmp_path, lease_seconds="1", stage_stall_seconds="1.5")
    with house.life() as life:
        job_id = life.submit(clip, "counts_in_chunks", {"counts_in_chunks": {"steps": 60, "step_seconds": 0.02}})
        assert job_id is not None
        while not life.job(job_id)["progress"]:
            time.sleep(0.02)
        life.signal(signal.SIGSTOP)
        time.sleep(2.5)
        life.signal(signal.SIGCONT)
        job = life.until_over(job_id)
        life.kill()

    assert ("completed", "full") == (job["status"], job["outcome"])
    house.check()
