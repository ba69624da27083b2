//! The latest forecasts of all tenants in order of the day that they foresee, whatever they are filtered by.
//!
//! One index serves every filter: rows are in groups of one meter, plan and status, and within each in order of their
//! places. A page is the merge of the groups that are asked for, read one row at a time: it costs a step for each group
//! there is (as many as meters, plans and statuses go together, whatever the number of tenants) and one for each row.

use super::{errors::OrDamaged, forecasts::latest};
use engine::ports::{FleetPlace, FleetQuery, LatestForecast, LedgerError};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// From [`forecasts::TABLES`](super::forecasts::TABLES) on: one index instead of another.
pub(super) const INDEX: &str = "
DROP INDEX forecasts_by_day;
CREATE INDEX forecasts_in_groups ON forecasts(meter, plan, status, place, tenant);
";

/// The group after another: what follows a place that no row has, or else every row of the group would be passed.
const NEXT_GROUP: &str = "SELECT meter, plan, status FROM forecasts
                          WHERE (meter, plan, status, place) > (?1, ?2, ?3, 9223372036854775807)
                          ORDER BY meter, plan, status, place LIMIT 1";
/// The row of a group after a place.
const NEXT_ROW: &str =
    "SELECT tenant, meter, plan, limit_name, status, used, max, earliest, likely, latest, growth, made_at_ms
     FROM forecasts WHERE meter = ?1 AND plan = ?2 AND status = ?3 AND (place, tenant) >= (?4, ?5)
     AND (place, tenant, meter) > (?4, ?5, ?6) ORDER BY place, tenant LIMIT 1";

/// What the rows of a group have in common.
#[derive(Clone, Default)]
struct Group {
    meter: String,
    plan: String,
    status: String,
}

impl Group {
    /// The next one that there is.
    fn next(&self, conn: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut statement = conn.prepare_cached(NEXT_GROUP)?;
        let group = |row: &rusqlite::Row<'_>| Ok(Self { meter: row.get(0)?, plan: row.get(1)?, status: row.get(2)? });
        statement.query_row([&self.meter, &self.plan, &self.status], group).optional()
    }

    /// Its first row after a place.
    fn row(&self, conn: &Connection, after: Option<&FleetPlace>) -> rusqlite::Result<Option<LatestForecast>> {
        let parameters = params![
            self.meter,
            self.plan,
            self.status,
            after.map_or(i32::MIN, |after| after.day),
            after.map_or("", |after| after.tenant.as_str()),
            after.map_or("", |after| after.meter.as_str()),
        ];
        conn.prepare_cached(NEXT_ROW)?.query_row(parameters, latest).optional()
    }

    fn is_asked_for(&self, query: &FleetQuery) -> bool {
        query.meter.as_ref().is_none_or(|meter| meter.as_str() == self.meter)
            && query.plan.as_ref().is_none_or(|plan| plan.as_str() == self.plan)
            && query.status.as_ref().is_none_or(|status| **status == *self.status)
    }
}

/// The groups that are asked for.
fn groups(conn: &Connection, query: &FleetQuery) -> rusqlite::Result<Vec<Group>> {
    let mut found = Vec::new();
    let of_meter = query.meter.as_ref().map_or("", |meter| meter.as_str());
    let mut at = Group { meter: of_meter.to_owned(), ..Group::default() };
    while let Some(group) = at.next(conn)? {
        if !of_meter.is_empty() && group.meter != of_meter {
            break;
        }
        found.extend(group.is_asked_for(query).then(|| group.clone()));
        at = group;
    }
    Ok(found)
}

fn merged(conn: &Connection, query: &FleetQuery) -> rusqlite::Result<Vec<LatestForecast>> {
    let groups = groups(conn, query)?;
    let mut heads = BTreeMap::new();
    for group in &groups {
        if let Some(row) = group.row(conn, query.after.as_ref())? {
            heads.insert(row.place(), (row, group));
        }
    }
    let mut found = Vec::new();
    while found.len() < query.limit
        && let Some((place, (row, group))) = heads.pop_first()
    {
        found.push(row);
        if let Some(next) = group.row(conn, Some(&place))? {
            heads.insert(next.place(), (next, group));
        }
    }
    Ok(found)
}

/// A page.
pub(super) fn page(conn: &Connection, query: &FleetQuery) -> Result<Vec<LatestForecast>, LedgerError> {
    // As it was at one moment: a row that changes its group meanwhile would come twice, or not at all.
    let moment = conn.unchecked_transaction().or_damaged()?;
    let found = merged(&moment, query).or_damaged()?;
    moment.commit().or_damaged()?;
    Ok(found)
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
