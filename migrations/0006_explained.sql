-- Requests and refusals that can be explained, entries that may be dropped for their age, corrected prices, and sums that tell
-- less apart. In this order.

-- === refusals ===

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

-- === what a request held ===

-- What a request held at its admission is read one request at a time, to explain it: packed into one column it takes a third
-- of the room that eight columns took.

DROP VIEW ledger; -- made again below
DROP TRIGGER entries_are_never_changed;
DROP TRIGGER entries_are_never_deleted;
ALTER TABLE entries RENAME TO entries_before;

-- One row per finished request. Rows are added, never changed.
CREATE TABLE entries (
    request_id              BLOB    PRIMARY KEY CHECK (length(request_id) = 16), -- starts with the milliseconds of its arrival
    api_key                 INTEGER NOT NULL REFERENCES api_keys (number),
    tariff                  INTEGER NOT NULL REFERENCES tariffs (number),
    ending                  INTEGER NOT NULL REFERENCES endings (number),
    admitted_at_ms          INTEGER NOT NULL,
    duration_ms             INTEGER NOT NULL, -- from the admission to the settlement
    input_text              INTEGER NOT NULL,
    input_cached_text       INTEGER NOT NULL,
    input_cache_write_text  INTEGER NOT NULL,
    input_audio             INTEGER NOT NULL,
    input_cached_audio      INTEGER NOT NULL,
    input_image             INTEGER NOT NULL,
    input_cached_image      INTEGER NOT NULL,
    output_text             INTEGER NOT NULL,
    output_audio            INTEGER NOT NULL,
    output_image            INTEGER NOT NULL,
    -- NULL in both: an entry of before 0004.
    terms                   INTEGER REFERENCES terms (number),
    held                    ANY     -- packed as `domain/held` says; of before 0006 as JSON, in the order of its fields
) STRICT, WITHOUT ROWID;

INSERT INTO entries
SELECT request_id, api_key, tariff, ending, admitted_at_ms, duration_ms,
       input_text, input_cached_text, input_cache_write_text, input_audio, input_cached_audio,
       input_image, input_cached_image, output_text, output_audio, output_image,
       terms,
       CASE WHEN reserved_tokens IS NOT NULL THEN json_array(
           reserved_tokens, used_requests_per_minute, used_requests_per_day, used_tokens_per_minute,
           estimated_input_text, estimated_input_audio, estimated_output_text, estimated_output_audio
       ) END
FROM entries_before;

DROP TABLE entries_before;

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: write an adjustment'); END;

CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- === retention ===

-- Entries and their adjustments may be dropped once they are older than the operator keeps them (`retention_days`). Rollups,
-- tariffs, projects and audit rows are not.

-- Entries that were settled before the horizon may be gone.
CREATE TABLE retention (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    horizon_ms INTEGER NOT NULL
) STRICT;

INSERT INTO retention VALUES (1, 0);

CREATE TRIGGER the_horizon_only_moves_forward BEFORE UPDATE ON retention WHEN NEW.horizon_ms < OLD.horizon_ms
BEGIN SELECT RAISE(ABORT, 'what was dropped does not come back: the horizon only moves forward'); END;

CREATE TRIGGER the_horizon_is_never_deleted BEFORE DELETE ON retention
BEGIN SELECT RAISE(ABORT, 'what was dropped does not come back: the horizon only moves forward'); END;

-- A replacing insert would delete without a trigger.
CREATE TRIGGER there_is_one_horizon BEFORE INSERT ON retention
BEGIN SELECT RAISE(ABORT, 'what was dropped does not come back: the horizon only moves forward'); END;

-- Those of the dropped entries whose request the journal still holds: should it bring one again, it is not counted twice.
CREATE TABLE dropped (
    request_id BLOB PRIMARY KEY CHECK (length(request_id) = 16)
) STRICT, WITHOUT ROWID;

DROP TRIGGER entries_are_never_deleted;

-- The number of a dropped adjustment is not given again: whoever counts on from a number would miss the new one.
DROP TRIGGER adjustments_are_never_changed;
DROP TRIGGER adjustments_are_never_deleted;
DROP INDEX adjustments_of_request;
ALTER TABLE adjustments RENAME TO adjustments_before;

