"""`videoannotator serve` as a process: how it begins, what it prints, and how it ends."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.declared import declare
from tests.server import ADMIN, LONG

MODEL_LIBRARIES = {"torch", "numpy", "cv2", "onnxruntime", "av", "mediapipe", "scenedetect", "faster_whisper", "rich"}


class Process:
    """A server process; its standard output by line, its log in a file."""

    def __init__(self, folder: Path, *, port: int = 0, more: dict[str, str] | None = None, **settings: str) -> None:
        self.storage = folder / "storage"
        self.log = folder / "log"
        names = {f"VIDEOANNOTATOR_{name.upper()}": value for name, value in settings.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "videoannotator",
                    "serve",
                    "--port",
                    str(port),
                    "--storage-dir",
                    str(self.storage),
                ],
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=log,
                cwd=folder,
                env=_clean_environment() | names | (more or {}),
            )
        self.lines: list[str] = []

    def ready(self) -> str:
        """Its address, once it says that it is ready."""
        assert self.process.stdout is not None
        while True:
            assert select.select([self.process.stdout], [], [], 30)[0], "silence for 30 s"
            line = self.process.stdout.readline().decode("ascii")
            assert line, self.log.read_text()
            self.lines.append(line)
            if found := re.search(r"http://\S+", line):
                return found.group()

    def ends(self, limit_seconds: float = 10) -> int:
        return self.process.wait(limit_seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts server processes, and ends them after the test."""
    begun: list[Process] = []

    def begin(**settings: Any) -> Process:
        begun.append(Process(tmp_path, **settings))
        return begun[-1]

    yield begin
    for process in begun:
        process.close()


def test_the_first_start_prints_one_key_that_works_and_the_second_prints_none(start: Any) -> None:
    """The only time that anybody can read it. What is printed is ASCII, and then it really answers."""
    first = start()
    url = first.ready()
    (key,) = re.findall(r"va_\S+", "".join(first.lines))
    answer = httpx.get(f"{url}/api/v1/auth/whoami", headers={"x-api-key": key})
    first.process.terminate()
    assert first.ends() == 0
    second = start()
    second.ready()

    assert answer.json()["scopes"] == ["read", "write", "admin"]
    assert "va_" not in "".join(second.lines)
    assert key not in first.log.read_text()


def test_a_port_in_use_is_one_line_and_exit_code_2(start: Any, tmp_path: Path) -> None:
    """Nothing is touched before that is known: no storage directory is made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start(port=taken.getsockname()[1])

        assert server.ends() == 2

    said = server.log.read_text()
    assert said.startswith("[ERROR] 127.0.0.1:")
    assert "--port" in said
    assert said.count("\n") == 1
    assert not server.storage.exists()


def test_a_second_server_on_the_same_directory_is_refused(start: Any) -> None:
    """Two writers would lose each other's jobs; the first one goes on undisturbed."""
    first = start()
    url = first.ready()
    second = start()

    assert second.ends() == 2
    assert "[ERROR]" in second.log.read_text()
    assert "in use" in second.log.read_text()
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_tells_its_listeners_puts_its_jobs_back_and_leaves(
    start: Any, clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """With a job running, a stream and a websocket open: within the ten seconds that service managers give."""
    declared = declare(tmp_path / "pipelines", "behaves")
    server = start(api_key=ADMIN, pipeline_dirs=str(declared))
    client = httpx.Client(base_url=server.ready(), headers={"x-api-key": ADMIN}, timeout=20)
    heard: list[str] = []
    with client, client.stream("GET", "/api/v1/events/stream") as stream:
        listening = threading.Thread(target=lambda: heard.extend(stream.iter_lines()))
        listening.start()
        job_id = submit(client, clip, LONG)
        wait_for(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "running")
        children = psutil.Process(server.process.pid).children(recursive=True)
        began = time.monotonic()
        server.process.send_signal(number)
        code = server.ends()
        listening.join(10)

    again = start(api_key=ADMIN, pipeline_dirs=str(declared))
    with httpx.Client(base_url=again.ready(), headers={"x-api-key": ADMIN}) as other:
        job = other.get(f"/api/v1/jobs/{job_id}").json()

    assert (code, time.monotonic() - began < 20) == (0, True)
    assert "event: server.closing" in heard
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert job["status"] in ("pending", "running")


def test_keys_never_reach_the_log(start: Any, clip: Path, tmp_path: Path) -> None:
    """In the header, in the address, wrong or right, in an error or not: logs are mailed around."""
    secret, wrong = "va_secret_of_the_operator_0123456789", "va_secret_that_is_wrong_0123456789"
    declared = declare(tmp_path / "pipelines", "behaves")
    server = start(api_key=secret, log_level="debug", pipeline_dirs=str(declared))
    with httpx.Client(base_url=server.ready()) as client:
        job_id = submit(client, clip, {}, {"x-api-key": secret})
        for key in (secret, wrong):
            client.get(f"/api/v1/jobs/{job_id}/video?token={key}")
            client.get(f"/api/v1/events/ws?token={key}")
            client.get(f"/nothing?token={key}")
            client.get("/api/v1/jobs", headers={"authorization": f"Bearer {key}"})
            client.get(f"/api/v1/jobs?per_page={key}", headers={"x-api-key": secret})
    server.process.terminate()
    server.ends()

    log = server.log.read_text()
    assert log.count('"path": "/api/v1/jobs"') >= 5
    assert "secret" not in log
    assert all(json.loads(line) for line in log.splitlines())


def test_the_server_process_loads_no_model_library(start: Any, clip: Path, tmp_path: Path) -> None:
    """Also not after a submission, which has a video looked at: that is another process's work."""
    declared = declare(tmp_path / "pipelines", "behaves")
    probe = tmp_path / "sitecustomize.py"
    probe.write_text(
        "import atexit, json, os, sys\n"
        "if 'serve' in sys.argv or 'serve' in sys.orig_argv:\n"
        "    tell = lambda: open(os.environ['TOLD'], 'w').write(json.dumps(sorted(sys.modules)))\n"
        "    atexit.register(tell)\n"
    )
    server = start(
        api_key=ADMIN,
        pipeline_dirs=str(declared),
        more={
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "TOLD": str(tmp_path / "modules"),
        },
    )
    with httpx.Client(base_url=server.ready(), headers={"x-api-key": ADMIN}) as client:
        job_id = submit(client, clip, {})
        wait_for(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "completed")
        client.get("/api/v1/system/health?detailed=true")
        client.get("/api/v1/pipelines?all=true")
        client.get(f"/api/v1/jobs/{job_id}/artifacts")
    server.process.terminate()
    assert server.ends() == 0

    loaded = {name.partition(".")[0] for name in json.loads((tmp_path / "modules").read_text())}
    assert "litestar" in loaded
    assert loaded & MODEL_LIBRARIES == set()


def test_without_authentication_it_warns_at_the_start(start: Any) -> None:
    """Loud enough to be seen in the log of a container."""
    server = start(require_auth="false")
    server.ready()

    assert "AUTHENTICATION IS OFF" in server.log.read_text()
    assert "va_" not in "".join(server.lines)


def submit(client: httpx.Client, clip: Path, config: dict[str, Any], headers: dict[str, str] | None = None) -> str:
    with clip.open("rb") as video:
        answer = client.post(
            "/api/v1/jobs",
            files={"video": (clip.name, video, "video/mp4")},
            data={"selected_pipelines": "behaves", "config": json.dumps(config)},
            headers=headers,
        )
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


def wait_for(true: Any) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "not so after 30 s"
        time.sleep(0.02)


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIDEOANNOTATOR_")}
