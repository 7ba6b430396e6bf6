"""A stage may do what it likes: it ends, it is known how, and nothing of it is left."""

import asyncio
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.stages import FOLDER, LIMITS, Bench, benching, descriptors, is_alive
from tests.waiting import happens
from videoannotator.errors import (
    StageBroke,
    StageDied,
    StageEnded,
    StageFailed,
    StageStalled,
    StageTooLarge,
    StageTooSlow,
    StorageTrouble,
)
from videoannotator.runner import leftovers
from videoannotator.runner.conversation import MOST_LOG_LINES
from videoannotator.runner.log_file import LogFile
from videoannotator.runner.messages import Log, Progress
from videoannotator.runner.process import Limits, Runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One stage has run already: what all others are forked from is there, and holds its descriptors."""
    async with benching(tmp_path) as bench:
        await _apart(bench, -1).run("behaves")
        yield bench


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one way to misbehave."""

    how: type[StageEnded]
    code: str
    says: str
    retryable: bool = False
    limits: dict[str, Any] = {}


MIB = 1024**2
ENDINGS = {
    "raises": Ends(how=StageFailed, code="STAGE_FAILED", says="KeyError: 'there is no such frame'"),
    "fails": Ends(how=StageFailed, code="MODEL_DAMAGED", says="cannot be read. Fetch it again.", retryable=True),
    "dies": Ends(how=StageDied, code="STAGE_DIED", says="SIGKILL, without a result. It may have run", retryable=True),
    "dies_among_others": Ends(how=StageDied, code="STAGE_DIED", says="SIGKILL, without a result", retryable=True),
    "segfaults": Ends(how=StageDied, code="STAGE_DIED", says="ended by SIGSEGV, without a result", retryable=True),
    "leaves_early": Ends(how=StageDied, code="STAGE_DIED", says="left with exit status 0", retryable=True),
    "exits": Ends(how=StageDied, code="STAGE_DIED", says="left with exit status 0", retryable=True),
    "hangs": Ends(how=StageStalled, code="STAGE_STALLED", says="progress for 1 s", limits={"stall_seconds": 1.0}),
    "repeats_itself": Ends(
        how=StageStalled, code="STAGE_STALLED", says="no progress for 0.5 s", limits={"stall_seconds": 0.5}
    ),
    "ignores_sigterm": Ends(
        how=StageTooSlow,
        code="STAGE_TOO_SLOW",
        says="ended after 0.5 s",
        limits={"timeout_seconds": 0.5, "grace_seconds": 0.2},
    ),
    "holds_the_gil": Ends(
        how=StageTooSlow, code="STAGE_TOO_SLOW", says="ended after 0.5 s", limits={"timeout_seconds": 0.5}
    ),
    "sends_garbage": Ends(how=StageBroke, code="STAGE_BROKE_PROTOCOL", says="no message: it cannot be read"),
    "sends_nan": Ends(how=StageBroke, code="STAGE_BROKE_PROTOCOL", says="progress that is no number"),
    "sends_2_gib": Ends(how=StageBroke, code="STAGE_BROKE_PROTOCOL", says="announces 2147483648 bytes"),
    "closes_its_mouth": Ends(how=StageBroke, code="STAGE_BROKE_PROTOCOL", says="closed its side"),
    "floods": Ends(how=StageTooSlow, code="STAGE_TOO_SLOW", says="ended after 1 s", limits={"timeout_seconds": 1.0}),
    "fills_stderr": Ends(
        how=StageTooSlow, code="STAGE_TOO_SLOW", says="ended after 1 s", limits={"timeout_seconds": 1.0}
    ),
    "eats_memory": Ends(
        how=StageTooLarge,
        code="STAGE_OUT_OF_MEMORY",
        says="may use 200 MiB",
        limits={"memory_bytes": 200 * MIB},
    ),
    "grandchild_eats_memory": Ends(
        how=StageTooLarge,
        code="STAGE_OUT_OF_MEMORY",
        says="may use 200 MiB",
        limits={"memory_bytes": 200 * MIB},
    ),
    "runs_out_of_memory": Ends(how=StageFailed, code="STAGE_OUT_OF_MEMORY", says="ran out of memory", retryable=True),
    "writes_more": Ends(how=StageFailed, code="OUTPUT_NOT_DECLARED", says="does not declare: secret.bin"),
    "writes_nothing": Ends(how=StageFailed, code="OUTPUT_MISSING", says="did not write: out.json"),
    "writes_a_link": Ends(how=StageFailed, code="OUTPUT_NOT_A_FILE", says="no plain file: out.json"),
    "leaves_ledger_open": Ends(how=StageFailed, code="LEDGER_OPEN", says="decoded 10, failed 0, processed 5"),
    "loses_frames": Ends(how=StageFailed, code="FRAMES_LOST", says="1 of 10 frames of clip.mp4 could not be"),
    "says_too_much_at_the_end": Ends(how=StageFailed, code="RESULT_TOO_LARGE", says="does not fit"),
    "returns_nothing": Ends(how=StageFailed, code="STAGE_FAILED", says="returned NoneType, not a Result"),
    "no_such_pipeline": Ends(how=StageFailed, code="STAGE_FAILED", says="ModuleNotFoundError"),
}
SURVIVORS = (
    "behaves",
    "starts_sleep",
    "starts_setsid",
    "starts_daemon",
    "prints_100_mb",
    "reports_a_million_times",
    "talks_after_done",
)


