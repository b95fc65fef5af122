-- What requests were billed by and how they ended is written once and referred to; sums are packed. An entry holds quantities,
-- and its tariff the prices, so every amount is a product that can be checked. Times are Unix nanoseconds unless the name
-- says otherwise.

-- By what requests were billed (`domain/tariff`). `prices` holds pico-dollars for a token of each line item that was used.
CREATE TABLE tariffs (
    number        INTEGER PRIMARY KEY,
    endpoint      INTEGER NOT NULL REFERENCES names (number),
    model         INTEGER NOT NULL REFERENCES names (number), -- the dated model that answered
    service_tier  INTEGER NOT NULL REFERENCES names (number),
    prices_from_s INTEGER NOT NULL,                           -- when the prices came into force; -1 without prices
    priced        INTEGER NOT NULL CHECK (priced IN (0, 1)),  -- 0 when something was used that has no price
    adjusts       INTEGER NOT NULL CHECK (adjusts IN (0, 1)), -- 1 when the prices are differences to earlier ones
    prices        TEXT    NOT NULL,
    UNIQUE (endpoint, model, service_tier, prices_from_s, priced, adjusts, prices)
) STRICT;

-- How requests ended.
CREATE TABLE endings (
    number          INTEGER PRIMARY KEY,
    requested_model INTEGER NOT NULL REFERENCES names (number),
    outcome         INTEGER NOT NULL REFERENCES names (number),
    basis           INTEGER NOT NULL REFERENCES names (number),
    status          INTEGER NOT NULL,
    stream          INTEGER NOT NULL CHECK (stream IN (0, 1)),
    UNIQUE (requested_model, outcome, basis, status, stream)
) STRICT;

-- The limits that requests were admitted under.
CREATE TABLE terms (
    number      INTEGER PRIMARY KEY,
    limit_group TEXT    NOT NULL,
    limits      TEXT    NOT NULL,
    UNIQUE (limit_group, limits)
) STRICT;

DROP VIEW ledger;
DROP TRIGGER entries_are_never_changed;
DROP TRIGGER entries_are_never_deleted;
ALTER TABLE entries RENAME TO entries_before;
ALTER TABLE rollups RENAME TO rollups_before;

-- One row per finished request. Rows are added, never changed. What an entry of before 0004 did not know is NULL.
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
    terms                   INTEGER REFERENCES terms (number),
    reserved_tokens         INTEGER,
    used_requests_per_minute INTEGER, -- of each limit, before this request
    used_requests_per_day   INTEGER,
    used_tokens_per_minute  INTEGER,
    estimated_input_text    INTEGER,
    estimated_input_audio   INTEGER,
    estimated_output_text   INTEGER,
    estimated_output_audio  INTEGER
) STRICT, WITHOUT ROWID;

