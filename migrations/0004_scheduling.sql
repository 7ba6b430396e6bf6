-- Which work runs next and which is never done twice: retries, cache, checkpoints, fairness.

-- Retries: a stage whose attempt failed and that will have another is pending, with the time before which it waits.
ALTER TABLE stages ADD COLUMN retry_at INTEGER CHECK (retry_at IS NULL OR status = 'pending');
ALTER TABLE stages ADD COLUMN failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0);
ALTER TABLE stages ADD COLUMN last_error TEXT CHECK (last_error IS NULL OR json_valid(last_error));
ALTER TABLE stages ADD COLUMN eased TEXT CHECK (eased IS NULL OR json_valid(eased)); -- parameters changed for a retry

-- Cache: whether a result was served instead of computed, and whether the job allows it.
ALTER TABLE stages ADD COLUMN cached INTEGER NOT NULL DEFAULT 0 CHECK (cached IN (0, 1));
ALTER TABLE jobs ADD COLUMN cache INTEGER NOT NULL DEFAULT 1 CHECK (cache IN (0, 1));
UPDATE stages SET cached = 1 WHERE status = 'completed' AND attempts = 0;

-- Fairness: jobs wait in lanes, one for each key, batch and priority; see store/lanes.py.
ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT ''; -- whose key it was submitted with; empty for none
ALTER TABLE jobs ADD COLUMN lane TEXT GENERATED ALWAYS AS (
    owner || '/' || coalesce(batch_id, '') || '/' || priority
) VIRTUAL;
CREATE INDEX jobs_waiting ON jobs (lane, seq) WHERE status = 'pending';
DROP INDEX jobs_ready;

-- When a lane, or an owner (as '@' and the name), was served last. Lanes go when they are empty.
CREATE TABLE turns (
    name TEXT PRIMARY KEY,
    turn INTEGER NOT NULL,
    served_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How long stages took: sums of a regression of their seconds on those of the video, older ones counting less. A kind is
-- a pipeline, and again a pipeline with just these parameters.
CREATE TABLE speeds (
    kind TEXT PRIMARY KEY,
    weight REAL NOT NULL CHECK (weight > 0),
    x REAL NOT NULL,
    y REAL NOT NULL,
    xx REAL NOT NULL,
    xy REAL NOT NULL
) STRICT, WITHOUT ROWID;
