-- Requests that were refused before anything was sent, so that they can be explained for a day. They are no part of the
-- ledger: nothing was consumed, and what is older, or more than enough, is deleted. Callers choose the names, so they are
-- not put among those that are kept for ever.
CREATE TABLE refusals (
    request_id BLOB    PRIMARY KEY CHECK (length(request_id) = 16), -- starts with the milliseconds of its arrival
    refused_at INTEGER NOT NULL,                                    -- Unix nanoseconds
    project_id TEXT    NOT NULL,
    api_key    TEXT    NOT NULL,
    endpoint   TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    stream     INTEGER NOT NULL CHECK (stream IN (0, 1)),
    status     INTEGER NOT NULL,
    code       TEXT,
    reason     TEXT    NOT NULL, -- JSON, as `domain/refusals` has it
    headrooms  TEXT    NOT NULL  -- JSON
) STRICT, WITHOUT ROWID;
