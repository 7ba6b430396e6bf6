"""Directories of videos that are annotated in place, and how a file in one is opened without leaving it."""

import asyncio
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Dataset, new_id
from videoannotator.nofollow import are_plain, open_inside
from videoannotator.server.auth import READ, WRITE, Caller
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


ROUTES = [add_dataset, list_datasets, get_dataset, delete_dataset]
