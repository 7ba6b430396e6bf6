"""Which jobs a query means, and their places in the queue."""

from typing import Any

from videoannotator.store import JobPage, JobQuery
from videoannotator.store.database import Database
from videoannotator.store.forecasts import Forecasts
from videoannotator.store.rows import JOBS, JobRow, job_from


async def page_of(database: Database, forecasts: Forecasts, query: JobQuery, now: int) -> JobPage:
    where, parameters = _conditions(query)
    order = "ASC" if query.oldest_first else "DESC"
    ((total,),) = await database.read(f"SELECT count(*) FROM jobs{where}", parameters)  # noqa: S608
    page = f"{JOBS}{where} ORDER BY seq {order} LIMIT ? OFFSET ?"
    found = await database.read(page, (*parameters, query.limit, query.offset))
    jobs = [job_from(JobRow._make(row)) for row in found]
    return JobPage(await forecasts.of(jobs, now), total)


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
