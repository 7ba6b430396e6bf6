"""Which jobs a query means, and their places in the queue."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from videoannotator.jobs import JobStatus
from videoannotator.store import JobPage, JobQuery
from videoannotator.store.database import Database
from videoannotator.store.rows import JOBS, POSITION, JobRow, job_from

_BETWEEN = """
SELECT seq FROM jobs INDEXED BY jobs_ready
WHERE status = 'pending' AND priority = ? AND seq BETWEEN ? AND ? ORDER BY seq"""


async def page_of(database: Database, query: JobQuery) -> JobPage:
    where, parameters = _conditions(query)
    order = "ASC" if query.oldest_first else "DESC"
    ((total,),) = await database.read(f"SELECT count(*) FROM jobs{where}", parameters)  # noqa: S608
    page = f"{JOBS}{where} ORDER BY seq {order} LIMIT ? OFFSET ?"
    found = await database.read(page, (*parameters, query.limit, query.offset))
    rows = [JobRow._make(values) for values in found]
    positions = await _positions(database, rows)
    return JobPage(tuple(job_from(row._replace(queue_position=positions.get(row.seq))) for row in rows), total)


async def _positions(database: Database, rows: Sequence[JobRow]) -> dict[int, int]:
    """Seq to place. Only the first of each priority is counted from the front, the others from there."""
    waiting: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        if row.status == JobStatus.PENDING:
            waiting[row.priority].append(row.seq)
    positions: dict[int, int] = {}
    for priority, seqs in waiting.items():
        ((first,),) = await database.read(POSITION, (priority, priority, min(seqs)))
        between = await database.read(_BETWEEN, (priority, min(seqs), max(seqs)))
        positions |= {seq: first + behind for behind, (seq,) in enumerate(between)}
    return positions


def _conditions(query: JobQuery) -> tuple[str, tuple[Any, ...]]:
    asked: dict[str, Any] = {
        "status = ?": query.status,
        "seq IN (SELECT job FROM job_tags WHERE tag = ?)": query.tag,
        "batch_id = ?": query.batch_id,
        "filename LIKE ? ESCAPE '\\'": None if query.text is None else f"%{_literally(query.text)}%",
        "created_at >= ?": None if query.created_after is None else round(query.created_after * 1000),
        "created_at <= ?": None if query.created_before is None else round(query.created_before * 1000),
    }
    given = {condition: value for condition, value in asked.items() if value is not None}
    return (" WHERE " + " AND ".join(given) if given else ""), tuple(given.values())


def _literally(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
