"""
Fetching the models that a job needs, where the setting `auto_download` asks for it.

The fetch is `videoannotator models pull` in a process of its own, so that a cancel ends it at once; what has come stays
for the next. It tells how far it is, as lines of the job's log, every few seconds.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from videoannotator.errors import StageFailed
from videoannotator.settings import PREFIX, Settings

SAY_SECONDS = 2.0
_LONGEST_ERROR = 4000

Say = Callable[[str], Awaitable[None]]


class _Report(msgspec.Struct):
    model: str
    bytes: int
    total: int | None = None


async def fetch(name: str, settings: Settings, say: Say) -> None:
    """
    Have a model here, whole and verified. Whoever cancels it gets it back only when its process is gone.

    Raises:
        StageFailed: MODEL_FETCH_FAILED, with what the command said.
    """
    await say(f"The model {name} is not here: it is fetched now.")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "videoannotator", "models", "pull", name, "--json"),
        env=dict(os.environ)
        | {f"{PREFIX}MODELS_DIR": str(settings.models_folder), f"{PREFIX}OFFLINE": str(settings.offline).lower()}
        | {f"{PREFIX}PIPELINE_DIRS": os.pathsep.join(str(folder) for folder in settings.pipeline_dirs)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, errors = await asyncio.gather(_tell(process, say), _errors(process))
        status = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    if status != 0:
        told = errors.removeprefix("[ERROR] ") or f"`models pull` ended with exit status {status}."
        raise StageFailed(told, code="MODEL_FETCH_FAILED", hint="Retry the job when it can be reached.")
    await say(f"The model {name} is here and verified.")


async def _tell(process: asyncio.subprocess.Process, say: Say) -> None:
    assert process.stdout is not None
    said_at = time.monotonic()
    async for line in process.stdout:
        if time.monotonic() - said_at < SAY_SECONDS:
            continue
        said_at = time.monotonic()
        report = msgspec.json.decode(line, type=_Report)
        done = f"{report.bytes / 1e6:.0f}" + (f" of {report.total / 1e6:.0f}" if report.total else "")
        share = f" ({report.bytes / report.total:.0%})" if report.total else ""
        await say(f"Fetching {report.model}: {done} MB{share}.")


async def _errors(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    return (await process.stderr.read())[-_LONGEST_ERROR:].decode(errors="replace").strip()
