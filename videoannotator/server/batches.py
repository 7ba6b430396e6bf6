"""Batches over HTTP: submit, watch, pause, cancel, retry what failed, and the report that leaves no video out."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from videoannotator.artifacts import manifest
from videoannotator.batches import BatchInput, BatchPlan, BatchTally, InputState, lines
from videoannotator.errors import Conflict, FieldProblem, InvalidConfig
from videoannotator.jobs import Batch, Job, JobStatus, StageStatus
from videoannotator.server.auth import READ, WRITE, Caller, limited
from videoannotator.server.batch_report import ReportLine, as_csv, describe_line
from videoannotator.server.datasets import checked_base
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.gathering import MOST_VIDEOS, videos_below
from videoannotator.server.intake import Intake, selection_of
from videoannotator.server.orders import Order, check_tags
from videoannotator.server.uploads import owner_of
from videoannotator.workspace import Workspace

ANSWER_SECONDS = 30.0
"""After so long a submission is answered although some of its videos are not looked at yet; that goes on."""

_LONGEST_PATH = 4096

VideoName = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_PATH)]
State = Literal["queueing", "paused", "running", "finished"]


class BatchOrder(Order, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with which videos."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "batch"
    dataset_id: str | None = None
    videos: tuple[VideoName, ...] = ()
    """Paths in the dataset, or ids of finished uploads; none means all videos of the dataset."""

    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_PATH)] | None = None
    """Which files of the dataset, `*.mp4` say; only without `videos`."""

    recursive: bool = True
    """Also in the folders below the dataset's; only without `videos`."""

    skip_done: bool = False
    """Leave out a video whose bytes went through the same stages before."""


