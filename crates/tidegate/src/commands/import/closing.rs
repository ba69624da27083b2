//! Days that were imported become daily history, which forecasts are made of: at once, and not by the next night.

use super::{
    Failed,
    rows::{OfDay, Row},
};
use crate::client::Client;
use anyhow::Context;
use domain::{
    day::Day,
    id::{MeterKey, TenantId},
};
use engine::{CountedDays, ports::Days};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Where days are closed.
const PATH: &str = "/api/v1/snapshots/counted";

/// What a file told of, by tenant.
#[derive(Default)]
pub struct Told(BTreeMap<TenantId, OfTenant>);

#[derive(Default)]
struct OfTenant {
    /// The first line that tells of it.
    line: usize,
    /// From when until when meters that add up were told of.
    counted: BTreeMap<MeterKey, Days>,
    /// Days of which levels were told.
    levels: BTreeSet<Day>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Days of tenants that are daily history now.
    pub days: usize,
    /// The first day that can be: older ones are not kept.
    pub first: Day,
    /// The last: it is over.
    pub last: Day,
}

impl Told {
    /// Notes what a line told of.
    pub fn note(&mut self, line: usize, of: &OfDay) {
        let tenant = self.0.entry(of.tenant.clone()).or_default();
        tenant.line = if tenant.line == 0 { line } else { tenant.line.min(line) };
        if of.is_level {
            tenant.levels.insert(of.day);
            return;
        }
        let days = tenant.counted.entry(of.meter.clone()).or_insert(Days::only(of.day));
        *days = Days { first: days.first.min(of.day), last: days.last.max(of.day) };
    }

    /// What is sent: one request for each tenant whose use was told of.
    pub fn requests(&self) -> Vec<Row> {
        let with_use = self.0.iter().filter(|(_, of)| !of.counted.is_empty());
        let request = |(tenant, of): (&TenantId, &OfTenant)| Row {
            line: of.line,
            method: Method::POST,
            path: PATH.to_owned(),
            body: body(Some(tenant), of),
            of_day: None,
        };
        with_use.map(request).collect()
    }

    /// How many days of tenants these are, but for tenants of which something was refused.
    pub fn closed(&self, bounds: Days, failed: &Failed) -> Closed {
        let is_refused = |of: &OfTenant| failed.iter().any(|(line, _)| *line == of.line);
        let days = self.0.values().map(|of| of.days(bounds, !is_refused(of)).len()).sum();
        Closed { days, first: bounds.first, last: bounds.last }
    }

    /// Whether a level of this day can be told.
    pub fn takes_level(bounds: Days, of: &OfDay) -> bool {
        !of.is_level || (bounds.first <= of.day && of.day <= bounds.last + 1)
    }
}

impl OfTenant {
    fn days(&self, bounds: Days, with_counted: bool) -> BTreeSet<Day> {
        let mut days = self.levels.clone();
        for (meter, of) in self.counted.iter().filter(|_| with_counted) {
            let within = CountedDays { meter: meter.clone(), days: *of }.within(bounds);
            days.extend(within.into_iter().flat_map(|of| {
                let Days { first, last } = of.days;
                (first.number()..=last.number()).map(Day::from_number)
            }));
        }
        days
    }
}

fn body(tenant: Option<&TenantId>, of: &OfTenant) -> Value {
    let meters = of.counted.iter().map(|(meter, days)| {
        json!({ "meter": meter.as_str(), "first": days.first.to_string(), "last": days.last.to_string() })
    });
    let meters: Vec<Value> = meters.collect();
    json!({ "tenant_id": tenant.map_or("nobody", TenantId::as_str), "meters": meters, "dry_run": tenant.is_none() })
}

/// Asks which days can be daily history.
///
/// # Errors
/// Those of the client.
pub async fn bounds(client: &Arc<Client>) -> anyhow::Result<Days> {
    let answer = client.send(Method::POST, PATH, Some(&body(None, &OfTenant::default()))).await?;
    let day =
        |key: &str| answer[key].as_str().and_then(Day::parse).context("the node does not say which days it keeps");
    Ok(Days { first: day("first")?, last: day("last")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    #[test]
    fn days_are_counted_once_and_only_those_that_can_be_kept() {
        let mut told = Told::default();
        let mut note = |line, tenant: &str, meter: &str, date: &str, is_level| {
            let (tenant, meter) = (TenantId::new(tenant).unwrap(), MeterKey::new(meter).unwrap());
            told.note(line, &OfDay { tenant, meter, day: day(date), is_level });
        };
        note(2, "acme", "messages", "2026-03-01", false);
        note(3, "acme", "messages", "2026-03-04", false);
        note(4, "acme", "tokens", "2026-03-05", false);
        note(5, "acme", "documents", "2026-03-04", true);
        note(6, "bloom", "documents", "2026-03-09", true);
        note(7, "cid", "messages", "2026-03-02", false);
        let bounds = Days { first: day("2026-03-02"), last: day("2026-03-08") };
        // acme: the second to the fourth, and the fifth; bloom's level of today; cid.
        assert_eq!(told.closed(bounds, &Vec::new()).days, 4 + 1 + 1);
        assert_eq!(told.closed(bounds, &vec![(7, "refused".to_owned())]).days, 4 + 1);
        let requests = told.requests();
        assert_eq!(requests.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 7]);
        let meters = json!([
            { "meter": "messages", "first": "2026-03-01", "last": "2026-03-04" },
            { "meter": "tokens", "first": "2026-03-05", "last": "2026-03-05" },
        ]);
        assert_eq!(requests[0].body, json!({ "tenant_id": "acme", "meters": meters, "dry_run": false }));
    }
}
