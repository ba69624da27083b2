//! Tenants that people meet, one line a meter: each looked at, and reasonable. And what holds for every tenant.

use domain::{
    catalog::{
        Catalog, Enforce, EventBounds, ForecastTerms, Limit, LimitWindow, Meter, MeterKind, Mode, Plan, Scope, Source,
        Unsettled,
    },
    day::Day,
    decision::LimitState,
    id::{MeterKey, PlanKey},
    time::{Frame, Instant, Window, WindowKind, Zone},
    view::{MeterUsage, Usage},
};
use forecast::{Histories, History, Learning, Lesson, Lessons, MeterOutlook, Outlook, Recorded, Seen, Status, outlook};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

fn meter(key: &str, kind: MeterKind) -> Arc<Meter> {
    Arc::new(Meter {
        key: MeterKey::new(key).unwrap(),
        kind,
        label: key.into(),
        unit: key.into(),
        decimals: 0,
        event_type: key.into(),
        value_pointer: "/value".into(),
        counts_requests: false,
        unsettled: Unsettled::default(),
        session: Default::default(),
    })
}

fn limit(meter: &str, window: LimitWindow, max: Option<i64>) -> Limit {
    let meter = MeterKey::new(meter).unwrap();
    Limit {
        name: Limit::default_name(&meter, window, Scope::Tenant).into(),
        meter,
        max,
        window,
        scope: Scope::Tenant,
        mode: Mode::Hard,
        answer_402: false,
        outage: Default::default(),
        quota: Default::default(),
    }
}

fn recorded(days: impl IntoIterator<Item = (Day, f64)>) -> Recorded {
    Recorded { history: History::new(days).unwrap(), is_from_outside: false }
}

const PERIOD: LimitWindow = LimitWindow::Of(WindowKind::Period);
const MONTH: LimitWindow = LimitWindow::Of(WindowKind::Month);
const DAY: LimitWindow = LimitWindow::Of(WindowKind::Day);

fn catalog() -> Catalog {
    let plan = |key: &str, rank: i64, limits: Vec<Limit>| {
        let key = PlanKey::new(key).unwrap();
        let label = key.as_str().into();
        let sessions = Default::default();
        let plan = Plan {
            key,
            label,
            rank,
            price: None,
            public: true,
            features: vec![],
            limits: limits.into_iter().collect(),
            sessions,
        };
        (plan.key.clone(), Arc::new(plan))
    };
    let sold = |factor: i64| {
        vec![
            limit("products", LimitWindow::Level, Some(50 * factor)),
            limit("calls", PERIOD, Some(1_000 * factor)),
            limit("calls", DAY, Some(100 * factor)),
        ]
    };
    let meters = [meter("calls", MeterKind::Counter), meter("products", MeterKind::Gauge)];
    Catalog {
        version: 1,
        meters: meters.map(|meter| (meter.key.clone(), meter)).into(),
        features: BTreeMap::new(),
        plans: [plan("starter", 0, sold(1)), plan("team", 1, sold(4)), plan("business", 2, vec![])].into(),
        costs: BTreeMap::new(),
        default_plan: None,
        dimensions: vec![],
        enforce: Enforce::On,
        event_bounds: EventBounds { late_ms: 0, future_ms: 0 },
        upgrade_url: None,
        warn_percent: 80,
        forecast: ForecastTerms::DEFAULT,
        warnings: vec![80, 100],
    }
}

/// A tenant: who it is, what it recorded, and the one limit on it that is looked at.
struct Case {
    now: &'static str,
    zone: &'static str,
    anchor: &'static str,
    plan: &'static str,
    window: LimitWindow,
    max: Option<i64>,
    /// Newest last; the last one is of the day before the day of `now`.
    days: Vec<i64>,
    /// Live: the level, or what the window has used so far.
    used: i64,
}

impl Case {
    fn of(window: LimitWindow, max: i64, days: Vec<i64>, used: i64) -> Self {
        let (now, zone, anchor) = ("2026-03-10T02:00:00Z", "UTC", "2026-03-01T00:00:00Z");
        Self { now, zone, anchor, plan: "starter", window, max: Some(max), days, used }
    }