class MoreVideos(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    videos: Annotated[tuple[VideoName, ...], msgspec.Meta(min_length=1)]


class RetryOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    include_cancelled: bool = False
    """Also the jobs that were cancelled."""


class ErrorAnswer(msgspec.Struct, frozen=True):
    code: str
    message: str


class Queued(msgspec.Struct, frozen=True):
    id: str
    video: str


class Rejected(msgspec.Struct, frozen=True):
    video: str
    error: ErrorAnswer


class Skipped(msgspec.Struct, frozen=True):
    video: str
    job_id: str
    """The job that did it before."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    jobs: tuple[Queued, ...]
    rejected: tuple[Rejected, ...]
    skipped: tuple[Skipped, ...]
    waiting: int
    """Videos that are not looked at yet."""


class PipelineAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    counts: dict[StageStatus, int]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    result_bytes: int = 0


class BatchAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    id: str
    name: str
    state: State
    created_at: datetime
    videos: int
    counts: dict[str, int]
    """By state: the jobs' states, and `waiting`, `rejected`, `skipped`, `removed`; `partial` are completed ones too."""

    progress: float
    progress_pct: float
    success_rate: float
    pipelines: dict[str, PipelineAnswer]
    failures: dict[str, int]
    video_seconds: float
    paused_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    videos_per_hour: float | None = None
    eta_seconds: float | None = None


class BatchList(msgspec.Struct, frozen=True):
    batches: tuple[BatchAnswer, ...]
    total: int
    page: int
    per_page: int


class Retried(msgspec.Struct, frozen=True):
    id: str
    jobs: tuple[Queued, ...]
    """The new jobs."""

    rejected: tuple[Rejected, ...]
    """Failed ones that could not be retried: their video is gone, say."""


class Report(msgspec.Struct, frozen=True):
    batch: BatchAnswer
    videos: tuple[ReportLine, ...]


@post("/api/v1/batches", status_code=201, opt=limited(WRITE, "submissions"))
async def submit_batch(
    workspace: NamedDependency[Workspace],
    intake: NamedDependency[Intake],
    caller: NamedDependency[Caller],
    data: JSONBody[BatchOrder],
) -> Response[Submitted]:
    """When it is answered, every named video is on record, and most of them have a job."""
    check_tags(data.tags)
    plan = BatchPlan(
        dataset_id=data.dataset_id,
        preset=data.preset or await _preferred(workspace, caller, data),
        selected_pipelines=data.selected_pipelines,
        config=data.config,
        tags=data.tags,
        priority=data.priority,
        skip_done=data.skip_done,
        cache=data.cache,
        owner=owner_of(caller),
        submitted_by=caller.id,
    )
    await workspace.check(selection_of(plan))
    batch_id = await workspace.store.add_batch(data.name, plan, await _named(workspace, data))
    intake.begin(batch_id)
    await intake.done(batch_id, ANSWER_SECONDS)
    headers = {"location": f"/api/v1/batches/{batch_id}"}
    return Response(await _submitted(workspace, batch_id), status_code=201, headers=headers)


@post("/api/v1/batches/{batch_id:str}/videos", status_code=200, opt=limited(WRITE, "submissions"))
async def add_videos(
    workspace: NamedDependency[Workspace],
    intake: NamedDependency[Intake],
    batch_id: FromPath[str],
    data: JSONBody[MoreVideos],
) -> Submitted:
    """More videos for a batch, for lists that are too long for one request, or files that are still being sent."""
    before = len(await workspace.store.batch_inputs(batch_id))
    if before + len(data.videos) > MOST_VIDEOS:
        raise _wrong("videos", f"A batch has up to {MOST_VIDEOS} videos.", "TOO_MANY_VIDEOS")
    await workspace.store.extend_batch(batch_id, data.videos)
    intake.begin(batch_id)
    await intake.done(batch_id, ANSWER_SECONDS)
    return await _submitted(workspace, batch_id, after=before)


@get("/api/v1/batches", opt=READ)
async def list_batches(
    workspace: NamedDependency[Workspace],
    page: Annotated[int, QueryParameter(ge=1, le=1_000_000_000)] = 1,
    per_page: Annotated[int, QueryParameter(ge=1, le=100)] = 10,
) -> BatchList:
    """Newest first."""
    found, total = await workspace.store.batch_page(per_page, (page - 1) * per_page)
    answers = [await _describe(workspace, batch) for batch in found]
    return BatchList(tuple(answers), total, page, per_page)


@get("/api/v1/batches/{batch_id:str}", opt=READ)
async def get_batch(workspace: NamedDependency[Workspace], batch_id: FromPath[str]) -> BatchAnswer:
    return await _describe(workspace, await workspace.store.batch(batch_id))


@post("/api/v1/batches/{batch_id:str}/cancel", status_code=200, opt=WRITE)
async def cancel_batch(workspace: NamedDependency[Workspace], batch_id: FromPath[str]) -> BatchAnswer:
    """What is not over is cancelled; what is over stays as it is."""
    await workspace.store.cancel_batch(batch_id)
    return await _describe(workspace, await workspace.store.batch(batch_id))


@post("/api/v1/batches/{batch_id:str}/pause", status_code=200, opt=WRITE)
async def pause_batch(workspace: NamedDependency[Workspace], batch_id: FromPath[str]) -> BatchAnswer:
    """Nothing of it is begun any more; what runs goes on."""
    await workspace.store.pause_batch(batch_id)
    return await _describe(workspace, await workspace.store.batch(batch_id))


@post("/api/v1/batches/{batch_id:str}/resume", status_code=200, opt=WRITE)
async def resume_batch(workspace: NamedDependency[Workspace], batch_id: FromPath[str]) -> BatchAnswer:
    await workspace.store.resume_batch(batch_id)
    return await _describe(workspace, await workspace.store.batch(batch_id))


@post("/api/v1/batches/{batch_id:str}/retry", status_code=201, opt=limited(WRITE, "submissions"))
async def retry_batch(
    workspace: NamedDependency[Workspace], batch_id: FromPath[str], data: JSONBody[RetryOrder | None] = None
) -> Retried:
    """New jobs for those that failed, and for those that lack a stage that failed. What is finished is kept."""
    await workspace.store.batch(batch_id)
    cancelled = data is not None and data.include_cancelled
    queued: list[Queued] = []
    rejected: list[Rejected] = []
    for job in (await workspace.store.latest_jobs(batch_id)).values():
        if not (_failed(job) or (cancelled and job.status is JobStatus.CANCELLED)):
            continue
        try:
            again = await workspace.retry(job.id)
        except Conflict as conflict:
            rejected.append(Rejected(job.video.filename, ErrorAnswer(conflict.code, str(conflict))))
        else:
            queued.append(Queued(again.id, again.video.filename))
    return Retried(batch_id, tuple(queued), tuple(rejected))


@get("/api/v1/batches/{batch_id:str}/manifest", opt=READ)
async def get_batch_manifest(workspace: NamedDependency[Workspace], batch_id: FromPath[str]) -> dict[str, Any]:
    """The manifests of its jobs that have results."""
    await workspace.store.batch(batch_id)
    jobs = (await workspace.store.latest_jobs(batch_id)).values()
    done = [job for job in jobs if job.status is JobStatus.COMPLETED]
    return {
        "batch_id": batch_id,
        "jobs": [manifest(job, await workspace.store.artifacts(job.id)) for job in done],
    }


@get(["/api/v1/batches/{batch_id:str}/report", "/api/v1/batches/{batch_id:str}/report.csv"], opt=READ)
async def get_report(
    request: ApiRequest, workspace: NamedDependency[Workspace], batch_id: FromPath[str]
) -> Response[Any]:
    """Every video that was named with what became of it, as JSON; as a table with `.csv` or `Accept: text/csv`."""
    batch = await workspace.store.batch(batch_id)
    inputs, latest = await workspace.store.batch_inputs(batch_id), await workspace.store.latest_jobs(batch_id)
    sizes = await workspace.store.batch_result_sizes(batch_id)
    told = tuple(describe_line(line, sizes) for line in lines(inputs, latest))
    wants_csv = request.accept.best_match(["application/json", "text/csv"]) == "text/csv"
    if wants_csv or request.scope["path"].rstrip("/").endswith(".csv"):
        headers = {"content-disposition": f'attachment; filename="{batch_id}_report.csv"'}
        return Response(as_csv(told), media_type="text/csv; charset=utf-8", headers=headers)
    return Response(Report(await _describe(workspace, batch), told))


async def _preferred(workspace: Workspace, caller: Caller, order: BatchOrder) -> str | None:
    if order.selected_pipelines:
        return None
    return (await workspace.store.preferences(caller.id)).default_preset


async def _named(workspace: Workspace, order: BatchOrder) -> tuple[str, ...]:
    """Raises InvalidConfig, NotFound (DATASET_NOT_FOUND), Refused."""
    if order.videos:
        if order.pattern is not None:
            raise _wrong("pattern", "A pattern chooses among a dataset's files; here they are named.", "INVALID_VALUE")
        if len(set(order.videos)) < len(order.videos):
            raise _wrong("videos", "A video is named twice.", "DUPLICATE_VIDEO")
        return order.videos
    if order.dataset_id is None:
        raise _wrong("videos", "The batch names no video.", "MISSING_FIELD", "Name videos, or a dataset_id.")
    dataset = await workspace.store.dataset(order.dataset_id)
    base = await asyncio.to_thread(checked_base, str(dataset.base_path), workspace.settings)
    return await asyncio.to_thread(videos_below, base, pattern=order.pattern, recursive=order.recursive)


async def _submitted(workspace: Workspace, batch_id: str, after: int = 0) -> Submitted:
    inputs = [one for one in await workspace.store.batch_inputs(batch_id) if one.position >= after]
    return Submitted(
        id=batch_id,
        jobs=tuple(Queued(one.job_id, one.video) for one in _in(InputState.QUEUED, inputs) if one.job_id),
        rejected=tuple(
            Rejected(one.video, ErrorAnswer(one.error.code, one.error.message))
            for one in _in(InputState.REJECTED, inputs)
            if one.error
        ),
        skipped=tuple(Skipped(one.video, one.job_id) for one in _in(InputState.SKIPPED, inputs) if one.job_id),
        waiting=len(_in(InputState.WAITING, inputs)),
    )


def _in(state: InputState, inputs: list[BatchInput]) -> list[BatchInput]:
    return [one for one in inputs if one.state is state]


def _failed(job: Job) -> bool:
    stages = any(stage.status is StageStatus.FAILED for stage in job.stages)
    return job.status is JobStatus.FAILED or (job.status is JobStatus.COMPLETED and stages)


async def _describe(workspace: Workspace, batch: Batch) -> BatchAnswer:
    tally, now = await workspace.store.batch_tally(batch.id), datetime.now(UTC)
    rate, eta = tally.videos_per_hour(now), tally.eta_seconds(now) if batch.paused_at is None else None
    return BatchAnswer(
        id=batch.id,
        name=batch.name,
        state=_state(batch, tally),
        created_at=batch.created_at,
        paused_at=batch.paused_at,
        started_at=tally.started_at,
        finished_at=None if tally.unfinished else tally.last_ended_at,
        videos=tally.videos,
        counts=_counts(tally),
        progress=round(tally.total_progress, 4),
        progress_pct=round(tally.total_progress * 100, 2),
        videos_per_hour=None if rate is None else round(rate, 2),
        eta_seconds=None if eta is None else round(eta, 1),
        success_rate=round(tally.success_rate, 4),
        pipelines={
            name: PipelineAnswer(
                counts=one.counts,
                seconds=round(one.seconds, 3),
                cpu_seconds=round(one.cpu_seconds, 2),
                peak_memory_bytes=one.peak_memory_bytes,
                peak_gpu_memory_bytes=one.peak_gpu_memory_bytes,
                read_bytes=one.read_bytes,
                written_bytes=one.written_bytes,
                result_bytes=one.result_bytes,
            )
            for name, one in tally.pipelines.items()
        },
        failures=tally.failures,
        video_seconds=round(tally.video_seconds, 3),
    )


def _state(batch: Batch, tally: BatchTally) -> State:
    if not tally.unfinished:
        return "finished"
    if batch.paused_at is not None:
        return "paused"
    return "queueing" if tally.inputs.get(InputState.WAITING) and not sum(tally.jobs.values()) else "running"


def _counts(tally: BatchTally) -> dict[str, int]:
    counts = {str(status): number for status, number in tally.jobs.items()}
    counts["partial"] = tally.partial
    for state in (InputState.WAITING, InputState.REJECTED, InputState.SKIPPED):
        counts[str(state)] = tally.inputs.get(state, 0)
    counts["cancelled"] += tally.inputs.get(InputState.CANCELLED, 0)
    return counts | {"removed": tally.removed}


def _wrong(field: str, message: str, code: str, hint: str = "") -> InvalidConfig:
    return InvalidConfig((FieldProblem(field, message, code, hint),))


ROUTES = [
    submit_batch,
    add_videos,
    list_batches,
    get_batch,
    cancel_batch,
    pause_batch,
    resume_batch,
    retry_batch,
    get_batch_manifest,
    get_report,
]
