"""`videoannotator serve` as a process: how it begins, what it prints, and how it ends."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.declared import declare
from tests.program import ADMIN, programs, submit, wait_for
from tests.server import LONG

MODEL_LIBRARIES = {"torch", "numpy", "cv2", "onnxruntime", "av", "mediapipe", "scenedetect", "faster_whisper", "rich"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """`start(port=0)`: the program with its settings as they come."""
    with programs(tmp_path) as start:
        yield start


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