    fn key(&self) -> &'static str {
        if self.window == LimitWindow::Level { "products" } else { "calls" }
    }

    fn window_at(&self, at: Instant) -> Window {
        let frame = Frame { anchor: Instant::parse(self.anchor).unwrap(), zone: Zone::named(self.zone).unwrap() };
        frame.window(self.window.kind().unwrap_or(WindowKind::Period), at)
    }

    fn usage(&self, catalog: &Catalog) -> Usage {
        let at = Instant::parse(self.now).unwrap();
        let window = self.window_at(at);
        let state = LimitState {
            limit: Arc::new(limit(self.key(), self.window, self.max)),
            source: Source::Plan,
            used: self.used,
            held: 0,
            granted: 0,
            set_aside: 0,
            resets_at: self.window.kind().map(|_| window.end),
        };
        let meter = catalog.meters[&MeterKey::new(self.key()).unwrap()].clone();
        let meters = vec![MeterUsage { meter, used: self.used, held: 0, denied: 0, limits: vec![state] }];
        let frame = Frame { anchor: Instant::parse(self.anchor).unwrap(), zone: Zone::utc() };
        Usage { plan: PlanKey::new(self.plan).unwrap(), period: frame.window(WindowKind::Period, at), meters, at }
    }

    fn histories(&self) -> Histories {
        let yesterday = Day::of(Instant::parse(self.now).unwrap()) + -1;
        let first = yesterday + (1 - self.days.len() as i32);
        let days = (0..).zip(&self.days).map(|(number, value)| (first + number, *value as f64));
        [(MeterKey::new(self.key()).unwrap(), recorded(days))].into()
    }

    fn outlook(&self) -> Outlook {
        let catalog = catalog();
        let (usage, histories, lessons) = (self.usage(&catalog), self.histories(), Lessons::default());
        outlook(Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &lessons })
    }
}

/// Use of about this much a day, by a week's rhythm.
fn about(mean: i64, days: usize) -> Vec<i64> {
    (0..days).map(|number| mean * [14, 12, 10, 13, 11, 6, 4][number % 7] / 10).collect()
}

/// Levels that grow by one every so many days.
fn level(from: i64, every: i64, days: i64) -> Vec<i64> {
    (0..days).map(|number| from + number / every).collect()
}

fn cases() -> Vec<(&'static str, Case)> {
    let deleted = level(200, 1, 50).into_iter().chain(level(30, 1, 10)).collect();
    let of_month = |now, zone, used| Case { now, zone, ..Case::of(MONTH, 3_000, about(100, 69), used) };
    vec![
        ("35 of 50 products, one more every other day", Case::of(LimitWindow::Level, 50, level(20, 2, 31), 35)),
        (
            "the same on the next plan",
            Case { plan: "team", max: Some(200), ..Case::of(LimitWindow::Level, 200, level(20, 2, 31), 35) },
        ),
        ("created yesterday", Case::of(LimitWindow::Level, 50, vec![3], 3)),
        ("nothing recorded", Case::of(LimitWindow::Level, 50, vec![], 3)),
        ("220 products deleted ten days ago", Case::of(LimitWindow::Level, 50, deleted, 40)),
        ("one product too many", Case::of(LimitWindow::Level, 50, level(20, 2, 31), 51)),
        ("no limit", Case { max: None, ..Case::of(LimitWindow::Level, 0, level(20, 2, 31), 35) }),
        ("a limit of nothing", Case::of(LimitWindow::Level, 0, vec![0; 30], 0)),
        ("calls, day 9 of the month, 3,000 a month", of_month("2026-03-10T02:00:00Z", "UTC", 900)),
        ("the same after noon", of_month("2026-03-10T14:00:00Z", "UTC", 950)),
        ("the last day of the month", of_month("2026-03-31T02:00:00Z", "UTC", 2_900)),
        ("its last evening", of_month("2026-03-31T20:00:00Z", "UTC", 2_990)),
        ("the first hours of the next", of_month("2026-04-01T02:00:00Z", "UTC", 10)),
        ("its first afternoon", of_month("2026-04-01T14:00:00Z", "UTC", 60)),
        ("in Madrid, over the start of summer time", of_month("2026-03-28T02:00:00Z", "Europe/Madrid", 2_700)),
        ("in New York, over the end of it", of_month("2026-10-31T02:00:00Z", "America/New_York", 2_900)),
        ("in Auckland, over the start of it", of_month("2026-09-20T02:00:00Z", "Pacific/Auckland", 2_000)),
        (
            "a billing period from the 15th to the 14th",
            Case { anchor: "2026-01-15T09:30:00Z", ..Case::of(PERIOD, 2_600, about(100, 69), 2_300) },
        ),
        (
            "upgraded in mid-period: four times the room",
            Case { plan: "team", ..Case::of(PERIOD, 4_000, about(100, 69), 980) },
        ),
        ("before it, with 20 left", Case::of(PERIOD, 1_000, about(100, 69), 980)),
        ("a daily cap of 100, 60 on the best day", Case::of(DAY, 100, about(43, 60), 20)),
        ("a daily cap of 100, 90 on the best day", Case::of(DAY, 100, about(64, 60), 20)),
    ]
}

