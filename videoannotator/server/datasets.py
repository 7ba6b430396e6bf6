"""Directories of videos that are annotated in place, and how a file in one is opened without leaving it."""

import asyncio
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Dataset, DatasetVideo, Scan, StageError, new_id
from videoannotator.paths.nofollow import are_plain, open_inside
from videoannotator.server.auth import READ, WRITE, Caller, limited
from videoannotator.settings import Settings
from videoannotator.workspace import Workspace


class NewDataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    base_path: str


class DatasetAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    id: str
    name: str
    created_at: datetime
    base_path: str | None = None
    """For administrators: it is a path of the server's."""


class DatasetList(msgspec.Struct, frozen=True):
    datasets: tuple[DatasetAnswer, ...]
    total: int


class ScanAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A look at the directory; `looked_at` of the `found` files are in the list already."""

    state: Literal["running", "completed", "failed", "interrupted"]
    found: int
    looked_at: int
    unreadable: int
    started_at: datetime
    finished_at: datetime | None = None
    message: str | None = None


class DatasetVideoAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    path: str
    """Relative to the dataset's directory: what a job names."""

    size_bytes: int
    readable: bool
    duration_seconds: float | None = None
    container: str | None = None
    width: int | None = None
    height: int | None = None
    rotation_degrees: int | None = None
    frame_rate: float | None = None
    variable_frame_rate: bool | None = None
    frame_count: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    has_audio: bool | None = None
    error: StageError | None = None
    """Why it cannot be read."""


