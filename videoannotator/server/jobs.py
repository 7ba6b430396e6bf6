"""Jobs over HTTP: submit, list, read, cancel, retry, delete."""

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from videoannotator.errors import FieldProblem, InvalidConfig, Refused
from videoannotator.jobs import Idempotency, Job, JobStatus, new_id
from videoannotator.logs import bind_contextvars
from videoannotator.server.auth import READ, WRITE, Caller, limited
from videoannotator.server.datasets import find_video
from videoannotator.server.decoding import MAX_BODY_BYTES, ApiRequest, parse_json, read_struct
from videoannotator.server.idempotency import key_of, once
from videoannotator.server.receive import Upload, UploadLimits, receiving
from videoannotator.server.schemas import JobAnswer, describe
from videoannotator.store import JobQuery
from videoannotator.workspace import Selection, Workspace

_MOST_TAGS = 32
_LONGEST_TAG = 100
_LONGEST_PATH = 4096
_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"),
        *(".ts", ".webm", ".wmv", ".flac", ".m4a", ".mp3", ".ogg", ".wav"),
    )
)

AnyOrder = TypeVar("AnyOrder", bound="Order")

Priority = Annotated[int, msgspec.Meta(ge=-100, le=100)]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with a video, as a form says it."""

    preset: str | None = None
    selected_pipelines: tuple[str, ...] = ()
    config: dict[str, dict[str, Any]] = {}
    tags: tuple[str, ...] = ()
    priority: Priority = 0

    @property
    def selection(self) -> Selection:
        return Selection(preset=self.preset, pipelines=self.selected_pipelines, config=self.config)


class DatasetOrder(Order, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same as JSON, for a video that already lies on the server."""

    dataset_id: str
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_PATH)]


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
    A video and what to do with it: a form with the file, or JSON that names a file of a dataset. With neither preset
    nor pipelines, the default preset of the caller, or the server's. With an `Idempotency-Key` the same request, sent
    again within 24 hours, is answered 200 with the job of the first.
    """
    key_of(request)
    match request.content_type[0]:
        case "multipart/form-data":
            made = await _submit_form(request, workspace, caller, upload_threads)
        case "application/json":
            made = await _submit_json(request, workspace, caller)
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
    found = await workspace.store.jobs(
        JobQuery(
            status=status,
            tag=tag,
            batch_id=batch_id,
            text=q,
            created_after=_epoch("created_after", created_after),
            created_before=_epoch("created_before", created_before),
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


@post("/api/v1/jobs/{job_id:str}/retry", status_code=201, opt=WRITE)
async def retry_job(
    workspace: NamedDependency[Workspace], job_id: FromPath[str], data: JSONBody[RetryRequest | None] = None
) -> Response[JobAnswer]:
    """A new job on the same video; what the old one finished is taken over, unless it is to be done from scratch."""
    return _created(await workspace.retry(job_id, from_scratch=data is not None and data.from_scratch))


@delete("/api/v1/jobs/{job_id:str}", opt=WRITE)
async def delete_job(workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> None:
    await workspace.delete(job_id)


def _epoch(name: str, moment: datetime | None) -> float | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        message = f"{name} needs a time zone."
        raise InvalidConfig((FieldProblem(name, message, "INVALID_VALUE", "End it with Z for UTC."),))
    return moment.timestamp()


def _created(job: Job, *, status: int = 201) -> Response[JobAnswer]:
    return Response(describe(job), status_code=status, headers={"location": f"/api/v1/jobs/{job.id}"})


class _Made(msgspec.Struct, frozen=True):
    """The job of a submission; `earlier` where the same request had made it already."""

    job: Job
    earlier: bool = False


async def _submit_form(request: ApiRequest, workspace: Workspace, caller: Caller, threads: Executor) -> _Made:
    settings = workspace.settings
    limits = UploadLimits(
        max_bytes=settings.max_upload_bytes,
        min_free_bytes=settings.min_free_bytes,
        fields=frozenset(Order.__struct_fields__),
        hashed=key_of(request) is not None,
    )
    async with receiving(request, workspace.artifacts.uploads, limits, threads) as upload:
        order = _order_of_form(upload.fields)
        repeatable = once(request, caller, order, upload.filename, upload.sha256 or "")
        if repeatable is not None and (job := await workspace.store.earlier(repeatable)) is not None:
            return _Made(job, earlier=True)
        return await _queue_upload(upload, await _with_default_preset(order, workspace, caller), workspace, repeatable)


async def _queue_upload(upload: Upload, order: Order, workspace: Workspace, repeatable: Idempotency | None) -> _Made:
    """The file changes hands: from here on it is the job's, or gone."""
    job_id = new_id("job")
    place = workspace.artifacts.video_folder(job_id) / _stored_name(upload.filename)
    queueing = False
    try:
        await asyncio.to_thread(_move, upload.path, place)
        syncing = asyncio.create_task(asyncio.to_thread(_sync_folders, place), name="sync")  # while the video is probed
        try:
            job = await workspace.admit(
                place,
                upload.filename,
                order.selection,
                owns_video=True,
                job_id=job_id,
                tags=order.tags,
                priority=order.priority,
            )
        finally:
            await syncing
        if upload.sha256 is not None:
            job = msgspec.structs.replace(job, video=msgspec.structs.replace(job.video, sha256=upload.sha256))
        queueing = True
        (queued,) = await workspace.submit(job, once=repeatable)
    except BaseException as exc:
        # Cancelled while the row was being written, nobody knows whether it is there; the next start will look.
        if not (queueing and isinstance(exc, asyncio.CancelledError)):
            await asyncio.shield(asyncio.to_thread(workspace.artifacts.remove, job_id))
        raise
    if queued.id != job_id:  # its twin was faster
        await asyncio.to_thread(workspace.artifacts.remove, job_id)
    return _Made(queued, earlier=queued.id != job_id)


