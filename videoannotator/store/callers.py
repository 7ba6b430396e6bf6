"""
What is kept of those who call: their preferences, and the requests of theirs that are done once however often they are
sent. Functions on the writer's connection, and the statements and readers of the other.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from videoannotator.errors import Conflict
from videoannotator.jobs import Idempotency, Preferences
from videoannotator.store.rows import as_json

KEPT_HOURS = 24
"""How long an Idempotency-Key is remembered."""

PREFERENCES = "SELECT content FROM preferences WHERE caller = ?"
EARLIER = """
SELECT body_sha256, job_id, EXISTS (SELECT 1 FROM jobs WHERE id = job_id)
FROM idempotency_keys WHERE caller = ? AND key = ? AND created_at > ?"""

_FORGOTTEN_AT_ONCE = 100
_preferences = msgspec.json.Decoder(Preferences)


def spend(connection: sqlite3.Connection, once: Idempotency, job_id: str, *, now: int) -> str | None:
    """
    Note that this request makes this job; or the id of the job that it made when it was sent before.

    Raises:
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    _forget(connection, now)
    rows = connection.execute(EARLIER, earlier_values(once, now)).fetchall()
    if (earlier := job_of(rows, once)) is not None:
        return earlier
    sql = """INSERT OR REPLACE INTO idempotency_keys (caller, key, body_sha256, job_id, created_at)
        VALUES (?, ?, ?, ?, ?)"""
    connection.execute(sql, (once.caller, once.key, once.body_sha256, job_id, now))
    return None


def earlier_values(once: Idempotency, now: int) -> tuple[str, str, int]:
    return once.caller, once.key, _oldest(now)


def job_of(rows: Sequence[Sequence[Any]], once: Idempotency) -> str | None:
    """Raises Conflict (IDEMPOTENCY_KEY_REUSED)."""
    if not rows:
        return None
    body, job_id, exists = rows[0]
    hint = "Send a new Idempotency-Key with each new request."
    if body != once.body_sha256:
        raise Conflict("This Idempotency-Key came with another body.", hint=hint, code="IDEMPOTENCY_KEY_REUSED")
    if not exists:
        message = f"This Idempotency-Key made job {job_id}, which was deleted."
        raise Conflict(message, hint=hint, code="IDEMPOTENCY_KEY_REUSED")
    return str(job_id)


def put_preferences(connection: sqlite3.Connection, caller: str, preferences: Preferences) -> None:
    sql = "INSERT OR REPLACE INTO preferences (caller, content) VALUES (?, ?)"
    connection.execute(sql, (caller, as_json(preferences)))


def preferences_from(rows: Sequence[Sequence[Any]]) -> Preferences:
    return _preferences.decode(rows[0][0]) if rows else Preferences()


def _forget(connection: sqlite3.Connection, now: int) -> None:
    sql = """DELETE FROM idempotency_keys WHERE (caller, key) IN (
        SELECT caller, key FROM idempotency_keys WHERE created_at <= ? LIMIT ?)"""
    connection.execute(sql, (_oldest(now), _FORGOTTEN_AT_ONCE))


def _oldest(now: int) -> int:
    return now - KEPT_HOURS * 3600 * 1000
