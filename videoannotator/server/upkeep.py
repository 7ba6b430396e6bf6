"""What an administrator has removed over HTTP: old jobs, and everything of one video or one participant."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.keeping import OldJob, Receipt
from videoannotator.server.auth import ADMIN
from videoannotator.upkeep.erasure import Erasure
from videoannotator.upkeep.removal import Upkeep
from videoannotator.workspace import Workspace


class CleanupOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    older_than_days: Annotated[float, msgspec.Meta(gt=0, le=100_000)]
    """Days since the end of a job."""

    dry_run: bool = False
    """Only say what would be removed."""


class CleanupAnswer(msgspec.Struct, frozen=True, kw_only=True):
    dry_run: bool
    jobs: tuple[OldJob, ...]
    batches: int
    bytes_freed: int


class EraseOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Exactly one of `video_sha256` and `tag`."""

    video_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    tag: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] | None = None
    originals: bool = False
    """Also the files that were annotated in place, outside of the storage directory."""


class ReceiptList(msgspec.Struct, frozen=True):
    receipts: tuple[Receipt, ...]
    total: int


@post("/api/v1/system/cleanup", status_code=200, opt=ADMIN)
async def clean_up(workspace: NamedDependency[Workspace], data: JSONBody[CleanupOrder]) -> CleanupAnswer:
    """Remove jobs that ended so long ago, with their files. What is pending or running is never touched."""
    upkeep = Upkeep(workspace.store, workspace.artifacts)
    before = datetime.now(UTC) - timedelta(days=data.older_than_days)
    swept = await (upkeep.preview(before) if data.dry_run else upkeep.sweep(before))
    return CleanupAnswer(dry_run=data.dry_run, jobs=swept.jobs, batches=swept.batches, bytes_freed=swept.bytes_freed)


@post("/api/v1/system/erase", status_code=200, opt=ADMIN)
async def erase(workspace: NamedDependency[Workspace], data: JSONBody[EraseOrder]) -> Receipt:
    """Everything of a video, or of all videos with a tag; jobs that run are cancelled first. It cannot be undone."""
    folder = workspace.settings.storage_dir
    erasure = Erasure(workspace.store, workspace.artifacts, folder, workspace.delete)
    match data:
        case EraseOrder(video_sha256=str(digest), tag=None):
            return await erasure.of_video(digest, originals=data.originals)
        case EraseOrder(video_sha256=None, tag=str(tag)):
            return await erasure.of_tag(tag, originals=data.originals)
        case _:
            problem = FieldProblem("video_sha256", "Name either video_sha256 or tag.", "INVALID_VALUE")
            raise InvalidConfig((problem,))


@get("/api/v1/system/receipts", opt=ADMIN)
async def list_receipts(workspace: NamedDependency[Workspace]) -> ReceiptList:
    """What was erased, oldest first: hashes and counts."""
    receipts = await workspace.store.receipts()
    return ReceiptList(receipts, len(receipts))


ROUTES = [clean_up, erase, list_receipts]
