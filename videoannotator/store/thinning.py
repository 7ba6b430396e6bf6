"""
Progress that is over. While a job runs every report of a stage is an event, ten a second at most: 10 MB for an hour of
one stage. When the job has ended, what stood between a stage's first report and its last is of no more use to anybody,
and is forgotten; every other event stays. Functions on the writer's connection.
"""

import sqlite3

import msgspec

_SLICE = 2000
"""Rows looked at in one transaction, so that no other write waits for long."""

_REPORTS = """
SELECT seq, json_extract(data, '$.stage.pipeline') FROM events
WHERE job_id = (SELECT id FROM jobs WHERE id = ? AND finished_at IS NOT NULL)
    AND seq > ? AND type = 'job.update' AND json_extract(data, '$.stage.status') = 'running'
ORDER BY seq LIMIT ?"""


class Place(msgspec.Struct, frozen=True):
    """How far the thinning of one job has come."""

    after: int = 0
    latest: dict[str, int] = {}
    """The last report of each stage so far; 0 where only the first was seen."""


def thin_slice(connection: sqlite3.Connection, job_id: str, place: Place) -> Place | None:
    """The place to go on from; None where all is done, or the job has not ended."""
    rows = connection.execute(_REPORTS, (job_id, place.after, _SLICE)).fetchall()
    latest, superseded = dict(place.latest), []
    for seq, pipeline in rows:
        if latest.get(pipeline):
            superseded.append((latest[pipeline],))
        latest[pipeline] = seq if pipeline in latest else 0
    connection.executemany("DELETE FROM events WHERE seq = ?", superseded)
    return Place(rows[-1][0], latest) if len(rows) == _SLICE else None
