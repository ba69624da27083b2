//! The catalog: meters, features, plans and declared dimensions, as the rule needs them. How it is written in
//! `tidegate.toml` is the business of `wire`; what is here has been validated whole.

mod limit;

pub use limit::{Limit, LimitWindow, Limits, Mode, Outage, Quota, Scope, Source};

use crate::{
    cost::{CostError, CostTable},
    id::{CostKey, DimensionKey, FeatureKey, MeterKey, PlanKey},
};
use std::{collections::BTreeMap, sync::Arc};

/// The largest amount any operation may carry, 2^53 - 1: what JSON numbers hold exactly everywhere.
pub const AMOUNT_MAX: i64 = 9_007_199_254_740_991;

/// What a meter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeterKind {
    /// Adds up in a window.
    Counter,
    /// A level that stays: products, seats, bytes stored.
    Gauge,
    /// A counter of milliseconds.
    Duration,
}

impl MeterKind {
    /// The word used in the catalog and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            MeterKind::Counter => "counter",
            MeterKind::Gauge => "gauge",
            MeterKind::Duration => "duration",
        }
    }
}

/// One meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Its key.
    pub key: MeterKey,
    /// What it is.
    pub kind: MeterKind,
    /// For people.
    pub label: Arc<str>,
    /// The smallest unit amounts are counted in (`requests`, `bytes`, `ms`).
    pub unit: Arc<str>,
    /// Decimals shown to people; amounts stay integers in the smallest unit. 0 to 9.
    pub decimals: u8,
    /// The CloudEvents `type` that feeds it.
    pub event_type: Arc<str>,
    /// JSON pointer (RFC 6901) into an event's `data` where the amount is.
    pub value_pointer: Arc<str>,
    /// Whether it counts requests, and so may be advertised in `RateLimit` fields.
    pub counts_requests: bool,
    /// What becomes of a hold on it that nobody settles.
    pub unsettled: Unsettled,
    /// How sessions feed it. Means something only on a [`MeterKind::Duration`].
    pub session: SessionTerms,
}

/// What becomes of a hold that was not settled before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unsettled {
    /// The amount returns.
    #[default]
    Release,
    /// The amount was used.
    Charge,
}

/// How sessions feed a meter of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTerms {
    /// A session that is not touched for this long has ended when it was touched last, milliseconds.
    pub idle_timeout_ms: i64,
    /// How much time is held ahead of an open session, milliseconds: what a crash may cost.
    pub debit_interval_ms: i64,
    /// A counter that each session that is opened adds one to.
    pub counted_by: Option<MeterKey>,
}

impl SessionTerms {
    /// What suits conversations: five minutes of silence end one, a minute is held ahead.
    pub const DEFAULT: Self = Self { idle_timeout_ms: 300_000, debit_interval_ms: 60_000, counted_by: None };
}

impl Default for SessionTerms {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to a session whose time is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLimit {
    /// It ends.
    #[default]
    Cut,
    /// It may run on for so long, milliseconds, to be recorded as overage; the next one is refused.
    Finish {
        /// How long.
        max_ms: i64,
    },
}

/// How a plan treats sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionPolicy {
    /// What happens when the time is used up.
    pub on_limit: OnLimit,
    /// How long before that whoever streams is warned, milliseconds; `None` is never.
    pub warn_before_ms: Option<i64>,
}

/// A price, in the smallest unit people quote (`amount` may be "99" or "9.90" in the catalog).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Hundredths of the currency's unit.
    pub amount_cents: i64,
    /// ISO 4217.
    pub currency: Arc<str>,
    /// `month` or `year`.
    pub per: Arc<str>,
}

/// A line of a feature's upgrade text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Benefit {
    /// The text.
    pub text: Arc<str>,
    /// The name of an icon, if the catalog gives one.
    pub icon: Option<Arc<str>>,
}

/// Something a plan has or has not, with the texts shown to those who lack it. Texts come from the operator; nothing
/// is invented where one is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its key.
    pub key: FeatureKey,
    /// Heading of the upgrade text.
    pub title: Arc<str>,
    /// Body of the upgrade text.
    pub description: Option<Arc<str>>,
    /// What one gets.
    pub benefits: Vec<Benefit>,
    /// Where a preview can be seen; a template over `{plan}`, `{from}`, `{feature}`.
    pub preview_url: Option<Arc<str>>,
    /// A claim the operator vouches for.
    pub social_proof: Option<Arc<str>>,
    /// An estimate the operator vouches for: name and integer value, as written.
    pub roi_estimate: BTreeMap<Arc<str>, RoiValue>,
}

/// A value inside a return-on-investment estimate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoiValue {
    /// A number.
    Integer(i64),
    /// A text, such as a currency.
    Text(Arc<str>),
}

