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
-- Where journals were cut by then, nothing is known of what was cut: history is kept from the first bucket that is whole
-- of all tenants.
INSERT INTO tidegate.history_state (kept_from_ms)
    SELECT CASE WHEN cut.first IS NULL THEN '{0,0,0}'::bigint[] ELSE ARRAY[
        (cut.first / 60000 + 1) * 60000, (cut.first / 900000 + 1) * 900000, (cut.first / 86400000 + 1) * 86400000] END
    FROM (
        SELECT max(coalesce(
            (SELECT at_ms FROM tidegate.entries e WHERE e.tenant = o.tenant ORDER BY seq LIMIT 1),
            (extract(epoch FROM now()) * 1000)::bigint)) AS first
        FROM tidegate.openings o WHERE o.user_id = ''
    ) AS cut;