async def _submit_json(request: ApiRequest, workspace: Workspace, caller: Caller) -> _Made:
    order = read_struct(parse_json(await _small_body(request)), DatasetOrder)
    _check_tags(order.tags)
    repeatable = once(request, caller, order)
    if repeatable is not None and (earlier := await workspace.store.earlier(repeatable)) is not None:
        return _Made(earlier, earlier=True)
    dataset = await workspace.store.dataset(order.dataset_id)
    path = await asyncio.to_thread(find_video, dataset, order.path, workspace.settings)
    selection = (await _with_default_preset(order, workspace, caller)).selection
    job = await workspace.admit(path, path.name, selection, owns_video=False, tags=order.tags, priority=order.priority)
    (queued,) = await workspace.submit(job, once=repeatable)
    return _Made(queued, earlier=queued.id != job.id)


async def _with_default_preset(order: AnyOrder, workspace: Workspace, caller: Caller) -> AnyOrder:
    """A caller who says nothing of what to run has perhaps said it before."""
    if order.preset is not None or order.selected_pipelines:
        return order
    preferences = await workspace.store.preferences(caller.id)
    return msgspec.structs.replace(order, preset=preferences.default_preset)


async def _small_body(request: ApiRequest) -> bytes:
    """The route has no limit of its own, because of the videos that come through it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused("The request's body is too large.", code="BODY_TOO_LARGE")
    return bytes(body)


def _order_of_form(fields: dict[str, list[str]]) -> Order:
    given: dict[str, Any] = {}
    for name in ("preset", "config", "priority"):
        if len(fields.get(name, ())) > 1:
            raise InvalidConfig((FieldProblem(name, f"{name} may be given once.", "DUPLICATE_FIELD"),))
        if text := "".join(fields.get(name, ())).strip():
            given[name] = text
    if "config" in given:
        given["config"] = parse_json(given["config"])
    if "priority" in given:
        given["priority"] = _whole_number("priority", given["priority"])
    given |= {name: _listed(fields[name]) for name in ("selected_pipelines", "tags") if name in fields}
    order = read_struct(given, Order)
    _check_tags(order.tags)
    return order


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text[:20])
    except ValueError:
        raise InvalidConfig((FieldProblem(name, f"{name} must be a whole number.", "INVALID_VALUE"),)) from None


def _listed(values: Iterable[str]) -> list[str]:
    """A list in a form: repeated, or joined by commas."""
    return [part for value in values for piece in value.split(",") if (part := piece.strip())]


def _check_tags(tags: tuple[str, ...]) -> None:
    if len(tags) > _MOST_TAGS or any(not 1 <= len(tag) <= _LONGEST_TAG or not tag.isprintable() for tag in tags):
        message = f"A job has up to {_MOST_TAGS} tags of up to {_LONGEST_TAG} printable characters."
        raise InvalidConfig((FieldProblem("tags", message, "INVALID_VALUE"),))


def _stored_name(filename: str) -> str:
    """Ours, whatever the client called the file; the ending helps people who look into the folder."""
    suffix = PurePosixPath(filename).suffix.lower()
    return f"video{suffix}" if suffix in _SUFFIXES else "video"


def _move(part: Path, place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    part.rename(place)


def _sync_folders(place: Path) -> None:
    """So that the file is still there, under this name, after a power cut."""
    for folder in (place.parent, place.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


ROUTES = [submit, list_jobs, get_job, cancel_job, retry_job, delete_job]
