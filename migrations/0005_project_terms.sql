-- What administrators set for projects and for the organization beyond tiers and keys. Nothing set is no row.

-- JSON: limits by model id; mode and model ids; threshold and enforcement. NULL is none.
CREATE TABLE project_terms (
    project_id        TEXT PRIMARY KEY REFERENCES projects (id),
    rate_limits       TEXT NOT NULL,
    model_permissions TEXT,
    spend_limit       TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE organization_terms (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    spend_limit TEXT
) STRICT;
