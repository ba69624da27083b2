//! `GET /api/v1/usage-forecast`: the first seed's shape, and what makes its dates believable.

use super::limit::Time;
use domain::{catalog::Catalog, day::Day, id::TenantId, time::Instant};
use engine::ports::LatestForecast;
use forecast::{Dates, LimitOutlook, MeterBacktest, MeterOutlook, Outlook, Score, Status, percent};
use serde::{Serialize, Serializer};

/// When a tenant's meters will reach their limits.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = UsageForecast)]
pub struct ForecastAnswer<'a> {
    /// Whose.
    pub tenant_id: &'a str,
    /// When this was asked.
    #[schema(value_type = String, format = DateTime)]
    pub forecasted_at: Time,
    /// The plan that the tenant is on.
    pub plan: &'a str,
    /// Every meter of the catalog.
    pub metrics: Vec<MetricShape<'a>>,
}

/// When one meter will reach its limit; of several limits the one that is likely reached first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MetricForecast)]
pub struct MetricShape<'a> {
    /// The meter.
    #[schema(example = "products")]
    pub metric: &'a str,
    /// For people.
    pub label: &'a str,
    /// What was used of the limit; of a meter without one its level, or its use in the billing period.
    #[schema(example = 35)]
    pub current: i64,
    /// What may be used, grants included; null is unlimited.
    #[schema(example = 50)]
    pub limit: Option<i64>,
    /// The smallest unit amounts are counted in.
    pub unit: &'a str,
    /// What a day adds, as a mean of the days foreseen; 0 where too little is known.
    #[schema(example = 0.5)]
    pub daily_growth_rate: f64,
    /// The day on which the limit is as likely reached earlier as later; null is not within the horizon.
    #[schema(value_type = Option<String>, format = Date)]
    pub predicted_breach_date: Option<Date>,
    /// Days until then; 0 where it is reached.
    pub days_until_breach: Option<i32>,
    /// Use in percent of the limit, to a tenth; null is unlimited.
    #[schema(example = 70.0)]
    pub usage_percentage: Option<f64>,
    /// `unlimited`, `breached`, `critical`, `warning`, `safe` or `insufficient_data`.
    #[schema(example = "safe")]
    pub status: &'static str,
    /// The days of the last thirty that were recorded, oldest first: a level at the day's end, or what the day used.
    pub trend_data: Vec<TrendShape>,
    /// The limit that this is about; null where there is none.
    pub limit_name: Option<&'a str>,
    /// One in ten is reached earlier.
    #[schema(value_type = Option<String>, format = Date)]
    pub earliest: Option<Date>,
    /// One in ten is reached later. Null beside an earlier date: open-ended.
    #[schema(value_type = Option<String>, format = Date)]
    pub latest: Option<Date>,
    /// When the limit's window ends and begins anew; null for a level.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Time>,
    /// How far this can be believed.
    pub confidence: ConfidenceShape,
    /// How past forecasts of this meter did; null where none was judged yet.
    pub score: Option<ScoreShape>,
    /// The plan that would hold; null where nothing is foreseen, or none would.
    pub upgrade: Option<HoldingPlan<'a>>,
}

/// A day of the history.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = TrendPoint)]
pub struct TrendShape {
    /// The UTC day.
    #[schema(value_type = String, format = Date)]
    pub date: Date,
    /// The level at its end, or what it used.
    pub value: i64,
}

/// How far a forecast can be believed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ForecastConfidence)]
pub struct ConfidenceShape {
    /// The interval in words; null where nothing is foreseen.
    pub interval: Option<String>,
    /// The last day that was looked at.
    #[schema(value_type = String, format = Date)]
    pub horizon: Date,
    /// How many days of history there are.
    pub history_days: u32,
    /// How many more have to be recorded before anything is foreseen.
    pub days_missing: u32,
}

/// How forecasts did.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ForecastScore)]
pub struct ScoreShape {
    /// How many were judged.
    pub count: u64,
    /// Mean error of the date in days, of those that said one, or should have.
    pub mean_error_days: Option<f64>,
    /// Share of the intervals that held what came, in percent; 80 is what they promise.
    pub interval_coverage_percent: Option<f64>,
    /// Share of the alerts that were right, in percent.
    pub alert_precision_percent: Option<f64>,
    /// Share of what was worth an alert that had one, in percent.
    pub alert_recall_percent: Option<f64>,
}

