"""The small nouns: tokens, presets, datasets, batches. The SQL that changes them, and rows to Structs."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.errors import Conflict, NotFound
from videoannotator.jobs import Batch, Dataset, JobStatus, Preset, StageStatus, Token
from videoannotator.store import StageTally
from videoannotator.store.rows import as_json, maybe_moment, milliseconds, moment

TOKENS = "SELECT id, name, scope, created_at, expires_at, revoked_at FROM tokens"
_USABLE_ADMIN = """
SELECT 1 FROM tokens
WHERE scope = 'admin' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?) LIMIT 1"""
DATASETS = "SELECT id, name, base_path, created_at FROM datasets"
PRESETS = "SELECT content FROM presets ORDER BY name"
BATCHES = """
SELECT id, name, created_at, (
    SELECT json_group_object(status, number)
    FROM (SELECT status, count(*) AS number FROM jobs WHERE batch_id = batches.id GROUP BY status)
), plan, paused_at FROM batches"""

STAGE_TALLY = """SELECT pipeline, status, count(*), total(iif(cached, 0, seconds)) FROM stages
    GROUP BY pipeline, status"""
OLDEST_PENDING = "SELECT min(created_at) FROM jobs WHERE status = 'pending'"

_preset = msgspec.json.Decoder(Preset)
_counts = msgspec.json.Decoder(dict[JobStatus, int])


def add_token(connection: sqlite3.Connection, token: Token, secret_hash: str) -> None:
    connection.execute(
        """INSERT INTO tokens (id, name, scope, secret_hash, created_at, expires_at, revoked_at)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            token.id,
            token.name,
            token.scope,
            secret_hash,
            milliseconds(token.created_at),
            None if token.expires_at is None else milliseconds(token.expires_at),
            None if token.revoked_at is None else milliseconds(token.revoked_at),
        ),
    )


def revoke_token(connection: sqlite3.Connection, token_id: str, *, keep_an_admin: bool, now: int) -> None:
    """A token revoked before keeps the time at which it was."""
    sql = "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ? RETURNING scope"
    rows = connection.execute(sql, (now, token_id)).fetchall()
    if not rows:
        raise no_token(token_id)
    if keep_an_admin and rows[0][0] == "admin" and not connection.execute(_USABLE_ADMIN, (now,)).fetchall():
        hint = "Make another key with the scope admin first: POST /api/v1/tokens."
        raise Conflict("Nobody could make keys any more.", hint=hint, code="LAST_ADMIN_TOKEN")


def no_token(token_id: str) -> NotFound:
    return NotFound.of("token", token_id, "List tokens with GET /api/v1/tokens.")


def token_from(row: Sequence[Any]) -> Token:
    token_id, name, scope, created_at, expires_at, revoked_at = row
    return Token(
        id=token_id,
        name=name,
        scope=scope,
        created_at=moment(created_at),
        expires_at=maybe_moment(expires_at),
        revoked_at=maybe_moment(revoked_at),
    )


def put_preset(connection: sqlite3.Connection, preset: Preset) -> None:
    sql = (
        "INSERT INTO presets (name, content) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET content = excluded.content"
    )
    connection.execute(sql, (preset.name, as_json(preset)))


def remove_preset(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute("DELETE FROM presets WHERE name = ?", (name,)).rowcount == 0:
        raise NotFound.of("preset", name, "List presets with GET /api/v1/presets.")


def preset_from(row: Sequence[Any]) -> Preset:
    return _preset.decode(row[0])


def add_dataset(connection: sqlite3.Connection, dataset: Dataset) -> None:
    sql = "INSERT INTO datasets (id, name, base_path, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    values = (dataset.id, dataset.name, str(dataset.base_path), milliseconds(dataset.created_at))
    if connection.execute(sql, values).rowcount == 0:
        raise Conflict(
            f"There is a dataset {dataset.name!r} already.", hint="Choose another name.", code="DATASET_EXISTS"
        )


def remove_dataset(connection: sqlite3.Connection, dataset_id: str) -> None:
    if connection.execute("DELETE FROM datasets WHERE id = ?", (dataset_id,)).rowcount == 0:
        raise no_dataset(dataset_id)


def no_dataset(dataset_id: str) -> NotFound:
    return NotFound.of("dataset", dataset_id, "List datasets with GET /api/v1/datasets.")


def dataset_from(row: Sequence[Any]) -> Dataset:
    dataset_id, name, base_path, created_at = row
    return Dataset(id=dataset_id, name=name, base_path=Path(base_path), created_at=moment(created_at))


def no_batch(batch_id: str) -> NotFound:
    return NotFound.of("batch", batch_id, "List batches with GET /api/v1/batches.")


def batch_from(row: Sequence[Any]) -> Batch:
    batch_id, name, created_at, counts, plan, paused_at = row
    return Batch(
        id=batch_id,
        name=name,
        created_at=moment(created_at),
        counts=every_status(_counts.decode(counts)),
        plan=None if plan is None else msgspec.json.decode(plan),
        paused_at=maybe_moment(paused_at),
    )


def stage_tally_from(row: Sequence[Any]) -> StageTally:
    pipeline, status, number, seconds = row
    return StageTally(pipeline, StageStatus(status), number, round(seconds, 3))


def every_status(counts: dict[JobStatus, int]) -> dict[JobStatus, int]:
    return {status: counts.get(status, 0) for status in JobStatus}
