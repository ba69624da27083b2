-- Forecasts: the latest of every meter, with an index in order of the day that they foresee; those that wait to be judged;
-- and what was learnt.
CREATE TABLE tidegate.forecasts (
    tenant text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    plan text COLLATE "C" NOT NULL,
    limit_name text COLLATE "C",
    status text COLLATE "C" NOT NULL,
    used bigint NOT NULL,
    max bigint,
    earliest integer,
    likely integer,
    latest integer,
    growth bigint NOT NULL,
    made_at_ms bigint NOT NULL,
    place integer NOT NULL,
    PRIMARY KEY (tenant, meter)
) WITH (fillfactor = 70);
CREATE INDEX forecasts_by_day ON tidegate.forecasts (place, tenant, meter);
CREATE TABLE tidegate.forecasts_kept (
    tenant text COLLATE "C" NOT NULL,
    meter text COLLATE "C" NOT NULL,
    limit_name text COLLATE "C" NOT NULL,
    asked integer NOT NULL,
    plan text COLLATE "C" NOT NULL,
    measure smallint NOT NULL,
    start integer NOT NULL,
    horizon integer NOT NULL,
    used bigint NOT NULL,
    max bigint NOT NULL,
    earliest integer,
    likely integer,
    latest integer,
    PRIMARY KEY (horizon, tenant, meter, limit_name, asked)
);
CREATE TABLE tidegate.forecast_scores (
    meter text COLLATE "C" NOT NULL,
    plan text COLLATE "C" NOT NULL,
    counts bigint[] NOT NULL,
    PRIMARY KEY (meter, plan)
);
CREATE TABLE tidegate.forecast_growth (
    meter text COLLATE "C" PRIMARY KEY,
    tenants bigint NOT NULL,
    growth_millionths bigint NOT NULL
);
