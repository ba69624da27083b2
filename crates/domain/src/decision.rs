//! The answer to an operation: a value, never an error, in a stated order of precedence.

use crate::{
    catalog::{Limit, Mode, Source},
    id::{FeatureKey, MeterKey, PlanKey},
    time::Instant,
};
use std::{ops::Deref, sync::Arc};

/// What was decided. **The order is the order of precedence**: when several refusals apply at once, the first of this
/// list is the answer, since what stands earlier must be mended before what stands later can matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The operation may go on.
    Allowed,
    /// The tenant is suspended.
    TenantSuspended,
    /// The plan lacks a required feature.
    FeatureNotInPlan,
    /// A gauge is at its limit.
    GaugeLimitReached,
    /// The quota of a billing period, a month or a day is used up.
    PeriodLimitReached,
    /// The session is as long as the plan allows. (Sessions are a later part of the road.)
    SessionLimitReached,
    /// As many sessions are open as the plan allows.
    ConcurrencyLimitReached,
    /// The rate of an hour or a minute is used up.
    RateLimitReached,
}

impl Code {
    /// Every code, in order of precedence.
    pub const ALL: [Code; 8] = [
        Code::Allowed,
        Code::TenantSuspended,
        Code::FeatureNotInPlan,
        Code::GaugeLimitReached,
        Code::PeriodLimitReached,
        Code::SessionLimitReached,
        Code::ConcurrencyLimitReached,
        Code::RateLimitReached,
    ];

    /// The stable word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Code::Allowed => "allowed",
            Code::TenantSuspended => "tenant_suspended",
            Code::FeatureNotInPlan => "feature_not_in_plan",
            Code::GaugeLimitReached => "gauge_limit_reached",
            Code::PeriodLimitReached => "period_limit_reached",
            Code::SessionLimitReached => "session_limit_reached",
            Code::ConcurrencyLimitReached => "concurrency_limit_reached",
            Code::RateLimitReached => "rate_limit_reached",
        }
    }

    /// The code with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.word() == word)
    }

    /// Whether waiting alone can turn this refusal into an allowance. (A request larger than its whole limit is the
    /// exception: see [`Denial::waiting_helps`].)
    pub fn waiting_helps(self) -> bool {
        match self {
            Code::Allowed | Code::TenantSuspended | Code::FeatureNotInPlan | Code::GaugeLimitReached => false,
            Code::PeriodLimitReached
            | Code::SessionLimitReached
            | Code::ConcurrencyLimitReached
            | Code::RateLimitReached => true,
        }
    }
}

/// One limit with its numbers, as they stand after the operation (or before it, where it was refused or dry). It reads
/// like the [`Limit`] it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitState {
    /// The limit, as it is in force for this tenant.
    pub limit: Arc<Limit>,
    /// Where it came from.
    pub source: Source,
    /// What was used.
    pub used: i64,
    /// What is reserved for work in flight.
    pub held: i64,
    /// What grants add to it: what is left of them.
    pub granted: i64,
    /// What is set aside for other nodes to charge: it is no use yet, and nobody is refused for it.
    pub set_aside: i64,
    /// When the window ends; `None` for a gauge's level.
    pub resets_at: Option<Instant>,
}

impl Deref for LimitState {
    type Target = Limit;

    fn deref(&self) -> &Limit {
        &self.limit
    }
}

impl LimitState {
    /// What may still be used; `None` is unlimited. Never negative: events are facts and may exceed a limit.
    pub fn remaining(&self) -> Option<i64> {
        self.max.map(|max| max.saturating_sub(self.used).saturating_sub(self.held).max(0))
    }
    /// Use in whole percent, rounded down; more than 100 when events exceeded the limit; `None` is unlimited. A limit
    /// of nothing is always full.
    pub fn percent(&self) -> Option<i64> {
        let max = self.max?;
        if max <= 0 {
            return Some(100);
        }
        let taken = i128::from(self.used) + i128::from(self.held);
        Some((taken * 100 / i128::from(max)).clamp(0, i128::from(i64::MAX)) as i64)
    }
}

/// Why an operation was refused, or would have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The code.
    pub code: Code,
    /// The limit that refused: an index into [`Decision::limits`]. `None` for a feature or a suspension.
    pub limit: Option<usize>,
    /// The feature that is missing.
    pub feature: Option<FeatureKey>,
    /// The meter asked for, if the refusal is about one.
    pub meter: Option<MeterKey>,
    /// The amount asked for on that meter.
    pub amount: i64,
    /// Whether waiting until [`Denial::retry_at`] helps: not when the amount exceeds the whole limit.
    pub waiting_helps: bool,
    /// When it is worth trying again: the latest reset among all limits that refused.
    pub retry_at: Option<Instant>,
    /// The cheapest public plan under which this request would pass with today's use.
    pub upgrade: Option<PlanKey>,
}

/// The answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the caller may go on.
    pub allowed: bool,
    /// The plan decided on.
    pub plan: PlanKey,
    /// Why not, when refused.
    pub denial: Option<Box<Denial>>,
    /// What would have been refused, had the limit been hard or enforcement on.
    pub shadow: Option<Box<Denial>>,
    /// Every limit on every meter asked for, with its numbers.
    pub limits: Vec<LimitState>,
    /// Whether use was recorded.
    pub charged: bool,
    /// The instant decided at.
    pub at: Instant,
}

impl Decision {
    /// The code of the answer.
    pub fn code(&self) -> Code {
        self.denial.as_ref().map_or(Code::Allowed, |denial| denial.code)
    }
    /// Seconds until it is worth trying again, rounded up, at least one; `None` where waiting does not help.
    pub fn retry_after_s(&self) -> Option<u64> {
        let denial = self.denial.as_ref().filter(|denial| denial.waiting_helps)?;
        let wait_ms = denial.retry_at?.ms() - self.at.ms();
        Some((wait_ms.max(1) as u64).div_ceil(1000))
    }
    /// The limits at or past `percent` of their use that warn: hard and soft ones.
    pub fn warnings(&self, percent: i64) -> impl Iterator<Item = &LimitState> {
        self.limits
            .iter()
            .filter(move |limit| limit.mode != Mode::Shadow && limit.percent().is_some_and(|p| p >= percent))
    }
}
