-- Management: what keys may do and until when, roles of service accounts, when keys were last used, and the audit log.
-- Times are Unix nanoseconds unless the name says otherwise.

ALTER TABLE service_accounts ADD COLUMN role TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'member', 'none'));
ALTER TABLE service_accounts ADD COLUMN deleted_at INTEGER;

-- A JSON list of model names; NULL is every model.
ALTER TABLE api_keys ADD COLUMN allowed_models TEXT;
-- The secret from before the last rotation opens the key until then.
ALTER TABLE api_keys ADD COLUMN previous_hash BLOB CHECK (length(previous_hash) = 32);
ALTER TABLE api_keys ADD COLUMN previous_expires_at INTEGER;

ALTER TABLE admin_keys ADD COLUMN expires_at INTEGER;
ALTER TABLE admin_keys ADD COLUMN deleted_at INTEGER;
UPDATE admin_keys SET id = 'key_' || substr(id, 10) WHERE substr(id, 1, 9) = 'adminkey_';

-- By id of API keys and admin keys. Written now and then, not with each request.
CREATE TABLE last_used (
    key_id    TEXT    PRIMARY KEY,
    used_at_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per change that an administrator makes, written in the transaction of the change. Each hash covers its row and
-- the hash before it.
CREATE TABLE audit_log (
    number       INTEGER PRIMARY KEY,
    type         TEXT    NOT NULL,
    actor        TEXT    NOT NULL,
    effective_at INTEGER NOT NULL,
    object_id    TEXT    NOT NULL,
    project_id   TEXT,
    project_name TEXT,
    before       TEXT,
    after        TEXT,
    hash         BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- A replacing insert would delete without a trigger.
CREATE TRIGGER audit_rows_come_in_order BEFORE INSERT ON audit_log
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit_log)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER audit_rows_are_never_changed BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER audit_rows_are_never_deleted BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
