-- The daily history. In order of day first: a night's rows are appended to the index, and a day past its time is one
-- stretch of it.
CREATE TABLE tidegate.snapshots (
    day integer NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    value bigint NOT NULL,
    after_reset bigint,
    observed_at_ms bigint NOT NULL,
    source smallint NOT NULL,
    PRIMARY KEY (day, tenant, meter)
);
CREATE TABLE tidegate.snapshot_runs (
    day integer PRIMARY KEY,
    started_at_ms bigint NOT NULL,
    ended_at_ms bigint NOT NULL,
    tenants_done bigint NOT NULL,
    tenants_failed bigint NOT NULL
);
