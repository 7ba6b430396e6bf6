"""Bounds are measured with it, so it must not forgive what is ours."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.stopwatch import Stopwatch


def test_work_and_waiting_are_counted() -> None:
    """All that a slow server does is one or the other."""
    watch, wall = Stopwatch(), time.monotonic()

    time.sleep(0.05)
    work(0.05)

    assert 0.09 <= watch.seconds <= time.monotonic() - wall


@pytest.fixture
def crowd() -> Iterator[None]:
    """This thread shares one processor with three processes that never rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    crowd = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(3)]
    yield
    os.sched_setaffinity(0, before)
    for process in crowd:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread waited for a processor")
def test_what_a_crowd_costs_is_not_counted(crowd: None) -> None:
    """A clock on the wall says four times as much."""
    watch, wall = Stopwatch(), time.monotonic()

    work(0.1)

    assert 0.09 <= watch.seconds < (time.monotonic() - wall) / 2


def work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
