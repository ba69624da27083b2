#![allow(clippy::unwrap_used)]

use super::{BAKERIES, remember};
use crate::{
    catalog_file,
    commands::simulate::report::{Report, Subject},
};
use domain::{
    catalog::{Catalog, Limit, Plan},
    day::Day,
    id::PlanKey,
    time::{DAY_MS, Frame, Instant, Zone},
};
use engine::{
    Engine,
    ports::{Clock, Days, FleetQuery},
};
use forecast::simulate::Recorded;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use stores::memory::MemoryLedger;

/// A Thursday, at noon.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Instant {
        Instant::parse("2026-11-19T12:00:00Z").unwrap()
    }
}

fn catalog() -> Catalog {
    let text = include_str!("../../../../examples/bakery/tidegate.toml");
    catalog_file::parse(text.to_owned(), "examples/bakery/tidegate.toml").unwrap().loaded.catalog
}

async fn remembered() -> Arc<Engine> {
    let ledger = MemoryLedger::new([7; 32]);
    let engine = Engine::open(ledger, Arc::new(Noon), catalog(), "the bakeries").await.unwrap();
    remember(&engine).await.unwrap();
    engine
}

#[tokio::test]
async fn every_status_has_a_bakery() {
    let engine = remembered().await;
    let book = engine.forecast_book().unwrap();
    let rows = book.fleet(&FleetQuery { limit: 1_000, ..FleetQuery::default() }).await.unwrap();
    let words: BTreeSet<&str> = rows.iter().map(|row| &*row.status).collect();
    let all = ["breached", "critical", "insufficient_data", "safe", "unlimited", "warning"];
    assert_eq!(words, BTreeSet::from(all));
    let tenants: BTreeSet<_> = rows.iter().map(|row| row.tenant.clone()).collect();
    assert_eq!(tenants.len(), 25);
    let products =
        rows.iter().find(|row| row.tenant.as_str() == "la-espiga" && row.meter.as_str() == "products").unwrap();
    let likely = products.dates.likely.unwrap() - Day::of(Noon.now());
    assert!((25..=45).contains(&likely), "{likely} days until la-espiga has 50 products");
}

/// The bakery's catalog with the limits of the professional plan cut in half.
fn halved() -> Catalog {
    let mut proposed = catalog();
    let key = PlanKey::new("professional").unwrap();
    let plan = &proposed.plans[&key];
    let half = |limit: &Limit| Limit { max: limit.max.map(|max| max / 2), ..limit.clone() };
    let plan = Plan { limits: plan.limits.iter().map(half).collect(), ..Plan::clone(plan) };
    proposed.plans.insert(key, Arc::new(plan));
    proposed
}

#[tokio::test]
async fn a_simulation_with_half_of_the_professional_plan_names_whom_the_numbers_name() {
    let engine = remembered().await;
    let last = Day::of(Noon.now()) + -1;
    let days = Days { first: last + -59, last };
    let proposed = halved();
    let mut report = Report::new(catalog(), proposed.clone(), BTreeMap::new(), (days.first, days.last));
    let mut expected = BTreeSet::new();
    for card in engine.tenants(None, 100).await.unwrap() {
        let meters = engine.snapshot_book().of_tenant(&card.id, days).await.unwrap();
        // All limits of this catalog are levels or of a day, and every tenant's days are UTC's: a row tells by itself.
        let plan = &proposed.plans[&card.profile.plan];
        let over = plan.limits.iter().any(|limit| {
            let rows = meters.iter().filter(|of| of.meter == limit.meter).flat_map(|of| &of.days);
            limit.max.is_some_and(|max| rows.into_iter().any(|taken| taken.value > max))
        });
        if over {
            expected.insert(card.id.to_string());
        }
        let at = |day: Day| Instant::from_ms(i64::from(day.number()) * DAY_MS);
        let recorded = meters.into_iter().map(|of| Recorded {
            meter: of.meter,
            points: of.days.iter().map(|taken| (at(taken.day), taken.value)).collect(),
        });
        let frame = Frame { anchor: card.profile.anchor, zone: Zone::utc() };
        let (tenant, plan) = (card.id.to_string(), card.profile.plan.clone());
        report.add(&Subject { tenant, plan, frame, overrides: Vec::new(), recorded: recorded.collect() }).unwrap();
    }
    let refused: BTreeSet<String> =
        report.lines.iter().filter(|line| line.refused()).map(|line| line.tenant.clone()).collect();
    assert_eq!(refused, expected);
    let professional = BAKERIES.iter().filter(|bakery| bakery.plan == "professional").map(|bakery| bakery.tenant);
    let named = professional.filter(|tenant| refused.contains(*tenant)).count();
    assert!(named >= 5, "{refused:?}");
    assert!(!refused.contains("molen"), "175 of 250 products, 22 of 50 forecasts: it would have been refused nothing");
}
