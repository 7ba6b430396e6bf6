"""
A stranger who has read nothing but /openapi.json: schemathesis sends what the document allows and what it forbids, and
holds every answer against it: no 500, no status, type, header or field that is not described.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.server import ADMIN, Served

_CONFIGURATION = """
hooks = "hooks.py"
headers = {{ Authorization = "Bearer {key}" }}
request-timeout = 10.0

# A body that fits its schema may still name a pipeline that there is not, or a path that is not allowed.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "400", "404", "409", "413", "415", "416", "422", "429"]

# tus has a status of its own for another version than 1.0.0.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "412", "413", "415", "422", "429"]

[checks.missing_required_header]
expected-statuses = ["400", "401", "403", "406", "412", "415", "422"]

[phases.coverage]
unexpected-methods = ["QUERY", "DELETE"]

[parameters]
"path.job_id" = "{job}"

# Streams do not end; test_events.py and test_openapi.py hold what they say against the document.
[[operations]]
include-name = ["GET /api/v1/events/stream", "GET /api/v1/events/ws"]
enabled = false

# These would take away what the others look at.
[[operations]]
include-method = ["DELETE"]
parameters = {{ "path.job_id" = "job_that_is_not_there" }}

[[operations]]
include-name = ["GET /api/v1/jobs/{{job_id}}/files/{{name}}", "HEAD /api/v1/jobs/{{job_id}}/files/{{name}}"]
parameters = {{ "path.job_id" = "{job}", "path.name" = "out.json" }}

# "null" in a query is read as nothing given.
[[operations]]
include-name = ["GET /api/v1/jobs"]
checks = {{ negative_data_rejection = {{ enabled = false }} }}
"""

_HOOKS = """
import schemathesis

@schemathesis.serializer("application/offset+octet-stream")
def as_it_is(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
"""


async def test_every_answer_is_as_the_document_says(server: Served, clip: Path, tmp_path: Path) -> None:
    """What generated clients rely on. Few cases for each operation; the long run below has many."""
    status, told = await _run(server, clip, tmp_path, "--phases", "examples,coverage", "--max-examples", "1")

    assert status == 0, told
    assert "Tested:" in told
    assert await _is_healthy(server)


@pytest.mark.slow
async def test_every_answer_is_as_the_document_says_whatever_is_sent(
    server: Served, clip: Path, tmp_path: Path
) -> None:
    """The same with hundreds of made-up requests for each operation, and with calls that follow each other."""
    status, told = await _run(server, clip, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "20")

    assert status == 0, told
    assert "Tested:" in told
    assert await _is_healthy(server)


async def _run(server: Served, clip: Path, folder: Path, *words: str) -> tuple[int | None, str]:
    """Its exit status, and all it said."""
    job = await server.finished(clip)
    (folder / "hooks.py").write_text(_HOOKS)
    configuration = folder / "schemathesis.toml"
    configuration.write_text(_CONFIGURATION.format(key=ADMIN, job=job["id"]))
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(configuration), "run"]
    options = ["--seed", "1", "--workers", "1", "--warnings", "off", *words]

    process = await asyncio.create_subprocess_exec(
        *command,
        f"{server.url}/openapi.json",
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(), 280)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    return process.returncode, told.decode()


async def _is_healthy(server: Served) -> bool:
    return bool(json.loads((await server.http.get("/health")).content)["status"] == "healthy")
