"""
What is kept and for how long: which jobs are old, which are of one video, and what is left in the database file of rows
that were deleted. Those that write are functions on the writer's connection; those that read take a `Database`.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from videoannotator.jobs import Claim, Job, NewJob, StageResult
from videoannotator.keeping import OldJob, Receipt
from videoannotator.store import queue, stages
from videoannotator.store.database import Database
from videoannotator.store.rows import as_json, milliseconds, moment, read_job
from videoannotator.store.trouble import DATABASE

ERASED = "(erased)"
"""What stands in a batch's report in place of the name of an erased video."""

_receipt = msgspec.json.Decoder(Receipt)
_NAMED = "(SELECT value FROM json_each(:jobs))"
_names = msgspec.json.Decoder(list[str])
_PAGE = 1000
_BLOCK = 4 * 1024**2


async def finished_before(database: Database, before: int, limit: int) -> tuple[OldJob, ...]:
    """Oldest first. Only final jobs have a `finished_at`."""
    sql = "SELECT id, filename, status, finished_at FROM jobs WHERE finished_at < ? ORDER BY finished_at, seq LIMIT ?"
    rows = await database.read(sql, (before, limit))
    return tuple(OldJob(job_id, filename, status, moment(finished)) for job_id, filename, status, finished in rows)


async def jobs_with_content(database: Database, sha256: str) -> tuple[str, ...]:
    sql = "SELECT id FROM jobs WHERE json_extract(video, '$.sha256') = ? ORDER BY seq"
    return tuple(job_id for (job_id,) in await database.read(sql, (sha256,)))


async def jobs_with_tag(database: Database, tag: str) -> tuple[str, ...]:
    sql = "SELECT id FROM jobs WHERE seq IN (SELECT job FROM job_tags WHERE tag = ?) ORDER BY seq"
    return tuple(job_id for (job_id,) in await database.read(sql, (tag,)))


async def jobs_of_unknown_content(database: Database) -> AsyncIterator[tuple[str, Path]]:
    """Each slice is a look-up in `jobs_by_content`, so that a million of them hold up nobody."""
    sql = """SELECT seq, id, video_path FROM jobs INDEXED BY jobs_by_content
        WHERE json_extract(video, '$.sha256') IS NULL AND seq > ? ORDER BY seq LIMIT ?"""
    after = 0
    while rows := await database.read(sql, (after, _PAGE)):
        for _, job_id, path in rows:
            yield job_id, Path(path)
        after = rows[-1][0]


def tags_in_copies(folder: Path, job_ids: Iterable[str]) -> dict[str, frozenset[str]]:
    """A copy that cannot be read knows nothing."""
    wanted, found = tuple(job_ids), dict[str, frozenset[str]]()
    for copy in sorted(folder.glob("videoannotator.version-*.sqlite")):
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"{copy.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as old,
        ):
            for job_id in wanted:
                rows = old.execute("SELECT tags FROM jobs WHERE id = ?", (job_id,)).fetchall()
                if rows:
                    found[job_id] = frozenset(_names.decode(rows[0][0]))
    return found


async def receipts(database: Database) -> tuple[Receipt, ...]:
    rows = await database.read("SELECT content FROM receipts ORDER BY made_at, id")
    return tuple(_receipt.decode(content) for (content,) in rows)


def put_receipt(connection: sqlite3.Connection, receipt: Receipt) -> None:
    sql = """INSERT INTO receipts (id, made_at, content) VALUES (?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET content = excluded.content"""
    connection.execute(sql, (receipt.id, milliseconds(receipt.made_at), as_json(receipt)))


def forget_names(connection: sqlite3.Connection, job_ids: Sequence[str]) -> None:
    """
    Batches keep a line for each of these jobs, without its name; nothing else speaks of them any more. Goes through
    those lines once, however many jobs it is about: all other writes wait for it.
    """
    jobs = {"jobs": as_json(job_ids)}
    line = f"UPDATE batch_inputs SET video = '{ERASED}', job_id = '{ERASED}' WHERE job_id IN {_NAMED}"  # noqa: S608
    connection.execute(line, jobs)
    connection.execute(f"UPDATE jobs SET retry_of = NULL WHERE retry_of IN {_NAMED}", jobs)  # noqa: S608
    connection.execute(f"DELETE FROM idempotency_keys WHERE job_id IN {_NAMED}", jobs)  # noqa: S608


