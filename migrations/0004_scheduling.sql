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
