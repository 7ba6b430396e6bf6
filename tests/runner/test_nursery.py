"""Stage processes are forked from one that is nearly empty; all that is promised of a stage holds all the same."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.stages import Bench, benching, descriptors, is_alive
from tests.waiting import happens
from videoannotator.errors import StageDied
from videoannotator.runner import leftovers
from videoannotator.runner.process import Making, Runner, births_ahead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

MAKING = Making(
    interpreter=sys.executable, code="tests.misbehaving.behaves:run", pipeline="behaves", threads=1, network="auto"
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with benching(tmp_path) as bench:
        await bench.run("behaves")
        bench.progress.clear()
        yield bench


def nursery_of(bench: Bench) -> psutil.Process:
    (pid,) = bench.runner.nursery_pids
    return psutil.Process(pid)


async def test_a_stage_is_forked_and_found_by_its_marks_all_the_same(bench: Bench) -> None:
    """What a crash leaves is found by what stands in its first environment, which a fork shares with its parent."""
    nursery = nursery_of(bench)
    running = asyncio.create_task(bench.run("hangs"))
    await happens(lambda: bench.progress)
    (stage,) = nursery.children()
    own = stage.environ()[leftovers.STAGE_MARK]
    found = leftovers.carrying(leftovers.needle(leftovers.STAGE_MARK, own))
    session, threads, called = os.getsid(stage.pid), nursery.num_threads(), stage.cmdline()
    running.cancel()
    await asyncio.wait({running})

    assert [stage.pid] == found
    assert (stage.pid, 1) == (session, threads)
    assert "videoannotator.runner.child" in called
    assert not is_alive(stage.pid)
    assert nursery.pid not in leftovers.carrying(f"{leftovers.STORAGE_MARK}={bench.storage_id}".encode())


async def test_a_nursery_that_dies_takes_its_stages_along_and_the_next_stage_has_another(bench: Bench) -> None:
    """Somebody may kill it by mistake. What ran is told as a death, which is tried again, and nothing lives on."""
    first = nursery_of(bench)
    running = asyncio.create_task(bench.run("hangs"))
    await happens(lambda: bench.progress)
    (stage,) = first.children()

    first.kill()
    with pytest.raises(StageDied, match="SIGKILL") as died:
        await running
    done = await bench.run("behaves")

    assert died.value.retryable
    assert not is_alive(stage.pid)
    assert 1 == done.annotations
    assert first.pid != nursery_of(bench).pid
    assert [] == bench.left()


async def test_a_nursery_stays_when_the_whole_service_is_asked_to_stop(bench: Bench) -> None:
    """Service managers signal every process; the server then still wants to know how its stages ended."""
    nursery = nursery_of(bench)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        nursery.send_signal(number)
    done = await bench.run("behaves")

    assert 1 == done.annotations
    assert nursery.pid == nursery_of(bench).pid


async def test_an_environment_too_large_to_be_handed_over_gets_a_new_interpreter(bench: Bench) -> None:
    """Clusters export shell functions by the hundred; that is no reason for a stage to fail."""
    before = descriptors()

    done = await bench.run("behaves", environ={"BASH_FUNC_module": "x" * 100_000})

    assert 1 == done.annotations
    assert [] == bench.left()
    assert descriptors() == before


async def test_who_is_cancelled_while_a_process_is_born_leaves_none(bench: Bench) -> None:
    """The number of the new process is on its way then, and nobody else will ever ask for it."""
    nursery, before = nursery_of(bench), descriptors()
    nursery.suspend()
    running = asyncio.create_task(bench.run("hangs"))
    while "birth for hangs" not in {task.get_name() for task in asyncio.all_tasks()}:
        await asyncio.sleep(0)
    running.cancel()
    nursery.resume()

    await asyncio.wait({running})

    assert running.cancelled()
    assert [] == bench.left()
    assert [] == nursery.children()
    assert descriptors() == before


async def test_a_nursery_ends_with_its_runner_and_is_small(tmp_path: Path) -> None:
    """
    It lives as long as the server; it may hold little more than a bare interpreter, and nothing of itself behind. So
    does one that a command has begun before all else, and it is the one that is used.
    """
    before = descriptors()
    with births_ahead() as births:
        ahead = births.pids
        async with Runner.open(secrets.token_hex(8), births=births) as runner:
            await Bench(runner, tmp_path, "").run("behaves")
            nursery = psutil.Process(runner.nursery_pids[0])
            held = nursery.memory_full_info().uss
            runner.expect(MAKING)
            await happens(lambda: runner.waiting_pids)
            parents = tuple(psutil.Process(pid).ppid() for pid in runner.waiting_pids)

    assert ahead == parents
    assert not is_alive(nursery.pid)
    assert held < 30 * 1024**2
    assert descriptors() == before


def test_a_nursery_of_a_command_that_refuses_leaves_nothing() -> None:
    """Begun before it is known whether there is anything to do."""
    before = descriptors()
    with births_ahead() as births:
        (pid,) = births.pids

    assert not is_alive(pid)
    assert descriptors() == before
