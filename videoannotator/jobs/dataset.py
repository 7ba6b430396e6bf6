"""Where videos come from: directories that are scanned, and files that arrive in pieces."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from videoannotator.jobs.stage import StageError
from videoannotator.jobs.video import Video


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of videos that are annotated in place."""

    id: str
    name: str
    base_path: Path
    created_at: datetime


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a dataset's directory. `looked_at` of the `found` files are listed already."""

    dataset_id: str
    number: int
    state: Literal["running", "completed", "failed", "interrupted"]
    found: int
    looked_at: int
    started_at: datetime
    finished_at: datetime | None = None
    message: str | None = None


class DatasetVideo(msgspec.Struct, frozen=True, kw_only=True):
    """A file below a dataset's directory; `video` where it can be read, `error` where it cannot."""

    path: str
    """Relative to the directory."""

    size_bytes: int
    modified_ns: int
    video: Video | None = None
    error: StageError | None = None


class ResumableUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A video that comes in over several requests, and waits to be put into a job."""

    id: str
    owner: str
    """Whose key began it: nobody else sees it."""

    filename: str
    """As people know it, cleaned."""

    metadata: str = ""
    """What the client said of it, as it said it."""

    length: int
    received: int = 0
    """Bytes from the start that are on disk for good."""

    created_at: datetime
    expires_at: datetime

    @property
    def is_complete(self) -> bool:
        return self.received == self.length
