"""
Whose turn it is.

Pending jobs wait in lanes: one for each owner, batch and priority, the oldest in front. The lane with the highest
priority is served first; a lane that waits gains one level of priority every AGEING_SECONDS, counted from when it was
last served, so that none waits for ever. Among equals it is the owner's turn who was served longest ago, then that
batch's: a batch of a thousand does not hold up the next person's single job. To find the next job costs a few lookups
for each lane, however many jobs there are. The lanes of paused batches stand still.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

AGEING_SECONDS = 600

_PAUSED = "SELECT id FROM batches WHERE paused_at IS NOT NULL"

# A loose scan: from each lane straight to the next one in the index.
HEADS = f"""
WITH RECURSIVE lanes (lane) AS (
    SELECT min(lane) FROM jobs INDEXED BY jobs_waiting WHERE status = 'pending'
    UNION ALL
    SELECT (SELECT min(lane) FROM jobs INDEXED BY jobs_waiting WHERE status = 'pending' AND lane > lanes.lane)
    FROM lanes WHERE lanes.lane IS NOT NULL
)
SELECT head.seq, head.owner, head.lane, head.priority, head.created_at, coalesce(own.turn, 0),
    coalesce(own.served_at, 0), coalesce(owners.turn, 0)
FROM lanes
JOIN jobs AS head ON head.seq = (
    SELECT min(seq) FROM jobs INDEXED BY jobs_waiting WHERE status = 'pending' AND lane = lanes.lane
)
LEFT JOIN turns AS own ON own.name = head.lane
LEFT JOIN turns AS owners ON owners.name = '@' || head.owner
WHERE head.batch_id IS NULL OR head.batch_id NOT IN ({_PAUSED})"""  # noqa: S608

COUNTS = "SELECT lane, count(*) FROM jobs INDEXED BY jobs_waiting WHERE status = 'pending' GROUP BY lane"
"""Goes through all that wait: some ten milliseconds for a hundred thousand. For readers."""

KEPT_COUNTS = "SELECT lane, number FROM temp.waiting"
"""The same, at once, on a connection that keeps count."""

_KEEP_COUNT = f"""
CREATE TEMP TABLE waiting (lane TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO waiting {COUNTS};
CREATE TEMP TRIGGER waiting_comes AFTER INSERT ON main.jobs WHEN NEW.status = 'pending' BEGIN
    INSERT INTO waiting VALUES (NEW.lane, 1) ON CONFLICT (lane) DO UPDATE SET number = number + 1;
END;
CREATE TEMP TRIGGER waiting_changes AFTER UPDATE ON main.jobs
    WHEN (OLD.status = 'pending') <> (NEW.status = 'pending') OR OLD.lane <> NEW.lane BEGIN
    UPDATE waiting SET number = number - 1 WHERE lane = OLD.lane AND OLD.status = 'pending';
    INSERT INTO waiting SELECT NEW.lane, 1 WHERE NEW.status = 'pending'
        ON CONFLICT (lane) DO UPDATE SET number = number + 1;
    DELETE FROM waiting WHERE lane = OLD.lane AND number = 0;
END;
CREATE TEMP TRIGGER waiting_goes AFTER DELETE ON main.jobs WHEN OLD.status = 'pending' BEGIN
    UPDATE waiting SET number = number - 1 WHERE lane = OLD.lane;
    DELETE FROM waiting WHERE lane = OLD.lane AND number = 0;
END;"""  # noqa: S608

_TAKE_TURN = """
INSERT INTO turns (name, turn, served_at)
SELECT name.column1, (SELECT coalesce(max(turn), 0) + 1 FROM turns), :now FROM (VALUES (:lane), (:owner)) AS name
WHERE true
ON CONFLICT (name) DO UPDATE SET turn = excluded.turn, served_at = excluded.served_at"""

_LEAVE = """
DELETE FROM turns WHERE name = :name AND NOT EXISTS (
    SELECT 1 FROM jobs INDEXED BY jobs_waiting WHERE status = 'pending' AND lane = :name
)"""


class Head(NamedTuple):
    """The oldest job of a lane, and when lane and owner had their last turn; 0 where they had none."""

    seq: int
    owner: str
    lane: str
    priority: int
    created_at: int
    turn: int
    served_at: int
    owner_turn: int

    def rank(self, now: int) -> tuple[int, int, int, int]:
        """The smallest goes first."""
        waited = max(0, now - max(self.created_at, self.served_at))
        return (-self.priority - waited // (AGEING_SECONDS * 1000), self.owner_turn, self.turn, self.seq)


def keep_count(connection: sqlite3.Connection) -> None:
    """
    On the one connection that writes: from now on it knows how many wait in each lane, so that to queue a job costs
    the same however many wait. The count is part of each transaction, also of one that is rolled back, and goes with
    the connection. See docs/decisions/0047.
    """
    connection.execute("PRAGMA temp.journal_mode = MEMORY")
    connection.executescript(_KEEP_COUNT)


def next_head(connection: sqlite3.Connection, now: int) -> Head | None:
    """The job whose turn it is, None where none waits. Its owner and its lane have had their turn then."""
    heads = [Head._make(row) for row in connection.execute(HEADS).fetchall()]
    if not heads:
        connection.execute("DELETE FROM turns")
        return None
    chosen = min(heads, key=lambda head: head.rank(now))
    connection.execute(_TAKE_TURN, {"lane": chosen.lane, "owner": f"@{chosen.owner}", "now": now})
    return chosen


def leave(connection: sqlite3.Connection, lane: str) -> None:
    """A lane that is empty now is forgotten."""
    connection.execute(_LEAVE, {"name": lane})


class Standing:
    """All lanes at one moment: what is ahead of whom, if nothing new comes."""

    def __init__(self, heads: Sequence[Sequence[Any]], counts: Sequence[Sequence[Any]], now: int) -> None:
        waiting = {str(lane): int(number) for lane, number in counts}
        lanes = sorted((Head._make(row) for row in heads), key=lambda head: head.rank(now))
        self._level = {head.lane: head.rank(now)[0] for head in lanes}
        self._owner = {head.lane: head.owner for head in lanes}
        self._order = {head.lane: place for place, head in enumerate(lanes)}
        self._count = {head.lane: waiting.get(head.lane, 0) for head in lanes}

    def ahead(self, lane: str, before: int) -> dict[str, int] | None:
        """
        How many jobs of each lane are claimed before the one in `lane` that has `before` others in front of it; None
        where the lane stands still. Lanes of a level take turns.
        """
        if lane not in self._level:
            return None
        level, owner = self._level[lane], self._owner[lane]
        found = {other: count for other, count in self._count.items() if self._level[other] < level}
        equals = [other for other in self._level if self._level[other] == level]
        found[lane] = before
        for other in equals:
            if other != lane and self._owner[other] == owner:
                found[other] = min(self._count[other], before + (self._order[other] < self._order[lane]))
        own_before = sum(found[other] for other in equals if self._owner[other] == owner)
        for lanes in self._of_others(equals, owner).values():
            is_before = min(self._order[other] for other in lanes) < self._first_of(equals, owner)
            found |= self._shared(lanes, own_before + is_before)
        return found

    def _of_others(self, lanes: Sequence[str], owner: str) -> dict[str, list[str]]:
        by_owner: dict[str, list[str]] = defaultdict(list)
        for lane in lanes:
            if self._owner[lane] != owner:
                by_owner[self._owner[lane]].append(lane)
        return by_owner

    def _first_of(self, lanes: Sequence[str], owner: str) -> int:
        return min(self._order[lane] for lane in lanes if self._owner[lane] == owner)

    def _shared(self, lanes: Sequence[str], turns: int) -> dict[str, int]:
        """So many turns of one owner, taken by the owner's lanes one after the other until they are empty."""
        taken = dict.fromkeys(lanes, 0)
        left = sorted(lanes, key=lambda lane: self._order[lane])
        while left and turns > 0:
            each = max(1, min(turns // len(left), *(self._count[lane] - taken[lane] for lane in left), turns))
            for lane in left:
                share = min(each, turns)
                taken[lane] += share
                turns -= share
            left = [lane for lane in left if taken[lane] < self._count[lane]]
        return taken
