"""Stage processes that wait: fresh ones that load ahead, and warm ones that keep what they loaded."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.cards import Cards
from tests.stages import Bench, benching, is_alive
from tests.waiting import happens
from videoannotator.errors import StageFailed
from videoannotator.runner.process import Making, Runner, Warmth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

WARMTH = Warmth(loaded="none", idle_seconds=20.0, most_stages=10, most_growth_bytes=32 * 1024**2, most_waiting=2)
MAKING = Making(
    interpreter=sys.executable,
    code="tests.misbehaving.remembers:run",
    pipeline="remembers",
    threads=1,
    network="auto",
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with benching(tmp_path) as bench:
        yield bench


async def found_by(
    bench: Bench, warmth: Warmth | None = None, environ: dict[str, str] | None = None, **config: Any
) -> dict[str, Any]:
    """Run the stage that says what it finds, and read what it said."""
    await bench.run("remembers", config=config, warmth=warmth, environ=environ)
    found: dict[str, Any] = json.loads((bench.output / "out.json").read_text())
    return found


async def expected(bench: Bench) -> psutil.Process:
    """The one process that was made ready ahead."""
    await happens(lambda: bench.runner.waiting_pids)
    (waiting,) = bench.left()
    return waiting


async def test_a_stage_takes_the_process_that_has_loaded_ahead(bench: Bench) -> None:
    """Half a second of imports is over before the video has been looked at; the log is still the stage's own."""
    bench.runner.expect(MAKING)
    bench.runner.expect(MAKING)
    waiting = await expected(bench)

    found = await found_by(bench)

    assert (waiting.pid, True, 0) == (found["pid"], found["prepared"], found["runs_before"])
    assert "run 0\n" == bench.log.read_text()
    assert [] == bench.left()


async def test_another_pipeline_does_not_take_it(bench: Bench) -> None:
    """It has loaded the wrong things."""
    bench.runner.expect(MAKING)
    waiting = await expected(bench)

    await bench.run("behaves")

    assert is_alive(waiting.pid)


async def test_a_process_that_died_while_it_waited_costs_nothing(bench: Bench) -> None:
    """The stage gets another one; nobody hears of it."""
    bench.runner.expect(MAKING)
    waiting = await expected(bench)
    os.kill(waiting.pid, signal.SIGKILL)
    await happens(lambda: waiting.status() == psutil.STATUS_ZOMBIE if psutil.pid_exists(waiting.pid) else True)

    found = await found_by(bench)

    assert waiting.pid != found["pid"]


async def test_a_module_that_cannot_be_loaded_ahead_is_told_of_by_its_stage(bench: Bench) -> None:
    """Not by a process that dies where nobody looks."""
    bench.runner.expect(
        Making(
            interpreter=sys.executable, code="tests.misbehaving.no_such:run", pipeline="x", threads=1, network="auto"
        )
    )

    with pytest.raises(StageFailed) as failed:
        await bench.run("no_such")

    assert "ModuleNotFoundError" in str(failed.value)


async def test_a_warm_process_serves_the_next_stage_and_nothing_of_the_last_is_in_it(bench: Bench) -> None:
    """Its models are the gain. Environment, folder, mask, scratch files and log of the last job must not be there."""
    first_log = bench.log
    first = await found_by(bench, WARMTH, mess="surroundings", keep="model")
    bench.log = bench.folder / "logs" / "second.log"
    second = await found_by(bench, WARMTH)

    assert (first["pid"], 1) == (second["pid"], second["runs_before"])
    assert ("", first["mask"], first["folder"]) == (second["left"], second["mask"], second["folder"])
    assert first["scratch"] != second["scratch"]
    assert not Path(first["scratch"]).exists()
    assert ("run 0\n", "run 1\n") == (first_log.read_text(), bench.log.read_text())
    assert not any(str(bench.folder) in file.path for file in psutil.Process(second["pid"]).open_files())


@pytest.mark.parametrize("mess", ["thread", "memory", "fails"])
async def test_a_process_that_is_not_as_before_is_not_used_again(bench: Bench, mess: str) -> None:
    """A thread still at work, memory that grows, and any error (after one of CUDA's nothing works any more)."""
    first = await found_by(bench, WARMTH)
    try:
        await found_by(bench, WARMTH, mess=mess)
    except StageFailed:
        assert mess == "fails"
    third = await found_by(bench, WARMTH)

    assert first["pid"] != third["pid"]
    assert 0 == third["runs_before"]


