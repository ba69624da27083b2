#![allow(clippy::unwrap_used)]

use super::*;
use crate::sqlite::{forecasts, schema};
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::ForecastDates;
use rusqlite::StatementStatus;
use std::path::Path;

fn ledger() -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    schema::prepare(&mut conn, Path::new("test.db")).unwrap();
    conn
}

/// A thousand tenants on three plans with four meters, one status in seven of them rare.
fn rows() -> Vec<LatestForecast> {
    let row = |number: i32, meter: i32| LatestForecast {
        tenant: TenantId::trusted(&format!("tenant-{number:04}")),
        meter: MeterKey::trusted(&format!("meter-{meter}")),
        plan: PlanKey::trusted(&format!("plan-{}", number % 3)),
        limit: None,
        status: ["safe", "warning", "critical"][((number * 7 + meter) % 23 % 3) as usize].into(),
        used: 1,
        max: None,
        dates: ForecastDates {
            earliest: None,
            likely: (number % 4 > 0).then(|| Day::from_number(20_000 + (number * 31 + meter * 17) % 90)),
            latest: None,
        },
        growth_per_day_thousandths: 0,
        made_at: Instant::from_ms(1),
    };
    (0..1_000).flat_map(|number| (0..4).map(move |meter| row(number, meter))).collect()
}

fn queries() -> Vec<FleetQuery> {
    let meters = [None, Some(MeterKey::trusted("meter-2")), Some(MeterKey::trusted("meter-9"))];
    let plans = [None, Some(PlanKey::trusted("plan-1"))];
    let statuses = [None, Some("critical".into()), Some("unlimited".into())];
    let mut all = Vec::new();
    for meter in &meters {
        for plan in &plans {
            for status in &statuses {
                let (meter, plan, status) = (meter.clone(), plan.clone(), status.clone());
                all.push(FleetQuery { meter, plan, status, after: None, limit: 50 });
            }
        }
    }
    all
}

#[test]
fn every_filter_is_paged_in_order_of_the_place() {
    let conn = ledger();
    let rows = rows();
    for row in &rows {
        forecasts::put_latest(&conn, row).unwrap();
    }
    for query in queries() {
        let mut expected: Vec<&LatestForecast> = rows.iter().filter(|row| query.asks_for(row)).collect();
        expected.sort_by_key(|row| row.place());
        let (mut found, mut query) = (Vec::new(), query);
        loop {
            let page = page(&conn, &query).unwrap();
            let Some(last) = page.last() else { break };
            query.after = Some(last.place());
            found.extend(page);
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
    }
}

#[test]
fn no_filter_reads_more_than_it_shows() {
    let conn = ledger();
    for sql in [NEXT_GROUP, NEXT_ROW] {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = plan.parameter_count();
        for index in 1..=count {
            plan.raw_bind_parameter(index, "").unwrap();
        }
        let mut steps = plan.raw_query();
        let mut told = Vec::new();
        while let Some(step) = steps.next().unwrap() {
            told.push(step.get::<_, String>(3).unwrap());
        }
        let [step] = &told[..] else { panic!("{told:?}") };
        assert!(step.starts_with("SEARCH forecasts USING ") && step.contains("INDEX forecasts_in_groups"), "{step}");
    }
    // And what is said is done: ten times the tenants, the same number of steps.
    let steps_of_all = |conn: &Connection| {
        let mut steps = 0;
        for sql in [NEXT_GROUP, NEXT_ROW] {
            conn.prepare_cached(sql).unwrap().reset_status(StatementStatus::VmStep);
        }
        for query in queries() {
            page(conn, &query).unwrap();
        }
        for sql in [NEXT_GROUP, NEXT_ROW] {
            steps += conn.prepare_cached(sql).unwrap().get_status(StatementStatus::VmStep);
        }
        steps
    };
    let rows = rows();
    let (few, many) = rows.split_at(rows.len() / 2);
    few.iter().for_each(|row| forecasts::put_latest(&conn, row).unwrap());
    let of_few = steps_of_all(&conn);
    many.iter().for_each(|row| forecasts::put_latest(&conn, row).unwrap());
    let of_many = steps_of_all(&conn);
    assert!(of_many <= of_few + of_few / 10, "{of_few} steps for half of them, {of_many} for all");
}
