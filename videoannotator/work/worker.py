"""
Takes jobs from the store, runs their stages in processes of their own, and sees every job to one ending.

The worker is one task. It claims while it has room; each job is a task below it, and each stage one below that. Whoever
cancels the worker gets it back only when no stage is left and every job is pending again.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from videoannotator.artifacts import Artifacts
from videoannotator.errands.desk import Desk
from videoannotator.errors import StorageTrouble
from videoannotator.faults import reach
from videoannotator.jobs import Job
from videoannotator.logs import get_logger
from videoannotator.machine.devices import Devices
from videoannotator.machine.resources import AtWork
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.runner.process import Runner
from videoannotator.settings import Settings
from videoannotator.store import Store
from videoannotator.work.cache import Cache
from videoannotator.work.gate import Gate
from videoannotator.work.insistence import Insistence
from videoannotator.work.job_run import LOOK_AGAIN_SECONDS, JobRun, end
from videoannotator.work.scheduler import Scheduler
from videoannotator.work.stage_run import Tools, expect

MOST_WAITING = 100
"""Jobs that wait for another attempt and hold no place: each one still costs a look a second."""

log = get_logger(__name__)


class Worker:
    def __init__(
        self,
        *,
        store: Store,
        artifacts: Artifacts,
        runner: Runner,
        catalogue: Catalogue,
        settings: Settings,
        cache: Cache | None,
        desk: Desk,
        devices: Devices,
    ) -> None:
        self._tools = Tools(
            store=store,
            artifacts=artifacts,
            runner=runner,
            catalogue=catalogue,
            settings=settings,
            cache=cache,
            scheduler=Scheduler(
                cpu_slots=settings.stage_slots,
                gpu_slots=settings.max_concurrent_gpu_jobs,
                devices=devices,
                make_room=runner.end_warm,
            ),
            insist=Insistence(),
            gate=Gate(settings.pause_free_bytes),
            desk=desk,
        )
        self._store = store
        self._settings = settings
        self._insist = self._tools.insist
        self._jobs: dict[asyncio.Task[None], JobRun] = {}
        self._heard = 0

    @property
    def active_jobs(self) -> int:
        """Those that only wait for another attempt at a stage hold no place, up to a number."""
        waiting = sum(run.is_waiting for run in self._jobs.values())
        return len(self._jobs) - min(waiting, MOST_WAITING)

    @property
    def at_work(self) -> tuple[AtWork, ...]:
        """The stages that have a process now."""
        return tuple(stage for run in self._jobs.values() for stage in run.at_work)

    @property
    def gate(self) -> Gate:
        """Whether it begins anything new at the moment."""
        return self._tools.gate

    @property
    def trouble(self) -> StorageTrouble | None:
        """Why nothing can be recorded at the moment; None as soon as something could."""
        return self._insist.trouble

    @property
    def in_trouble(self) -> asyncio.Event:
        """Set while there is trouble."""
        return self._insist.in_trouble

    async def recover(self) -> list[Job]:
        """Take back what an earlier life left running. Must end before `run` begins."""
        return await self._store.take_back(max_attempts=self._settings.max_attempts)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._insist(self._claim_while_there_is_room)
                await self._wait()
        finally:
            await end(set(self._jobs))

    def expect(self, complete: Mapping[str, Mapping[str, Any]]) -> None:
        """
        A job with these pipelines, so configured, may come in a moment; nothing is promised. Where it would have to
        wait for its turn, nothing is made ready that would take the processor from the jobs before it.
        """
        if self.active_jobs < self._settings.max_concurrent_jobs:
            expect(self._tools, complete)

    async def drain(self, limit_seconds: float) -> None:
        """Begin nothing more, for good, and wait until the running stages have ended, but not longer than this."""
        self.gate.close()
        if not await self.gate.idle(limit_seconds) and limit_seconds > 0:
            log.warning("stages still run and are put back", waited_seconds=limit_seconds)

    async def _claim_while_there_is_room(self) -> None:
        while self.gate.is_open and self.active_jobs < self._settings.max_concurrent_jobs:
            claim = await self._store.claim("worker")
            if claim is None:
                return
            reach("job.claimed")
            run = JobRun(self._tools, claim)
            self._jobs[asyncio.create_task(run.work(), name=f"job {claim.job.id}")] = run

    async def _wait(self) -> None:
        """Until a job ends, the bell rings, or it is time to look again. A job's task never raises on purpose."""
        bell = asyncio.create_task(self._listen(), name="bell")
        try:
            done, _ = await asyncio.wait({bell, *self._jobs}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end({bell})
        for task in done - {bell}:
            del self._jobs[task]
            task.result()

    async def _listen(self) -> None:
        self._heard = await self._store.wait_for_work(self._heard, LOOK_AGAIN_SECONDS)