impl ScoreShape {
    /// The shape of a score.
    pub fn of(score: &Score) -> Self {
        let percent = |share: Option<f64>| share.map(|share| rounded(share * 100.0, 10.0));
        Self {
            count: score.count,
            mean_error_days: score.mean_error_days().map(|days| rounded(days, 10.0)),
            interval_coverage_percent: percent(score.coverage()),
            alert_precision_percent: percent(score.precision()),
            alert_recall_percent: percent(score.recall()),
        }
    }
}

/// A plan whose limits are not foreseen to be reached.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct HoldingPlan<'a> {
    /// Its key.
    #[schema(example = "professional")]
    pub plan: &'a str,
    /// For people.
    pub label: &'a str,
    /// Where it is bought; null where the catalog has no `upgrade_url`.
    pub url: Option<String>,
}

/// A day on the wire: `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date(pub Day);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

impl<'a> ForecastAnswer<'a> {
    /// The shape of an outlook. `score` says how past forecasts of a meter did.
    pub fn of(
        tenant: &'a TenantId,
        outlook: &'a Outlook,
        catalog: &'a Catalog,
        score: impl Fn(&MeterOutlook) -> Option<Score>,
    ) -> Self {
        let metric = |meter| MetricShape::of(tenant, outlook, meter, catalog, score(meter));
        Self {
            tenant_id: tenant.as_str(),
            forecasted_at: Time(outlook.at),
            plan: outlook.plan.as_str(),
            metrics: outlook.meters.iter().map(metric).collect(),
        }
    }
}

impl<'a> MetricShape<'a> {
    fn of(
        tenant: &TenantId,
        outlook: &'a Outlook,
        found: &'a MeterOutlook,
        catalog: &'a Catalog,
        score: Option<Score>,
    ) -> Self {
        let (answer, now) = (&found.answer, Day::of(outlook.at));
        // What is reached was reached by today, whichever day the history ends with.
        let dates = match answer.forecast.status {
            Status::Breached => Dates { earliest: Some(now), likely: Some(now), latest: Some(now) },
            _ => answer.forecast.dates,
        };
        let upgrade = found.upgrade.as_ref().and_then(|plan| catalog.plans.get(plan)).map(|plan| HoldingPlan {
            plan: plan.key.as_str(),
            label: &plan.label,
            url: catalog.upgrade_url.as_deref().map(|template| {
                Catalog::fill_template(template, tenant.as_str(), plan.key.as_str(), outlook.plan.as_str(), "")
            }),
        });
        Self {
            metric: found.meter.key.as_str(),
            label: &found.meter.label,
            current: answer.used,
            limit: answer.max,
            unit: &found.meter.unit,
            daily_growth_rate: rounded(answer.forecast.growth_per_day, 10_000.0),
            predicted_breach_date: dates.likely.map(Date),
            days_until_breach: dates.likely.map(|day| (day - now).max(0)),
            usage_percentage: answer.percent(),
            status: answer.forecast.status.word(),
            trend_data: found
                .trend
                .iter()
                .map(|(day, value)| TrendShape { date: Date(*day), value: *value as i64 })
                .collect(),
            limit_name: answer.limit.as_ref().map(|limit| &*limit.name),
            earliest: dates.earliest.map(Date),
            latest: dates.latest.map(Date),
            resets_at: answer.resets_at.map(Time),
            confidence: ConfidenceShape::of(answer, found.days_known),
            score: score.as_ref().map(ScoreShape::of),
            upgrade,
        }
    }
}

impl ConfidenceShape {
    fn of(answer: &LimitOutlook, history_days: u32) -> Self {
        let Dates { earliest, latest, .. } = answer.forecast.dates;
        let horizon = answer.forecast.horizon;
        let foreseen = matches!(answer.forecast.status, Status::Critical | Status::Warning | Status::Safe);
        let interval = foreseen.then(|| match (earliest, latest) {
            (Some(earliest), Some(latest)) => format!("80 % likely between {earliest} and {latest}"),
            (Some(earliest), None) => {
                format!("90 % likely not before {earliest}; perhaps not until {horizon}, or never")
            }
            (None, _) => format!("90 % likely not until {horizon}"),
        });
        let days_missing = match answer.forecast.status {
            Status::InsufficientData { days_missing } => days_missing,
            _ => 0,
        };
        Self { interval, horizon: Date(horizon), history_days, days_missing }
    }
}