def forget_tag(connection: sqlite3.Connection, tag: str) -> int:
    """
    How many batches were submitted with this tag. They lose it with their name, and the names of the videos that no job
    was made of; what still waits to be looked at is cancelled.
    """
    sql = "SELECT id FROM batches WHERE EXISTS (SELECT 1 FROM json_each(plan, '$.tags') WHERE value = ?)"
    batches = [batch_id for (batch_id,) in connection.execute(sql, (tag,)).fetchall()]
    for batch_id in batches:
        change = f"""UPDATE batch_inputs SET video = '{ERASED}',
            error_message = iif(error_code IS NULL, NULL, '{ERASED}'),
            state = iif(state = 'waiting', 'cancelled', state) WHERE batch_id = ? AND job_id IS NULL"""  # noqa: S608
        connection.execute(change, (batch_id,))
        change = f"""UPDATE batches SET name = '{ERASED}', plan = json_set(plan, '$.tags', (
            SELECT json_group_array(value) FROM json_each(plan, '$.tags') WHERE value <> ?)) WHERE id = ?"""  # noqa: S608
        connection.execute(change, (tag, batch_id))
    return len(batches)


def forget_scanned(connection: sqlite3.Connection, videos: Sequence[Path]) -> None:
    sql = """DELETE FROM dataset_videos WHERE EXISTS (
        SELECT 1 FROM datasets WHERE id = dataset_id AND rtrim(base_path, '/') || '/' || path = ?)"""
    connection.executemany(sql, [(str(video),) for video in videos])


def remove_old_batches(connection: sqlite3.Connection, before: int, limit: int) -> int:
    """How many batches from before then, of which no job is left and nothing waits, were removed."""
    sql = """DELETE FROM batches WHERE id IN (
        SELECT id FROM batches WHERE created_at < ?
            AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.batch_id = batches.id)
            AND NOT EXISTS (SELECT 1 FROM batch_inputs AS i WHERE i.batch_id = batches.id AND i.state = 'waiting')
        LIMIT ?)"""
    return connection.execute(sql, (before, limit)).rowcount


def add_finished(connection: sqlite3.Connection, job: NewJob, results: Mapping[str, StageResult], *, now: int) -> Job:
    """A job that was done elsewhere: queued, held and completed in one transaction, so that no worker sees it."""
    queue.add(connection, [job], None, None, now=now)
    hold = """UPDATE jobs SET status = 'running', lease_token = lease_token + 1, worker = 'import', lease_until = :now,
        started_at = :now WHERE id = :id RETURNING lease_token"""
    ((token,),) = connection.execute(hold, {"now": now, "id": job.id}).fetchall()
    claim = Claim(read_job(connection, job.id), "import", token)
    for pipeline, result in results.items():
        stages.finish(connection, claim, pipeline, result, now=now)
    return queue.finish(connection, claim, not_shown=(), shortfall=None, now=now)


def truncate_wal(connection: sqlite3.Connection) -> bool:
    """
    Bring all that was written into the database file and empty the log of writes, which holds pages as they were.
    False where a reader was in the way. Outside of a transaction.
    """
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def vacuum(connection: sqlite3.Connection) -> None:
    """Write the whole database anew. Outside of a transaction; other writes wait."""
    connection.execute("VACUUM")


def remains(folder: Path, needles: Iterable[str]) -> bool:
    """Whether one of these texts is anywhere in the bytes of the database or its log of writes. Blocks."""
    wanted = [needle.encode() for needle in needles]
    return any(_contains(folder / name, wanted) for name in (DATABASE, f"{DATABASE}-wal"))


def _contains(file: Path, wanted: list[bytes]) -> bool:
    if not wanted or not file.exists():
        return False
    overlap = max(map(len, wanted)) - 1
    tail = b""
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            window = tail + block
            if any(needle in window for needle in wanted):
                return True
            tail = window[-overlap:] if overlap else b""
    return False
