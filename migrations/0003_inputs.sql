-- Where videos come from and where results go: resumable uploads, scanned datasets, fetched URLs, callbacks.

-- An upload that goes on over several requests. Its bytes are in uploads/<id>; `received` of them are on disk for good.
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    filename TEXT NOT NULL,
    metadata TEXT NOT NULL, -- as the client sent it
    length INTEGER NOT NULL CHECK (length >= 0),
    received INTEGER NOT NULL DEFAULT 0 CHECK (received BETWEEN 0 AND length),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX uploads_by_expiry ON uploads (expires_at);

-- What a job needs of the world outside: where its video is fetched from, and where else its results go.
CREATE TABLE errands (
    job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    video_url TEXT,
    fetched INTEGER NOT NULL DEFAULT 0 CHECK (fetched IN (0, 1)),
    output_directory TEXT,
    db_location TEXT,
    CHECK (fetched = 0 OR video_url IS NOT NULL)
) STRICT;

-- Who is told that a job is over. Due when the job is final and `next_at` has passed.
CREATE TABLE callbacks (
    job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'given_up')),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at INTEGER NOT NULL DEFAULT 0,
    last_attempt_at INTEGER,
    last_status INTEGER,
    last_error TEXT,
    CHECK ((attempts = 0) = (last_attempt_at IS NULL)),
    CHECK (state = 'waiting' OR attempts > 0)
) STRICT;

CREATE INDEX callbacks_waiting ON callbacks (next_at) WHERE state = 'waiting';

-- The latest look at a dataset's directory, and what it found.
CREATE TABLE scans (
    dataset_id TEXT PRIMARY KEY REFERENCES datasets (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number > 0),
    state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'interrupted')),
    found INTEGER NOT NULL DEFAULT 0,
    looked_at INTEGER NOT NULL DEFAULT 0 CHECK (looked_at <= found),
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    message TEXT,
    CHECK ((state = 'running') = (finished_at IS NULL))
) STRICT;

CREATE TABLE dataset_videos (
    dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    path TEXT NOT NULL, -- below the dataset's directory
    scan INTEGER NOT NULL, -- the number of the scan that saw it last
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    video TEXT CHECK (video IS NULL OR json_valid(video)),
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (dataset_id, path),
    CHECK ((video IS NULL) = (error_code IS NOT NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL))
) STRICT, WITHOUT ROWID;