class DatasetVideoList(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    videos: tuple[DatasetVideoAnswer, ...]
    total: int
    page: int
    per_page: int
    scan: ScanAnswer | None = None
    """Left out where there was none yet."""


@post("/api/v1/datasets", opt=WRITE)
async def add_dataset(
    workspace: NamedDependency[Workspace], caller: NamedDependency[Caller], data: JSONBody[NewDataset]
) -> Response[DatasetAnswer]:
    if not 1 <= len(data.name) <= 200 or not data.name.isprintable():
        raise _wrong("name", "A dataset's name has 1 to 200 printable characters.")
    base = await asyncio.to_thread(checked_base, data.base_path, workspace.settings)
    dataset = Dataset(id=new_id("ds"), name=data.name, base_path=base, created_at=datetime.now(UTC))
    await workspace.store.add_dataset(dataset)
    added = await workspace.store.dataset(dataset.id)
    return Response(_describe(added, caller), status_code=201, headers={"location": f"/api/v1/datasets/{dataset.id}"})


@get("/api/v1/datasets", opt=READ)
async def list_datasets(workspace: NamedDependency[Workspace], caller: NamedDependency[Caller]) -> DatasetList:
    datasets = tuple(_describe(dataset, caller) for dataset in await workspace.store.datasets())
    return DatasetList(datasets, len(datasets))


@get("/api/v1/datasets/{dataset_id:str}", opt=READ)
async def get_dataset(
    workspace: NamedDependency[Workspace], caller: NamedDependency[Caller], dataset_id: FromPath[str]
) -> DatasetAnswer:
    return _describe(await workspace.store.dataset(dataset_id), caller)


@delete("/api/v1/datasets/{dataset_id:str}", opt=WRITE)
async def delete_dataset(workspace: NamedDependency[Workspace], dataset_id: FromPath[str]) -> None:
    """The videos stay where they are, and so do the jobs made from them."""
    await workspace.store.remove_dataset(dataset_id)


@post("/api/v1/datasets/{dataset_id:str}/videos/scan", status_code=202, opt=limited(WRITE, "submissions"))
async def scan_dataset(workspace: NamedDependency[Workspace], dataset_id: FromPath[str]) -> ScanAnswer:
    """Look for videos below the dataset's directory, and at each of them, in the background."""
    dataset = await workspace.store.dataset(dataset_id)
    await asyncio.to_thread(checked_base, str(dataset.base_path), workspace.settings)
    return _scan(await workspace.scans.begin(dataset), 0)


@get("/api/v1/datasets/{dataset_id:str}/videos", opt=READ)
async def list_dataset_videos(
    *,
    workspace: NamedDependency[Workspace],
    dataset_id: FromPath[str],
    page: Annotated[int, QueryParameter(ge=1, le=1_000_000_000)] = 1,
    per_page: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> DatasetVideoList:
    """What the latest scan has found, by path; what cannot be read says why."""
    await workspace.store.dataset(dataset_id)
    scan = await workspace.store.scan(dataset_id)  # before the videos: what is `completed` is listed whole
    total, unreadable = await workspace.store.count_dataset_videos(dataset_id)
    videos = await workspace.store.dataset_videos(dataset_id, limit=per_page, offset=(page - 1) * per_page)
    return DatasetVideoList(
        videos=tuple(_describe_video(video) for video in videos),
        total=total,
        page=page,
        per_page=per_page,
        scan=None if scan is None else _scan(scan, unreadable),
    )


def find_video(dataset: Dataset, relative: str, settings: Settings) -> Path:
    """
    The file of that name in a dataset, reached without following one link. Blocks.

    Raises:
        InvalidConfig: it is not there, not a file, or not inside.
    """
    base = checked_base(str(dataset.base_path), settings)
    parts = relative.split("/")
    if not are_plain(parts):
        raise _wrong("path", "The path must be relative to the dataset, without '..'.")
    try:
        opened = open_inside(base, parts)
    except (OSError, ValueError) as exc:
        message = "No video of this name is in the dataset, or a link leads to it, which is not followed."
        raise _wrong("path", message) from exc
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise _wrong("path", "This is not a file.")
    finally:
        os.close(opened)
    return base.joinpath(*parts)


def checked_base(path: str, settings: Settings) -> Path:
    """The folder itself, behind all links, if it lies in one of the roots that the operator named."""
    try:
        base = Path(path).resolve(strict=True)
        roots = [root.resolve() for root in settings.data_roots]
    except (OSError, ValueError, RuntimeError):
        base, roots = None, []
    if base is None or not base.is_dir() or not any(base.is_relative_to(root) for root in roots):
        hint = "The operator names directories in VIDEOANNOTATOR_DATA_ROOTS."
        raise _wrong("base_path", "This is no directory inside the allowed roots.", hint)
    return base


def _wrong(field: str, message: str, hint: str = "") -> InvalidConfig:
    return InvalidConfig(
        (FieldProblem(field, message, "PATH_NOT_ALLOWED" if "path" in field else "INVALID_VALUE", hint),)
    )


def _describe(dataset: Dataset, caller: Caller) -> DatasetAnswer:
    path = str(dataset.base_path) if caller.scope == "admin" else None
    return DatasetAnswer(id=dataset.id, name=dataset.name, created_at=dataset.created_at, base_path=path)


def _scan(scan: Scan, unreadable: int) -> ScanAnswer:
    return ScanAnswer(
        state=scan.state,
        found=scan.found,
        looked_at=scan.looked_at,
        unreadable=unreadable,
        started_at=scan.started_at,
        finished_at=scan.finished_at,
        message=scan.message,
    )


def _describe_video(found: DatasetVideo) -> DatasetVideoAnswer:
    video = found.video
    if video is None:
        return DatasetVideoAnswer(path=found.path, size_bytes=found.size_bytes, readable=False, error=found.error)
    return DatasetVideoAnswer(
        path=found.path,
        size_bytes=found.size_bytes,
        readable=True,
        duration_seconds=video.duration_seconds,
        container=video.container,
        width=video.width,
        height=video.height,
        rotation_degrees=video.rotation_degrees,
        frame_rate=video.frame_rate,
        variable_frame_rate=video.variable_frame_rate,
        frame_count=video.frame_count,
        video_codec=video.video_codec,
        audio_codec=video.audio_codec,
        has_audio=video.has_audio,
    )


ROUTES = [add_dataset, list_datasets, get_dataset, delete_dataset, scan_dataset, list_dataset_videos]
