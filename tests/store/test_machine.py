"""
The queue under every order of events that hypothesis thinks of: workers that are slow, dead or late, cancellations,
crashes and clocks that run on. The store is the real one on a real file; only the clock is ours.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from tests.sample_jobs import PIPELINES, new_job, result
from videoannotator.errors import Conflict, LeaseLost
from videoannotator.jobs import Claim, Job, JobStatus, Progress, StageError, StageStatus
from videoannotator.store import JobQuery
from videoannotator.store.sqlite import SqliteStore

LEASE_SECONDS = 30.0
MAX_ATTEMPTS = 3


class Unfenced(SqliteStore):
    """A store that forgets who holds a job: whoever writes is taken for the present holder."""

    async def _fenced(self, work: Any, claim: Claim, /, *args: Any, **kwargs: Any) -> Any:
        def unfenced(connection: Any) -> Any:
            (token,) = connection.execute("SELECT lease_token FROM jobs WHERE id = ?", (claim.job.id,)).fetchone()
            return work(connection, msgspec.structs.replace(claim, token=token), *args, **kwargs)

        return await self._database.write(unfenced)


class Queue(RuleBasedStateMachine):
    store_class: type[SqliteStore] = SqliteStore
    met: ClassVar[Counter[str]] = Counter()
    """How many writes there were of holders, of holders whose job forbade them, and of stale workers."""

    added = Bundle("added")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_700_000_000.0
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.stack = AsyncExitStack()
        self.acknowledged: list[str] = []
        self.held: dict[str, Claim] = {}
        self.lease_until: dict[str, float] = {}
        self.cancel_asked: set[str] = set()
        self.final: dict[str, Job] = {}
        self.seen: dict[str, Job] = {}
        self.do(self.open())

    def teardown(self) -> None:
        self.do(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()

    def do(self, verb: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await verb

        return self.runner.run(awaited())

    async def open(self) -> None:
        opened = self.store_class.open(Path(self.folder.name), clock=lambda: self.now, lease_seconds=LEASE_SECONDS)
        self.store = await self.stack.enter_async_context(opened)

    # -- from the outside

    @rule(target=added, priority=st.integers(0, 2))
    def enqueue(self, priority: int) -> str:
        job = new_job(priority=priority)
        self.do(self.store.add(job))
        self.acknowledged.append(job.id)
        return job.id

    @rule(job_id=added)
    def cancel(self, job_id: str) -> None:
        before = self.do(self.store.get(job_id))
        try:
            job = self.do(self.store.request_cancel(job_id))
        except Conflict:
            assert before.status in (JobStatus.COMPLETED, JobStatus.FAILED), "a cancellation was refused"
            return
        self.cancel_asked.add(job_id)
        assert job.status is (JobStatus.CANCELLING if before.status.is_held else JobStatus.CANCELLED)

    # -- workers, some of them late

    @rule(target=claims)
    def claim(self) -> Any:
        waiting = [job for job in self.seen.values() if job.status is JobStatus.PENDING]
        claim = self.do(self.store.claim("worker"))
        if claim is None:
            assert not waiting, "work was there and nobody got it"
            return multiple()
        first = min(waiting, key=lambda job: (-job.priority, self.acknowledged.index(job.id)))
        assert claim.job.id == first.id, "not the one that was next"
        assert claim.job.id not in self.held, "two workers hold one job"
        self.held[claim.job.id] = claim
        self.lease_until[claim.job.id] = self.now + LEASE_SECONDS
        return claim

    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        asked = self.write(claim, self.store.heartbeat)
        if asked is not None:
            assert asked is (claim.job.id in self.cancel_asked)
            self.lease_until[claim.job.id] = self.now + LEASE_SECONDS

    @rule(claim=claims, pipeline=st.sampled_from(PIPELINES))
    def start_stage(self, claim: Claim, pipeline: str) -> None:
        self.write(claim, self.store.start_stage, pipeline)

    @rule(claim=claims, pipeline=st.sampled_from(PIPELINES), share=st.floats(0, 1))
    def note_progress(self, claim: Claim, pipeline: str, share: float) -> None:
        self.write(claim, self.store.note_progress, pipeline, Progress(share * 10, 10.0))

    @rule(claim=claims)
    def log(self, claim: Claim) -> None:
        self.write(claim, self.store.log, None, "info", "still here")

    @rule(claim=claims, pipeline=st.sampled_from(PIPELINES))
    def finish_stage(self, claim: Claim, pipeline: str) -> None:
        self.write(claim, self.store.finish_stage, pipeline, result(pipeline))

    @rule(claim=claims, pipeline=st.sampled_from(PIPELINES))
    def fail_stage(self, claim: Claim, pipeline: str) -> None:
        self.write(
            claim, lambda *given: self.store.fail_stage(*given, seconds=1.0), pipeline, StageError("X", "Broken.")
        )

    @rule(claim=claims, pipeline=st.sampled_from(PIPELINES), delay=st.floats(0, 100))
    def put_back_stage(self, claim: Claim, pipeline: str, delay: float) -> None:
        self.write(
            claim,
            lambda *given: self.store.put_back_stage(*given, delay_seconds=delay, eased=None),
            pipeline,
            StageError("X", "Broken, for now."),
        )

    @rule(claim=claims)
    def finish(self, claim: Claim) -> None:
        if self.write(claim, self.store.finish):
            self.let_go(claim.job.id)

    @rule(claim=claims)
    def work_through(self, claim: Claim) -> None:
        for pipeline in PIPELINES:
            self.start_stage(claim, pipeline)
            self.finish_stage(claim, pipeline)
        self.finish(claim)

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        if self.write(claim, self.store.fail, StageError("INTERNAL_ERROR", "A bug.")):
            self.let_go(claim.job.id)

    @rule(claim=claims)
    def finish_cancelled(self, claim: Claim) -> None:
        if self.write(claim, self.store.finish_cancelled):
            self.let_go(claim.job.id)

    @rule(claim=claims)
    def give_back(self, claim: Claim) -> None:
        holds = self.holds(claim)
        self.write(claim, self.store.give_back)
        if holds:
            self.let_go(claim.job.id)

    # -- time and crashes

    @rule(seconds=st.floats(0.1, 2 * LEASE_SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take_back_expired(self) -> None:
        taken = self.do(self.store.take_back(expired_only=True, max_attempts=MAX_ATTEMPTS))

        assert {job.id for job in taken} == {job_id for job_id in self.held if self.expired(job_id)}
        for job in taken:
            self.let_go(job.id)

    @rule()
    def crash_and_recover(self) -> None:
        self.do(self.stack.aclose())
        self.stack = AsyncExitStack()
        self.do(self.open())

        taken = self.do(self.store.take_back(max_attempts=MAX_ATTEMPTS))

        assert {job.id for job in taken} == set(self.held)
        self.held.clear()

    # -- what holds at any time

    @invariant()
    def promises_are_kept(self) -> None:
        page = self.do(self.store.jobs(JobQuery(limit=1000)))
        self.seen = {job.id: job for job in page.jobs}
        assert set(self.seen) == set(self.acknowledged), "an acknowledged job is lost"
        for job in page.jobs:
            self.check(job)
            if job.status.is_final:
                self.final.setdefault(job.id, job)

    def check(self, job: Job) -> None:
        assert job == self.final.get(job.id, job), "a final job changed"
        assert job.status.is_held is (job.id in self.held), "held without a holder, or the reverse"
        assert job.attempts <= MAX_ATTEMPTS, "a poisonous job loops"
        if job.id in self.cancel_asked:
            assert job.status in (JobStatus.CANCELLING, JobStatus.CANCELLED), "a cancelled job went on"
        assert all(s.status is StageStatus.PENDING for s in job.stages if s.retry_at), "it waits, and does not wait"
        if not job.status.is_held:
            assert all(stage.status is not StageStatus.RUNNING for stage in job.stages), "a stage runs for nobody"
        if job.status.is_final:
            assert all(stage.status.is_final for stage in job.stages)

    # -- the pieces

    def write(self, claim: Claim, verb: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        """A worker's write: refused if it holds nothing any more; None where the job's own state forbids it."""
        try:
            answer = self.do(verb(claim, *given))
        except LeaseLost:
            assert not self.holds(claim), "the holder was refused"
            self.met["stale"] += 1
            return None
        except Conflict:
            assert self.holds(claim), "a stale worker heard of the job's state"
            self.met["forbidden"] += 1
            return None
        assert self.holds(claim), "a stale worker wrote"
        self.met["written"] += 1
        return answer

    def holds(self, claim: Claim) -> bool:
        return self.held.get(claim.job.id) is claim

    def expired(self, job_id: str) -> bool:
        return round(self.lease_until[job_id] * 1000) < round(self.now * 1000)

    def let_go(self, job_id: str) -> None:
        del self.held[job_id]


class UnfencedQueue(Queue):
    store_class = Unfenced


QUICK = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


def test_no_order_of_events_breaks_the_queue() -> None:
    """Acknowledged jobs are never lost, one worker holds a job, final states are final, a cancel request wins."""
    Queue.met.clear()

    run_state_machine_as_test(Queue, settings=QUICK)

    assert {"written", "forbidden", "stale"} == set(Queue.met)


@pytest.mark.slow
def test_no_order_of_events_breaks_the_queue_in_a_long_search() -> None:
    """The same with more patience: rare orders need many tries."""
    Queue.met.clear()

    run_state_machine_as_test(Queue, settings=settings(QUICK, max_examples=500, stateful_step_count=80))

    assert {"written", "forbidden", "stale"} == set(Queue.met)


def test_without_the_fence_a_stale_worker_is_found_out() -> None:
    """Proves that the machine looks where it matters: take the token check away, and it fails."""
    long = settings(QUICK, stateful_step_count=120)  # one long life meets it sooner than many short ones
    search = settings(long, max_examples=300, phases=[Phase.generate], database=None, derandomize=True)

    with pytest.raises(AssertionError, match="stale worker"):
        run_state_machine_as_test(UnfencedQueue, settings=search)
