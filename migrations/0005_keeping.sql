-- What is kept, watched and removed: batches, samples of resources, receipts of erasure.

ALTER TABLE batches ADD COLUMN plan TEXT CHECK (plan IS NULL OR json_valid(plan)); -- what to do with each of its videos
ALTER TABLE batches ADD COLUMN paused_at INTEGER;

-- Every video that was named when a batch was submitted, so that none is lost between the request and its job.
CREATE TABLE batch_inputs (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    video TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'queued', 'rejected', 'skipped', 'cancelled')),
    job_id TEXT, -- of a queued one its job, of a skipped one the job that did it before; may have been removed since
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (batch_id, position),
    CHECK ((state IN ('queued', 'skipped')) = (job_id IS NOT NULL)),
    CHECK ((state = 'rejected') = (error_code IS NOT NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX batch_inputs_waiting ON batch_inputs (batch_id) WHERE state = 'waiting';
CREATE INDEX jobs_by_retry ON jobs (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX jobs_by_size ON jobs (json_extract(video, '$.size_bytes'));
CREATE INDEX jobs_by_content ON jobs (json_extract(video, '$.sha256'));
CREATE INDEX jobs_by_finish ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- What the processes of a stage took, of its last attempt.
ALTER TABLE stages ADD COLUMN peak_memory_bytes INTEGER CHECK (peak_memory_bytes >= 0);
ALTER TABLE stages ADD COLUMN cpu_seconds REAL CHECK (cpu_seconds >= 0);

-- What was erased on somebody's demand: hashes and counts, no names.
CREATE TABLE receipts (
    id TEXT PRIMARY KEY,
    made_at INTEGER NOT NULL,
    content TEXT NOT NULL CHECK (json_valid(content))
) STRICT;
