"""What a job made: results, manifest, the ZIP, single files, the video, logs."""

import asyncio
from collections import deque
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
from litestar import Response, get, route
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ASGIApp

from videoannotator.artifacts import in_archive, manifest, video_path
from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import Artifact, Job, JobStatus, StageStatus
from videoannotator.paths.nofollow import look_at
from videoannotator.server.archive import Entry, zip_chunks, zip_length
from videoannotator.server.auth import READ, READ_ALSO_BY_TOKEN, Caller
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.files import attachment, serve_file
from videoannotator.server.streams import Streamed
from videoannotator.workspace import Workspace

_SHOWN_ENDINGS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm"})
"""The names by which the Viewer knows the video."""

_VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".avi": "video/x-msvideo",
}


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    url: str
    role: str
    type: str
    size: int
    sha256: str


class PipelineResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    status: StageStatus
    files: tuple[FileAnswer, ...]
    annotations: int | None = None
    seconds: float | None = None


class Results(msgspec.Struct, frozen=True):
    job_id: str
    status: JobStatus
    results: dict[str, PipelineResult]


class LogLine(msgspec.Struct, frozen=True):
    at: str
    level: str
    stage: str | None
    message: str


class LogAnswer(msgspec.Struct, frozen=True):
    lines: tuple[LogLine, ...]


