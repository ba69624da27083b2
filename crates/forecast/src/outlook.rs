//! A tenant's outlook: when each of its meters will reach its limits, put together from the limits in force with their
//! live numbers and the daily history.
//!
//! There is one question for each limit on a level, and on what adds up in a day, a month or a billing period. Limits of
//! hours, minutes, sessions and single users say nothing of days, and limits that only count what they would refuse mean
//! nothing to the tenant: of those nothing is foreseen.

use crate::{
    answer::{Forecast, Status},
    asked::{self, last_known},
    backtest::{Replay, backtest},
    foresee::foresee,
    history::History,
    lessons::Lessons,
    question::{Measure, Question, Settings},
    score::Score,
};
use domain::{
    catalog::{Catalog, Limit, Meter, MeterKind, Plan, Source},
    day::Day,
    decision::LimitState,
    id::{MeterKey, PlanKey},
    time::Instant,
    view::{MeterUsage, Usage},
};
use std::{collections::BTreeMap, sync::Arc};

/// How a tenant's forecasts would have done.
#[derive(Debug, Clone, PartialEq)]
pub struct MeterBacktest {
    /// Of which meter.
    pub meter: Arc<Meter>,
    /// The limit that is the meter's answer today. It was not, perhaps, on the days that are asked.
    pub limit: Arc<Limit>,
    /// How many days of history there are.
    pub days_known: u32,
    /// What came of it.
    pub score: Score,
}

/// Asks a tenant's own past days, each of them, against the limits that are in force today. Meters without a limit that can be
/// foreseen have none.
pub fn backtests(seen: Seen<'_>) -> Vec<MeterBacktest> {
    let of_meter = |meter: MeterOutlook| {
        let (limit, max) = (meter.answer.limit?, meter.answer.max?);
        let history = &seen.histories.get(&meter.meter.key)?.history;
        let first = history.days().first().map_or(last_known(seen.usage.at), |(day, _)| *day);
        let windows;
        let replay = match meter.answer.measure {
            Measure::Level => Replay::Level,
            Measure::EachDay => Replay::EachDay,
            Measure::Total { start, end } => {
                windows = asked::months_back(start, end, first);
                Replay::Total(&windows)
            }
        };
        let settings = seen.lessons.settings(&meter.meter.key, seen.catalog.forecast);
        let score = backtest(history, replay, max as f64, 1, &settings);
        Some(MeterBacktest { meter: meter.meter, limit, days_known: history.days().len() as u32, score })
    };
    outlook(seen).meters.into_iter().filter_map(of_meter).collect()
}

/// Days of the history that are shown beside a forecast.
pub const TREND_DAYS: i32 = 30;
/// Days of history that forecasts look at, or show: what is worth loading.
pub const HISTORY_DAYS: i32 = 90;

/// The daily history of a tenant's meters.
pub type Histories = BTreeMap<MeterKey, Recorded>;

/// What was recorded of one meter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recorded {
    /// Its days.
    pub history: History,
    /// Whether the newest of them was told from outside: then the ledger may know nothing of the meter, and where it shows no
    /// use the newest days stand for it.
    pub is_from_outside: bool,
}

impl Recorded {
    /// What was recorded on days, in any order, and whether the newest of it was told from outside.
    pub fn of(days: impl IntoIterator<Item = (Day, i64)>, is_from_outside: bool) -> Self {
        Self { history: History::recorded(days), is_from_outside }
    }
}

/// What an outlook is made of.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The catalog that decides for the tenant.
    pub catalog: &'a Catalog,
    /// Its limits with their live numbers; says of when.
    pub usage: &'a Usage,
    /// Its daily history.
    pub histories: &'a Histories,
    /// What was learnt from all tenants.
    pub lessons: &'a Lessons,
}

/// When a tenant's meters will reach their limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// When it was asked.
    pub at: Instant,
    /// The last day that live use counts for.
    pub today: Day,
    /// The plan that the tenant is on.
    pub plan: PlanKey,
    /// Every meter of the catalog, in order of key.
    pub meters: Vec<MeterOutlook>,
}

