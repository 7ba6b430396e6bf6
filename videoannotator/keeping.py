"""What is kept and what goes: old jobs, and the receipt of an erasure."""

from datetime import datetime

import msgspec

from videoannotator.jobs import JobStatus


class OldJob(msgspec.Struct, frozen=True):
    id: str
    filename: str
    status: JobStatus
    finished_at: datetime


class ErasedFile(msgspec.Struct, frozen=True):
    kind: str
    """video, result, log, upload, original, or lost: put aside, of a database that is not there any more."""

    size: int
    sha256: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was erased: hashes and counts, no name, no path, no job's id. Whoever has a file can show by its hash that it
    was among them; whoever has only the receipt learns nothing of the person.
    """

    id: str
    made_at: datetime
    video_sha256: str | None = None
    """The content that was asked for."""

    tag_sha256: str | None = None
    """SHA-256 of the tag that was asked for: the tag itself may name a person."""

    jobs: int
    files: tuple[ErasedFile, ...]
    originals_left: int = 0
    """Videos outside of the storage directory that were annotated in place and are still there."""

    lost_unattributed: int = 0
    """Folders in `lost/` that are still there and of which nobody can tell whether they belong to it: look there."""

    database_copies: int = 0
    """Copies of the database from before an upgrade, removed because they hold the same rows."""

    databases_left: int = 0
    """Other databases in the storage directory, a damaged one moved aside say, which may hold the same rows."""

    finished: bool = False
    """False where the erasure was interrupted: ask for it again."""

    database_clean: bool = False
    """The bytes of the database were searched, and nothing of the jobs is in them."""