-- Corrections of what entries cost: the quantities of the request at a tariff of differences, in the bucket of the request.
CREATE TABLE adjustments (
    number                 INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id             BLOB    NOT NULL CHECK (length(request_id) = 16),
    api_key                INTEGER NOT NULL REFERENCES api_keys (number),
    tariff                 INTEGER NOT NULL REFERENCES tariffs (number),
    requests               INTEGER NOT NULL CHECK (requests IN (0, 1)), -- 1 when the request had no price before
    settled_at_ms          INTEGER NOT NULL, -- of the request
    adjusted_at_ms         INTEGER NOT NULL,
    reason                 TEXT    NOT NULL,
    input_text             INTEGER NOT NULL DEFAULT 0,
    input_cached_text      INTEGER NOT NULL DEFAULT 0,
    input_cache_write_text INTEGER NOT NULL DEFAULT 0,
    input_audio            INTEGER NOT NULL DEFAULT 0,
    input_cached_audio     INTEGER NOT NULL DEFAULT 0,
    input_image            INTEGER NOT NULL DEFAULT 0,
    input_cached_image     INTEGER NOT NULL DEFAULT 0,
    output_text            INTEGER NOT NULL DEFAULT 0,
    output_audio           INTEGER NOT NULL DEFAULT 0,
    output_image           INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO adjustments
SELECT number, request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason,
       input_text, input_cached_text, input_cache_write_text, input_audio, input_cached_audio,
       input_image, input_cached_image, output_text, output_audio, output_image
FROM adjustments_before;

DROP TABLE adjustments_before;

CREATE INDEX adjustments_of_request ON adjustments (request_id);

CREATE TRIGGER adjustments_are_never_changed BEFORE UPDATE ON adjustments
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: write another adjustment'); END;

CREATE TRIGGER entries_are_kept_until_the_horizon BEFORE DELETE ON entries
WHEN OLD.admitted_at_ms + OLD.duration_ms >= coalesce((SELECT horizon_ms FROM retention), 0)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER adjustments_are_kept_until_the_horizon BEFORE DELETE ON adjustments
WHEN OLD.settled_at_ms >= coalesce((SELECT horizon_ms FROM retention), 0)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- === corrected prices ===

-- A request that had no price and was given one by an adjustment has a cost, and is priced.

-- The ledger as a person reads it.
CREATE VIEW ledger AS
SELECT 'req_' || lower(hex(e.request_id)) AS request_id,
       datetime((e.admitted_at_ms + e.duration_ms) / 1000, 'unixepoch') AS settled_at,
       k.project_id, k.id AS api_key_id,
       n1.name AS endpoint, n2.name AS model, n3.name AS requested_model, n4.name AS service_tier,
       n5.name AS outcome, n6.name AS basis, n.status, n.stream,
       e.duration_ms,
       e.input_text, e.input_cached_text, e.input_cache_write_text, e.input_audio,
       e.input_cached_audio, e.input_image, e.input_cached_image, e.output_text,
       e.output_audio, e.output_image,
       -- with adjustments; NULL when nothing of it has a price: unpriced, not free
       CASE WHEN t.priced = 1 OR t.prices <> '{}' OR EXISTS (SELECT 1 FROM adjustments a WHERE a.request_id = e.request_id) THEN
           e.input_text * coalesce(t.prices ->> 'input_text', 0) +
           e.input_cached_text * coalesce(t.prices ->> 'input_cached_text', 0) +
           e.input_cache_write_text * coalesce(t.prices ->> 'input_cache_write_text', 0) +
           e.input_audio * coalesce(t.prices ->> 'input_audio', 0) +
           e.input_cached_audio * coalesce(t.prices ->> 'input_cached_audio', 0) +
           e.input_image * coalesce(t.prices ->> 'input_image', 0) +
           e.input_cached_image * coalesce(t.prices ->> 'input_cached_image', 0) +
           e.output_text * coalesce(t.prices ->> 'output_text', 0) +
           e.output_audio * coalesce(t.prices ->> 'output_audio', 0) +
           e.output_image * coalesce(t.prices ->> 'output_image', 0)
           + coalesce((
               SELECT sum(
                   a.input_text * coalesce(d.prices ->> 'input_text', 0) +
                   a.input_cached_text * coalesce(d.prices ->> 'input_cached_text', 0) +
                   a.input_cache_write_text * coalesce(d.prices ->> 'input_cache_write_text', 0) +
                   a.input_audio * coalesce(d.prices ->> 'input_audio', 0) +
                   a.input_cached_audio * coalesce(d.prices ->> 'input_cached_audio', 0) +
                   a.input_image * coalesce(d.prices ->> 'input_image', 0) +
                   a.input_cached_image * coalesce(d.prices ->> 'input_cached_image', 0) +
                   a.output_text * coalesce(d.prices ->> 'output_text', 0) +
                   a.output_audio * coalesce(d.prices ->> 'output_audio', 0) +
                   a.output_image * coalesce(d.prices ->> 'output_image', 0)
               ) FROM adjustments a JOIN tariffs d ON d.number = a.tariff WHERE a.request_id = e.request_id
           ), 0)
       END AS cost_pico,
       max(t.priced, EXISTS (SELECT 1 FROM adjustments a WHERE a.request_id = e.request_id AND a.requests = 1)) AS priced
FROM entries e
JOIN api_keys k ON k.number = e.api_key
JOIN tariffs t ON t.number = e.tariff
JOIN endings n ON n.number = e.ending
JOIN names n1 ON n1.number = t.endpoint
JOIN names n2 ON n2.number = t.model
JOIN names n3 ON n3.number = n.requested_model
JOIN names n4 ON n4.number = t.service_tier
JOIN names n5 ON n5.number = n.outcome
JOIN names n6 ON n6.number = n.basis;

-- === coarse sums ===

-- Sums that tell only projects apart, or nothing but tariffs, beside those of keys: most reports ask for no more, and read
-- a hundredth. `detail`: 0 per API key, 1 per project (in the place of a key stands its project's first), 2 for all together
-- (in the place of a key stands 0). Those of 1 and 2 are kept where `domain/rollup` says; the next start fills them.

ALTER TABLE rollups RENAME TO rollups_before;

CREATE TABLE rollups (
    detail         INTEGER NOT NULL CHECK (detail IN (0, 1, 2)),
    width_s        INTEGER NOT NULL CHECK (width_s IN (60, 3600, 86400)),
    bucket_start_s INTEGER NOT NULL,
    level          INTEGER NOT NULL, -- parts of one level are made into one of the next when there are many
    part           INTEGER NOT NULL,
    cells          BLOB    NOT NULL,
    PRIMARY KEY (detail, width_s, bucket_start_s, level, part)
) STRICT;

INSERT INTO rollups SELECT 0, width_s, bucket_start_s, level, part, cells FROM rollups_before;
DROP TABLE rollups_before;

-- Whether those sums are there. What an earlier version has left is summed up by a transaction of its own after this one; a
-- program that finds this table in between must not add to them yet.
CREATE TABLE summed_up (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    is_done INTEGER NOT NULL CHECK (is_done IN (0, 1))
) STRICT;

INSERT INTO summed_up
SELECT 1, NOT EXISTS (SELECT 1 FROM entries) AND NOT EXISTS (SELECT 1 FROM rollups);