/// When one meter will reach its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct MeterOutlook {
    /// The meter.
    pub meter: Arc<Meter>,
    /// The answer: of several limits the one that is likely reached first, of those the fullest.
    pub answer: LimitOutlook,
    /// The other limits.
    pub others: Vec<LimitOutlook>,
    /// How many days of its history were recorded, of those that are looked at.
    pub days_known: u32,
    /// The newest recorded days, oldest first: a level at the day's end, or what a day used. At most [`TREND_DAYS`].
    pub trend: Vec<(Day, f64)>,
    /// Of the plans of a higher rank the lowest that has room now and whose limits are not likely reached within the
    /// horizon. `None` where nothing is foreseen, or none would hold.
    pub upgrade: Option<PlanKey>,
}

impl MeterOutlook {
    /// Every limit, the answer first.
    pub fn limits(&self) -> impl Iterator<Item = &LimitOutlook> {
        std::iter::once(&self.answer).chain(&self.others)
    }
}

/// When one limit will be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitOutlook {
    /// The limit that is in force; `None` where the meter has none that can be foreseen.
    pub limit: Option<Arc<Limit>>,
    /// What of the meter the limit is compared with.
    pub measure: Measure,
    /// What is compared now.
    pub used: i64,
    /// With what: the limit and what grants add to it; `None` for unlimited.
    pub max: Option<i64>,
    /// When the window ends; `None` for a level.
    pub resets_at: Option<Instant>,
    /// What is foreseen.
    pub forecast: Forecast,
}

impl LimitOutlook {
    /// Use in percent of the limit, to a tenth; a limit of nothing is always full. `None` for unlimited.
    pub fn percent(&self) -> Option<f64> {
        self.max.map(|max| percent(self.used, max))
    }
}

/// Use in percent of a limit, to a tenth; a limit of nothing is always full.
pub fn percent(used: i64, max: i64) -> f64 {
    let percent = if max <= 0 { 100.0 } else { used as f64 * 100.0 / max as f64 };
    (percent * 10.0).round() / 10.0
}

/// Puts a tenant's outlook together.
pub fn outlook(seen: Seen<'_>) -> Outlook {
    let meters = seen.usage.meters.iter().map(|usage| of_meter(seen, usage)).collect();
    Outlook { at: seen.usage.at, today: last_known(seen.usage.at), plan: seen.usage.plan.clone(), meters }
}

fn of_meter(seen: Seen<'_>, usage: &MeterUsage) -> MeterOutlook {
    let none = Recorded::default();
    let meter = &usage.meter;
    let recorded = seen.histories.get(&meter.key).unwrap_or(&none);
    let history = &recorded.history;
    let settings = seen.lessons.settings(&meter.key, seen.catalog.forecast);
    let today = last_known(seen.usage.at);
    let asking = Asking { seen, usage, history, is_from_outside: recorded.is_from_outside, settings, today };
    let mut limits: Vec<LimitOutlook> =
        usage.limits.iter().filter(|state| asked::is_foreseen(&state.limit)).map(|state| asking.state(state)).collect();
    limits.sort_by(|a, b| first_reached(a).cmp(&first_reached(b)).then(fullest(b).total_cmp(&fullest(a))));
    let mut limits = limits.into_iter();
    let answer = limits.next().unwrap_or_else(|| asking.unlimited());
    let known = history.until(asking.today);
    let shown = known.partition_point(|(day, _)| *day <= asking.today + -TREND_DAYS);
    let looked_at = known.partition_point(|(day, _)| *day <= asking.today + -HISTORY_DAYS);
    MeterOutlook {
        meter: meter.clone(),
        upgrade: asking.upgrade(&answer),
        answer,
        others: limits.collect(),
        days_known: (known.len() - looked_at) as u32,
        trend: known[shown..].to_vec(),
    }
}

/// Limits in order of the day that they are likely reached on; those without a day last, the unlimited ones behind them.
fn first_reached(limit: &LimitOutlook) -> (bool, Option<i32>) {
    match limit.forecast.dates.likely {
        Some(day) => (false, Some(day.number())),
        None => (true, limit.max.is_none().then_some(0)),
    }
}

