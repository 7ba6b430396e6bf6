-- Times are whole milliseconds since the epoch, UTC. Every column with a json_valid CHECK is JSON.
-- What a CHECK here forbids cannot happen, whatever the code above does.

CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'cancelling', 'completed', 'failed', 'cancelled')),
    priority INTEGER NOT NULL,
    batch_id TEXT REFERENCES batches (id),
    retry_of TEXT, -- the earlier job may have been removed, so no reference
    filename TEXT NOT NULL,
    video TEXT NOT NULL CHECK (json_valid(video)),
    video_path TEXT NOT NULL,
    owns_video INTEGER NOT NULL CHECK (owns_video IN (0, 1)),
    config TEXT NOT NULL CHECK (json_valid(config)),
    preset TEXT,
    preset_content TEXT CHECK (preset_content IS NULL OR json_valid(preset_content)),
    tags TEXT NOT NULL CHECK (json_valid(tags)), -- as given; job_tags is for finding
    created_at INTEGER NOT NULL,

    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    lease_token INTEGER NOT NULL DEFAULT 0 CHECK (lease_token >= attempts),
    worker TEXT,
    lease_until INTEGER,
    started_at INTEGER,
    cancel_requested_at INTEGER,

    finished_at INTEGER,
    outcome TEXT CHECK (outcome IN ('full', 'partial')),
    error_code TEXT,
    error_message TEXT,
    stopped_after_seconds REAL CHECK (stopped_after_seconds >= 0),

    CHECK ((status IN ('running', 'cancelling')) = (lease_until IS NOT NULL)),
    CHECK ((worker IS NULL) = (lease_until IS NULL)),
    CHECK (status <> 'pending' OR started_at IS NULL),
    CHECK (lease_until IS NULL OR started_at IS NOT NULL),
    CHECK ((status IN ('cancelling', 'cancelled')) = (cancel_requested_at IS NOT NULL)),
    CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((status = 'completed') = (outcome IS NOT NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL)),
    CHECK ((status = 'failed' OR outcome IS 'partial') = (error_code IS NOT NULL)),
    CHECK ((status = 'cancelled') = (stopped_after_seconds IS NOT NULL))
) STRICT;

CREATE INDEX jobs_ready ON jobs (status, priority DESC, seq) WHERE status = 'pending';
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX jobs_by_status ON jobs (status, seq);
CREATE INDEX jobs_by_batch ON jobs (batch_id, status, seq) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_by_creation ON jobs (created_at);

CREATE TRIGGER jobs_final_is_final BEFORE UPDATE OF status ON jobs
WHEN OLD.status IN ('completed', 'failed', 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'a job never leaves a final state');
END;

CREATE TABLE job_tags (
    tag TEXT NOT NULL,
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    PRIMARY KEY (tag, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_tags_by_job ON job_tags (job);

CREATE TABLE stages (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    pipeline TEXT NOT NULL,
    position INTEGER NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'skipped', 'cancelled')),
    progress REAL NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
    rate REAL,
    eta_seconds REAL,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    started_at INTEGER,
    finished_at INTEGER,
    seconds REAL CHECK (seconds >= 0),
    annotations INTEGER CHECK (annotations >= 0),
    error_code TEXT,
    error_message TEXT,
    provenance TEXT CHECK (provenance IS NULL OR json_valid(provenance)),

    PRIMARY KEY (job, pipeline),
    UNIQUE (job, position),
    CHECK (status <> 'pending' OR (started_at IS NULL AND progress = 0)),
    CHECK (status NOT IN ('running', 'completed') OR started_at IS NOT NULL),
    CHECK ((status IN ('pending', 'running')) = (finished_at IS NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL)),
    CHECK ((status IN ('failed', 'skipped')) = (error_code IS NOT NULL)),
    CHECK ((status = 'completed') = (provenance IS NOT NULL AND annotations IS NOT NULL AND progress = 1)),
    CHECK (status = 'running' OR (rate IS NULL AND eta_seconds IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    job INTEGER NOT NULL,
    name TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    role TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    sha256 TEXT NOT NULL,
    in_zip INTEGER NOT NULL CHECK (in_zip IN (0, 1)),
    PRIMARY KEY (job, name),
    FOREIGN KEY (job, pipeline) REFERENCES stages (job, pipeline) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX artifacts_by_stage ON artifacts (job, pipeline);

-- The index over annotations: one row for each scene, track or stretch of voice. Per-frame data stays in the files.
CREATE TABLE annotations (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    kind TEXT NOT NULL,
    onset REAL NOT NULL,
    duration REAL NOT NULL CHECK (duration >= 0),
    label TEXT NOT NULL,
    track INTEGER,
    FOREIGN KEY (job, pipeline) REFERENCES stages (job, pipeline) ON DELETE CASCADE
) STRICT;

CREATE INDEX annotations_by_stage ON annotations (job, pipeline);

-- With one writer the order of seq is the order of commits; AUTOINCREMENT never gives a number twice.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES jobs (id),
    batch_id TEXT,
    at INTEGER NOT NULL,
    data TEXT NOT NULL CHECK (json_valid(data))
) STRICT;

CREATE INDEX events_by_job ON events (job_id, seq);
CREATE INDEX events_by_batch ON events (batch_id, seq) WHERE batch_id IS NOT NULL;

CREATE TABLE datasets (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    base_path TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE presets (
    name TEXT PRIMARY KEY,
    content TEXT NOT NULL CHECK (json_valid(content))
) STRICT;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    secret_hash TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
