"""Where videos come from: the SQL of resumable uploads, and rows to Structs."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import ResumableUpload
from videoannotator.store.rows import milliseconds, moment

UPLOADS = "SELECT id, owner, filename, metadata, length, received, created_at, expires_at FROM uploads"


def add_upload(connection: sqlite3.Connection, upload: ResumableUpload) -> None:
    connection.execute(
        """INSERT INTO uploads (id, owner, filename, metadata, length, received, created_at, expires_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            upload.id,
            upload.owner,
            upload.filename,
            upload.metadata,
            upload.length,
            upload.received,
            milliseconds(upload.created_at),
            milliseconds(upload.expires_at),
        ),
    )


def note_received(connection: sqlite3.Connection, upload_id: str, received: int, expires_at: int) -> None:
    sql = "UPDATE uploads SET received = ?, expires_at = ? WHERE id = ?"
    if connection.execute(sql, (received, expires_at, upload_id)).rowcount == 0:
        raise no_upload(upload_id)


def remove_upload(connection: sqlite3.Connection, upload_id: str) -> None:
    if connection.execute("DELETE FROM uploads WHERE id = ?", (upload_id,)).rowcount == 0:
        raise no_upload(upload_id)


def use_upload(connection: sqlite3.Connection, upload_id: str) -> None:
    """It becomes the video of the job that is added in the same transaction."""
    if connection.execute("DELETE FROM uploads WHERE id = ?", (upload_id,)).rowcount == 0:
        message = f"Upload {upload_id} was used for another job."
        raise Conflict(message, hint="Upload the video again.", code="UPLOAD_USED")


def upload_from(row: Sequence[Any]) -> ResumableUpload:
    upload_id, owner, filename, metadata, length, received, created_at, expires_at = row
    return ResumableUpload(
        id=upload_id,
        owner=owner,
        filename=filename,
        metadata=metadata,
        length=length,
        received=received,
        created_at=moment(created_at),
        expires_at=moment(expires_at),
    )


def no_upload(upload_id: str) -> NotFound:
    return NotFound.of("upload", upload_id, "It was never begun, was used, was removed or has expired.")