async def test_what_a_warm_process_started_is_gone_when_its_stage_is_over(bench: Bench) -> None:
    """It stays; its children do not."""
    found = await found_by(bench, WARMTH, mess="process")

    assert [found["pid"]] == [process.pid for process in bench.left()]


async def test_a_warm_process_ends_after_its_number_of_stages(bench: Bench) -> None:
    """What leaks slowly leaks for a bounded time."""
    twice = Warmth(loaded="x", idle_seconds=20, most_stages=2, most_growth_bytes=2**30, most_waiting=1)

    pids = [(await found_by(bench, twice))["pid"] for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert [] == bench.left()


async def test_a_warm_process_ends_when_nobody_comes(bench: Bench) -> None:
    """An idle server gives its memory back."""
    brief = Warmth(loaded="x", idle_seconds=0.3, most_stages=9, most_growth_bytes=2**30, most_waiting=1)

    await found_by(bench, brief)

    assert 1 == len(bench.left())
    await happens(lambda: not bench.left())


async def test_only_so_many_wait_and_all_can_be_sent_away(bench: Bench) -> None:
    """Memory that is held for later must be there for who needs it now."""
    pids = {}
    for loaded in ("one model", "another", "a third"):
        warmth = Warmth(loaded=loaded, idle_seconds=20, most_stages=9, most_growth_bytes=2**30, most_waiting=2)
        pids[loaded] = (await found_by(bench, warmth))["pid"]
    await happens(lambda: len(bench.left()) == 2)
    left = {process.pid for process in bench.left()}

    await bench.runner.end_warm()

    assert {pids["another"], pids["a third"]} == left
    assert [] == bench.left()


async def test_cancelling_kills_a_warm_process_like_any_other(bench: Bench) -> None:
    """Cancel always kills."""
    first = await found_by(bench, WARMTH)
    second = asyncio.create_task(bench.run("remembers", warmth=WARMTH, config={"mess": "hangs"}))
    await happens(lambda: len(bench.progress) > 1)
    second.cancel()
    await asyncio.wait({second})

    assert not is_alive(first["pid"])
    assert [] == bench.left()


async def test_nothing_waits_when_the_runner_is_closed(tmp_path: Path) -> None:
    """Whoever opens closes: fresh ones and warm ones."""
    storage_id = secrets.token_hex(8)
    async with Runner.open(storage_id) as runner:
        bench = Bench(runner, tmp_path, storage_id)
        await found_by(bench, WARMTH)
        runner.expect(msgspec.structs.replace(MAKING, threads=2))
        await happens(lambda: len(runner.waiting_pids) == 2)
        waiting = [process.pid for process in bench.left()]

    assert 2 == len(waiting)
    assert not any(map(is_alive, waiting))


async def test_a_stage_is_told_its_device_and_processes_of_other_devices_are_not_shared(bench: Bench) -> None:
    """What is loaded on one card is not on the other."""
    on_first = await found_by(bench, WARMTH, environ={"CUDA_VISIBLE_DEVICES": "0"})
    on_second = await found_by(bench, WARMTH, environ={"CUDA_VISIBLE_DEVICES": "1"})

    assert ("0", "1") == (on_first["device"], on_second["device"])
    assert on_first["pid"] != on_second["pid"]


async def test_a_stage_on_a_gpu_is_over_when_its_memory_is_back(tmp_path: Path) -> None:
    """A cancelled job whose memory is still held would make the next one fail."""
    storage_id, cards = secrets.token_hex(8), Cards(one=24)
    cards.late = 3
    async with Runner.open(storage_id, cards) as runner:
        bench = Bench(runner, tmp_path, storage_id)
        found = await found_by(bench, environ={"CUDA_VISIBLE_DEVICES": "one"})
        asked = len(cards.asked_for)
        await found_by(bench, environ={"CUDA_VISIBLE_DEVICES": ""})

    assert 4 == asked == len(cards.asked_for)
    assert all(found["pid"] in pids for pids in cards.asked_for)