@get("/api/v1/jobs/{job_id:str}/results", opt=READ)
async def get_results(workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> Results:
    job = await workspace.store.get(job_id)
    return Results(job.id, job.status, results_of(job, await workspace.store.artifacts(job_id)))


@get("/api/v1/jobs/{job_id:str}/manifest", opt=READ)
async def get_manifest(workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> dict[str, Any]:
    return manifest(await workspace.store.get(job_id), await workspace.store.artifacts(job_id))


@route("/api/v1/jobs/{job_id:str}/artifacts", http_method=["GET", "HEAD"], opt=READ_ALSO_BY_TOKEN)
async def get_artifacts(request: ApiRequest, workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> ASGIApp:
    """Everything in one ZIP, for the browser client; the manifest for who asks for JSON."""
    job = await workspace.store.get(job_id)
    artifacts = await workspace.store.artifacts(job_id)
    if request.accept.best_match(["application/zip", "application/json"]) == "application/json":
        return Response(manifest(job, artifacts)).to_asgi_response(None, request)
    if not job.status.is_final:
        hint = "Wait for job.complete, or look at /results for what is there."
        raise Conflict(f"Job {job_id} is {job.status}; its archive is not ready.", hint=hint, code="JOB_NOT_FINISHED")
    entries = await asyncio.to_thread(_entries, workspace, job, artifacts)
    headers = {
        "Content-Type": "application/zip",
        "Content-Length": str(zip_length(entries)),
        "Content-Disposition": attachment(f"{job.id}_artifacts.zip"),
        "Cache-Control": "private, no-cache",
    }
    return Streamed(zip_chunks(entries, job.finished_at or datetime.now(UTC)), headers=headers)


@route("/api/v1/jobs/{job_id:str}/files/{name:str}", http_method=["GET", "HEAD"], opt=READ_ALSO_BY_TOKEN)
async def get_file(
    request: ApiRequest, workspace: NamedDependency[Workspace], job_id: FromPath[str], name: FromPath[str]
) -> ASGIApp:
    job = await workspace.store.get(job_id)
    artifacts = await workspace.store.artifacts(job_id)
    path = await asyncio.to_thread(workspace.artifacts.find, job, artifacts, name)
    known = {artifact.name: artifact for artifact in artifacts}.get(name)
    return await serve_file(
        path,
        request,
        name=name,
        media_type=known.media_type if known else "application/json",
        etag=f'"{known.sha256}"' if known else "",
    )


@route("/api/v1/jobs/{job_id:str}/video", http_method=["GET", "HEAD"], opt=READ_ALSO_BY_TOKEN)
async def get_video(request: ApiRequest, workspace: NamedDependency[Workspace], job_id: FromPath[str]) -> ASGIApp:
    job = await workspace.store.get(job_id)
    suffix = PurePosixPath(job.video.filename).suffix.lower()
    media_type = _VIDEO_TYPES.get(suffix, "application/octet-stream")
    return await serve_file(video_path(job), request, name=job.video.filename, media_type=media_type)


@get("/api/v1/jobs/{job_id:str}/logs", opt=READ)
async def get_logs(
    *,
    request: ApiRequest,
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller],
    job_id: FromPath[str],
    tail: Annotated[int, QueryParameter(ge=1, le=100_000)] = 1000,
    stage: FromQuery[str | None] = None,
) -> Response[Any]:
    """What the stages said, as lines; with `Accept: text/plain` also what their processes printed."""
    job = await workspace.store.get(job_id)
    stages = [s.pipeline for s in job.stages if stage in (None, s.pipeline)]
    if not stages:
        raise NotFound.of("stage", stage or "", f"There are: {', '.join(s.pipeline for s in job.stages)}.")
    if request.accept.best_match(["application/json", "text/plain"]) == "text/plain":
        logs = [workspace.artifacts.log(job_id, name) for name in stages]
        text = await asyncio.to_thread(_printed, logs, tail)
        return Response(_without_paths(text, job, workspace, caller), media_type="text/plain")
    events = await workspace.store.job_events(job_id, "job.log")
    lines = [_line(event.data) for event in events if stage in (None, event.data.get("stage"))][-tail:]
    return Response(LogAnswer(tuple(lines)))


def results_of(job: Job, artifacts: tuple[Artifact, ...]) -> dict[str, PipelineResult]:
    """What each stage made, by pipeline."""
    return {
        stage.pipeline: PipelineResult(
            status=stage.status,
            files=tuple(_file(job.id, artifact) for artifact in artifacts if artifact.pipeline == stage.pipeline),
            annotations=stage.annotations,
            seconds=stage.seconds,
        )
        for stage in job.stages
    }


def _file(job_id: str, artifact: Artifact) -> FileAnswer:
    return FileAnswer(
        name=artifact.name,
        url=f"/api/v1/jobs/{job_id}/files/{artifact.name}",
        role=artifact.role,
        type=artifact.media_type,
        size=artifact.size,
        sha256=artifact.sha256,
    )


def _entries(workspace: Workspace, job: Job, artifacts: tuple[Artifact, ...]) -> list[Entry]:
    """
    The files under their names, the manifest, named so that no client draws it, and one video: the copy for browsers
    where there is one, else the original, under the original's name.
    """
    account = msgspec.json.format(msgspec.json.encode(manifest(job, artifacts)), indent=2)
    entries = [Entry(name="manifest.yaml", size=len(account), content=account)]  # JSON is YAML
    video, name = video_path(job), _name_of_video(job.video.filename)
    for artifact in in_archive(artifacts):
        path = workspace.artifacts.find(job, artifacts, artifact.name)
        if artifact.role == "video":
            video, name = path, f"{PurePosixPath(job.video.filename).stem}.mp4"
        else:
            entries.append(Entry(name=artifact.name, size=path.stat().st_size, content=path))
    if (size := _size_of(video)) is not None:
        name = name if name not in {entry.name for entry in entries} else f"video_{name}"
        entries.append(Entry(name=name, size=size, content=video))
    return entries


def _size_of(video: Path) -> int | None:
    """None where it is gone, or where a link leads now."""
    try:
        return look_at(video).st_size
    except OSError:
        return None


def _name_of_video(filename: str) -> str:
    """With an ending that says "video" to the Viewer."""
    return filename if PurePosixPath(filename).suffix.lower() in _SHOWN_ENDINGS else f"{filename}.mp4"


def _line(data: dict[str, Any]) -> LogLine:
    return LogLine(data["timestamp"], data["level"], data.get("stage"), data["message"])


def _printed(logs: list[Path], tail: int) -> str:
    """The last lines of each log under its name."""
    parts: list[str] = []
    for log in logs:
        if not log.is_file():
            continue
        with log.open(errors="replace") as lines:
            parts += [f"== {log.stem}\n", *deque(lines, maxlen=tail)]
    return "".join(parts)


def _without_paths(text: str, job: Job, workspace: Workspace, caller: Caller) -> str:
    """Only administrators learn where things lie on the server."""
    if caller.scope == "admin":
        return text
    text = text.replace(str(job.video_path), job.video.filename)
    return text.replace(str(workspace.settings.storage_dir), "<storage>")


ROUTES = [get_results, get_manifest, get_artifacts, get_file, get_video, get_logs]
