-- Limits per project and per key, tokens of a day, the queue of batches, and what tiers and budgets need.

-- === limits per project and per key ===

-- Projects have buckets of their own, which all their keys share; a key has some only for limits that are narrower. What one
-- unit weighs is kept beside a level, so that a changed limit takes over the units in use.

ALTER TABLE limit_buckets RENAME TO limit_buckets_before;

-- The buckets of the limits as of the projection.
CREATE TABLE limit_buckets (
    project_id  TEXT    NOT NULL,
    key_id      TEXT    NOT NULL, -- '': of the project itself
    limit_group TEXT    NOT NULL,
    dimension   TEXT    NOT NULL,
    arrival_at  INTEGER NOT NULL, -- Unix nanoseconds at which it is full again
    unit_nanos  INTEGER NOT NULL, -- in which one unit comes back; 0: not known
    PRIMARY KEY (project_id, key_id, limit_group, dimension)
) STRICT, WITHOUT ROWID;

-- Until now each key had what its project has, or less where it had a limit of its own.
CREATE TEMP TABLE buckets_before AS
SELECT k.project_id, b.key_id, b.limit_group, b.dimension, b.arrival_at,
       coalesce(k.limits ->> b.dimension, 0) AS own_limit
FROM limit_buckets_before b JOIN api_keys k ON k.id = b.key_id;

-- Of a project's keys the one that had most in use: those without a limit of their own tell it in the project's terms, the
-- others in units of their own.
INSERT INTO limit_buckets
SELECT project_id, '', limit_group, dimension, arrival_at,
       CASE WHEN own_limit = 0 THEN 0
            ELSE (iif(dimension = 'requests_per_day', 86400000000000, 60000000000) + own_limit - 1) / own_limit END
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY project_id, limit_group, dimension ORDER BY own_limit > 0, arrival_at DESC
    ) AS place
    FROM temp.buckets_before
)
WHERE place = 1;

INSERT INTO limit_buckets
SELECT project_id, key_id, limit_group, dimension, arrival_at, 0 FROM temp.buckets_before WHERE own_limit > 0;

DROP TABLE temp.buckets_before;
DROP TABLE limit_buckets_before;

-- === the queue of batches ===

-- Batches whose input tokens wait, so that a restart knows the same sums. A row goes when its batch has ended.

CREATE TABLE enqueued_batches (
    batch_id    TEXT    PRIMARY KEY,
    project_id  TEXT    NOT NULL REFERENCES projects (id),
    limit_group TEXT    NOT NULL,
    tokens      INTEGER NOT NULL CHECK (tokens >= 0),
    enqueued_at INTEGER NOT NULL -- Unix nanoseconds
) STRICT, WITHOUT ROWID;

-- === tiers and budgets ===

-- Whether a project may move to a higher tier by itself.
ALTER TABLE projects ADD COLUMN automatic_tier INTEGER NOT NULL DEFAULT 1 CHECK (automatic_tier IN (0, 1));

-- JSON: cents a month and a day, and whether they are enforced. NULL is none.
ALTER TABLE api_keys ADD COLUMN budget TEXT;
