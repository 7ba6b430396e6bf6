"""How a server that is told to stop goes: no new work, what runs ends or is put back, and never long."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.program import ADMIN, Process, submit, wait_for
from tests.server import LONG
from tests.stages import is_alive


def client_of(server: Process) -> httpx.Client:
    return httpx.Client(base_url=server.ready(), headers={"x-api-key": ADMIN}, timeout=30)


def at_work(client: httpx.Client, job_id: str) -> bool:
    return bool(client.get(f"/api/v1/jobs/{job_id}").json()["progress"] > 0)


@pytest.mark.slow
def test_a_drained_stage_ends_and_nothing_new_begins(start: Any, clip: Path) -> None:
    """A two-hour stage that has a minute left is not thrown away; the job behind it is not begun."""
    server = start(drain_seconds="20", max_concurrent_jobs="1")
    with client_of(server) as client:
        first = submit(client, clip, {"behaves": {"steps": 40, "step_seconds": 0.05}})
        second = submit(client, clip, {})
        wait_for(lambda: at_work(client, first))

        server.process.terminate()
        wait_for(lambda: client.get("/api/v1/health").status_code == 503)
        refused = client.post(f"/api/v1/jobs/{second}/cancel")
        code = server.ends()
    with client_of(start(pause_free_bytes=str(2**62))) as again:
        jobs = [again.get(f"/api/v1/jobs/{job}").json() for job in (first, second)]

    assert (0, 503) == (code, refused.status_code)
    assert ["completed", "pending"] == [job["status"] for job in jobs]
    assert [1, 0] == [job["attempts"] for job in jobs]


@pytest.mark.slow
def test_what_does_not_end_in_time_is_put_back_and_its_attempt_not_counted(start: Any, clip: Path) -> None:
    """Stopping a server for an update must not use up a job's attempts."""
    server = start(drain_seconds="0.3")
    with client_of(server) as client:
        job_id = submit(client, clip, LONG)
        wait_for(lambda: at_work(client, job_id))
        children = psutil.Process(server.process.pid).children(recursive=True)

        server.process.terminate()
        began = time.monotonic()
        code = server.ends()
    with client_of(start(pause_free_bytes=str(2**62))) as again:
        job = again.get(f"/api/v1/jobs/{job_id}").json()

    assert (0, True) == (code, time.monotonic() - began < 20)
    assert [] == [child.pid for child in children if is_alive(child.pid)]
    assert ("pending", 0) == (job["status"], job["attempts"])


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_leaves_no_stage(start: Any, clip: Path) -> None:
    """Who asks twice does not want to wait; the guardian sees to the stages, the next start to the jobs."""
    server = start(drain_seconds="600")
    with client_of(server) as client:
        job_id = submit(client, clip, LONG)
        wait_for(lambda: at_work(client, job_id))
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.terminate()
        wait_for(lambda: client.get("/api/v1/health").status_code == 503)
        again = threading.Event()
        again.wait(0.6)  # sooner it counts as the same wish

        server.process.terminate()
        code = server.ends(5)

    assert -signal.SIGTERM == code
    wait_for(lambda: not any(is_alive(child.pid) for child in children))


@pytest.mark.slow
def test_ctrl_c_that_arrives_twice_in_one_moment_is_one_wish(start: Any, clip: Path) -> None:
    """A terminal sends it to every process, and `uv run` hands its own on: that must not cut the end short."""
    server = start()
    with client_of(server) as client:
        job_id = submit(client, clip, LONG)
        wait_for(lambda: at_work(client, job_id))

        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGINT)
        code = server.ends()

    assert 0 == code
