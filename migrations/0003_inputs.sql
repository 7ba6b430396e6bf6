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