fn fullest(limit: &LimitOutlook) -> f64 {
    limit.percent().unwrap_or(-1.0)
}

/// What all questions about one meter have in common.
struct Asking<'a> {
    seen: Seen<'a>,
    usage: &'a MeterUsage,
    history: &'a History,
    is_from_outside: bool,
    settings: Settings,
    today: Day,
}

impl Asking<'_> {
    fn foresee(&self, measure: Measure, used: f64, limit: Option<f64>) -> Forecast {
        let Self { history, today, .. } = *self;
        foresee(&Question { measure, history, today, used, limit, path_days: 0 }, &self.settings)
    }

    /// What the ledger knows was used, or what was recorded where it knows of nothing.
    fn used(&self, live: i64, measure: Measure) -> i64 {
        match live {
            0 if self.is_from_outside => asked::used_so_far(measure, self.history, self.today) as i64,
            live => live,
        }
    }

    /// A limit that is in force.
    fn state(&self, state: &LimitState) -> LimitOutlook {
        let measure = asked::measure(state.window, state.resets_at, self.seen.usage);
        let max = state.max.map(|max| max.saturating_add(state.granted));
        let used = self.used(state.used, measure);
        LimitOutlook {
            limit: Some(state.limit.clone()),
            measure,
            used,
            max,
            resets_at: state.resets_at,
            forecast: self.foresee(measure, used as f64, max.map(|max| max as f64)),
        }
    }

    /// Nothing bounds the meter: only its growth is told.
    fn unlimited(&self) -> LimitOutlook {
        let usage = self.seen.usage;
        let measure = asked::unbounded(self.usage.meter.kind, usage);
        let resets_at = (self.usage.meter.kind != MeterKind::Gauge).then_some(usage.period.end);
        let used = self.used(self.usage.used, measure);
        let forecast = self.foresee(measure, used as f64, None);
        LimitOutlook { limit: None, measure, used, max: None, resets_at, forecast }
    }

    /// The plan that would hold, where one is needed.
    fn upgrade(&self, answer: &LimitOutlook) -> Option<PlanKey> {
        answer.forecast.dates.likely?;
        let Seen { catalog, usage, .. } = self.seen;
        let rank = catalog.plans.get(&usage.plan)?.rank;
        catalog.upgrades_from(rank).into_iter().find(|plan| self.holds(plan)).map(|plan| plan.key.clone())
    }

    /// Whether none of a plan's limits on this meter is likely reached within the horizon.
    fn holds(&self, plan: &Plan) -> bool {
        let limits = plan.limits.on(&self.usage.meter.key);
        let of_plan = limits.iter().filter(|limit| !self.is_overridden(limit)).all(|limit| self.has_room(limit));
        // What was agreed with the tenant itself stays, whatever it buys.
        let mut overrides = self.usage.limits.iter().filter(|state| state.source == Source::Override);
        of_plan && overrides.all(|state| self.has_room(&state.limit))
    }

    fn is_overridden(&self, limit: &Limit) -> bool {
        self.usage.limits.iter().any(|state| state.source == Source::Override && state.same_account(limit))
    }

    fn has_room(&self, limit: &Limit) -> bool {
        let (Some(max), true) = (limit.max, asked::is_foreseen(limit)) else { return true };
        // What was counted in such a window already, if a limit in force says.
        let counted = self.usage.limits.iter().find(|state| state.same_account(limit));
        let measure = asked::measure(limit.window, counted.and_then(|state| state.resets_at), self.seen.usage);
        let is_shown = measure == asked::unbounded(self.usage.meter.kind, self.seen.usage);
        let used = match counted {
            Some(state) => self.used(state.used, measure),
            None if is_shown => self.used(self.usage.used, measure),
            None => asked::used_so_far(measure, self.history, self.today) as i64,
        };
        let forecast = self.foresee(measure, used as f64, Some(max as f64));
        forecast.status != Status::Breached && forecast.dates.likely.is_none()
    }
}
