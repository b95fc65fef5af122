-- Batches whose input tokens wait, so that a restart knows the same sums. A row goes when its batch has ended.

CREATE TABLE enqueued_batches (
    batch_id    TEXT    PRIMARY KEY,
    project_id  TEXT    NOT NULL REFERENCES projects (id),
    limit_group TEXT    NOT NULL,
    tokens      INTEGER NOT NULL CHECK (tokens >= 0),
    enqueued_at INTEGER NOT NULL -- Unix nanoseconds
) STRICT, WITHOUT ROWID;
