"""What a running stage reports, on its way into the store."""

import asyncio
import time

from videoannotator.errors import LeaseLost, StorageTrouble
from videoannotator.jobs import Claim, Progress, Usage
from videoannotator.logs import get_logger
from videoannotator.runner.messages import Log
from videoannotator.runner.messages import Progress as Report
from videoannotator.store import Store

log = get_logger(__name__)


class Notes:
    """
    Brings what a stage reports into the store, without ever making the stage wait.

    Progress that arrives while an earlier one is being written is replaced by what comes after it; log lines are not.
    """

    def __init__(self, store: Store, claim: Claim, pipeline: str) -> None:
        self._store = store
        self._claim = claim
        self._pipeline = pipeline
        self._began: tuple[float, float] | None = None
        self._latest: Progress | None = None
        self._lines: list[Log] = []
        self._news = asyncio.Event()
        self._closing = False
        self.used: Usage | None = None
        """What the stage's processes have taken so far; None where the system does not say."""

    async def __aenter__(self) -> "Notes":
        self._writing = asyncio.create_task(self._write(), name=f"notes of {self._pipeline}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._news.set()
        await self._writing

    def progress(self, report: Report) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = (now, report.done_seconds)
        began, first = self._began
        rate = (report.done_seconds - first) / (now - began) if now > began else 0.0
        eta = max(0.0, report.total_seconds - report.done_seconds) / rate if rate > 0 else None
        self._latest = Progress(report.done_seconds, report.total_seconds, rate or None, eta, self.used)
        self._news.set()

    def usage(self, usage: Usage) -> None:
        self.used = usage

    def log(self, line: Log) -> None:
        self._lines.append(line)
        self._news.set()

    async def _write(self) -> None:
        while not (self._closing and not self._news.is_set()):
            await self._news.wait()
            self._news.clear()
            try:
                await self._write_what_is_new()
            except StorageTrouble as trouble:
                # Worth a warning and not the stage: its result may find room again.
                log.warning("progress could not be recorded", job_id=self._claim.job.id, reason=str(trouble))
            except LeaseLost:
                return  # the job's own watch notices it too, and stops the stage

    async def _write_what_is_new(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            await self._store.log(self._claim, self._pipeline, line.level, line.message)
        latest, self._latest = self._latest, None
        if latest is not None:
            await self._store.note_progress(self._claim, self._pipeline, latest)
