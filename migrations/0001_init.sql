-- Keys, projects, the ledger and its rollups. Times are Unix nanoseconds unless the name says otherwise.

CREATE TABLE projects (
    id          TEXT    PRIMARY KEY,
    name        TEXT    NOT NULL,
    tier        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;

CREATE TABLE service_accounts (
    id         TEXT    PRIMARY KEY,
    project_id TEXT    NOT NULL REFERENCES projects (id),
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Keys are revoked, never deleted: the ledger refers to them.
CREATE TABLE api_keys (
    number             INTEGER PRIMARY KEY,
    id                 TEXT    NOT NULL UNIQUE,
    project_id         TEXT    NOT NULL REFERENCES projects (id),
    service_account_id TEXT    NOT NULL REFERENCES service_accounts (id),
    name               TEXT    NOT NULL,
    hash               BLOB    NOT NULL CHECK (length(hash) = 32),
    redacted_value     TEXT    NOT NULL,
    limits             TEXT    NOT NULL,
    created_at         INTEGER NOT NULL,
    expires_at         INTEGER,
    revoked_at         INTEGER
) STRICT;

CREATE INDEX api_keys_of_project ON api_keys (project_id);

CREATE TABLE admin_keys (
    id             TEXT    PRIMARY KEY,
    name           TEXT    NOT NULL,
    hash           BLOB    NOT NULL CHECK (length(hash) = 32),
    redacted_value TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

-- Models, endpoints, outcomes and the like, so that a ledger row holds a small number for each.
CREATE TABLE names (
    number INTEGER PRIMARY KEY,
    name   TEXT    NOT NULL UNIQUE
) STRICT;

-- One row per finished request. Rows are added, never changed.
CREATE TABLE entries (
    request_id             BLOB    PRIMARY KEY CHECK (length(request_id) = 16),
    api_key                INTEGER NOT NULL REFERENCES api_keys (number),
    endpoint               INTEGER NOT NULL REFERENCES names (number),
    model                  INTEGER NOT NULL REFERENCES names (number), -- the dated model that answered
    requested_model        INTEGER NOT NULL REFERENCES names (number),
    service_tier           INTEGER NOT NULL REFERENCES names (number),
    outcome                INTEGER NOT NULL REFERENCES names (number),
    basis                  INTEGER NOT NULL REFERENCES names (number),
    status                 INTEGER NOT NULL,
    stream                 INTEGER NOT NULL CHECK (stream IN (0, 1)),
    admitted_at_ms         INTEGER NOT NULL,
    settled_at_ms          INTEGER NOT NULL,
    prices_from_s          INTEGER,
    input_text             INTEGER NOT NULL,
    input_cached_text      INTEGER NOT NULL,
    input_cache_write_text INTEGER NOT NULL,
    input_audio            INTEGER NOT NULL,
    input_cached_audio     INTEGER NOT NULL,
    input_image            INTEGER NOT NULL,
    input_cached_image     INTEGER NOT NULL,
    output_text            INTEGER NOT NULL,
    output_audio           INTEGER NOT NULL,
    output_image           INTEGER NOT NULL,
    cost_pico              INTEGER,          -- NULL when no line had a price: unpriced, not free
    priced                 INTEGER NOT NULL CHECK (priced IN (0, 1)) -- 0 when any line had no price
) STRICT, WITHOUT ROWID;

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: write an adjustment'); END;

CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- Sums per minute (60), hour (3600) and day (86400), UTC, by the time of the settlement. Reports read only these.
CREATE TABLE rollups (
    width_s                     INTEGER NOT NULL CHECK (width_s IN (60, 3600, 86400)),
    bucket_start_s              INTEGER NOT NULL,
    api_key                     INTEGER NOT NULL REFERENCES api_keys (number),
    endpoint                    INTEGER NOT NULL REFERENCES names (number),
    model                       INTEGER NOT NULL REFERENCES names (number),
    service_tier                INTEGER NOT NULL REFERENCES names (number),
    requests                    INTEGER NOT NULL,
    unpriced_requests           INTEGER NOT NULL,
    input_text                  INTEGER NOT NULL,
    input_cached_text           INTEGER NOT NULL,
    input_cache_write_text      INTEGER NOT NULL,
    input_audio                 INTEGER NOT NULL,
    input_cached_audio          INTEGER NOT NULL,
    input_image                 INTEGER NOT NULL,
    input_cached_image          INTEGER NOT NULL,
    output_text                 INTEGER NOT NULL,
    output_audio                INTEGER NOT NULL,
    output_image                INTEGER NOT NULL,
    input_text_pico             INTEGER NOT NULL,
    input_cached_text_pico      INTEGER NOT NULL,
    input_cache_write_text_pico INTEGER NOT NULL,
    input_audio_pico            INTEGER NOT NULL,
    input_cached_audio_pico     INTEGER NOT NULL,
    input_image_pico            INTEGER NOT NULL,
    input_cached_image_pico     INTEGER NOT NULL,
    output_text_pico            INTEGER NOT NULL,
    output_audio_pico           INTEGER NOT NULL,
    output_image_pico           INTEGER NOT NULL,
    PRIMARY KEY (width_s, bucket_start_s, api_key, endpoint, model, service_tier)
) STRICT, WITHOUT ROWID;

-- The buckets of the limits as of the projection: when each is full again.
CREATE TABLE limit_buckets (
    key_id      TEXT    NOT NULL,
    limit_group TEXT    NOT NULL,
    dimension   TEXT    NOT NULL,
    arrival_at  INTEGER NOT NULL,
    PRIMARY KEY (key_id, limit_group, dimension)
) STRICT, WITHOUT ROWID;

-- How much of the journal the tables above hold. Written in the same transaction as they are.
CREATE TABLE projection (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    segment INTEGER NOT NULL,
    offset  INTEGER NOT NULL
) STRICT;

-- The ledger as a person reads it.
CREATE VIEW ledger AS
SELECT 'req_' || lower(hex(e.request_id)) AS request_id,
       datetime(e.settled_at_ms / 1000, 'unixepoch') AS settled_at,
       k.project_id, k.id AS api_key_id,
       n1.name AS endpoint, n2.name AS model, n3.name AS requested_model, n4.name AS service_tier,
       n5.name AS outcome, n6.name AS basis, e.status, e.stream,
       e.settled_at_ms - e.admitted_at_ms AS duration_ms,
       e.input_text, e.input_cached_text, e.input_cache_write_text, e.input_audio, e.input_cached_audio,
       e.input_image, e.input_cached_image, e.output_text, e.output_audio, e.output_image,
       e.cost_pico, e.priced
FROM entries e
JOIN api_keys k ON k.number = e.api_key
JOIN names n1 ON n1.number = e.endpoint
JOIN names n2 ON n2.number = e.model
JOIN names n3 ON n3.number = e.requested_model
JOIN names n4 ON n4.number = e.service_tier
JOIN names n5 ON n5.number = e.outcome
JOIN names n6 ON n6.number = e.basis;
