-- Whether a project may move to a higher tier by itself.
ALTER TABLE projects ADD COLUMN automatic_tier INTEGER NOT NULL DEFAULT 1 CHECK (automatic_tier IN (0, 1));

-- JSON: cents a month and a day, and whether they are enforced. NULL is none.
ALTER TABLE api_keys ADD COLUMN budget TEXT;