@pytest.mark.parametrize("name", ENDINGS)
async def test_every_misbehaviour_has_its_own_ending_and_leaves_nothing(bench: Bench, name: str) -> None:
    """Users can only act on an error that says what happened, and the server lives on only if nothing stays behind."""
    expected = ENDINGS[name]
    before = descriptors()

    with pytest.raises(StageEnded) as ended:
        await bench.run(name, **expected.limits)

    assert type(ended.value) is expected.how
    assert ended.value.code == expected.code
    assert expected.says in str(ended.value)
    assert ended.value.retryable is expected.retryable
    assert bench.left() == []
    assert descriptors() == before
    assert bench.log.stat().st_size <= LIMITS["log_bytes"]
    assert (await bench.run("behaves")).annotations == 1


@pytest.mark.parametrize("name", SURVIVORS)
async def test_what_a_stage_does_beside_its_work_does_not_spoil_its_result(bench: Bench, name: str) -> None:
    """A result that is there is not lost for noise, for orphans, or for what is said after it."""
    before = descriptors()

    done = await bench.run(name)

    assert done.outputs[0].name == "out.json"
    assert (bench.output / "out.json").exists()
    assert bench.left() == []
    assert descriptors() == before
    assert bench.log.stat().st_size <= LIMITS["log_bytes"]


async def test_the_first_word_that_ends_a_stage_decides(bench: Bench) -> None:
    """Otherwise a stage could take back a result that was already being published."""
    done = await bench.run("talks_after_done")

    assert done.annotations == 7
    assert bench.progress == []


async def test_a_result_says_how_it_was_made(bench: Bench) -> None:
    """Versions, limits and the ledger are what makes a result repeatable."""
    done = await bench.run("behaves", config={"libraries": ["msgspec"]})

    assert done.provenance.libraries == {"msgspec": msgspec.__version__}
    assert done.provenance.pipeline_version == "1.2.3"
    assert done.provenance.known_limits == ("adult-trained",)
    assert done.provenance.ledger is not None
    assert done.provenance.ledger.closes


async def test_a_pipeline_can_be_a_file(bench: Bench) -> None:
    """So that a pipeline need not be installed to be tried."""
    start = bench.start("behaves", "auto", {})
    start = msgspec.structs.replace(start, code=f"{FOLDER / 'behaves.py'}:run")
    Path(start.output_folder).mkdir()

    done = await bench.runner.run(
        start,
        interpreter=Path(sys.executable),
        log=bench.log,
        limits=Limits(**LIMITS),
        on_progress=bench.progress.append,
        on_log=bench.lines.append,
    )

    assert done.annotations == 1