fn row(meter: &MeterOutlook, outlook: &Outlook) -> String {
    let shown = |date: Option<Day>| date.map_or_else(|| "-".to_owned(), |date| date.to_string());
    let answer = &meter.answer;
    let (dates, status) = (answer.forecast.dates, answer.forecast.status);
    let word = match status {
        Status::InsufficientData { days_missing } => format!("{days_missing} days missing"),
        status => status.word().to_owned(),
    };
    format!(
        "{} {word:>14} {:>8} {:7.2} {:>10} {:>10} {:>10} {} {}",
        outlook.today,
        answer.percent().map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
        answer.forecast.growth_per_day,
        shown(dates.earliest),
        shown(dates.likely),
        shown(dates.latest),
        answer.forecast.horizon,
        meter.upgrade.as_ref().map_or("-", |plan| plan.as_str()),
    )
}

#[test]
fn tenants_that_people_meet() {
    let mut table = format!(
        "{:45} {:10} {:>14} {:>8} {:>7} {:>10} {:>10} {:>10} {:10} {}\n",
        "", "known to", "status", "used", "a day", "earliest", "likely", "latest", "until", "would hold"
    );
    for (name, case) in cases() {
        let outlook = case.outlook();
        table += &format!("{name:45} {}\n", row(&outlook.meters[0], &outlook));
    }
    insta::assert_snapshot!(table);
}

/// Of several limits of one meter the one that is likely reached first is the answer; a plan holds if all of its limits do.
#[test]
fn the_limit_that_is_reached_first_is_the_answer() {
    let catalog = catalog();
    let case = Case::of(PERIOD, 1_000, about(64, 60), 600);
    let mut usage = case.usage(&catalog);
    let mut more = |window, max, used, mode, scope| {
        let limit = Limit { mode, scope, ..limit("calls", window, max) };
        let resets_at = Some(case.window_at(usage.at).end);
        let state = LimitState { limit: Arc::new(limit), used, resets_at, ..usage.meters[0].limits[0].clone() };
        usage.meters[0].limits.push(state);
    };
    more(DAY, Some(400), 30, Mode::Hard, Scope::Tenant);
    more(MONTH, Some(601), 600, Mode::Shadow, Scope::Tenant);
    more(DAY, Some(31), 30, Mode::Hard, Scope::User);
    more(LimitWindow::Of(WindowKind::Hour), Some(31), 30, Mode::Hard, Scope::Tenant);
    more(LimitWindow::Of(WindowKind::Month), Some(990), 600, Mode::Soft, Scope::Tenant);
    let (histories, lessons) = (case.histories(), Lessons::default());
    let seen = Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &lessons };
    let found = &outlook(seen).meters[0];
    let names: Vec<&str> = found.limits().map(|limit| &*limit.limit.as_ref().unwrap().name).collect();
    assert_eq!(names, ["calls_month", "calls_period", "calls_day"]);
    assert_eq!(found.upgrade.as_ref().unwrap().as_str(), "team");
    // What was agreed with the tenant itself stays whatever it buys.
    let mut agreed = usage.clone();
    agreed.meters[0].limits[0].source = Source::Override;
    assert_eq!(outlook(Seen { usage: &agreed, ..seen }).meters[0].upgrade, None);
}

