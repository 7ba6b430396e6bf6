"""
Files of jobs that the database does not know.

A crash leaves some: a video whose submission was not acknowledged, files of a job whose rows are removed already. They
go. But if the database was lost, or an older one was put in its place, all files are such, and nobody wants them to
go. What tells them apart is a mark: it lies on disk before rows and files of a job part, and goes when they agree
again. Work without a mark and without rows means another database, and then everything without rows is put aside, in
`lost/`.
"""

import asyncio
import os
import shutil
from pathlib import Path

import msgspec

from videoannotator.artifacts import Artifacts
from videoannotator.errors import NotFound
from videoannotator.logs import get_logger
from videoannotator.store import Store

KINDS = ("videos", "results", "logs")

log = get_logger(__name__)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """When the directory was opened, before anything was done in it."""

    jobs: frozenset[str]
    """That files lie here for."""

    marked: frozenset[str]
    is_new: bool
    """The database has never heard of anything."""


class Orphans:
    def __init__(self, store: Store, artifacts: Artifacts) -> None:
        self._store = store
        self._artifacts = artifacts

    async def find(self) -> Found:
        jobs = await asyncio.to_thread(self._artifacts.job_ids)
        marks = await asyncio.to_thread(lambda: [mark.name for mark in _made(self._artifacts.marks).iterdir()])
        return Found(jobs=frozenset(jobs), marked=frozenset(marks), is_new=await self._store.last_seq() == 0)

    async def settle(self, found: Found) -> None:
        """Of what was found remove what a crash left, and put aside what another database knew."""
        unknown = [job_id for job_id in sorted(found.jobs) if not await self._is_known(job_id)]
        bereft = [job_id for job_id in unknown if job_id not in found.marked]
        is_another = found.is_new or any([await asyncio.to_thread(self._was_worked_on, job_id) for job_id in bereft])
        for job_id in unknown:
            aside = is_another and job_id not in found.marked
            await asyncio.to_thread(self._put_aside if aside else self._artifacts.remove, job_id)
        if is_another and bereft:
            told = "files of jobs that this database does not know were put aside"
            log.error(told, folder=str(self._artifacts.lost), jobs=len(bereft))
        for job_id in found.marked:
            await asyncio.to_thread(unmark, self._artifacts, job_id)

    async def _is_known(self, job_id: str) -> bool:
        try:
            job = await self._store.get(job_id)
        except NotFound:
            return False
        if job.status.is_final:
            await asyncio.to_thread(self._artifacts.drop_chunks, job_id)
        return True

    def _was_worked_on(self, job_id: str) -> bool:
        return any(kind != "video" for kind, _ in self._artifacts.files(job_id))

    def _put_aside(self, job_id: str) -> None:
        folder = self._artifacts.lost / job_id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        for kind in KINDS:
            left = self._artifacts.lost.parent / kind / job_id
            if left.is_dir():
                left.rename(folder / kind)


def mark(artifacts: Artifacts, job_id: str) -> None:
    """Before rows and files of this job part. On disk when it returns."""
    folder = _made(artifacts.marks)
    (folder / job_id).touch(mode=0o600)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unmark(artifacts: Artifacts, job_id: str) -> None:
    """They agree again."""
    (artifacts.marks / job_id).unlink(missing_ok=True)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
