#![allow(clippy::unwrap_used)]

use super::*;
use domain::{
    catalog::{Price, Quota},
    id::PlanKey,
    time::{DAY_MS, Zone},
};

const START: i64 = 1_767_225_600_000; // 2026-01-01

fn at(day: i64) -> Instant {
    Instant::from_ms(START + day * DAY_MS)
}

fn limit(meter: &str, window: LimitWindow, max: i64, mode: Mode) -> Limit {
    let meter = MeterKey::new(meter).unwrap();
    let name = Limit::default_name(&meter, window, Scope::Tenant).into();
    let (scope, outage, quota) = (Scope::Tenant, Default::default(), Quota::default());
    Limit { name, meter, max: Some(max), window, scope, mode, answer_402: false, outage, quota }
}

fn plan(key: &str, rank: i64, limits: Vec<Limit>) -> Arc<Plan> {
    Arc::new(Plan {
        key: PlanKey::new(key).unwrap(),
        label: key.into(),
        rank,
        price: None,
        public: true,
        features: Vec::new(),
        limits: limits.into_iter().collect(),
        sessions: Default::default(),
    })
}

fn recorded(meter: &str, points: impl IntoIterator<Item = (i64, i64)>) -> Recorded {
    let points = points.into_iter().map(|(day, amount)| (at(day), amount)).collect();
    Recorded { meter: MeterKey::new(meter).unwrap(), points }
}

fn frame() -> Frame {
    Frame { anchor: at(0), zone: Zone::utc() }
}

/// Passed, first day passed, past, warned, first day warned.
fn told(found: &Replayed) -> (u32, Option<i64>, i64, u32, Option<i64>) {
    let day = |at: Option<Instant>| at.map(|at| (at.ms() - START) / DAY_MS);
    (found.passed, day(found.first_passed), found.past, found.warned, day(found.first_warned))
}

fn of(limit: Limit, recorded: &[Recorded]) -> (u32, Option<i64>, i64, u32, Option<i64>) {
    told(&replay(&plan("free", 0, vec![limit]), &frame(), recorded, 80)[0])
}

#[test]
fn sums_begin_anew_in_each_window() {
    let messages = recorded("messages", (0..59).map(|day| (day, 10)));
    let monthly = |max| limit("messages", LimitWindow::Of(WindowKind::Month), max, Mode::Hard);
    // January has 310, February 280.
    assert_eq!(of(monthly(300), std::slice::from_ref(&messages)), (1, Some(30), 10, 2, Some(23)));
    assert_eq!(of(monthly(150), std::slice::from_ref(&messages)), (2, Some(15), 290, 2, Some(11)));
    assert_eq!(of(monthly(310), std::slice::from_ref(&messages)), (0, None, 0, 2, Some(24)));
    assert_eq!(of(monthly(1_000), std::slice::from_ref(&messages)), (0, None, 0, 0, None));
    let daily = limit("messages", LimitWindow::Of(WindowKind::Day), 9, Mode::Hard);
    assert_eq!(of(daily, std::slice::from_ref(&messages)), (59, Some(0), 59, 59, Some(0)));
    // Nothing may be used at all.
    assert_eq!(of(monthly(0), &[messages]), (2, Some(0), 590, 2, Some(0)));
}

#[test]
fn a_level_is_past_its_limit_as_long_as_it_is_and_by_how_much_at_most() {
    let level = |max| limit("documents", LimitWindow::Level, max, Mode::Hard);
    let documents = [recorded("documents", [(0, 3), (1, 5), (2, 8), (3, 6), (4, 2)])];
    assert_eq!(of(level(5), &documents), (2, Some(2), 3, 3, Some(1)));
    assert_eq!(of(level(8), &documents), (0, None, 0, 1, Some(2)));
    assert_eq!(of(level(5), &[]), (0, None, 0, 0, None));
}

#[test]
fn what_records_cannot_tell_is_left_out() {
    let user = Limit { scope: Scope::User, ..limit("messages", LimitWindow::Of(WindowKind::Day), 1, Mode::Hard) };
    let unlimited = Limit { max: None, ..limit("messages", LimitWindow::Of(WindowKind::Day), 1, Mode::Hard) };
    let others = [
        limit("messages", LimitWindow::Of(WindowKind::Hour), 1, Mode::Hard),
        limit("messages", LimitWindow::Session, 1, Mode::Hard),
        limit("messages", LimitWindow::Concurrent, 1, Mode::Hard),
        limit("messages", LimitWindow::Of(WindowKind::Day), 1, Mode::Shadow),
    ];
    let plan = plan("free", 0, others.into_iter().chain([user, unlimited]).collect());
    assert_eq!(replay(&plan, &frame(), &[recorded("messages", [(0, 10)])], 80), []);
}

#[test]
fn an_overdraft_is_room_and_a_soft_limit_refuses_nobody() {
    let soft = limit("messages", LimitWindow::Of(WindowKind::Month), 50, Mode::Soft);
    let hard = Limit {
        quota: Quota { overdraft: 100, rollover_max: None },
        ..limit("messages", LimitWindow::Of(WindowKind::Period), 50, Mode::Hard)
    };
    let used = [recorded("messages", [(0, 149)])];
    let found = replay(&plan("free", 0, vec![soft, hard]), &frame(), &used, 80);
    assert_eq!(found.iter().map(Replayed::refuses).collect::<Vec<_>>(), [false, false]);
    assert_eq!(found.iter().map(|found| found.passed).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn the_first_plan_that_refuses_nothing_holds() {
    let with =
        |key, rank, max| plan(key, rank, vec![limit("messages", LimitWindow::Of(WindowKind::Month), max, Mode::Hard)]);
    let plans = [with("free", 0, 10), with("starter", 1, 50), with("professional", 2, 100)];
    let held = |used| {
        let found = plan_that_holds(&plans, &frame(), &[recorded("messages", [(0, used)])]);
        found.map(|plan| plan.key.as_str().to_owned())
    };
    assert_eq!(held(10).as_deref(), Some("free"));
    assert_eq!(held(11).as_deref(), Some("starter"));
    assert_eq!(held(100).as_deref(), Some("professional"));
    assert_eq!(held(101), None);
}

#[test]
fn revenue_is_by_currency_and_month() {
    let price =
        |amount_cents, currency: &str, per: &str| Price { amount_cents, currency: currency.into(), per: per.into() };
    let mut revenue = Revenue::default();
    for price in [price(9_900, "USD", "month"), price(100_000, "USD", "year"), price(4_900, "EUR", "month")] {
        revenue.add(Some(&price));
    }
    revenue.add(None);
    assert_eq!(revenue.cents_per_month().collect::<Vec<_>>(), [("EUR", 4_900), ("USD", 9_900 + 8_333)]);
    assert_eq!(revenue.unpriced, 1);
}
