"""When the server is killed, everything it started dies within a second."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.stages import is_alive
from videoannotator.runner import leftovers
from videoannotator.runner.process import Runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

_SERVER = """
import asyncio, json, sys
from pathlib import Path
from tests.stages import Bench
from videoannotator.runner.process import Runner

async def main(storage_id, folder, config):
    async with Runner.open(storage_id) as runner:
        (Path(folder) / "guardian").write_text(str(runner.guard.pid))
        await Bench(runner, Path(folder), storage_id).run("family", config=json.loads(config))

asyncio.run(main(*sys.argv[1:]))
"""


class Server:
    """A process that runs one stage with everything that is hard to kill."""

    def __init__(self, folder: Path, config: dict[str, bool]) -> None:
        self.storage_id = secrets.token_hex(8)
        self._folder = folder
        command = [sys.executable, "-c", _SERVER, self.storage_id, str(folder), json.dumps(config)]
        self.process = subprocess.Popen(command)

    def wait_until_it_works(self) -> None:
        """All five: the stage, two programs, a daemon, and the guardian."""
        until(lambda: self._told("pids") == 4 and len(self.alive()) == 4 + 2)  # two shells with a sleep each

    def alive(self) -> list[int]:
        return leftovers.carrying(leftovers.needle(leftovers.STORAGE_MARK, self.storage_id))

    @property
    def guardian(self) -> int:
        return int((self._folder / "guardian").read_text())

    def second_guardian(self, first: int) -> int | None:
        """The server's child that runs the guardian's program and is not the first one."""
        for child in psutil.Process(self.process.pid).children():
            if child.pid != first and is_alive(child.pid) and "guardian.py" in " ".join(child.cmdline()):
                return child.pid
        return None

    def _told(self, name: str) -> int:
        file = self._folder / name
        return len(file.read_text().split()) if file.exists() else 0


@pytest.fixture(params=[{}, {"holds_the_gil": True}], ids=["", "while C code holds the GIL"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, request.param)
    try:
        server.wait_until_it_works()
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        for pid in server.alive():
            os.kill(pid, signal.SIGKILL)


def test_kill_9_of_the_server_ends_all_it_started_within_a_second(server: Server) -> None:
    """A GPU that is held by a stage nobody knows of is lost until the machine is restarted."""
    guardian = server.guardian

    began = time.monotonic()
    server.process.kill()
    server.process.wait()
    until(lambda: server.alive() == [])
    seconds = time.monotonic() - began
    until(lambda: not is_alive(guardian))

    assert seconds < 1.0


def test_the_guardian_does_not_mind_being_asked_to_leave(server: Server) -> None:
    """A stop of the whole service sends SIGTERM to every process in it, the guardian too, and it is needed then."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(server.guardian, number)
    assert server.alive() != []

    server.process.kill()
    server.process.wait()

    until(lambda: server.alive() == [], limit_seconds=1.0)
    assert server.alive() == []


def test_without_a_guardian_the_next_life_ends_what_is_left(server: Server) -> None:
    """The kernel may take the guardian in the same breath as the server."""
    stopped = psutil.Process(server.guardian)
    stopped.suspend()
    server.process.kill()
    server.process.wait()
    stopped.kill()
    until(lambda: not is_alive(stopped.pid))
    assert server.alive() != []

    async def next_life() -> list[int]:
        async with Runner.open(server.storage_id):
            return server.alive()

    assert asyncio.run(next_life()) == []


def test_a_guardian_that_dies_is_replaced_and_knows_what_runs(server: Server) -> None:
    """Somebody may kill it by mistake; from then on a crash of the server would leave orphans."""
    first = server.guardian
    os.kill(first, signal.SIGKILL)
    until(lambda: server.second_guardian(first) is not None)
    assert server.alive() != []

    server.process.kill()
    server.process.wait()

    until(lambda: server.alive() == [], limit_seconds=1.0)
    assert server.alive() == []


async def test_a_guardian_that_does_not_listen_is_replaced(tmp_path: Path) -> None:
    """Its pipe fills up; a server that waited for it would stand still."""
    async with Runner.open(secrets.token_hex(8)) as runner:
        first = psutil.Process(runner.guard.pid)
        first.suspend()

        for number in range(20_000):
            runner.guard.add(2**22 + number)
            runner.guard.remove(2**22 + number)

        await _until(lambda: runner.guard.pid != first.pid and is_alive(runner.guard.pid))


async def test_the_guardian_is_small() -> None:
    """It does nothing all its life; 10 MiB are what a Python interpreter costs."""
    async with Runner.open(secrets.token_hex(8)) as runner:
        guardian = psutil.Process(runner.guard.pid)
        await _until(lambda: guardian.status() == psutil.STATUS_SLEEPING and guardian.num_fds() == 3)

        assert guardian.memory_info().rss <= 12 * 1024**2
        assert guardian.environ() == {}
        assert os.getsid(guardian.pid) == guardian.pid


def until(happened: Callable[[], bool], limit_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + limit_seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


async def _until(happened: Callable[[], bool], limit_seconds: float = 10.0) -> None:
    async with asyncio.timeout(limit_seconds):
        while not happened():
            await asyncio.sleep(0.01)
