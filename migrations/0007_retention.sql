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
DROP TRIGGER adjustments_are_never_deleted;

CREATE TRIGGER entries_are_kept_until_the_horizon BEFORE DELETE ON entries
WHEN OLD.admitted_at_ms + OLD.duration_ms >= coalesce((SELECT horizon_ms FROM retention), 0)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER adjustments_are_kept_until_the_horizon BEFORE DELETE ON adjustments
WHEN OLD.settled_at_ms >= coalesce((SELECT horizon_ms FROM retention), 0)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