/// How a tenant's forecasts would have done on its own past days.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ForecastBacktest)]
pub struct BacktestAnswer<'a> {
    /// Whose.
    pub tenant_id: &'a str,
    /// Every meter with a limit that can be foreseen.
    pub metrics: Vec<BacktestShape<'a>>,
}

/// How forecasts of one meter would have done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MetricBacktest)]
pub struct BacktestShape<'a> {
    /// The meter.
    pub metric: &'a str,
    /// For people.
    pub label: &'a str,
    /// The limit in force today, which every day was asked against.
    pub limit_name: &'a str,
    /// How many days of history there are.
    pub history_days: u32,
    /// What came of it.
    pub score: ScoreShape,
}

impl<'a> BacktestAnswer<'a> {
    /// The shape of backtests.
    pub fn of(tenant: &'a TenantId, found: &'a [MeterBacktest]) -> Self {
        let metric = |found: &'a MeterBacktest| BacktestShape {
            metric: found.meter.key.as_str(),
            label: &found.meter.label,
            limit_name: &found.limit.name,
            history_days: found.days_known,
            score: ScoreShape::of(&found.score),
        };
        Self { tenant_id: tenant.as_str(), metrics: found.iter().map(metric).collect() }
    }
}

/// The words for what a forecast comes to.
pub const FORECAST_WORDS: [&str; 6] = ["unlimited", "breached", "critical", "warning", "safe", "insufficient_data"];

/// One of all tenants' forecasts, as the last night made it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = FleetForecast)]
pub struct FleetShape<'a> {
    /// Whose.
    pub tenant_id: &'a str,
    /// The plan that the tenant was on.
    pub plan: &'a str,
    /// The meter.
    pub metric: &'a str,
    /// For people.
    pub label: &'a str,
    /// The limit that is likely reached first; null where there is none.
    pub limit_name: Option<&'a str>,
    /// What was used of it.
    pub current: i64,
    /// What might be used, grants included; null is unlimited.
    pub limit: Option<i64>,
    /// The smallest unit amounts are counted in.
    pub unit: &'a str,
    /// Use in percent of the limit, to a tenth; null is unlimited.
    pub usage_percentage: Option<f64>,
    /// What a day adds.
    pub daily_growth_rate: f64,
    /// The day on which the limit is as likely reached earlier as later; null is not within the horizon.
    #[schema(value_type = Option<String>, format = Date)]
    pub predicted_breach_date: Option<Date>,
    /// Days from today until then.
    pub days_until_breach: Option<i32>,
    /// One in ten is reached earlier.
    #[schema(value_type = Option<String>, format = Date)]
    pub earliest: Option<Date>,
    /// One in ten is reached later.
    #[schema(value_type = Option<String>, format = Date)]
    pub latest: Option<Date>,
    /// `unlimited`, `breached`, `critical`, `warning`, `safe` or `insufficient_data`.
    pub status: &'a str,
    /// When this was foreseen.
    #[schema(value_type = String, format = DateTime)]
    pub forecasted_at: Time,
}

impl<'a> FleetShape<'a> {
    /// The shape of a forecast.
    pub fn of(row: &'a LatestForecast, catalog: &'a Catalog, now: Instant) -> Self {
        let meter = catalog.meters.get(&row.meter);
        Self {
            tenant_id: row.tenant.as_str(),
            plan: row.plan.as_str(),
            metric: row.meter.as_str(),
            label: meter.map_or(row.meter.as_str(), |meter| &meter.label),
            limit_name: row.limit.as_deref(),
            current: row.used,
            limit: row.max,
            unit: meter.map_or("", |meter| &meter.unit),
            usage_percentage: row.max.map(|max| percent(row.used, max)),
            daily_growth_rate: row.growth_per_day_thousandths as f64 / 1_000.0,
            predicted_breach_date: row.dates.likely.map(Date),
            days_until_breach: row.dates.likely.map(|day| (day - Day::of(now)).max(0)),
            earliest: row.dates.earliest.map(Date),
            latest: row.dates.latest.map(Date),
            status: &row.status,
            forecasted_at: Time(row.made_at),
        }
    }
}
