-- Version 1 of the tables. Every one but the small ones is keyed by the tenant first, so that it can be partitioned or
-- sharded by it. `tidegate.` stands for the schema in use. Texts compare by their bytes, as they do in the program.

-- One row: what all nodes share.
CREATE TABLE tidegate.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    schema_version integer NOT NULL,
    min_reader integer NOT NULL,
    secret bytea NOT NULL,
    catalog_version integer NOT NULL DEFAULT 0,
    keys_version bigint NOT NULL DEFAULT 0
);

-- A tenant's last position, and the plan it is on and the leases there are (each with the number of entries that were
-- made under it) as of that position. Updated by every commit: room is left on each
-- page, and nothing that changes often is indexed, so that an update touches no index.
CREATE TABLE tidegate.tenants (
    tenant text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    plan text COLLATE "C",
    lease_epochs bigint[] NOT NULL DEFAULT '{}',
    lease_entries bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX tenants_by_plan ON tidegate.tenants (plan) WHERE plan IS NOT NULL;

-- The journal. `position` is the place in the order of all, `token` says which batch wrote the row.
CREATE TABLE tidegate.entries (
    tenant text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    token bigint NOT NULL,
    at_ms bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, seq)
);
ALTER TABLE tidegate.entries ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX entries_by_position ON tidegate.entries (position);

-- Which id is bound to which entry, and the hour (since 1970) in which it came: equal ones share an index row.
CREATE TABLE tidegate.ids (
    tenant text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    seq bigint NOT NULL,
    arrived_hour integer NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX ids_by_arrival ON tidegate.ids (arrived_hour);

-- Folds of the journal, each true for its own position.
CREATE TABLE tidegate.folds (
    tenant text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    state bytea NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE tidegate.user_folds (
    tenant text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (tenant, user_id)
) WITH (fillfactor = 70);
CREATE TABLE tidegate.closed (
    tenant text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    start_ms bigint NOT NULL,
    kind smallint NOT NULL,
    meter text COLLATE "C" NOT NULL,
    end_ms bigint NOT NULL,
    used bigint NOT NULL,
    denied bigint NOT NULL,
    PRIMARY KEY (tenant, user_id, start_ms, kind, meter)
);
CREATE TABLE tidegate.denials (
    tenant text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    user_id text COLLATE "C",
    code text COLLATE "C" NOT NULL,
    shadow boolean NOT NULL,
    meter text COLLATE "C",
    count bigint NOT NULL,
    amount bigint NOT NULL,
    first_at_ms bigint NOT NULL,
    last_at_ms bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX denials_by_id ON tidegate.denials (id);
CREATE INDEX denials_by_time ON tidegate.denials (shadow, first_at_ms, id);
CREATE INDEX denials_by_tenant ON tidegate.denials (tenant, shadow, first_at_ms, id);
CREATE INDEX denials_by_age ON tidegate.denials (last_at_ms);

-- One row: what retention may have dropped already. Written before anything is dropped.
CREATE TABLE tidegate.kept (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    ids_from_hour integer NOT NULL DEFAULT 0,
    denials_from_ms bigint NOT NULL DEFAULT 0,
    history_from_ms bigint NOT NULL DEFAULT 0
);
INSERT INTO tidegate.kept DEFAULT VALUES;

-- The states behind which the journal was cut: folds of what was cut, never copies of folds.
CREATE TABLE tidegate.openings (
    tenant text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (tenant, user_id)
);
CREATE TABLE tidegate.opening_closed (LIKE tidegate.closed INCLUDING ALL);

CREATE TABLE tidegate.catalogs (
    version integer PRIMARY KEY,
    text text NOT NULL,
    applied_at_ms bigint NOT NULL
);
CREATE TABLE tidegate.api_keys (
    id text COLLATE "C" PRIMARY KEY,
    hash bytea NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    tenant text,
    created_at_ms bigint NOT NULL,
    created_by text NOT NULL,
    revoked_at_ms bigint
);
CREATE TABLE tidegate.jobs (
    job text COLLATE "C" PRIMARY KEY,
    node text NOT NULL,
    epoch bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
