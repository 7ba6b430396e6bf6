"""
How a video and an order become a job: from a form, a dataset, a finished upload, or a URL.

Whatever goes wrong on the way, files and rows agree afterwards: a job with its video, or neither.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from videoannotator.artifacts import stored_name
from videoannotator.errors import NotFound, Refused
from videoannotator.faults import reach
from videoannotator.jobs import Errands, Idempotency, Job, NewJob, new_id
from videoannotator.server.auth import Caller
from videoannotator.server.datasets import find_video
from videoannotator.server.decoding import MAX_BODY_BYTES, ApiRequest
from videoannotator.server.idempotency import key_of, once
from videoannotator.server.orders import AtUrl, InDataset, Order, Uploaded, order_of_form, order_of_json
from videoannotator.server.receive import Upload, UploadLimits, receiving
from videoannotator.server.uploads import owner_of
from videoannotator.workspace import Considered, Workspace

A = TypeVar("A")
B = TypeVar("B")


class Made(msgspec.Struct, frozen=True):
    """The job of a submission; `earlier` where the same request had made it already."""

    job: Job
    earlier: bool = False


class Asked(msgspec.Struct, frozen=True):
    """An order, with what its caller prefers filled in."""

    order: Order
    errands: Errands
    repeatable: Idempotency | None = None
    owner: str = ""


async def submit_form(request: ApiRequest, workspace: Workspace, caller: Caller, threads: Executor) -> Made:
    settings = workspace.settings
    limits = UploadLimits(
        max_bytes=settings.max_upload_bytes,
        min_free_bytes=settings.min_free_bytes,
        fields=frozenset(Order.__struct_fields__),
        hashed=True,
    )
    async with receiving(request, workspace.artifacts.uploads, limits, threads) as upload:
        order, repeatable = order_of_form(upload.fields), None
        if key_of(request) is not None:
            repeatable = once(request, caller, order, upload.filename, await upload.sha256() or "")
            if repeatable is not None and (job := await workspace.store.earlier(repeatable)) is not None:
                return Made(job, earlier=True)
        return await _queue_form(upload, order, repeatable, workspace, caller)


async def submit_json(request: ApiRequest, workspace: Workspace, caller: Caller) -> Made:
    order, source = order_of_json(await _small_body(request))
    repeatable = once(request, caller, order)
    if repeatable is not None and (earlier := await workspace.store.earlier(repeatable)) is not None:
        return Made(earlier, earlier=True)
    asked = await as_preferred(order, workspace, caller, repeatable)
    match source:
        case InDataset():
            return await _queue_file_of_dataset(source, asked, workspace)
        case Uploaded():
            return await _queue_finished_upload(source, asked, workspace, caller)
        case AtUrl():
            return await queue_url(source, asked, workspace)


async def as_preferred(order: Order, workspace: Workspace, caller: Caller, repeatable: Idempotency | None) -> Asked:
    """A caller who says nothing of what to run, or where results go, has perhaps said it before."""
    preferences, errands = await workspace.store.preferences(caller.id), order.errands
    if errands.output_directory is None and preferences.output_directory is not None:
        errands = msgspec.structs.replace(errands, output_directory=Path(preferences.output_directory))
    if order.preset is None and not order.selected_pipelines:
        order = msgspec.structs.replace(order, preset=preferences.default_preset)
    return Asked(order, errands, repeatable, caller.id)


async def queue_url(source: AtUrl, asked: Asked, workspace: Workspace) -> Made:
    order = asked.order
    job = await workspace.admit_from_url(
        source.video_url, order.selection, errands=asked.errands, tags=order.tags, priority=order.priority
    )
    return await _submit(workspace, job, asked)


async def _queue_form(
    upload: Upload, order: Order, repeatable: Idempotency | None, workspace: Workspace, caller: Caller
) -> Made:
    """
    The file changes hands: from here on it is the job's, or gone. The order is looked at while the file is moved, and
    the video while the disk takes it for good: only then is there a row.
    """
    job_id = new_id("job")
    place = workspace.artifacts.video_folder(job_id) / stored_name(upload.filename)
    async with removed_unless_queued(workspace, job_id) as queued:
        considering = _considered(order, workspace, caller, repeatable)
        _, (asked, considered) = await both(upload.move(place), considering)
        admitting = _admit(workspace, place, upload.filename, asked, job_id=job_id, considered=considered)
        _, job = await both(upload.sync(), admitting)
        job = msgspec.structs.replace(job, video=msgspec.structs.replace(job.video, sha256=await upload.sha256()))
        return queued(await _submit(workspace, job, asked))


async def _considered(
    order: Order, workspace: Workspace, caller: Caller, repeatable: Idempotency | None
) -> tuple[Asked, Considered]:
    asked = await as_preferred(order, workspace, caller, repeatable)
    return asked, await workspace.consider(asked.order.selection, asked.errands)


async def _queue_file_of_dataset(source: InDataset, asked: Asked, workspace: Workspace) -> Made:
    dataset = await workspace.store.dataset(source.dataset_id)
    path = await asyncio.to_thread(find_video, dataset, source.path, workspace.settings)
    job = await _admit(workspace, path, path.name, asked)
    return await _submit(workspace, job, asked)


async def _queue_finished_upload(source: Uploaded, asked: Asked, workspace: Workspace, caller: Caller) -> Made:
    """The bytes change hands with the row: a job that is refused leaves the upload as it was."""
    with workspace.uploads.held(source.upload_id):
        upload = await workspace.uploads.find(source.upload_id, owner_of(caller))
        job_id = new_id("job")
        place = workspace.artifacts.video_folder(job_id) / stored_name(upload.filename)
        async with removed_unless_queued(workspace, job_id) as queued, workspace.uploads.moved(upload, place):
            job = await _admit(workspace, place, upload.filename, asked, job_id=job_id)
            return queued(await _submit(workspace, msgspec.structs.replace(job, upload_id=upload.id), asked))


async def _admit(
    workspace: Workspace,
    path: Path,
    filename: str,
    asked: Asked,
    *,
    job_id: str | None = None,
    considered: Considered | None = None,
) -> NewJob:
    """With `job_id` the video is the job's own from here on."""
    order = asked.order
    return await workspace.admit(
        path,
        filename,
        order.selection,
        owns_video=job_id is not None,
        job_id=job_id,
        tags=order.tags,
        priority=order.priority,
        errands=asked.errands,
        considered=considered,
    )


