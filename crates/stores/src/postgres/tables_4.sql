-- Version 4 of the tables: what was used when.

-- Rows of buckets. `grain` is the resolution and whether the row is a part (a user, dimensions) of its tenant. What is
-- written now lies together, and so does what is dropped.
CREATE TABLE tidegate.history (
    grain smallint NOT NULL,
    start_ms bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    dimensions text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    used bigint NOT NULL,
    denied bigint NOT NULL,
    moved bigint NOT NULL,
    PRIMARY KEY (grain, start_ms, tenant, user_id, dimensions, meter)
) WITH (fillfactor = 70);

-- One row: the place in the journal that all of them are true for, the latest instant of the entries through it, and what
-- may be dropped already, for each resolution.
CREATE TABLE tidegate.history_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    through bigint NOT NULL DEFAULT 0,
    at_ms bigint NOT NULL DEFAULT 0,
    kept_from_ms bigint[] NOT NULL DEFAULT '{0,0,0}'
);
INSERT INTO tidegate.history_state DEFAULT VALUES;
