"""Is it well, how busy is it, and who am I talking as."""

import asyncio
import shutil
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec
from litestar import Response, get, route
from litestar.di import NamedDependency
from litestar.params import FromQuery

from videoannotator import __version__
from videoannotator.errors import Forbidden, StorageTrouble
from videoannotator.jobs import JobStatus
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.server.auth import OPEN, READ, Caller, Scope
from videoannotator.workspace import Workspace

API_VERSION = "1"

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_started = time.monotonic()


class Health(msgspec.Struct, frozen=True):
    status: Literal["healthy", "shutting_down"]
    api_version: str


class Security(msgspec.Struct, frozen=True):
    auth_required: bool


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    available: bool
    device_name: str | None = None
    memory_total: int | None = None
    """Bytes, of all together; so is what is used."""

    memory_used: int | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    active_jobs: int
    queued_jobs: int
    max_concurrent_jobs: int
    worker_status: Literal["idle", "busy", "overloaded", "paused", "stopped"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    status: Literal["healthy", "degraded", "unhealthy"]
    message: str | None = None
    disk_usage_percent: float | None = None


class Ffmpeg(msgspec.Struct, frozen=True, omit_defaults=True):
    """The decoder's libraries, which come with PyAV. No program is needed."""

    available: bool
    version: str | None = None


class Diagnostics(msgspec.Struct, frozen=True):
    database: Finding
    storage: Finding
    ffmpeg: Ffmpeg


class Availability(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    name: str
    available: bool
    reason: str | None = None
    fix: str | None = None
    """What helps, where a command does: the command."""


class PipelineCounts(msgspec.Struct, frozen=True):
    total: int
    available: tuple[str, ...]


class Details(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a key lets see; paths are for administrators only."""

    jobs: dict[JobStatus, int]
    free_bytes: int
    min_free_bytes: int
    pipelines: tuple[Availability, ...]
    storage_dir: str | None = None
    data_roots: tuple[str, ...] | None = None
    viewer_dir: str | None = None


class SystemHealth(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    api_version: str
    uptime_seconds: int
    security: Security
    gpu_status: Gpu
    worker_info: WorkerInfo
    diagnostics: Diagnostics
    pipelines: PipelineCounts
    details: Details | None = None


class WhoAmI(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    name: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None = None


@route(["/health", "/healthz", "/api/v1/health"], http_method=["GET", "HEAD"], opt=OPEN)
async def health(closing: NamedDependency[asyncio.Event]) -> Response[Health]:
    """For load balancers: no work is done for it."""
    if closing.is_set():
        return Response(Health("shutting_down", API_VERSION), status_code=503, headers={"retry-after": "5"})
    return Response(Health("healthy", API_VERSION), status_code=200)


@get("/api/v1/system/health", opt=OPEN)
async def system_health(
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller | None],
    closing: NamedDependency[asyncio.Event],
    detailed: FromQuery[bool] = False,
) -> Response[SystemHealth]:
    if detailed and caller is None:
        raise Forbidden("API key required for details.", hint="Leave detailed out, or send a key.", code="KEY_MISSING")
    database, counts = await _look_at_database(workspace)
    disk = await asyncio.to_thread(shutil.disk_usage, workspace.settings.storage_dir)
    storage = _judge_disk(disk.used / disk.total, disk.free, workspace)
    unwell = workspace.failed.is_set() or database.status == "unhealthy"
    answer = SystemHealth(
        status="unhealthy" if unwell else storage.status,
        version=__version__,
        api_version=API_VERSION,
        uptime_seconds=int(time.monotonic() - _started),
        security=Security(workspace.settings.require_auth),
        gpu_status=await asyncio.to_thread(_gpu, workspace),
        worker_info=_worker_info(workspace, counts),
        diagnostics=Diagnostics(database, storage, _ffmpeg()),
        pipelines=_pipelines(workspace),
        details=_details(workspace, counts, disk.free, caller) if detailed and caller else None,
    )
    return Response(answer, status_code=503 if closing.is_set() else 200)


@get("/api/v1/auth/whoami", opt=READ)
async def whoami(caller: NamedDependency[Caller]) -> WhoAmI:
    return WhoAmI(name=caller.name, scopes=caller.scopes, expires_at=caller.expires_at)


async def _look_at_database(workspace: Workspace) -> tuple[Finding, dict[JobStatus, int]]:
    try:
        return Finding(status="healthy"), await workspace.store.counts()
    except StorageTrouble as trouble:
        return Finding(status="unhealthy", message=trouble.code), dict.fromkeys(JobStatus, 0)


def _judge_disk(used: float, free: int, workspace: Workspace) -> Finding:
    percent = round(used * 100, 1)
    if (paused := workspace.worker.gate.low_disk) is not None:
        return Finding(status="degraded", message=str(paused), disk_usage_percent=percent)
    if (trouble := workspace.worker.trouble) is not None:
        return Finding(status="degraded", message=trouble.code, disk_usage_percent=percent)
    if free < workspace.settings.min_free_bytes:
        message = "Too little space is free: nothing is accepted until there is more."
        return Finding(status="degraded", message=message, disk_usage_percent=percent)
    return Finding(status="healthy", disk_usage_percent=percent)


def _worker_info(workspace: Workspace, counts: dict[JobStatus, int]) -> WorkerInfo:
    active, queued = workspace.worker.active_jobs, counts.get(JobStatus.PENDING, 0)
    state: Literal["idle", "busy", "overloaded", "paused", "stopped"] = "busy" if active else "idle"
    if workspace.failed.is_set():
        state = "stopped"
    elif not workspace.worker.gate.is_open:
        state = "paused"
    elif queued > 10 * workspace.settings.max_concurrent_jobs:
        state = "overloaded"
    return WorkerInfo(
        active_jobs=active,
        queued_jobs=queued,
        max_concurrent_jobs=workspace.settings.max_concurrent_jobs,
        worker_status=state,
    )


def _gpu(workspace: Workspace) -> Gpu:
    """As it was sampled last; before the first sample, what the NVIDIA driver shows without any library."""
    sample = workspace.resources.latest
    if sample is not None and sample.gpus:
        return Gpu(
            available=True,
            device_name=sample.gpus[0].name,
            memory_total=sum(gpu.memory_total_bytes for gpu in sample.gpus),
            memory_used=sum(gpu.memory_used_bytes for gpu in sample.gpus),
        )
    try:
        found = sorted(_NVIDIA.glob("*/information"))
        lines = found[0].read_text().splitlines() if found else []
    except OSError:
        return Gpu(available=False)
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return Gpu(available=bool(found), device_name=names[0] if names else None)


def _ffmpeg() -> Ffmpeg:
    try:
        return Ffmpeg(available=True, version=f"bundled with PyAV {version('av')}")
    except PackageNotFoundError:
        return Ffmpeg(available=False)


def _pipelines(workspace: Workspace) -> PipelineCounts:
    available = tuple(name for name in workspace.catalogue.names if workspace.catalogue.lack(name) is None)
    return PipelineCounts(len(workspace.catalogue.names), available)


def _details(workspace: Workspace, counts: dict[JobStatus, int], free: int, caller: Caller) -> Details:
    settings = workspace.settings
    details = Details(
        jobs=counts,
        free_bytes=free,
        min_free_bytes=settings.min_free_bytes,
        pipelines=tuple(_availability(name, workspace.catalogue) for name in workspace.catalogue.names),
    )
    if caller.scope != "admin":
        return details
    return msgspec.structs.replace(
        details,
        storage_dir=str(settings.storage_dir),
        data_roots=tuple(str(root) for root in settings.data_roots),
        viewer_dir=None if settings.viewer_dir is None else str(settings.viewer_dir),
    )


def _availability(name: str, catalogue: Catalogue) -> Availability:
    why = catalogue.lack(name)
    return Availability(
        name=name, available=why is None, reason=why.message if why else None, fix=why.fix if why else None
    )


ROUTES = [health, system_health, whoami]