async def _submit(workspace: Workspace, job: NewJob, asked: Asked) -> Made:
    """A caller that leaves meanwhile is let go when it is known whether there is the job."""
    reach("job.admitted")
    owned = msgspec.structs.replace(job, owner=asked.owner)
    submitting = asyncio.create_task(workspace.submit(owned, once=asked.repeatable), name=f"submit {job.id}")
    try:
        (queued,) = await asyncio.shield(submitting)
    except asyncio.CancelledError:
        await asyncio.wait({submitting})
        raise
    reach("job.queued")
    return Made(queued, earlier=queued.id != job.id)


@asynccontextmanager
async def removed_unless_queued(workspace: Workspace, job_id: str) -> AsyncIterator[Callable[[Made], Made]]:
    """
    After the block there is the job with its files, or neither: it was refused, or its twin was faster. Unless it is
    told what was made, the store is asked.
    """
    queued = False

    def note(made: Made) -> Made:
        nonlocal queued
        queued = made.job.id == job_id
        return made

    try:
        yield note
    finally:
        if not queued:
            undoing = asyncio.create_task(_remove_files_without_job(workspace, job_id), name=f"undo {job_id}")
            await asyncio.shield(undoing)


async def both(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Side by side, and each to its end. Raises what `one` raised, else what `other` did."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


async def _remove_files_without_job(workspace: Workspace, job_id: str) -> None:
    try:
        await workspace.store.get(job_id)
    except NotFound:
        await asyncio.to_thread(workspace.artifacts.remove, job_id)


async def _small_body(request: ApiRequest) -> bytes:
    """The route has no limit of its own, because of the videos that come through it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused("The request's body is too large.", code="BODY_TOO_LARGE")
    return bytes(body)
