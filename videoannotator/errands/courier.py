"""
Tells the URLs that callers gave that their jobs are over: a signed POST, again and again with growing pauses, until the
other side says 2xx or it is given up. How far each is stands in the store, so a restart changes nothing.

The signature: `X-VideoAnnotator-Signature: sha256=HEX`, HMAC-SHA256 (RFC 2104) with the secret `callback_secret` over
the value of `X-VideoAnnotator-Timestamp`, a full stop, and the body as it was sent. Every attempt of one job has the
same `X-VideoAnnotator-Delivery` and the same body, so the other side can tell a repetition.
"""

import asyncio
import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from videoannotator.errors import Refused, StorageTrouble, Unreachable
from videoannotator.jobs import Job, JobStatus
from videoannotator.logs import get_logger
from videoannotator.outbound.client import requesting
from videoannotator.outbound.policy import Policy
from videoannotator.outbound.targets import target_of
from videoannotator.settings import Settings
from videoannotator.store import Store

LOOK_AGAIN_SECONDS = 1.0
MOST_ATTEMPTS = 6
_AT_ONCE = 8
_ATTEMPT_SECONDS = 20.0
_PAUSE_GROWS_BY = 5

log = get_logger(__name__)


class Told(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of a callback."""

    task_id: str
    status: str
    """SUCCESS or FAILED, as in GET /results/{task_id}."""

    job_status: JobStatus
    finished_at: datetime
    results: str
    """Where the rest is to be asked for: a path of this server's."""

    outcome: str | None = None
    error_message: str | None = None
    error_code: str | None = None


class Courier:
    def __init__(self, store: Store, policy: Policy, settings: Settings) -> None:
        self._store = store
        self._policy = policy
        self._secret = settings.callback_secret.encode()
        self._pause = settings.callback_retry_seconds
        self._look_again = min(LOOK_AGAIN_SECONDS, max(0.05, self._pause))

    async def run(self) -> None:
        """Deliver what is due, until cancelled."""
        while True:
            try:
                due = await self._store.due_callbacks(_AT_ONCE)
                async with asyncio.TaskGroup() as group:
                    for job in due:
                        group.create_task(self._deliver(job), name=f"callback of {job.id}")
            except* StorageTrouble as trouble:
                log.warning("callbacks wait for the storage", reason=str(trouble.exceptions[0]))
                due = ()
            if len(due) < _AT_ONCE:
                await asyncio.sleep(self._look_again)

    async def _deliver(self, job: Job) -> None:
        assert job.callback is not None, "only jobs with a callback are due"
        status, error = await self._attempt(job, job.callback.url)
        attempts = job.callback.attempts + 1
        now = datetime.now(UTC)
        if error is None:
            await self._store.note_callback(job.id, state="delivered", next_at=now, status=status, error=None)
            log.info("callback delivered", job_id=job.id, attempts=attempts)
            return
        over = attempts >= MOST_ATTEMPTS or status == 410
        pause = timedelta(seconds=self._pause * _PAUSE_GROWS_BY ** (attempts - 1))
        state: Literal["given_up", "waiting"] = "given_up" if over else "waiting"
        log.warning("callback failed", job_id=job.id, attempts=attempts, state=state, reason=error)
        await self._store.note_callback(job.id, state=state, next_at=now + pause, status=status, error=error)

    async def _attempt(self, job: Job, url: str) -> tuple[int | None, str | None]:
        """What the other side answered, where it did; what went wrong, None where nothing did."""
        body = told(job)
        try:
            async with (
                asyncio.timeout(_ATTEMPT_SECONDS),
                requesting(
                    self._policy, "POST", target_of(url), headers=self._headers(job, body), content=body
                ) as response,
            ):
                status = response.status
        except TimeoutError:
            return None, f"No answer within {_ATTEMPT_SECONDS:g} s."
        except (Refused, Unreachable) as exc:
            return None, str(exc)
        return status, None if 200 <= status < 300 else f"The other side answered {status}."

    def _headers(self, job: Job, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "X-VideoAnnotator-Delivery": job.id,
            "X-VideoAnnotator-Timestamp": timestamp,
            "X-VideoAnnotator-Signature": f"sha256={signature(self._secret, timestamp, body)}",
        }


def told(job: Job) -> bytes:
    """The same bytes each time."""
    assert job.finished_at is not None, "a job that is over says when it ended"
    return msgspec.json.encode(
        Told(
            task_id=job.id,
            status="SUCCESS" if job.status is JobStatus.COMPLETED else "FAILED",
            job_status=job.status,
            finished_at=job.finished_at,
            results=f"/api/v1/results/{job.id}",
            outcome=job.outcome,
            error_message=job.error.message if job.error else None,
            error_code=job.error.code if job.error else None,
        )
    )


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
