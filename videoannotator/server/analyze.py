"""Fire and poll: a URL in, a task id out, and where to ask for its result. The video is fetched by the queue."""

from typing import Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from videoannotator.jobs import Job, JobStatus
from videoannotator.server.auth import READ, WRITE, Caller, limited
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.idempotency import once
from videoannotator.server.orders import AtUrl, JsonOrder, Url
from videoannotator.server.results import PipelineResult, results_of
from videoannotator.server.submitting import as_preferred, queue_url
from videoannotator.workspace import Workspace

_ROOTS = ("", "/api/v1")
_STATUS: dict[JobStatus, Literal["PENDING", "PROCESSING", "SUCCESS", "FAILED"]] = {
    JobStatus.PENDING: "PENDING",
    JobStatus.RUNNING: "PROCESSING",
    JobStatus.CANCELLING: "PROCESSING",
    JobStatus.COMPLETED: "SUCCESS",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "FAILED",
}


class AnalyzeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    video_url: Url
    callback_url: Url | None = None


class Accepted(msgspec.Struct, frozen=True):
    task_id: str
    status_endpoint: str


class TaskResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a task that succeeded made."""

    results: dict[str, PipelineResult]
    artifacts: str
    """A path of this server's: everything in one ZIP."""


class TaskAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    task_id: str
    status: Literal["PENDING", "PROCESSING", "SUCCESS", "FAILED"]
    result: TaskResult | None = None
    error_message: str | None = None
    """Why it failed; with SUCCESS, which part is missing."""


@post([f"{root}/analyze" for root in _ROOTS], status_code=202, opt=limited(WRITE, "analyses"))
async def analyze(
    request: ApiRequest,
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller],
    data: JSONBody[AnalyzeRequest],
) -> Response[Accepted]:
    """Have the video at a URL annotated with the default preset; `callback_url` is told when it is over."""
    repeatable = once(request, caller, data)
    task = None if repeatable is None else await workspace.store.earlier(repeatable)
    if task is None:
        order = JsonOrder(video_url=data.video_url, callback_url=data.callback_url)
        asked = await as_preferred(order, workspace, caller, repeatable)
        task = (await queue_url(AtUrl(data.video_url), asked, workspace)).job
    endpoint = f"{_root(request)}/results/{task.id}"
    return Response(Accepted(task.id, endpoint), status_code=202, headers={"location": endpoint})


@get([f"{root}/results/{{task_id:str}}" for root in _ROOTS], opt=READ)
async def get_task(workspace: NamedDependency[Workspace], task_id: FromPath[str]) -> TaskAnswer:
    """How far a task is, and what it made."""
    job = await workspace.store.get(task_id)
    error = job.error.message if job.error else None
    if job.status is JobStatus.CANCELLED:
        error = "The task was cancelled."
    return TaskAnswer(
        task_id=job.id,
        status=_STATUS[job.status],
        result=await _result(workspace, job) if job.status is JobStatus.COMPLETED else None,
        error_message=error,
    )


async def _result(workspace: Workspace, job: Job) -> TaskResult:
    found = results_of(job, await workspace.store.artifacts(job.id))
    return TaskResult(results=found, artifacts=f"/api/v1/jobs/{job.id}/artifacts")


def _root(request: ApiRequest) -> str:
    """Whoever asked at the root is answered there."""
    return "/api/v1" if request.scope["path"].startswith("/api/v1/") else ""


ROUTES: list[Any] = [analyze, get_task]
