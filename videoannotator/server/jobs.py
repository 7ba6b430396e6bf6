"""Jobs over HTTP: submit, list, read, cancel, retry, delete."""

from concurrent.futures import Executor
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from videoannotator.errors import FieldProblem, InvalidConfig, Refused
from videoannotator.jobs import Job, JobStatus
from videoannotator.logs import bind_contextvars
from videoannotator.server.auth import READ, WRITE, Caller, limited
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.idempotency import key_of
from videoannotator.server.schemas import JobAnswer, describe
from videoannotator.server.submitting import submit_form, submit_json
from videoannotator.store import JobQuery
from videoannotator.workspace import Workspace


class JobList(msgspec.Struct, frozen=True):
    jobs: tuple[JobAnswer, ...]
    total: int
    page: int
    per_page: int


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str = ""


class CancelAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    job_id: str
    status: JobStatus
    message: str
    cancelled_at: datetime | None = None


class RetryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    from_scratch: bool = False


@post("/api/v1/jobs", status_code=201, request_max_body_size=None, opt=limited(WRITE, "submissions"))
async def submit(
    request: ApiRequest,
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller],
    upload_threads: NamedDependency[Executor],
) -> Response[JobAnswer]:
    """
    A video and what to do with it: a form with the file, or JSON that says where the video is. With neither preset
    nor pipelines, the default preset of the caller, or the server's. With an `Idempotency-Key` the same request, sent
    again within 24 hours, is answered 200 with the job of the first.
    """
    key_of(request)
    match request.content_type[0]:
        case "multipart/form-data":
            made = await submit_form(request, workspace, caller, upload_threads)
        case "application/json":
            made = await submit_json(request, workspace, caller)
        case _:
            hint = "Send multipart/form-data with a video, or application/json."
            raise Refused("A job cannot be read from this type of body.", hint=hint, code="UNSUPPORTED_MEDIA_TYPE")
    bind_contextvars(job_id=made.job.id)
    return _created(made.job, status=200 if made.earlier else 201)


@get("/api/v1/jobs", opt=READ)
async def list_jobs(
    *,
    workspace: NamedDependency[Workspace],
    page: Annotated[int, QueryParameter(ge=1, le=1_000_000_000)] = 1,
    per_page: Annotated[int, QueryParameter(ge=1, le=100)] = 10,
    status: FromQuery[JobStatus | None] = None,
    tag: FromQuery[str | None] = None,
    batch_id: FromQuery[str | None] = None,
    q: FromQuery[str | None] = None,
    created_after: FromQuery[datetime | None] = None,
    created_before: FromQuery[datetime | None] = None,
    sort: FromQuery[Literal["-created_at", "created_at"]] = "-created_at",
) -> JobList:
    """Newest first, unless `sort=created_at`."""
    _require_zones(created_after=created_after, created_before=created_before)
    found = await workspace.store.jobs(
        JobQuery(
            status=status,
            tag=tag,
            batch_id=batch_id,
            text=q,
            created_after=None if created_after is None else created_after.timestamp(),
            created_before=None if created_before is None else created_before.timestamp(),
            oldest_first=sort == "created_at",
            limit=per_page,
            offset=(page - 1) * per_page,
        )
    )
    return JobList(tuple(describe(job) for job in found.jobs), found.total, page, per_page)


@get("/api/v1/jobs/{job_id:str}", opt=READ)
async def get_job(workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> JobAnswer:
    return describe(await workspace.store.get(job_id))


@post("/api/v1/jobs/{job_id:str}/cancel", status_code=200, opt=WRITE)
async def cancel_job(
    workspace: NamedDependency[Workspace],
    job_id: FromPath[str],
    data: JSONBody[CancelRequest | None] = None,  # noqa: ARG001 (a reason may be sent; nothing depends on it)
) -> CancelAnswer:
    job = await workspace.cancel(job_id)
    cancelled = job.status is JobStatus.CANCELLED
    return CancelAnswer(
        job_id=job.id,
        status=job.status,
        message="The job is cancelled." if cancelled else "The job is being stopped.",
        cancelled_at=job.finished_at if cancelled else None,
    )


@post("/api/v1/jobs/{job_id:str}/retry", status_code=201, opt=limited(WRITE, "submissions"))
async def retry_job(
    workspace: NamedDependency[Workspace], job_id: FromPath[str], data: JSONBody[RetryRequest | None] = None
) -> Response[JobAnswer]:
    """A new job on the same video; what the old one finished is taken over, unless it is to be done from scratch."""
    return _created(await workspace.retry(job_id, from_scratch=data is not None and data.from_scratch))


@delete("/api/v1/jobs/{job_id:str}", opt=WRITE)
async def delete_job(workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> None:
    await workspace.delete(job_id)


def _require_zones(**moments: datetime | None) -> None:
    """Without one a moment is another one on every machine."""
    problems = tuple(
        FieldProblem(name, f"{name} needs a time zone.", "INVALID_VALUE", "End it with Z for UTC.")
        for name, moment in moments.items()
        if moment is not None and moment.tzinfo is None
    )
    if problems:
        raise InvalidConfig(problems)


def _created(job: Job, *, status: int = 201) -> Response[JobAnswer]:
    return Response(describe(job), status_code=status, headers={"location": f"/api/v1/jobs/{job.id}"})


ROUTES = [submit, list_jobs, get_job, cancel_job, retry_job, delete_job]