/// What a tenant can buy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its key.
    pub key: PlanKey,
    /// For people.
    pub label: Arc<str>,
    /// Order: a plan with a higher rank is an upgrade.
    pub rank: i64,
    /// What it costs; `None` when negotiated.
    pub price: Option<Price>,
    /// Whether it is offered in the public comparison and as an upgrade.
    pub public: bool,
    /// What it has.
    pub features: Vec<FeatureKey>,
    /// What it allows. A meter without a limit here is not limited.
    pub limits: Limits,
    /// How it treats sessions.
    pub sessions: SessionPolicy,
}

impl Plan {
    /// Whether the plan has this feature.
    pub fn has(&self, feature: &FeatureKey) -> bool {
        self.features.contains(feature)
    }
}

/// Whether decisions refuse or only record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforce {
    /// Refuse what the plan does not allow.
    #[default]
    On,
    /// Decide, record and report everything; refuse nothing.
    Observe,
}

impl Enforce {
    /// The word used in the catalog and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Enforce::On => "on",
            Enforce::Observe => "observe",
        }
    }
    /// The value with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Enforce::On, Enforce::Observe].into_iter().find(|enforce| enforce.word() == word)
    }
}

/// A property that entries keep, with a bound on how many values one tenant may give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Its key.
    pub key: DimensionKey,
    /// The values it may take; empty means any, as long as they are few.
    pub values: Vec<Arc<str>>,
    /// How long a value may be, in bytes.
    pub value_max_bytes: usize,
}

/// How late and how early an event may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventBounds {
    /// An event older than this is refused.
    pub late_ms: i64,
    /// An event further ahead than this is refused; nearer ones count as now.
    pub future_ms: i64,
}

/// When a forecast is a warning, and how much history one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForecastTerms {
    /// A limit that will likely be reached within so many days is critical.
    pub critical_days: u32,
    /// Within so many it is a warning. Never fewer than `critical_days`.
    pub warning_days: u32,
    /// Fewer recorded days than this tell nothing.
    pub days_min: u32,
}

impl ForecastTerms {
    /// A week and two; a week of history.
    pub const DEFAULT: Self = Self { critical_days: 7, warning_days: 14, days_min: 7 };
}

/// Everything that decides, validated whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The version entries carry; given by the ledger when the catalog is put in force, 0 before.
    pub version: u32,
    /// Meters, by key.
    pub meters: BTreeMap<MeterKey, Arc<Meter>>,
    /// Features, by key.
    pub features: BTreeMap<FeatureKey, Arc<Feature>>,
    /// Plans, by key.
    pub plans: BTreeMap<PlanKey, Arc<Plan>>,
    /// Price lists, by key.
    pub costs: BTreeMap<CostKey, Arc<CostTable>>,
    /// The plan of tenants that were never configured; `None` refuses them.
    pub default_plan: Option<PlanKey>,
    /// Declared dimensions.
    pub dimensions: Vec<Dimension>,
    /// Whether decisions refuse.
    pub enforce: Enforce,
    /// How late and how early events may be.
    pub event_bounds: EventBounds,
    /// Where an upgrade is bought; a template over `{plan}`, `{from}`, `{feature}`, `{tenant}`.
    pub upgrade_url: Option<Arc<str>>,
    /// Use from which on answers carry a warning, in percent of a limit.
    pub warn_percent: u8,
    /// What forecasts go by.
    pub forecast: ForecastTerms,
    /// Use that is told of once, as a fact of its own, in percent of a limit: ascending, each from 1 to
    /// [`WARN_PERCENT_MAX`](crate::warning::WARN_PERCENT_MAX).
    pub warnings: Vec<u16>,
}

impl Catalog {
    /// The meter with this key.
    pub fn meter(&self, key: &str) -> Option<&Arc<Meter>> {
        self.meters.get(key)
    }
    /// The plan with this key.
    pub fn plan(&self, key: &str) -> Option<&Arc<Plan>> {
        self.plans.get(key)
    }
    /// The price list with this key.
    ///
    /// # Errors
    /// [`CostError::UnknownTable`], if there is none.
    pub fn cost(&self, key: &str) -> Result<&Arc<CostTable>, CostError> {
        self.costs.get(key).ok_or_else(|| CostError::unknown_table(key))
    }
    /// Whether a limit of any plan lets pass while the ledger can't be written.
    pub fn any_open(&self) -> bool {
        self.plans.values().any(|plan| plan.limits.any_open())
    }
    /// Public plans of a higher rank than `rank`, cheapest step first.
    pub fn upgrades_from(&self, rank: i64) -> Vec<&Arc<Plan>> {
        let mut plans: Vec<_> = self.plans.values().filter(|plan| plan.public && plan.rank > rank).collect();
        plans.sort_by_key(|plan| plan.rank);
        plans
    }
    /// Fills an upgrade or preview template.
    pub fn fill_template(template: &str, tenant: &str, plan: &str, from: &str, feature: &str) -> String {
        [("{tenant}", tenant), ("{plan}", plan), ("{from}", from), ("{feature}", feature)]
            .into_iter()
            .fold(template.to_owned(), |text, (slot, value)| text.replace(slot, value))
    }
}
