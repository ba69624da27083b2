-- The fleet by any filter: rows in groups of one meter, plan and status, each in order of the day that is foreseen.
CREATE INDEX forecasts_in_groups ON tidegate.forecasts (meter, plan, status, place, tenant);
DROP INDEX tidegate.forecasts_by_day;
