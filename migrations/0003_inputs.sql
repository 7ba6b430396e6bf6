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