-- Corrections of what entries cost: the quantities of the request at a tariff of differences, in the bucket of the request.
CREATE TABLE adjustments (
    number                 INTEGER PRIMARY KEY,
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

CREATE INDEX adjustments_of_request ON adjustments (request_id);

-- Sums per minute (60), hour (3600) and day (86400), UTC, by the time of the settlement. Reports read only these. The sums
-- of a bucket are those of all its parts together; `cells` is packed as `domain/rollup` says.
CREATE TABLE rollups (
    width_s        INTEGER NOT NULL CHECK (width_s IN (60, 3600, 86400)),
    bucket_start_s INTEGER NOT NULL,
    level          INTEGER NOT NULL, -- parts of one level are made into one of the next when there are many
    part           INTEGER NOT NULL,
    cells          BLOB    NOT NULL,
    PRIMARY KEY (width_s, bucket_start_s, level, part)
) STRICT;

-- What a token cost in each minute: amounts were kept per minute, not per entry.
CREATE TEMP TABLE minute_prices AS
SELECT bucket_start_s, api_key, endpoint, model, service_tier,
       CASE WHEN input_text > 0 THEN input_text_pico / input_text END AS input_text,
       CASE WHEN input_cached_text > 0 THEN input_cached_text_pico / input_cached_text END AS input_cached_text,
       CASE WHEN input_cache_write_text > 0 THEN input_cache_write_text_pico / input_cache_write_text END AS input_cache_write_text,
       CASE WHEN input_audio > 0 THEN input_audio_pico / input_audio END AS input_audio,
       CASE WHEN input_cached_audio > 0 THEN input_cached_audio_pico / input_cached_audio END AS input_cached_audio,
       CASE WHEN input_image > 0 THEN input_image_pico / input_image END AS input_image,
       CASE WHEN input_cached_image > 0 THEN input_cached_image_pico / input_cached_image END AS input_cached_image,
       CASE WHEN output_text > 0 THEN output_text_pico / output_text END AS output_text,
       CASE WHEN output_audio > 0 THEN output_audio_pico / output_audio END AS output_audio,
       CASE WHEN output_image > 0 THEN output_image_pico / output_image END AS output_image
FROM rollups_before WHERE width_s = 60;

CREATE TEMP TABLE priced_entries AS
SELECT e.request_id,
       CASE WHEN e.cost_pico IS NULL THEN '{}' ELSE json_patch('{}', json_object(
           'input_text', CASE WHEN e.input_text > 0 AND (e.priced = 1 OR p.input_text > 0) THEN p.input_text END,
           'input_cached_text', CASE WHEN e.input_cached_text > 0 AND (e.priced = 1 OR p.input_cached_text > 0) THEN p.input_cached_text END,
           'input_cache_write_text', CASE WHEN e.input_cache_write_text > 0 AND (e.priced = 1 OR p.input_cache_write_text > 0) THEN p.input_cache_write_text END,
           'input_audio', CASE WHEN e.input_audio > 0 AND (e.priced = 1 OR p.input_audio > 0) THEN p.input_audio END,
           'input_cached_audio', CASE WHEN e.input_cached_audio > 0 AND (e.priced = 1 OR p.input_cached_audio > 0) THEN p.input_cached_audio END,
           'input_image', CASE WHEN e.input_image > 0 AND (e.priced = 1 OR p.input_image > 0) THEN p.input_image END,
           'input_cached_image', CASE WHEN e.input_cached_image > 0 AND (e.priced = 1 OR p.input_cached_image > 0) THEN p.input_cached_image END,
           'output_text', CASE WHEN e.output_text > 0 AND (e.priced = 1 OR p.output_text > 0) THEN p.output_text END,
           'output_audio', CASE WHEN e.output_audio > 0 AND (e.priced = 1 OR p.output_audio > 0) THEN p.output_audio END,
           'output_image', CASE WHEN e.output_image > 0 AND (e.priced = 1 OR p.output_image > 0) THEN p.output_image END
       )) END AS prices
FROM entries_before e
LEFT JOIN minute_prices p ON p.bucket_start_s = e.settled_at_ms / 60000 * 60 AND p.api_key = e.api_key
    AND p.endpoint = e.endpoint AND p.model = e.model AND p.service_tier = e.service_tier;

CREATE UNIQUE INDEX temp.priced_entries_by_id ON priced_entries (request_id);

INSERT INTO tariffs (endpoint, model, service_tier, prices_from_s, priced, adjusts, prices)
SELECT DISTINCT e.endpoint, e.model, e.service_tier, coalesce(e.prices_from_s, -1), e.priced, 0, p.prices
FROM entries_before e JOIN priced_entries p USING (request_id);

INSERT INTO endings (requested_model, outcome, basis, status, stream)
SELECT DISTINCT requested_model, outcome, basis, status, stream FROM entries_before;

INSERT INTO entries
SELECT e.request_id, e.api_key, t.number, n.number, e.admitted_at_ms, e.settled_at_ms - e.admitted_at_ms,
       e.input_text, e.input_cached_text, e.input_cache_write_text, e.input_audio, e.input_cached_audio,
       e.input_image, e.input_cached_image, e.output_text, e.output_audio, e.output_image,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM entries_before e
JOIN priced_entries p USING (request_id)
JOIN tariffs t ON t.endpoint = e.endpoint AND t.model = e.model AND t.service_tier = e.service_tier
    AND t.prices_from_s = coalesce(e.prices_from_s, -1) AND t.priced = e.priced AND t.adjusts = 0 AND t.prices = p.prices
JOIN endings n ON n.requested_model = e.requested_model AND n.outcome = e.outcome AND n.basis = e.basis
    AND n.status = e.status AND n.stream = e.stream;

-- Requests of one minute that had different prices (a long context and a short one): the sum of each stays what it was.
CREATE TEMP TABLE differences AS
SELECT e.request_id, e.api_key, e.endpoint, e.model, e.service_tier, e.settled_at_ms,
       json_object('input_text', e.cost_pico - (
           e.input_text * coalesce(p.prices ->> 'input_text', 0) +
           e.input_cached_text * coalesce(p.prices ->> 'input_cached_text', 0) +
           e.input_cache_write_text * coalesce(p.prices ->> 'input_cache_write_text', 0) +
           e.input_audio * coalesce(p.prices ->> 'input_audio', 0) +
           e.input_cached_audio * coalesce(p.prices ->> 'input_cached_audio', 0) +
           e.input_image * coalesce(p.prices ->> 'input_image', 0) +
           e.input_cached_image * coalesce(p.prices ->> 'input_cached_image', 0) +
           e.output_text * coalesce(p.prices ->> 'output_text', 0) +
           e.output_audio * coalesce(p.prices ->> 'output_audio', 0) +
           e.output_image * coalesce(p.prices ->> 'output_image', 0)
       )) AS prices
FROM entries_before e JOIN priced_entries p USING (request_id)
WHERE e.cost_pico IS NOT NULL AND e.cost_pico <> (
    e.input_text * coalesce(p.prices ->> 'input_text', 0) +
    e.input_cached_text * coalesce(p.prices ->> 'input_cached_text', 0) +
    e.input_cache_write_text * coalesce(p.prices ->> 'input_cache_write_text', 0) +
    e.input_audio * coalesce(p.prices ->> 'input_audio', 0) +
    e.input_cached_audio * coalesce(p.prices ->> 'input_cached_audio', 0) +
    e.input_image * coalesce(p.prices ->> 'input_image', 0) +
    e.input_cached_image * coalesce(p.prices ->> 'input_cached_image', 0) +
    e.output_text * coalesce(p.prices ->> 'output_text', 0) +
    e.output_audio * coalesce(p.prices ->> 'output_audio', 0) +
    e.output_image * coalesce(p.prices ->> 'output_image', 0)
);

INSERT INTO tariffs (endpoint, model, service_tier, prices_from_s, priced, adjusts, prices)
SELECT DISTINCT endpoint, model, service_tier, -1, 1, 1, prices FROM differences;

INSERT INTO adjustments (request_id, api_key, tariff, requests, settled_at_ms, adjusted_at_ms, reason, input_text)
SELECT d.request_id, d.api_key, t.number, 0, d.settled_at_ms, d.settled_at_ms, 'migration', 1
FROM differences d
JOIN tariffs t ON t.endpoint = d.endpoint AND t.model = d.model AND t.service_tier = d.service_tier AND t.adjusts = 1
    AND t.prices = d.prices;

-- Better no start than a ledger that lost an entry.
CREATE TEMP TABLE kept (lost INTEGER CHECK (lost = 0));
INSERT INTO kept SELECT (SELECT count(*) FROM entries_before) - (SELECT count(*) FROM entries);
DROP TABLE temp.kept;

DROP TABLE temp.differences;
DROP TABLE temp.priced_entries;
DROP TABLE temp.minute_prices;
DROP TABLE entries_before;
DROP TABLE rollups_before;

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: write an adjustment'); END;

CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER adjustments_are_never_changed BEFORE UPDATE ON adjustments
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: write another adjustment'); END;

CREATE TRIGGER adjustments_are_never_deleted BEFORE DELETE ON adjustments
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER tariffs_are_never_changed BEFORE UPDATE ON tariffs
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

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
       CASE WHEN t.priced = 1 OR t.prices <> '{}' THEN
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
       t.priced
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
