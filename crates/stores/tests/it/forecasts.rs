//! Kept forecasts, on every ledger: part of the conformance suite.

use crate::world::wait;
use domain::{
    day::Day,
    id::{MeterKey, PlanKey, TenantId},
    time::Instant,
};
use engine::ports::{
    FleetQuery, ForecastDates, Forecasts, KeptForecast, KeptMeasure, LatestForecast, Ledger, MeterGrowth, SCORE_COUNTS,
    SettledForecast,
};

const TODAY: i32 = 20_000;

fn day(number: i32) -> Day {
    Day::from_number(TODAY + number)
}

fn book(ledger: &dyn Ledger) -> &dyn Forecasts {
    ledger.forecasts().unwrap()
}

fn dates(likely: Option<i32>) -> ForecastDates {
    let likely = likely.map(day);
    ForecastDates { earliest: likely.map(|day| day + -2), likely, latest: None }
}

fn latest(tenant: &str, meter: &str, plan: &str, likely: Option<i32>) -> LatestForecast {
    LatestForecast {
        tenant: TenantId::new(tenant).unwrap(),
        meter: MeterKey::new(meter).unwrap(),
        plan: PlanKey::new(plan).unwrap(),
        limit: likely.map(|_| "users".into()),
        status: if likely.is_some() { "warning" } else { "safe" }.into(),
        used: 7,
        max: likely.map(|_| 10),
        dates: dates(likely),
        growth_per_day_thousandths: 1_500,
        made_at: Instant::from_ms(1_000),
    }
}

fn places(rows: &[LatestForecast]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row.tenant.as_str(), row.meter.as_str())).collect()
}

pub(crate) fn the_fleet_is_in_order_of_the_day_and_paged(ledger: &dyn Ledger) {
    let book = book(ledger);
    let all = FleetQuery { limit: 100, ..FleetQuery::default() };
    assert!(wait(book.fleet(&all)).unwrap().is_empty());
    let rows = vec![
        latest("acme", "users", "free", Some(9)),
        latest("acme", "calls", "free", None),
        latest("bloom", "users", "pro", Some(3)),
        latest("bloom", "calls", "pro", Some(9)),
        latest("cask-1", "calls", "free", None),
    ];
    assert_eq!(wait(book.last()).unwrap(), None);
    wait(book.put_latest(rows.clone())).unwrap();
    assert_eq!(wait(book.last()).unwrap(), Some(latest("cask-1", "calls", "free", None)));
    let found = wait(book.fleet(&all)).unwrap();
    let order = [("bloom", "users"), ("acme", "users"), ("bloom", "calls"), ("acme", "calls"), ("cask-1", "calls")];
    assert_eq!(places(&found), order);
    assert_eq!((&found[1], &found[4]), (&rows[0], &rows[4]), "all of a row comes back");
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = wait(book.fleet(&FleetQuery { limit: 2, after: after.take(), ..FleetQuery::default() })).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.place());
        paged.extend(page);
    }
    assert_eq!(paged, found);
    let asked = |query: FleetQuery| wait(book.fleet(&FleetQuery { limit: 100, ..query })).unwrap().len();
    assert_eq!(asked(FleetQuery { meter: Some(MeterKey::new("users").unwrap()), ..FleetQuery::default() }), 2);
    assert_eq!(asked(FleetQuery { plan: Some(PlanKey::new("pro").unwrap()), ..FleetQuery::default() }), 2);
    assert_eq!(asked(FleetQuery { status: Some("safe".into()), ..FleetQuery::default() }), 2);
    // The next night: what is foreseen again is written over, what is not is gone.
    let later = LatestForecast { made_at: Instant::from_ms(2_000), ..latest("acme", "users", "free", Some(1)) };
    wait(book.put_latest(vec![later.clone()])).unwrap();
    assert_eq!(wait(book.fleet(&all)).unwrap()[0], later);
    wait(book.drop_latest_before(Instant::from_ms(2_000))).unwrap();
    assert_eq!(wait(book.fleet(&all)).unwrap(), [later]);
}

fn kept(tenant: &str, asked: i32, horizon: i32) -> KeptForecast {
    KeptForecast {
        tenant: TenantId::new(tenant).unwrap(),
        meter: MeterKey::new("users").unwrap(),
        limit: "users".into(),
        asked: day(asked),
        plan: PlanKey::new("free").unwrap(),
        measure: KeptMeasure::ALL[asked.rem_euclid(3) as usize],
        start: day(asked - 1),
        horizon: day(horizon),
        used: 3,
        max: 10,
        dates: dates((asked % 2 == 0).then_some(asked + 4)),
    }
}

pub(crate) fn forecasts_wait_for_their_day_and_count_once(ledger: &dyn Ledger) {
    let book = book(ledger);
    let rows = vec![kept("bloom", 0, 30), kept("acme", 0, 30), kept("acme", 7, 30), kept("acme", 1, 91)];
    wait(book.keep(rows.clone())).unwrap();
    wait(book.keep(vec![rows[1].clone()])).unwrap();
    let due = |horizon: i32, limit: usize| wait(book.due(day(horizon), limit)).unwrap();
    assert!(due(29, 10).is_empty());
    assert_eq!(due(30, 10), [rows[1].clone(), rows[2].clone(), rows[0].clone()], "all of a row comes back, once");
    assert_eq!(due(91, 2).len(), 2);
    let settled = |kept: &KeptForecast, counts| SettledForecast { kept: kept.clone(), counts };
    let ones = Some([1; SCORE_COUNTS]);
    wait(book.settle(vec![
        settled(&rows[0], ones),
        settled(&rows[1], Some([5; SCORE_COUNTS])),
        settled(&rows[2], None),
    ]))
    .unwrap();
    // Once more, whoever is told so.
    wait(book.settle(vec![settled(&rows[0], ones), settled(&rows[2], ones)])).unwrap();
    assert_eq!(due(91, 10), [rows[3].clone()]);
    wait(book.settle(vec![settled(&rows[3], ones), settled(&rows[3], ones)])).unwrap();
    let scores = wait(book.scores()).unwrap();
    assert_eq!(scores.len(), 1);
    assert_eq!((scores[0].meter.as_str(), scores[0].plan.as_str()), ("users", "free"));
    assert_eq!(scores[0].counts, [7; SCORE_COUNTS]);
}

pub(crate) fn what_all_tenants_show_is_written_over(ledger: &dyn Ledger) {
    let book = book(ledger);
    let row = |meter: &str, tenants| MeterGrowth {
        meter: MeterKey::new(meter).unwrap(),
        tenants,
        growth_millionths: 5 * tenants,
    };
    wait(book.put_growth(vec![row("users", 3), row("calls", 4)])).unwrap();
    assert_eq!(wait(book.growth()).unwrap(), [row("calls", 4), row("users", 3)]);
    wait(book.put_growth(vec![row("users", 5)])).unwrap();
    assert_eq!(wait(book.growth()).unwrap(), [row("users", 5)]);
    wait(book.put_growth(vec![])).unwrap();
    assert!(wait(book.growth()).unwrap().is_empty());
}