#[test]
fn grants_are_room() {
    let case = Case::of(PERIOD, 1_000, about(64, 60), 980);
    let catalog = catalog();
    let (mut usage, histories, lessons) = (case.usage(&catalog), case.histories(), Lessons::default());
    let status = |usage: &Usage| {
        let seen = Seen { catalog: &catalog, usage, histories: &histories, lessons: &lessons };
        outlook(seen).meters.remove(0).answer.forecast.status
    };
    assert_eq!(status(&usage), Status::Critical);
    usage.meters[0].limits[0].granted = 5_000;
    assert_eq!(status(&usage), Status::Safe);
}

/// What the ledger knows nothing of was told from outside: the days that were recorded stand for it.
#[test]
fn what_is_counted_elsewhere_is_as_it_was_recorded() {
    let catalog = catalog();
    for (window, days, known) in [(LimitWindow::Level, level(20, 2, 31), 35), (PERIOD, vec![10; 40], 90)] {
        let case = Case::of(window, 1_000, days, 0);
        let (mut histories, lessons) = (case.histories(), Lessons::default());
        let told = |histories: &Histories, used: i64| {
            let usage = Case { used, ..Case::of(window, 1_000, vec![], used) }.usage(&catalog);
            let seen = Seen { catalog: &catalog, usage: &usage, histories, lessons: &lessons };
            outlook(seen).meters[0].answer.used
        };
        assert_eq!(told(&histories, 0), 0, "what the ledger counts itself is 0 where it says so");
        histories.values_mut().for_each(|recorded| recorded.is_from_outside = true);
        assert_eq!(told(&histories, 0), known);
        assert_eq!(told(&histories, 7), 7, "what the ledger knows goes first");
    }
}

fn values() -> impl Strategy<Value = Vec<(i32, i64)>> {
    let day = (0..3_u8, 0..200_i64);
    proptest::collection::vec(day, 0..120).prop_map(|days| {
        let known = (0..).zip(days).filter(|(_, (known, _))| *known > 0);
        known.map(|(number, (_, value))| (number, value)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A forecast does not depend on the order in which snapshots arrived.
    #[test]
    fn the_order_of_arrival_makes_no_difference(
        days in values(), seed in any::<u64>(), used in 0..2_000_i64, level in any::<bool>(),
    ) {
        let window = if level { LimitWindow::Level } else { PERIOD };
        let case = Case::of(window, 1_000, vec![], used);
        let catalog = catalog();
        let (usage, lessons) = (case.usage(&catalog), Lessons::default());
        let first = Day::parse("2025-11-20").unwrap();
        let told = |days: &[(i32, i64)]| {
            let days = days.iter().map(|(number, value)| (first + *number, *value as f64));
            let histories: Histories = [(MeterKey::new(case.key()).unwrap(), recorded(days))].into();
            outlook(Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons: &lessons })
        };
        let mut shuffled = days.clone();
        shuffled.sort_by_key(|(number, _)| (*number as u64).wrapping_add(1).wrapping_mul(seed | 1).rotate_left(29));
        prop_assert_eq!(told(&days), told(&shuffled));
    }

    /// Of other tenants a forecast has what was learnt, and nothing else: the prior of the same meter alone changes it.
    #[test]
    fn of_other_tenants_there_is_the_prior_alone(days in values(), used in 0..1_000_i64, growth in 0..40_i64) {
        let case = Case::of(LimitWindow::Level, 1_000, days.iter().map(|(_, value)| *value).collect(), used);
        let catalog = catalog();
        let (usage, histories) = (case.usage(&catalog), case.histories());
        let told = |lessons: &Lessons| {
            outlook(Seen { catalog: &catalog, usage: &usage, histories: &histories, lessons })
        };
        let mut learning = Learning::default();
        let first = Day::parse("2026-01-01").unwrap();
        let levels = (0..30_i32).map(|number| (first + number, 100.0 + f64::from(number) * growth as f64 / 10.0));
        learning.add(&History::new(levels).unwrap());
        let lesson = Lesson { learning, ..Lesson::default() };
        let of = |meter: &str| Lessons([(MeterKey::new(meter).unwrap(), lesson.clone())].into());
        prop_assert_eq!(told(&Lessons::default()), told(&of("calls")));
        let (plain, learnt) = (told(&Lessons::default()), told(&of("products")));
        prop_assert_eq!(plain.meters[0].answer.percent(), learnt.meters[0].answer.percent());
        prop_assert_eq!(&plain.meters[0].trend, &learnt.meters[0].trend);
    }
}