async def test_progress_and_log_arrive_in_order_and_the_last_progress_always(bench: Bench) -> None:
    """A bar that stops at 97 % makes people wait for nothing."""
    await bench.run("behaves", config={"steps": 40, "step_seconds": 0.01})

    seconds = [progress.done_seconds for progress in bench.progress]
    assert bench.lines == [Log("info", "hello")]
    assert seconds == sorted(seconds)
    assert bench.progress[-1] == Progress(10.0, 10.0)
    assert 3 <= len(seconds) <= 12


async def test_a_million_reports_become_a_few(bench: Bench) -> None:
    """Each one handed on is a row in the database."""
    await bench.run("reports_a_million_times")

    assert 1 <= len(bench.progress) <= 200
    assert bench.progress[-1].done_seconds == pytest.approx(10.0, rel=1e-3)


async def test_a_flood_of_messages_neither_stops_the_loop_nor_grows_memory(bench: Bench) -> None:
    """One stage that lost its mind must not take the server with it."""
    memory = psutil.Process().memory_info().rss
    lags: list[float] = []
    ticking = asyncio.create_task(_measure_lag(lags))

    with pytest.raises(StageTooSlow):
        await bench.run("floods", timeout_seconds=2.0)

    ticking.cancel()
    assert sorted(lags)[len(lags) * 95 // 100] < 0.05
    assert psutil.Process().memory_info().rss - memory < 20 * MIB
    assert len(bench.progress) < 100
    assert len(bench.lines) <= MOST_LOG_LINES


async def _measure_lag(lags: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.005)
        lags.append(time.monotonic() - before - 0.005)


def test_a_log_that_is_cut_while_it_is_closed_harms_no_other_file(tmp_path: Path) -> None:
    """A cut may still run in a thread when the stage has ended, and the descriptor is somebody else's by then."""
    for round_ in range(200):
        log = LogFile(tmp_path / f"{round_}.log", 1_000)
        os.write(log.fd, b"x" * 5_000)
        cutting = threading.Thread(target=log.cut)
        cutting.start()
        log.cut()
        log.close()
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        os.pwrite(other, b"y" * 5_000, 0)
        cutting.join()
        log.cut()

        assert os.fstat(other).st_size == 5_000
        assert "Cut here" in (tmp_path / f"{round_}.log").read_text()
        os.close(other)


async def test_a_log_keeps_its_limit_and_says_so(bench: Bench) -> None:
    """A full disk stops every job; a log that was cut in silence misleads."""
    await bench.run("prints_100_mb", log_bytes=50_000)

    assert 10_000 < bench.log.stat().st_size <= 50_000
    assert was_cut(bench.log)


async def test_a_log_that_is_written_without_an_end_keeps_its_limit_too(bench: Bench) -> None:
    """Whenever its stage is ended."""
    running = asyncio.create_task(bench.run("fills_stderr", log_bytes=50_000))
    await happens(lambda: was_cut(bench.log))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert 10_000 < bench.log.stat().st_size <= 50_000
    assert was_cut(bench.log)


def was_cut(log: Path) -> bool:
    if not log.exists():
        return False
    with log.open("rb") as file:
        return b"[videoannotator] Cut here" in file.read(50_000)


async def test_a_log_is_private_and_is_appended_to(bench: Bench) -> None:
    """A second attempt must not erase why the first one failed, and other users must not read it."""
    for _ in range(2):
        with pytest.raises(StageFailed):
            await bench.run("raises")

    assert bench.log.read_text().count("Traceback") == 2
    assert stat.S_IMODE(bench.log.stat().st_mode) == 0o600


async def test_a_log_is_never_written_through_a_link(bench: Bench, tmp_path: Path) -> None:
    """A stage could otherwise make the next one's log overwrite somebody's file."""
    (tmp_path / "precious").write_text("mine")
    bench.log.parent.mkdir()
    bench.log.symlink_to(tmp_path / "precious")

    with pytest.raises(StorageTrouble) as trouble:
        await bench.run("behaves")

    assert trouble.value.code == "LOG_NOT_WRITABLE"
    assert (tmp_path / "precious").read_text() == "mine"


async def test_an_interpreter_that_is_not_there_is_said_so(bench: Bench) -> None:
    """An environment may have been removed while the job waited."""
    before = descriptors()

    with pytest.raises(StageDied, match="could not be started: /nowhere/python: No such file"):
        await bench.runner.run(
            bench.start("behaves", "auto", {}),
            interpreter=Path("/nowhere/python"),
            log=bench.log,
            limits=Limits(**LIMITS),
            on_progress=bench.progress.append,
            on_log=bench.lines.append,
        )

    assert descriptors() == before


async def test_temporary_files_go_with_the_stage(bench: Bench) -> None:
    """A disk fills up with what killed processes leave in /tmp."""
    with pytest.raises(StageDied):
        await bench.run("leaves_scratch")

    folder = Path(bench.lines[0].message)
    assert folder.parent.name.startswith(f"videoannotator-{bench.storage_id}-")
    assert not folder.parent.exists()


async def test_temporary_files_of_an_earlier_life_are_removed(bench: Bench) -> None:
    """A server that is killed cannot remove them."""
    earlier = Path(tempfile.gettempdir()) / f"videoannotator-{bench.storage_id}x-abc"
    earlier.mkdir()

    async with Runner.open(f"{bench.storage_id}x"):
        pass

    assert not earlier.exists()


@pytest.mark.parametrize("name", ["behaves", "ignores_sigterm", "holds_the_gil", "family", "floods", "fills_stderr"])
@pytest.mark.parametrize("after_seconds", [0.0, 0.05, 0.4])
async def test_a_cancel_leaves_nothing_at_whatever_moment(bench: Bench, name: str, after_seconds: float) -> None:
    """`cancelled` in the database must mean that the GPU is free and no one writes any more."""
    before = descriptors()
    running = asyncio.create_task(bench.run(name, config={"steps": 1000, "step_seconds": 0.1}, grace_seconds=0.3))
    await asyncio.sleep(after_seconds)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert bench.left() == []
    assert descriptors() == before
    await bench.run("behaves")


async def test_a_second_cancel_leaves_no_orphan(bench: Bench) -> None:
    """People press Ctrl-C again when the first one does not seem to help."""
    running = asyncio.create_task(bench.run("family", grace_seconds=0.5))
    await happens(lambda: len(bench.progress) > 0)
    assert len(bench.left()) == 4 + 2  # the two shells each have a sleep

    for _ in range(5):
        running.cancel()
        await asyncio.sleep(0.02)
    assert not running.done()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert bench.left() == []


async def test_cancel_is_quick(bench: Bench) -> None:
    """200 ms for a stage that listens, its grace and little more for one that does not."""
    listening, stubborn = [], []
    for name, figures, grace in [("behaves", listening, 1.0), ("ignores_sigterm", stubborn, 0.3)]:
        for _ in range(3):
            bench.progress.clear()
            running = asyncio.create_task(
                bench.run(name, config={"steps": 1000, "step_seconds": 0.02}, grace_seconds=grace)
            )
            await happens(lambda: len(bench.progress) > 0)
            began = time.monotonic()
            running.cancel()
            await asyncio.wait({running})
            figures.append(time.monotonic() - began)

    assert min(listening) < 0.2
    assert 0.3 <= min(stubborn) < 0.8


@pytest.mark.parametrize("runs", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_runs_side_by_side_leave_no_descriptor_and_no_process(bench: Bench, runs: int) -> None:
    """A server runs for months."""
    await bench.run("behaves")
    before = descriptors()

    async def one(number: int) -> None:
        name = ("behaves", "raises", "dies", "starts_setsid", "leaves_early")[number % 5]
        with suppress(StageEnded):
            await _apart(bench, number).run(name)

    for first in range(0, runs, 5):
        await asyncio.gather(*(one(number) for number in range(first, first + 5)))

    assert descriptors() == before
    assert bench.left() == []
    assert threads_of("asyncio") == 0


def threads_of(prefix: str) -> int:
    return sum(thread.name.startswith(prefix) for thread in threading.enumerate())


def _apart(bench: Bench, number: int) -> Bench:
    folder = bench.folder / f"side{number}"
    folder.mkdir()
    return Bench(bench.runner, folder, bench.storage_id)


async def test_a_stage_has_surroundings_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the machine, keys stay with the server, and the kernel takes the stage first."""
    monkeypatch.setenv("VIDEOANNOTATOR_API_KEY", "va_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    await bench.run("looks_around")

    seen = json.loads((bench.output / "out.json").read_text())
    environment = seen["environment"]
    quiet = {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    assert quiet.items() <= environment.items()
    assert "secret" not in json.dumps(environment)
    assert [name for name in environment if name.startswith("VIDEOANNOTATOR_")] == [
        "VIDEOANNOTATOR_STORAGE_ID",
        "VIDEOANNOTATOR_STAGE_ID",
    ]
    kinds = [target.split()[1].split(":")[0].removesuffix(str(bench.log)) for target in seen["descriptors"] if target]
    assert kinds == ["/dev/null", "", "", "pipe", "pipe"]
    assert seen["score"] == 800
    assert seen["input"] == ""
    assert seen["modules"] == []


async def test_a_stage_and_its_grandchildren_cannot_reach_the_network(bench: Bench) -> None:
    """A library that reports home, or a hostile file that makes one, gets nowhere; what stays on the machine works."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = "inet=Permission_denied inet6=Permission_denied packet=Permission_denied netlink=Permission_denied"

        await bench.run("calls_home", network="none", config={"port": port})
        cut = [line.message for line in bench.lines]
        bench.lines.clear()
        await bench.run("calls_home", network="host", config={"port": port})

    for who, line in zip(("own", "grandchild"), cut, strict=True):
        assert line == f"{who}: {refused} unix=open io_uring=Function_not_implemented"
    assert bench.lines[0].message.startswith("own: inet=open inet6=open")


async def test_leftovers_of_an_earlier_life_are_gone_before_anything_starts(bench: Bench) -> None:
    """After a crash that took the guardian too, nobody else knows of them."""
    marks = {leftovers.STORAGE_MARK: "earlier-life", leftovers.STAGE_MARK: "x-1"}
    left = subprocess.Popen(["sleep", "3600"], env=os.environ | marks, start_new_session=True)
    other = subprocess.Popen(["sleep", "3600"], env=os.environ | marks | {leftovers.STORAGE_MARK: "earlier-life-2"})

    async with Runner.open("earlier-life"):
        alive = is_alive(left.pid), is_alive(other.pid)

    other.terminate()
    assert alive == (False, True)
    assert left.wait(5) == -signal.SIGKILL
    assert other.wait(5) == -signal.SIGTERM


async def test_closing_the_runner_leaves_not_even_the_guardian(tmp_path: Path) -> None:
    """Or tests, notebooks and restarts would pile them up."""
    before = descriptors()

    async with Runner.open(secrets.token_hex(8)) as runner:
        guardian = runner.guard.pid
        assert is_alive(guardian)

    assert not is_alive(guardian)
    assert descriptors() == before


async def test_a_stage_lets_the_server_go_first(bench: Bench) -> None:
    """Two cores and four stages: whoever asks the server something meanwhile is answered as ever."""
    running = asyncio.create_task(bench.run("hangs"))
    await happens(lambda: bool(bench.progress))
    niceness = {process.nice() for process in bench.left()}
    running.cancel()
    await asyncio.wait({running})

    assert niceness == {10}
