-- Who calls: preferences, and requests that may be sent twice and are done once. Tickets are never stored.

CREATE TABLE preferences (
    caller TEXT PRIMARY KEY, -- the id of a token, or of one of the callers that have none
    content TEXT NOT NULL CHECK (json_valid(content))
) STRICT, WITHOUT ROWID;

-- The job that a request with an Idempotency-Key made. The job may be gone: its key stays spent, so that a late
-- repetition does not bring back what was deleted.
CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    job_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- For the metrics: how many stages are in each state, and how long they took, without reading the rows.
CREATE INDEX stages_by_state ON stages (pipeline, status, seconds);
